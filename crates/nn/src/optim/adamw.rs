//! Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), as `torch.optim.AdamW` computes it.

use super::adam::Adam;
use super::rule::{State, UpdateRule};
use playfield_kernels::optimizer::Update;
use serde::{Deserialize, Serialize};

/// p ← (1 − η λ) p, then [`Adam`] without L2 regularization.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// β₁, the decay of the mean.
    pub beta1: f64,
    /// β₂, the decay of the mean square.
    pub beta2: f64,
    /// ε.
    pub eps: f64,
    /// λ, of biases and of norms' γ and β, too.
    pub weight_decay: f64,
}

impl Default for AdamW {
    /// PyTorch's.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2 }
    }
}

impl AdamW {
    fn adam(&self) -> Adam {
        Adam { beta1: self.beta1, beta2: self.beta2, eps: self.eps, weight_decay: self.weight_decay }
    }
}

impl UpdateRule for AdamW {
    fn state(&self) -> [Option<State>; 2] {
        self.adam().state()
    }

    fn update(&self, learning_rate: f64, updates: u64) -> Update {
        match self.adam().update(learning_rate, updates) {
            Update::Adam { rates, step, root, eps, .. } => {
                Update::Adam { rates, step, root, eps, shrink: (1.0 - learning_rate * self.weight_decay) as f32 }
            }
            update => update,
        }
    }

    fn l2(&self) -> f64 {
        0.0
    }

    fn shares(&self) -> Vec<(&'static str, f64)> {
        self.adam().shares()
    }

    fn sizes(&self) -> Vec<(&'static str, f64)> {
        self.adam().sizes()
    }
}
