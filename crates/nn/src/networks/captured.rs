//! A torso whose passes are captured as CUDA graphs: see [`cuda_graph`](crate::cuda_graph).
//!
//! A graph reads and writes the same memory each time. So do an [`Input`](super::input::Input), which keeps its tensors for each batch size, and
//! the flat parameters and gradient. Heads, losses and the optimizer depend on the algorithm and its schedules: they run eagerly.
//!
//! The first result of a graph is compared with that of the same operations without it.

use super::torso::Torso;
use crate::cuda_graph::{Graph, NewGraph, Result};
use crate::params::{Params, Slot, Weights};
use crate::pass::Pass;
use playfield_core::notices;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use tch::{Kind, Tensor, no_grad, no_grad_guard};

/// How often a batch size occurs before its passes are captured.
const EAGER_PASSES: u32 = 2;

/// The most passes that are captured: each keeps memory of the device.
const MAX_PASSES: usize = 16;

/// The largest relative difference (of norms) between two computations of one result. In bf16 the order of sums changes less.
const TOLERANCE: f64 = 0.02;

/// The captured passes of a torso.
#[derive(Debug)]
pub(super) struct CapturedTorso {
    new_graph: NewGraph,
    slots: Vec<Slot>,
    /// Leaves of autograd that belong to no other computation, so that nothing outside takes part in the capture.
    weights: Weights,
    /// Where the gradient of each slot is.
    gradients: Vec<Tensor>,
    /// How often each batch size occurred.
    occurred: HashMap<(i64, Pass), u32>,
    passes: HashMap<(i64, Pass), CapturedPass>,
    /// False once a graph has failed.
    works: bool,
}

#[derive(Debug)]
struct CapturedPass {
    forward: Box<dyn Graph>,
    backward: Box<dyn Graph>,
    input: Vec<Tensor>,
    /// The result of the forward pass.
    features: Option<Tensor>,
    /// The gradient of the features.
    gradient: Tensor,
    /// Whether the forward and the backward graph's results were compared.
    is_checked: [bool; 2],
}

impl CapturedTorso {
    /// For `torso`, whose parameters are among `params`. `None` with batch norm, for flat observations and for those with several parts.
    pub fn new(torso: &Torso, params: &Params, new_graph: NewGraph) -> Option<Self> {
        let slots = params.slots_in(&torso.ranges(params));
        let weights = params.weights().detached_leaves();
        let gradients = slots.iter().map(|&slot| params.weights()[slot].grad()).collect();
        let (occurred, passes) = (HashMap::new(), HashMap::new());
        let captured = Self { new_graph, slots, weights, gradients, occurred, passes, works: true };
        (!captured.slots.is_empty()).then_some(captured)
    }

    /// The features of `input`, without autograd; `None` where this pass runs eagerly. After [`Pass::Train`], [`backward`](Self::backward) may
    /// follow.
    ///
    /// # Panics
    /// If `params` are in other memory than those that this was made for: a bug of the caller.
    pub fn forward(&mut self, torso: &Torso, params: &Params, input: &[Tensor], pass: Pass) -> Option<Tensor> {
        let same = |&slot: &Slot| self.weights[slot].data_ptr() == params.weights()[slot].data_ptr();
        assert!(self.slots.first().is_some_and(same), "the parameters of another network");
        let key = (input[0].size()[0], pass);
        let occurred = self.occurred.entry(key).or_default();
        *occurred += 1;
        let is_new = !self.passes.contains_key(&key);
        if !self.works || *occurred <= EAGER_PASSES || is_new && self.passes.len() == MAX_PASSES {
            return None;
        }
        let features = self.replay_forward(torso, input, key);
        self.disable_on_error(features)
    }

