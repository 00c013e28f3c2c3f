//! Given actions, evaluated for a loss: log-probabilities, entropies and values.
//!
//! Autograd computes log-probabilities and entropies through [`Distribution`](super::distribution::Distribution). Where playfield's kernels compute
//! the heads, those of a categorical policy are computed here, with their gradients: losses and autograd take .20 ms of an update of A3C in
//! place of .42 (`configs/bench/a3c.toml`, Zen 4).

use super::distribution::{ANOTHER_SPACE, INVALID, top_and_sum};
use crate::params::to_vec;
use playfield_core::Actions;
use std::ops::Range;
use tch::Tensor;

/// A policy and a value function at `n` observations and an action for each, recorded for the backward pass.
#[derive(Debug)]
pub struct EvaluatedActions {
    /// log π(a|s), `[n]`.
    pub log_probs: Tensor,
    /// The entropies of the policy, in nats, `[n]`.
    pub entropies: Tensor,
    /// V(s), `[n]`.
    pub values: Tensor,
}

impl EvaluatedActions {
    /// The same at the batch elements `indices`, an `i64` tensor.
    #[must_use]
    pub fn select(&self, indices: &Tensor) -> Self {
        let [log_probs, entropies, values] =
            [&self.log_probs, &self.entropies, &self.values].map(|t| t.index_select(0, indices));
        Self { log_probs, entropies, values }
    }
}

/// A categorical policy's log-probabilities and entropies, leaves of autograd, and what their gradients need.
#[derive(Debug)]
pub(super) struct CategoricalLeaf {
    /// `[n]`.
    pub log_probs: Tensor,
    /// `[n]`.
    pub entropies: Tensor,
    /// Log-probabilities of all choices, `[n, choices]`.
    log_pi: Vec<f32>,
    /// The number of choices of all components.
    choices: usize,
    /// Where the choices of each component of an action are among all choices.
    components: Vec<Range<usize>>,
    /// `[n, components]`.
    actions: Vec<i64>,
    /// The valid choices, `[n, choices]`; empty where all are.
    mask: Vec<bool>,
}

impl CategoricalLeaf {
    /// Of `actions`, at `logits` `[n, choices]` for components of `sizes`. `mask`, `[n, choices]` or empty: the valid choices.
    ///
    /// # Panics
    /// If `actions` are of another space, or not as many as the logits and the mask.
    pub fn new(logits: &Tensor, sizes: &[i64], actions: &Actions, mask: &[bool]) -> Self {
        let (actions, dim) = actions.indices().filter(|(_, dim)| *dim == sizes.len()).expect(ANOTHER_SPACE);
        let mut log_pi = to_vec(logits);
        let invalid = log_pi.iter_mut().zip(mask).filter(|(_, valid)| !**valid);
        invalid.for_each(|(logit, _)| *logit = INVALID as f32);
        let mut choices = 0;
        let range = |&size: &i64| {
            choices += size as usize;
            choices - size as usize..choices
        };
        let components: Vec<_> = sizes.iter().map(range).collect();
        assert_eq!(log_pi.len() * dim, actions.len() * choices, "an action for each batch element");
        assert!(mask.is_empty() || mask.len() == log_pi.len(), "a mask for each batch element");
        let (mut log_probs, mut entropies) = (Vec::new(), Vec::new());
        for (log_pi, actions) in log_pi.chunks_exact_mut(choices).zip(actions.chunks_exact(dim)) {
            let (mut log_prob, mut entropy) = (0.0, 0.0);
            for (component, &action) in components.iter().zip(actions) {
                let log_pi = &mut log_pi[component.clone()];
                log_softmax(log_pi);
                log_prob += log_pi[action as usize];
                entropy += entropy_of(log_pi);
            }
            log_probs.push(log_prob);
            entropies.push(entropy);
        }
        let [log_probs, entropies] = [log_probs, entropies].map(|v| Tensor::from_slice(&v).set_requires_grad(true));
        Self { log_probs, entropies, log_pi, choices, components, actions: actions.to_vec(), mask: mask.to_vec() }
    }

    /// Whether the loss depends on log-probabilities or entropies.
    pub fn has_gradient(&self) -> bool {
        [&self.log_probs, &self.entropies].iter().any(|leaf| leaf.grad().defined())
    }

