//! A step on the buffers of a network: the kernel on CPU memory, tensor operations elsewhere.

use super::config::OptimizerConfig;
use crate::params::{Params, Part};
use crate::tensor::slice;
use playfield_kernels::bf16;
use playfield_kernels::optimizer::{self as kernel, Buffers, Gradient, Update};
use rayon::ThreadPool;
use std::ops::Range;
use tch::{Device, Kind, Tensor, no_grad};

/// The number of elements from which a second thread speeds up a step: one thread does not saturate the memory bandwidth.
pub(super) const PARALLEL: usize = 500_000;

/// One step of an optimizer.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The rule and its settings.
    pub config: &'a OptimizerConfig,
    /// The learning rate.
    pub learning_rate: f64,
    /// Factor of the gradient: less than 1 where it is clipped.
    pub scale: f64,
    /// Updates so far, this one included.
    pub updates: u64,
}

impl Step<'_> {
    /// Its scalars.
    pub(super) fn to_kernel(self) -> kernel::Step {
        let rule = self.config.rule();
        let (scale, weight_decay) = (self.scale as f32, rule.l2() as f32);
        kernel::Step { update: rule.update(self.learning_rate, self.updates), scale, weight_decay }
    }
}

/// The buffers of a step of `params`, one set per precision, or `None` where they do not lie contiguously in CPU memory. The
/// gradient is the sum of theirs and of those of `shards`, which share the parameters.
pub(super) fn buffers<'a>(
    params: &'a Params,
    shards: &[&'a Params],
    state: [Option<&'a Tensor>; 2],
) -> Option<Vec<Buffers<'a>>> {
    let f32s = |t: &Tensor| t.device() == Device::Cpu && t.kind() == Kind::Float && t.is_contiguous();
    let master = params.master();
    if ![Some(master)].into_iter().chain(state).flatten().all(f32s) {
        return None;
    }
    let all = |i: usize| [params].into_iter().chain(shards.iter().copied()).map(move |p| &p.parts()[i]);
    let set = |(i, part): (usize, &'a Part)| {
        let gradients = all(i).map(|part| gradient(part, 0..part.range.len())).collect::<Option<_>>()?;
        let range = part.range.clone();
        // SAFETY: contiguous, of this type and on the CPU, as checked. Nothing else accesses these buffers while the step borrows
        // them, and no two overlap: parts do not, and `bf16_weights` leaves out weights that are the master.
        unsafe {
            let state = state.map(|state| state.map_or(&mut [][..], |state| &mut slice(state)[range.clone()]));
            let weights = bf16_weights(part, 0..part.range.len());
            Some(Buffers { params: &mut slice(master)[range], gradients, state, weights })
        }
    };
    params.parts().iter().enumerate().map(set).collect()
}

