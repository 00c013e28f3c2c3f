//! A torso whose passes are recorded, so that a device is given all kernels of a pass at once: see [`cuda_graph`](crate::cuda_graph).
//!
//! A recording reads and writes the same memory each time. So do an [`Input`](super::input::Input), whose tensors are kept for each batch size,
//! and the flat parameters and gradient. The heads, the loss and the optimizer, which depend on the algorithm and its schedules, are not recorded.
//!
//! The first time that a recording is used, its result is compared with that of the same operations without it.

use super::torso::Torso;
use crate::cuda_graph::{Recorder, Recording, Result};
use crate::params::{Params, Weights};
use crate::pass::Pass;
use playfield_core::notices;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use tch::{Kind, Tensor, no_grad};

/// How often a batch size occurs before its passes are recorded.
const EAGER_PASSES: u32 = 2;

/// The largest relative difference (of norms) between two computations of one result. In bf16 the order of sums changes less.
const TOLERANCE: f64 = 0.02;

/// The recorded passes of a torso.
#[derive(Debug)]
pub(super) struct Recorded {
    recorder: Recorder,
    /// Leaves of autograd that belong to no other graph, so that nothing outside takes part in the recording.
    weights: Weights,
    /// Those of the torso, and their part of the gradient.
    leaves: Vec<(Tensor, Tensor)>,
    /// How often each batch size occurred.
    occurred: HashMap<(i64, Pass), u32>,
    passes: HashMap<(i64, Pass), RecordedPass>,
    /// False once a recording has failed.
    works: bool,
}

#[derive(Debug)]
struct RecordedPass {
    forward: Box<dyn Recording>,
    backward: Box<dyn Recording>,
    input: Vec<Tensor>,
    /// The result of the forward pass.
    features: Option<Tensor>,
    /// The gradient of the features.
    gradient: Tensor,
    is_checked: [bool; 2],
}

impl Recorded {
    /// For `torso`, whose parameters are among `params`. `None` with batch norm, for flat observations and for those with several parts.
    pub fn new(torso: &Torso, params: &Params, recorder: Recorder) -> Option<Self> {
        let slots = params.slots_in(&torso.ranges(params));
        let weights = params.weights().other_leaves();
        let leaves = slots.iter().map(|&slot| (weights[slot].shallow_clone(), params.weights()[slot].grad())).collect();
        let (occurred, passes) = (HashMap::new(), HashMap::new());
        (!slots.is_empty()).then_some(Self { recorder, weights, leaves, occurred, passes, works: true })
    }

    /// The features of `input`, without autograd; `None` where this pass is not recorded. After [`Pass::Train`], [`backward`](Self::backward) may
    /// follow.
    pub fn forward(&mut self, torso: &Torso, input: &[Tensor], pass: Pass) -> Option<Tensor> {
        let key = (input[0].size()[0], pass);
        let occurred = self.occurred.entry(key).or_default();
        *occurred += 1;
        if !self.works || *occurred <= EAGER_PASSES {
            return None;
        }
        let features = self.recorded_features(torso, input, key);
        self.or_give_up(features)
    }

    fn recorded_features(&mut self, torso: &Torso, input: &[Tensor], key: (i64, Pass)) -> Result<Tensor> {
        let Self { recorder, weights, passes, .. } = self;
        if let Entry::Vacant(entry) = passes.entry(key) {
            entry.insert(RecordedPass::new(*recorder, torso, input)?);
        }
        let recorded = passes.get_mut(&key).expect("inserted above");
        let RecordedPass { forward, features, is_checked, .. } = recorded;
        forward.run(&mut || *features = Some(key.1.run(|| torso.forward(weights, input, key.1))))?;
        // The next pass overwrites the recording's own.
        let features = features.as_ref().expect("the first run calls its argument").detach().copy();
        if !std::mem::replace(&mut is_checked[0], true) {
            compare(&[features.shallow_clone()], &[no_grad(|| torso.forward(weights, input, key.1))])?;
            if key.1 == Pass::Infer {
                report(key);
            }
        }
        Ok(features)
    }

    /// Sets the torso's part of the gradient from that of the features of the last recorded training pass of this batch size.
    pub fn backward(&mut self, torso: &Torso, gradient: &Tensor) {
        let set = self.recorded_gradient(torso, gradient);
        if self.or_give_up(set).is_none() {
            let recorded = &self.passes[&(gradient.size()[0], Pass::Train)];
            set_gradient(&self.leaves, &self.gradients(torso, recorded));
        }
    }