    /// The gradient of the logits, `[n, choices]`. With π the probabilities and H the entropy of a component, ∂ log π(a)/∂z = 1ₐ − π, and
    /// ∂H/∂z = −π (log π + H).
    pub fn gradient(&self) -> Tensor {
        let n = self.log_probs.size()[0];
        let gradient_of = |leaf: &Tensor| match leaf.grad() {
            gradient if gradient.defined() => to_vec(&gradient),
            _ => vec![0.0; n as usize],
        };
        let (by_log_prob, by_entropy) = (gradient_of(&self.log_probs), gradient_of(&self.entropies));
        let mut gradient = vec![0.0; self.log_pi.len()];
        let elements = gradient.chunks_exact_mut(self.choices).zip(self.log_pi.chunks_exact(self.choices));
        let actions = self.actions.chunks_exact(self.components.len());
        for (((gradient, log_pi), actions), (by_log_prob, by_entropy)) in
            elements.zip(actions).zip(by_log_prob.into_iter().zip(by_entropy))
        {
            for (component, &action) in self.components.iter().zip(actions) {
                let (gradient, log_pi) = (&mut gradient[component.clone()], &log_pi[component.clone()]);
                let entropy = entropy_of(log_pi);
                for (gradient, log_pi) in gradient.iter_mut().zip(log_pi) {
                    let pi = log_pi.exp();
                    *gradient = -by_log_prob * pi - by_entropy * times(pi, log_pi + entropy);
                }
                gradient[action as usize] += by_log_prob;
            }
        }
        // A wrapper may have executed an invalid action: its logit is a constant.
        let invalid = gradient.iter_mut().zip(&self.mask).filter(|(_, valid)| !**valid);
        invalid.for_each(|(gradient, _)| *gradient = 0.0);
        Tensor::from_slice(&gradient).view([n, self.choices as i64])
    }
}

/// Logits to log-probabilities.
fn log_softmax(logits: &mut [f32]) {
    let (top, sum) = top_and_sum(logits);
    let log_sum = sum.ln();
    logits.iter_mut().for_each(|logit| *logit = *logit - top - log_sum);
}

/// −Σ π log π.
fn entropy_of(log_pi: &[f32]) -> f32 {
    -log_pi.iter().map(|log_pi| times(log_pi.exp(), *log_pi)).sum::<f32>()
}

/// `pi · x`, 0 for an impossible choice, whose `x` may be −∞.
fn times(pi: f32, x: f32) -> f32 {
    if pi == 0.0 { 0.0 } else { pi * x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::Distribution;
    use tch::Kind;

    /// Log-probabilities, entropies and gradients are those of libtorch: one component and two, masked and unmasked, equal, very different and
    /// impossible choices. The loss depends on log-probabilities, on entropies, or on both, by a weight for each batch element.
    #[test]
    fn equals_libtorch() {
        let logits =
            [[0.0, 3.0, -1.0, 2.0, 2.0], [1e4, -1e4, 0.0, -2.0, 50.0], [0.5, 0.5, 0.5, f32::NEG_INFINITY, 1.0]];
        let mask = [true, true, false, true, true, true, true, true, false, true, false, true, true, true, true];
        let weights = [0.5, -2.0].map(|w| Tensor::from_slice(&[w, 1.0_f32, -0.25]));
        for (sizes, actions) in [
            (vec![5], Actions::Discrete(vec![3, 3, 2])),
            (vec![2, 3], Actions::MultiDiscrete { indices: vec![1, 2, 0, 0, 1, 0], dim: 2 }),
        ] {
            for mask in [&[][..], &mask] {
                for (uses_log_probs, uses_entropies) in [(true, false), (false, true), (true, true)] {
                    let loss = |log_probs: &Tensor, entropies: &Tensor| {
                        let by_log_probs = (log_probs * &weights[0]).sum(Kind::Float) * f64::from(uses_log_probs);
                        let by_entropies = (entropies.square() * &weights[1]).sum(Kind::Float);
                        if uses_entropies { by_log_probs + by_entropies } else { by_log_probs }
                    };
                    let leaf = Tensor::from_slice2(&logits).set_requires_grad(true);
                    let policy =
                        Distribution::Categorical { logits: leaf.shallow_clone(), sizes: sizes.clone() }.masked(mask);
                    let (log_probs, entropies) = (policy.log_prob(&actions), policy.entropy());
                    loss(&log_probs, &entropies).backward();
                    let by_hand = CategoricalLeaf::new(&leaf, &sizes, &actions, mask);
                    loss(&by_hand.log_probs, &by_hand.entropies).backward();
                    let gradient = by_hand.gradient();
                    for (a, b) in
                        [(&log_probs, &by_hand.log_probs), (&entropies, &by_hand.entropies), (&leaf.grad(), &gradient)]
                    {
                        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 2e-6 * a.abs().max(1.0);
                        assert!(to_vec(a).iter().zip(&to_vec(b)).all(close), "{sizes:?}, {mask:?}: {a:?} and {b:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_loss_of_neither_has_no_gradient() {
        let logits = Tensor::from_slice2(&[[0.0_f32, 1.0]]);
        let by_hand = CategoricalLeaf::new(&logits, &[2], &Actions::Discrete(vec![1]), &[]);
        assert!(!by_hand.has_gradient());
        assert_eq!(to_vec(&by_hand.gradient()), [0.0, 0.0]);
    }

    /// What is not a number is seen: the update is refused.
    #[test]
    fn nan_is_not_hidden() {
        let logits = Tensor::from_slice2(&[[0.0_f32, f32::NAN], [0.0, f32::INFINITY]]);
        let by_hand = CategoricalLeaf::new(&logits, &[2], &Actions::Discrete(vec![0, 0]), &[]);
        assert!(to_vec(&by_hand.log_probs).iter().chain(&to_vec(&by_hand.entropies)).all(|x| x.is_nan()));
        by_hand.log_probs.sum(Kind::Float).backward();
        assert!(to_vec(&by_hand.gradient()).iter().all(|x| x.is_nan()));
    }
}
