//! An optimizer's step on the processor in one pass over memory.
//!
//! Written with tensor operations a step goes through some ten of them, each over every parameter: on a network as small as
//! DQN's that took as long as half of the backward pass. Here each number is read once and written once, and the bf16
//! weights are made on the way. The arithmetic is that of [`Optimizer`](crate::optim::Optimizer), operation by operation.

use crate::optim::{OptimizerConfig, Rule};
use crate::params::{Params, Part, slice};
use crate::simd::{Bf16, Number, widest};
use std::ops::Range;
use std::thread;
use tch::{Device, Kind, Tensor};

/// The buffers of one step.
pub(crate) struct Buffers<'a> {
    master: &'a mut [f32],
    /// The gradient is the sum of these.
    grads: Vec<Grads<'a>>,
    square: &'a mut [f32],
    /// Empty where the rule has none.
    mean: &'a mut [f32],
    /// The weights that layers compute with, where they are not the master itself.
    shadow: &'a mut [Bf16],
}

#[derive(Clone, Copy)]
enum Grads<'a> {
    F32(&'a [f32]),
    Bf16(&'a [Bf16]),
}

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The rule and its settings.
    pub config: &'a OptimizerConfig,
    /// The learning rate.
    pub learning_rate: f64,
    /// What the gradient is multiplied with: less than 1 where it is clipped.
    pub scale: f64,
    /// Updates so far, this one included.
    pub updates: u64,
}

/// How many numbers are worked on at a time: they stay in the first-level cache.
const CHUNK: usize = 1024;

/// From how many numbers on a step is worth a second thread.
const SHARED: usize = 500_000;

/// The buffers of one step of `params`, one set per precision, or `None` where they do not lie in this machine's memory as
/// expected. The gradient is the sum of theirs and of those of `more`, which [share](Params::share) the parameters.
pub(crate) fn buffers<'a>(
    params: &'a Params,
    more: &[&'a Params],
    square: &'a Tensor,
    mean: Option<&'a Tensor>,
) -> Option<Vec<Buffers<'a>>> {
    let f32s = |t: &Tensor| t.device() == Device::Cpu && t.kind() == Kind::Float && t.is_contiguous();
    let master = params.master();
    if !(f32s(master) && f32s(square) && mean.is_none_or(f32s)) {
        return None;
    }
    let all = |i: usize| [params].into_iter().chain(more.iter().copied()).map(move |p| &p.parts()[i]);
    let set = |(i, part): (usize, &'a Part)| {
        let grads = all(i).map(|part| gradient(part, 0..part.range.len())).collect::<Option<_>>()?;
        let range = part.range.clone();
        // SAFETY: contiguous, of this type and on this machine, as checked. Nothing else reads or writes these buffers while
        // the step borrows them, and no two overlap: parts do not, and weights that are the master are not taken.
        unsafe {
            let mean = mean.map_or(&mut [][..], |m| &mut slice(m)[range.clone()]);
            let (master, square) = (&mut slice(master)[range.clone()], &mut slice(square)[range]);
            Some(Buffers { master, grads, square, mean, shadow: shadow(part, 0..part.range.len()) })
        }
    };
    params.parts().iter().enumerate().map(set).collect()
}

