//! Nonlinearities.

use crate::export::Exporter;
use playfield_core::graph::{Op, Value};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// The nonlinearity of an `mlp` torso.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// tanh.
    #[default]
    Tanh,
    /// max(x, 0).
    Relu,
    /// 1/(1 + e⁻ˣ).
    Sigmoid,
}

impl Activation {
    /// Applies it in place.
    pub fn apply(self, mut x: Tensor) -> Tensor {
        match self {
            Self::Tanh => x.tanh_(),
            Self::Relu => x.relu_(),
            Self::Sigmoid => x.sigmoid_(),
        }
    }

    /// Adds it to a graph.
    pub fn export(self, e: &mut Exporter<'_>, x: Value) -> Value {
        let op = match self {
            Self::Tanh => Op::Tanh,
            Self::Relu => Op::Relu,
            Self::Sigmoid => Op::Sigmoid,
        };
        e.graph.op(op, &[x])
    }
}