    fn replay_forward(&mut self, torso: &Torso, input: &[Tensor], key: (i64, Pass)) -> Result<Tensor> {
        let Self { new_graph, weights, passes, .. } = self;
        let captured = match passes.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(CapturedPass::new(*new_graph, torso, input)?),
        };
        if captured.input.iter().zip(input).any(|(captured, now)| captured.data_ptr() != now.data_ptr()) {
            return Err("the input is in other memory".into());
        }
        let CapturedPass { forward, features, is_checked, .. } = captured;
        forward.run(&mut || *features = Some(key.1.run(|| torso.forward(weights, input, key.1))))?;
        // The next replay overwrites the graph's own.
        let features = features.as_ref().expect("the first run calls its argument").detach().copy();
        if !is_checked[0] {
            let eager = no_grad(|| torso.forward(weights, input, key.1));
            is_checked[0] = compare(&[features.shallow_clone()], &[eager])?;
            if is_checked[0] && key.1 == Pass::Infer {
                report(key);
            }
        }
        Ok(features)
    }

    /// Sets the torso's part of the gradient from that of the features of the last captured training pass of this batch size.
    pub fn backward(&mut self, torso: &Torso, gradient: &Tensor) {
        let replayed = self.replay_backward(torso, gradient);
        if self.disable_on_error(replayed).is_none() {
            let eager = self.eager_gradients(torso, &self.passes[&(gradient.size()[0], Pass::Train)]);
            write(&eager, &self.gradients);
        }
    }

    fn replay_backward(&mut self, torso: &Torso, gradient: &Tensor) -> Result<()> {
        let key = (gradient.size()[0], Pass::Train);
        let captured = self.passes.get_mut(&key).expect("the forward pass made it");
        let CapturedPass { backward, features, gradient: kept, .. } = captured;
        no_grad(|| kept.copy_(gradient));
        let features = features.as_ref().expect("of the forward pass");
        let leaves: Vec<_> = self.slots.iter().map(|&slot| &self.weights[slot]).collect();
        backward.run(&mut || write(&differentiate(features, kept, &leaves), &self.gradients))?;
        let captured = &self.passes[&key];
        if !captured.is_checked[1] {
            let is_checked = compare(&self.gradients, &self.eager_gradients(torso, captured))?;
            self.passes.get_mut(&key).expect("as above").is_checked[1] = is_checked;
            if is_checked {
                report(key);
            }
        }
        Ok(())
    }

    /// What the backward graph of `captured` should write, computed without it.
    fn eager_gradients(&self, torso: &Torso, captured: &CapturedPass) -> Vec<Tensor> {
        // The leaves of a capture belong to its stream.
        let weights = self.weights.detached_leaves();
        let features = torso.forward(&weights, &captured.input, Pass::Train);
        let leaves: Vec<_> = self.slots.iter().map(|&slot| &weights[slot]).collect();
        differentiate(&features, &captured.gradient, &leaves)
    }

    /// The value of `result`. On an error, disables graphs and tells the user.
    fn disable_on_error<T>(&mut self, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| {
                self.works = false;
                notices::push(format!("kernels    libtorch's, eagerly: a CUDA graph failed ({error})"));
            })
            .ok()
    }
}

impl CapturedPass {
    fn new(new_graph: NewGraph, torso: &Torso, input: &[Tensor]) -> Result<Self> {
        let device = input[0].device();
        Ok(Self {
            forward: new_graph(device)?,
            backward: new_graph(device)?,
            input: input.iter().map(Tensor::shallow_clone).collect(),
            features: None,
            gradient: Tensor::zeros([input[0].size()[0], torso.width()], (input[0].kind(), device)),
            is_checked: [false; 2],
        })
    }
}

/// The gradients of Σ `features` · `gradient` by `leaves`. What autograd keeps for `features` stays, for another call.
fn differentiate(features: &Tensor, gradient: &Tensor, leaves: &[&Tensor]) -> Vec<Tensor> {
    let sum = (features * gradient).sum(Kind::Float);
    Tensor::run_backward(&[sum], leaves, true, false)
}

/// Copies `from` to the memory of `to`. Unlike [`no_grad`], the guard also ends when an operation unwinds.
fn write(from: &[Tensor], to: &[Tensor]) {
    let _guard = no_grad_guard();
    to.iter().zip(from).for_each(|(to, from)| to.shallow_clone().copy_(from));
}

/// Compares two computations of the same tensors; false where they are not finite, so that nothing is known.
///
/// # Errors
/// Where they differ by more than [`TOLERANCE`].
fn compare(captured: &[Tensor], eager: &[Tensor]) -> Result<bool> {
    let norm = |t: &Tensor| t.to_kind(Kind::Float).norm().double_value(&[]);
    let pairs: Vec<_> = captured.iter().zip(eager).map(|(a, b)| (norm(&(a - b)), norm(b))).collect();
    match pairs.iter().position(|(difference, size)| *difference > TOLERANCE * size + 1e-6) {
        Some(i) => Err(format!("result {i} differs from that of the same operations without a graph")),
        None => Ok(pairs.iter().all(|(difference, size)| difference.is_finite() && size.is_finite())),
    }
}

/// Tells the user that the passes of a batch size are captured.
fn report((n, pass): (i64, Pass)) {
    let passes = if pass == Pass::Train { "forward and backward" } else { "forward" };
    notices::push(format!("kernels    libtorch's as a CUDA graph for {passes}, batch size {n}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relative difference of 1 % is rounding, one of 3 % is not; what is not finite says nothing.
    #[test]
    fn a_wrong_result_is_found() {
        let [exact, near, far, nan] = [1.0, 1.01, 1.03, f32::NAN].map(|x| Tensor::from_slice(&[3.0 * x, -4.0 * x]));
        let compared = |captured: &Tensor, eager: &Tensor| {
            compare(&[exact.shallow_clone(), captured.shallow_clone()], &[exact.shallow_clone(), eager.shallow_clone()])
        };
        assert_eq!([compared(&near, &exact), compared(&nan, &nan)], [Ok(true), Ok(false)]);
        assert!(compared(&far, &exact).unwrap_err().contains("result 1 differs"));
        assert!(compared(&near, &exact.zeros_like()).is_err());
    }
}
