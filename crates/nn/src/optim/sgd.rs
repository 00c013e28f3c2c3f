//! Stochastic gradient descent with momentum (Polyak 1964), as `torch.optim.SGD` computes it.

use super::rule::{State, UpdateRule};
use playfield_kernels::optimizer::Update;
use serde::{Deserialize, Serialize};

/// m ← μ m + g, p ← p − η m.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sgd {
    /// μ.
    pub momentum: f64,
    /// λ of the penalty ½λ‖p‖² (L2 regularization; 0: none): λp is added to the gradient after clipping.
    pub weight_decay: f64,
}

impl Default for Sgd {
    /// A momentum of .9 (PyTorch's default is 0: no momentum).
    fn default() -> Self {
        Self { momentum: 0.9, weight_decay: 0.0 }
    }
}

impl UpdateRule for Sgd {
    fn state(&self) -> [Option<State>; 2] {
        [Some(State { name: "momentum", initial: 0.0 }), None]
    }

    fn update(&self, learning_rate: f64, _: u64) -> Update {
        Update::Sgd { learning_rate: learning_rate as f32, momentum: self.momentum as f32 }
    }

    fn l2(&self) -> f64 {
        self.weight_decay
    }

    fn shares(&self) -> Vec<(&'static str, f64)> {
        vec![("optimizer.momentum", self.momentum)]
    }

    fn sizes(&self) -> Vec<(&'static str, f64)> {
        vec![("optimizer.weight_decay", self.weight_decay)]
    }
}