/// The global norm of the gradient in `buffers`; of large networks on the caller's thread and the one of `pool`. It does not depend
/// on the number of threads: two halves are added in any case.
pub(super) fn norm_of(buffers: &[Buffers<'_>], pool: Option<&ThreadPool>) -> f64 {
    let square = |Buffers { params, gradients, .. }: &Buffers<'_>| square_norm(gradients, params.len(), pool);
    buffers.iter().map(square).sum::<f64>().sqrt()
}

/// The squared norm of the sum of `gradients`, of `len` elements each.
fn square_norm(gradients: &[Gradient<'_>], len: usize, pool: Option<&ThreadPool>) -> f64 {
    let (mut one, mut other) = (0.0, 0.0);
    let middle = len / 2;
    both(
        pool.filter(|_| len >= PARALLEL),
        || one = kernel::square_norm(gradients, 0..middle),
        || other = kernel::square_norm(gradients, middle..len),
    );
    one + other
}

/// Makes the step; large networks on the caller's thread and the one of `pool`.
pub(super) fn run(buffers: Buffers<'_>, step: kernel::Step, pool: Option<&ThreadPool>) {
    let pool = pool.filter(|_| buffers.params.len() >= PARALLEL);
    let (one, other) = buffers.split();
    both(pool, || kernel::step(one, step), || kernel::step(other, step));
}

/// Replaces the flat `f32` buffer `sum` by the sum of the gradients of `params` and of `shards`; of large networks on the caller's thread and
/// the one of `pool`.
pub(super) fn sum_gradients(params: &Params, shards: &[&Params], sum: &Tensor, pool: Option<&ThreadPool>) {
    let all = || [params].into_iter().chain(shards.iter().copied());
    let of_part =
        |i: usize| all().map(|p| gradient(&p.parts()[i], 0..p.parts()[i].range.len())).collect::<Option<Vec<_>>>();
    let parts: Option<Vec<_>> = (0..params.parts().len()).map(of_part).collect();
    let Some(parts) = parts else {
        return no_grad(|| {
            let mut sum = sum.shallow_clone();
            sum.copy_(&params.gradient());
            shards.iter().for_each(|shard| sum += shard.gradient());
        });
    };
    for (part, gradients) in params.parts().iter().zip(&parts) {
        // SAFETY: contiguous `f32` on the CPU, as the gradients are; nothing else uses the buffer meanwhile.
        let to = unsafe { &mut slice::<f32>(sum)[part.range.clone()] };
        let pool = pool.filter(|_| to.len() >= PARALLEL);
        let middle = to.len() / 2;
        let (one, other) = to.split_at_mut(middle);
        both(pool, || kernel::sum(gradients, 0, one), || kernel::sum(gradients, middle, other));
    }
}

/// Runs `one` and `other`, at the same time where there is a pool.
pub(super) fn both(pool: Option<&ThreadPool>, one: impl FnOnce(), other: impl FnOnce() + Send) {
    match pool {
        None => {
            one();
            other();
        }
        Some(pool) => pool.in_place_scope(|scope| {
            scope.spawn(|_| other());
            one();
        }),
    }
}

/// The step in tensor operations, for parameters on another device, by a scaled gradient: the arithmetic of [`kernel::step`].
pub(super) fn run_on_tensors(
    params: &Tensor,
    gradient: Tensor,
    state: [Option<&Tensor>; 2],
    kernel::Step { update, weight_decay, .. }: kernel::Step,
) {
    let mut params = params.shallow_clone();
    let [first, second] = state.map(|state| state.map(Tensor::shallow_clone).unwrap_or_default());
    let mut g = gradient;
    if weight_decay > 0.0 {
        g += &params * f64::from(weight_decay);
    }
    match update {
        Update::Sgd { learning_rate, momentum } => {
            let mut m = first;
            m *= f64::from(momentum);
            m += &g;
            params -= m * f64::from(learning_rate);
        }
        Update::RmsProp { learning_rate, rate, centered, eps, eps_inside_root } => {
            let (mut s, mut m, eps) = (first, second, f64::from(eps));
            let _ = s.lerp_(&g.square(), f64::from(rate));
            let spread = match centered {
                false => s,
                true => {
                    let _ = m.lerp_(&g, f64::from(rate));
                    // Rounding may leave a variance slightly below 0.
                    (s - m.square()).clamp_min_(0.0)
                }
            };
            let root = if eps_inside_root { (spread + eps).sqrt() } else { spread.sqrt() + eps };
            let _ = params.addcdiv_(&(g * -f64::from(learning_rate)), &root);
        }
        Update::Adam { rates, step, root, eps, shrink } => {
            let (mut s, mut m) = (first, second);
            let _ = s.lerp_(&g.square(), f64::from(rates[1]));
            let _ = m.lerp_(&g, f64::from(rates[0]));
            if shrink != 1.0 {
                params *= f64::from(shrink);
            }
            params += match root {
                0.0 => m * f64::from(step),
                root => m * f64::from(step) / (s.sqrt() * f64::from(root) + f64::from(eps)),
            };
        }
    }
}

/// A step on parameters that threads share outside of a network: `[parameters, state, state]` from element `start`, by the
/// gradient of `params`. The weights of `params` that layers compute with take the new values; the master of a bf16 network does
/// so only where layers compute with it.
///
/// # Panics
/// If `params` is not on the CPU: a bug of the caller.
pub fn step_shared(params: &mut Params, step: Step<'_>, start: usize, [shared, first, second]: [&mut [f32]; 3]) {
    let step = step.to_kernel();
    for part in params.parts() {
        let range = part.range.start.max(start)..part.range.end.min(start + shared.len());
        if range.is_empty() {
            continue;
        }
        let in_shared = range.start - start..range.end - start;
        let in_part = range.start - part.range.start..range.end - part.range.start;
        let state = [&mut *first, &mut *second].map(|v| v.get_mut(in_shared.clone()).unwrap_or_default());
        let gradients = vec![gradient(part, in_part.clone()).expect("a network on the CPU")];
        // SAFETY: contiguous and on the CPU, as `gradient` checked; nothing else uses the weights meanwhile.
        let weights = unsafe { bf16_weights(part, in_part.clone()) };
        kernel::step(Buffers { params: &mut shared[in_shared.clone()], gradients, state, weights }, step);
        if part.weights.kind() == Kind::Float {
            // SAFETY: as above.
            unsafe { slice::<f32>(&part.weights)[in_part].copy_from_slice(&shared[in_shared]) };
        }
    }
    params.mark_changed();
}

/// The global norm of the gradient of `params`, bit for bit that of [`norm_of`].
///
/// # Panics
/// If `params` is not on the CPU: a bug of the caller.
pub fn gradient_norm(params: &Params) -> f64 {
    let square = |part: &Part| {
        let gradient = gradient(part, 0..part.range.len()).expect("a network on the CPU");
        square_norm(&[gradient], part.range.len(), None)
    };
    params.parts().iter().map(square).sum::<f64>().sqrt()
}

/// The gradient of `part` in `range`; `None` where it does not lie contiguously in CPU memory.
fn gradient(part: &Part, range: Range<usize>) -> Option<Gradient<'_>> {
    let Part { weights, grads, .. } = part;
    let here = |t: &Tensor| t.device() == Device::Cpu && t.is_contiguous();
    if !(here(grads) && here(weights) && weights.kind() == grads.kind()) {
        return None;
    }
    // SAFETY: contiguous, of this type and on the CPU, as checked, and only read.
    match grads.kind() {
        Kind::Float => Some(Gradient::F32(unsafe { &slice(grads)[range] })),
        Kind::BFloat16 => Some(Gradient::Bf16(unsafe { &slice(grads)[range] })),
        _ => None,
    }
}

/// The bf16 weights of `part` in `range`; empty where layers compute with the master.
///
/// # Safety
/// They lie contiguously in CPU memory, and nothing else uses them while the slice lives.
#[allow(clippy::mut_from_ref)] // a tensor is a handle: its memory is not behind the reference
unsafe fn bf16_weights(part: &Part, range: Range<usize>) -> &mut [bf16] {
    match part.weights.kind() {
        // SAFETY: as the caller promises.
        Kind::BFloat16 => unsafe { &mut slice(&part.weights)[range] },
        _ => &mut [],
    }
}