/// The global norm of the gradient in `buffers`.
pub(crate) fn norm_of(buffers: &[Buffers<'_>]) -> f64 {
    buffers.iter().map(|b| b.norm().powi(2)).sum::<f64>().sqrt()
}

/// The global norm of the gradient of `params`, where it lies in this machine's memory.
pub(crate) fn gradient_norm(params: &Params) -> Option<f64> {
    let square = |part: &Part| Some(norm(&[gradient(part, 0..part.range.len())?], part.range.len()).powi(2));
    params.parts().iter().map(square).sum::<Option<f64>>().map(f64::sqrt)
}

impl<'a> Buffers<'a> {
    /// Elements that lie elsewhere, `[parameters, mean squares, means]`, with what `part` has of them in `range` (counted
    /// from its start): the gradient, and the weights that layers compute with.
    pub fn elsewhere(part: &'a Part, range: Range<usize>, [master, square, mean]: [&'a mut [f32]; 3]) -> Option<Self> {
        let grads = vec![gradient(part, range.clone())?];
        // SAFETY: as `gradient` checked. Nothing else uses the weights during the step.
        Some(Self { master, grads, square, mean, shadow: unsafe { shadow(part, range) } })
    }

    /// The global norm of the gradient.
    pub fn norm(&self) -> f64 {
        norm(&self.grads, self.master.len())
    }

    /// Makes the step on this thread.
    pub fn step_alone(self, step: Step<'_>) {
        apply(self, step);
    }

    /// Makes the step: large networks on two threads, because one does not use all of the memory's bandwidth.
    pub fn step(self, step: Step<'_>) {
        if self.master.len() < SHARED {
            return self.step_alone(step);
        }
        let (one, other) = self.split();
        thread::scope(|scope| {
            scope.spawn(move || other.step_alone(step));
            one.step_alone(step);
        });
    }

    /// The first and the second half.
    fn split(self) -> (Self, Self) {
        let Self { master, grads, square, mean, shadow } = self;
        let middle = master.len() / 2 / CHUNK * CHUNK;
        let (master, square) = (master.split_at_mut(middle), square.split_at_mut(middle));
        let (mean, shadow) = (mean.split_at_mut(middle.min(mean.len())), shadow.split_at_mut(middle.min(shadow.len())));
        let grads: (Vec<_>, Vec<_>) = grads.into_iter().map(|g| g.split_at(middle)).unzip();
        (
            Self { master: master.0, grads: grads.0, square: square.0, mean: mean.0, shadow: shadow.0 },
            Self { master: master.1, grads: grads.1, square: square.1, mean: mean.1, shadow: shadow.1 },
        )
    }
}

/// The gradient of `part` in `range`; `None` where it does not lie in this machine's memory as expected.
fn gradient(part: &Part, range: Range<usize>) -> Option<Grads<'_>> {
    let Part { weights, grads, .. } = part;
    let here = |t: &Tensor| t.device() == Device::Cpu && t.is_contiguous();
    if !(here(grads) && here(weights) && weights.kind() == grads.kind()) {
        return None;
    }
    // SAFETY: contiguous, of this type and on this machine, as checked, and only read.
    match grads.kind() {
        Kind::Float => Some(Grads::F32(unsafe { &slice(grads)[range] })),
        Kind::BFloat16 => Some(Grads::Bf16(unsafe { &slice(grads)[range] })),
        _ => None,
    }
}

/// The weights of `part` in `range`, where they are not the master itself.
///
/// # Safety
/// They lie contiguously in this machine's memory, and nothing else uses them while the slice lives.
#[allow(clippy::mut_from_ref)] // a tensor is a handle: what it points to is not behind the reference
unsafe fn shadow(part: &Part, range: Range<usize>) -> &mut [Bf16] {
    match part.weights.kind() {
        // SAFETY: as the caller promises.
        Kind::BFloat16 => unsafe { &mut slice(&part.weights)[range] },
        _ => &mut [],
    }
}

impl Grads<'_> {
    fn split_at(self, middle: usize) -> (Self, Self) {
        match self {
            Self::F32(g) => (Self::F32(&g[..middle]), Self::F32(&g[middle..])),
            Self::Bf16(g) => (Self::Bf16(&g[..middle]), Self::Bf16(&g[middle..])),
        }
    }
}

