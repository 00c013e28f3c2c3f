//! Adam (Kingma and Ba 2015, algorithm 1), as `torch.optim.Adam` computes it.

use super::rule::{State, UpdateRule};
use playfield_kernels::optimizer::Update;
use serde::{Deserialize, Serialize};

/// m ← β₁ m + (1 − β₁) g, s ← β₂ s + (1 − β₂) g², p ← p − η m̂/(√ŝ + ε) with m̂ = m/(1 − β₁ᵗ), ŝ = s/(1 − β₂ᵗ).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adam {
    /// β₁, the decay of the mean.
    pub beta1: f64,
    /// β₂, the decay of the mean square.
    pub beta2: f64,
    /// ε.
    pub eps: f64,
    /// λ of the penalty ½λ‖p‖² (L2 regularization; 0: none): λp is added to the gradient after clipping. [`AdamW`](super::AdamW)
    /// decouples it.
    pub weight_decay: f64,
}

impl Default for Adam {
    /// The paper's.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }
}

/// What all forms of Adam keep.
pub(super) const STATE: [Option<State>; 2] =
    [Some(State { name: "square", initial: 0.0 }), Some(State { name: "mean", initial: 0.0 })];

/// The bias corrections 1 − β₁ᵗ and 1 − β₂ᵗ of update t.
pub(super) fn bias_corrections(betas: [f64; 2], t: u64) -> [f64; 2] {
    // t as a float: an integer power would overflow after 2³¹ updates.
    betas.map(|beta| 1.0 - beta.powf(t as f64))
}

impl UpdateRule for Adam {
    fn state(&self) -> [Option<State>; 2] {
        STATE
    }

    fn update(&self, learning_rate: f64, updates: u64) -> Update {
        let betas = [self.beta1, self.beta2];
        let [mean, square] = bias_corrections(betas, updates);
        Update::Adam {
            rates: betas.map(|beta| (1.0 - beta) as f32),
            step: (-learning_rate / mean) as f32,
            root: square.sqrt().recip() as f32,
            eps: self.eps as f32,
            shrink: 1.0,
        }
    }

    fn l2(&self) -> f64 {
        self.weight_decay
    }

    fn shares(&self) -> Vec<(&'static str, f64)> {
        vec![("optimizer.beta1", self.beta1), ("optimizer.beta2", self.beta2)]
    }

    fn sizes(&self) -> Vec<(&'static str, f64)> {
        vec![("optimizer.eps", self.eps), ("optimizer.weight_decay", self.weight_decay)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 − .9, 1 − .999; after 3 updates 1 − .729, 1 − .997002999; after more than 2³¹, 1.
    #[test]
    fn bias_corrections_by_hand() {
        for (updates, expected) in [(1, [0.1, 0.001]), (3, [0.271, 0.002_997_001]), (1 << 33, [1.0, 1.0])] {
            for (actual, expected) in bias_corrections([0.9, 0.999], updates).into_iter().zip(expected) {
                assert!((actual - expected).abs() < 1e-12, "{updates}: {actual}");
            }
        }
    }
}
