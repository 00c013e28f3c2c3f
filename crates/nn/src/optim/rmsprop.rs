//! RMSProp (Hinton, *Neural Networks for Machine Learning*, lecture 6; centered: Graves 2013, equations 38 to 40).

use super::rule::{State, UpdateRule};
use playfield_kernels::optimizer::Update;
use serde::{Deserialize, Serialize};

/// s ← α s + (1 − α) g², p ← p − η g/(√s + ε).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RmsProp {
    /// α, the decay of the mean square.
    pub decay: f64,
    /// Whether the gradient is divided by its standard deviation, √(s − m²), rather than its root mean square. The mean m
    /// decays by α, too; Nature's DQN calls that momentum.
    pub centered: bool,
    /// ε.
    pub eps: f64,
    /// Whether ε is inside the root, g/√(s + ε) (TensorFlow, DeepMind), or outside, g/(√s + ε) (PyTorch). At ε = .1 small
    /// gradients are divided by .316 inside, by .1 outside.
    pub eps_inside_root: bool,
    /// λ of the penalty ½λ‖p‖² (L2 regularization; 0: none): λp is added to the gradient after clipping.
    pub weight_decay: f64,
    /// The initial mean square: 1 in TensorFlow, 0 in PyTorch.
    pub initial_square: f64,
}

impl Default for RmsProp {
    /// PyTorch's.
    fn default() -> Self {
        Self { decay: 0.99, centered: false, eps: 1e-8, eps_inside_root: false, weight_decay: 0.0, initial_square: 0.0 }
    }
}

impl RmsProp {
    /// TensorFlow's form (ε inside the root, mean squares from 1), with A3C's α = .99 and ε = .1.
    pub fn tensorflow() -> Self {
        Self { eps: 0.1, eps_inside_root: true, initial_square: 1.0, ..Self::default() }
    }
}

impl UpdateRule for RmsProp {
    fn state(&self) -> [Option<State>; 2] {
        let square = State { name: "square", initial: self.initial_square as f32 };
        [Some(square), self.centered.then_some(State { name: "mean", initial: 0.0 })]
    }

    fn update(&self, learning_rate: f64, _: u64) -> Update {
        Update::RmsProp {
            learning_rate: learning_rate as f32,
            rate: (1.0 - self.decay) as f32,
            centered: self.centered,
            eps: self.eps as f32,
            eps_inside_root: self.eps_inside_root,
        }
    }

    fn l2(&self) -> f64 {
        self.weight_decay
    }

    fn shares(&self) -> Vec<(&'static str, f64)> {
        vec![("optimizer.decay", self.decay)]
    }

    fn sizes(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("optimizer.eps", self.eps),
            ("optimizer.weight_decay", self.weight_decay),
            ("optimizer.initial_square", self.initial_square),
        ]
    }
}