widest! {
    /// Sixteen partial sums a chunk, so that they fit a vector of any width.
    fn norm(grads: &[Grads<'_>], len: usize) -> f64 {
        let (mut work, mut total) = ([0.0; CHUNK], 0.0);
        for start in (0..len).step_by(CHUNK) {
            let chunk = &mut work[..CHUNK.min(len - start)];
            read(grads, start, 1.0, chunk);
            let mut sums = [0.0_f32; 16];
            let (lines, rest) = chunk.as_chunks::<16>();
            for line in lines {
                sums.iter_mut().zip(line).for_each(|(sum, g)| *sum += g * g);
            }
            let rest = rest.iter().map(|g| f64::from(g * g)).sum::<f64>();
            total += sums.iter().map(|&s| f64::from(s)).sum::<f64>() + rest;
        }
        total.sqrt()
    }
}

widest! {
    fn apply(buffers: Buffers<'_>, step: Step<'_>) {
        let Buffers { master, grads, square, mean, shadow } = buffers;
        let (c, rate) = (step.config, step.learning_rate as f32);
        let (keep, eps) = ((1.0 - c.decay) as f32, c.eps as f32);
        let mut work = [0.0; CHUNK];
        for start in (0..master.len()).step_by(CHUNK) {
            let end = master.len().min(start + CHUNK);
            let g = &mut work[..end - start];
            read(&grads, start, step.scale as f32, g);
            let (p, s) = (&mut master[start..end], &mut square[start..end]);
            if c.weight_decay > 0.0 {
                let decay = c.weight_decay as f32;
                g.iter_mut().zip(&*p).for_each(|(g, p)| *g += decay * p);
            }
            s.iter_mut().zip(&*g).for_each(|(s, g)| *s += keep * (g * g - *s));
            match (c.rule, c.centered, c.eps_inside_root) {
                (Rule::Adam, ..) => {
                    let m = &mut mean[start..end];
                    let keep = (1.0 - c.beta1) as f32;
                    m.iter_mut().zip(&*g).for_each(|(m, g)| *m += keep * (g - *m));
                    let [first, second] = c.bias_corrections(step.updates);
                    let (k, root) = ((-step.learning_rate / first) as f32, second.sqrt().recip() as f32);
                    for ((p, s), m) in p.iter_mut().zip(s).zip(m) {
                        *p += *m * k / (s.sqrt() * root + eps);
                    }
                }
                (Rule::Sgd, ..) => {
                    let (m, keep) = (&mut mean[start..end], c.beta1 as f32);
                    m.iter_mut().zip(&*g).for_each(|(m, g)| *m = keep * *m + g);
                    p.iter_mut().zip(m).for_each(|(p, m)| *p -= rate * *m);
                }
                (Rule::RmsProp, false, true) => {
                    p.iter_mut().zip(s).zip(&*g).for_each(|((p, s), g)| *p += g * -rate / (*s + eps).sqrt());
                }
                (Rule::RmsProp, false, false) => {
                    p.iter_mut().zip(s).zip(&*g).for_each(|((p, s), g)| *p += g * -rate / (s.sqrt() + eps));
                }
                (Rule::RmsProp, true, inside) => {
                    let m = &mut mean[start..end];
                    m.iter_mut().zip(&*g).for_each(|(m, g)| *m += keep * (g - *m));
                    for (((p, s), m), g) in p.iter_mut().zip(s).zip(m).zip(&*g) {
                        // Rounding may leave a variance a trace below 0.
                        let variance = (*s - *m * *m).max(0.0);
                        *p += g * -rate / if inside { (variance + eps).sqrt() } else { variance.sqrt() + eps };
                    }
                }
            }
            if !shadow.is_empty() {
                shadow[start..end].iter_mut().zip(p).for_each(|(w, p)| *w = Bf16::of(*p));
            }
        }
    }
}

/// The gradient from `start` on, scaled, as `f32`.
#[inline(always)]
fn read(grads: &[Grads<'_>], start: usize, scale: f32, to: &mut [f32]) {
    to.fill(0.0);
    for grads in grads {
        match grads {
            Grads::F32(from) => to.iter_mut().zip(&from[start..]).for_each(|(to, g)| *to += g),
            Grads::Bf16(from) => {
                to.iter_mut().zip(&from[start..]).for_each(|(to, g)| *to += g.get());
            }
        }
    }
    to.iter_mut().for_each(|g| *g *= scale);
}