    fn recorded_gradient(&mut self, torso: &Torso, gradient: &Tensor) -> Result<()> {
        let key = (gradient.size()[0], Pass::Train);
        let recorded = self.passes.get_mut(&key).expect("the forward pass made it");
        let RecordedPass { backward, features, gradient: kept, .. } = recorded;
        no_grad(|| kept.copy_(gradient));
        let features = features.as_ref().expect("of the forward pass");
        let leaves = &self.leaves;
        backward.run(&mut || set_gradient(leaves, &gradients(leaves, features, kept)))?;
        if !std::mem::replace(&mut recorded.is_checked[1], true) {
            let set: Vec<_> = leaves.iter().map(|(_, gradient)| gradient.shallow_clone()).collect();
            compare(&set, &self.gradients(torso, &self.passes[&key]))?;
            report(key);
        }
        Ok(())
    }

    /// What the backward pass of `recorded` should set, computed without it.
    fn gradients(&self, torso: &Torso, recorded: &RecordedPass) -> Vec<Tensor> {
        let features = torso.forward(&self.weights, &recorded.input, Pass::Train);
        gradients(&self.leaves, &features, &recorded.gradient)
    }

    /// The value of `result`. After an error nothing is recorded any more, and the user is told so.
    fn or_give_up<T>(&mut self, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| {
                self.works = false;
                notices::push(format!("kernels    libtorch's, launched one by one: CUDA graphs failed ({error})"));
            })
            .ok()
    }
}

impl RecordedPass {
    fn new(recorder: Recorder, torso: &Torso, input: &[Tensor]) -> Result<Self> {
        let device = input[0].device();
        Ok(Self {
            forward: recorder(device)?,
            backward: recorder(device)?,
            input: input.iter().map(Tensor::shallow_clone).collect(),
            features: None,
            gradient: Tensor::zeros([input[0].size()[0], torso.width()], (input[0].kind(), device)),
            is_checked: [false; 2],
        })
    }
}

/// The gradients of Σ `features` · `gradient` by `leaves`. `features` keeps what another call needs.
fn gradients(leaves: &[(Tensor, Tensor)], features: &Tensor, gradient: &Tensor) -> Vec<Tensor> {
    let sum = (features * gradient).sum(Kind::Float);
    Tensor::run_backward(&[sum], &leaves.iter().map(|(leaf, _)| leaf).collect::<Vec<_>>(), true, false)
}

fn set_gradient(leaves: &[(Tensor, Tensor)], gradients: &[Tensor]) {
    no_grad(|| leaves.iter().zip(gradients).for_each(|((_, to), from)| to.shallow_clone().copy_(from)));
}

/// Compares two computations of the same tensors.
///
/// # Errors
/// Where they differ by more than [`TOLERANCE`]; not where they are not finite.
fn compare(recorded: &[Tensor], eager: &[Tensor]) -> Result<()> {
    let norm = |t: &Tensor| t.to_kind(Kind::Float).norm().double_value(&[]);
    match recorded.iter().zip(eager).position(|(a, b)| norm(&(a - b)) > TOLERANCE * norm(b)) {
        Some(i) => Err(format!("result {i} differs from that of the same operations without a graph")),
        None => Ok(()),
    }
}

/// Tells the user that the passes of a batch size are recorded.
fn report((n, pass): (i64, Pass)) {
    let passes = if pass == Pass::Train { "forward and backward" } else { "forward" };
    notices::push(format!("kernels    libtorch's as a CUDA graph for {passes}, batch size {n}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relative difference of 1 % is rounding, one of 3 % is not; what is not finite is the learner's to report.
    #[test]
    fn a_wrong_recording_is_found() {
        let [exact, near, far, nan] = [1.0, 1.01, 1.03, f32::NAN].map(|x| Tensor::from_slice(&[3.0 * x, -4.0 * x]));
        let compared = |recorded: &Tensor, eager: &Tensor| {
            compare(&[exact.shallow_clone(), recorded.shallow_clone()], &[exact.shallow_clone(), eager.shallow_clone()])
        };
        assert_eq!([compared(&near, &exact), compared(&nan, &nan)], [Ok(()), Ok(())]);
        assert!(compared(&far, &exact).unwrap_err().contains("result 1 differs"));
        assert!(compared(&near, &exact.zeros_like()).is_err());
    }
}
