//! Policy heads: features to a [`Distribution`] over actions.

use super::config::NetworkConfig;
use super::distribution::Distribution;
use crate::export::Exporter;
use crate::init::{Init, hidden_init};
use crate::layers::linear::Linear;
use crate::params::{Builder, Slot, Weights};
use playfield_core::ActionSpace;
use playfield_core::graph::{Op, Value};
use tch::Tensor;

/// The last layer of a policy.
#[derive(Clone, Debug)]
pub enum PolicyHead {
    /// One logit per discrete action, or per choice of each component of an action.
    Categorical {
        /// The logits.
        logits: Linear,
        /// The number of choices of each component.
        sizes: Vec<i64>,
    },
    /// A mean per dimension, and a standard deviation independent of the observation.
    Gaussian {
        /// The means.
        mean: Linear,
        /// The logarithm of the standard deviation, `[dim]`.
        log_std: Slot,
    },
}

impl PolicyHead {
    /// A head of the network `config` for `space`, on `width` features.
    pub fn new(b: &mut Builder<'_>, space: &ActionSpace, width: i64, config: &NetworkConfig) -> Self {
        let (weight, bias) = hidden_init(config.init, width, 0.01);
        match space {
            ActionSpace::Discrete { .. } | ActionSpace::MultiDiscrete { .. } => {
                let sizes: Vec<i64> = space.sizes().iter().map(|&n| n as i64).collect();
                let logits = Linear::new(b, "policy", width, sizes.iter().sum(), weight, bias);
                Self::Categorical { logits, sizes }
            }
            ActionSpace::Box { low, .. } => {
                let dim = low.len() as i64;
                Self::Gaussian {
                    mean: Linear::new(b, "policy", width, dim, weight, bias),
                    log_std: b.param("log_std", &[dim], Init::Constant(config.initial_std.ln() as f32)),
                }
            }
        }
    }

    /// Its layer.
    pub fn linear(&self) -> Linear {
        match self {
            Self::Categorical { logits, .. } => *logits,
            Self::Gaussian { mean, .. } => *mean,
        }
    }

    /// The logarithms of a Gaussian policy's standard deviations, `[dim]`.
    pub fn log_std<'w>(&self, w: &'w Weights) -> Option<&'w Tensor> {
        match self {
            Self::Categorical { .. } => None,
            Self::Gaussian { log_std, .. } => Some(&w[*log_std]),
        }
    }

    /// The distribution at `outputs` of its [layer](Self::linear), `[n, outputs]`.
    pub fn distribution(&self, w: &Weights, outputs: Tensor) -> Distribution {
        match self {
            Self::Categorical { sizes, .. } => Distribution::Categorical { logits: outputs, sizes: sizes.clone() },
            Self::Gaussian { log_std, .. } => {
                Distribution::Gaussian { mean: outputs, log_std: w[*log_std].shallow_clone() }
            }
        }
    }

    /// Adds the head to a graph, with its outputs: `logits`, or `mean` and `std`.
    pub fn export(&self, e: &mut Exporter<'_>, features: Value) {
        match self {
            Self::Categorical { logits, sizes } => {
                let logits = logits.export(e, features);
                e.graph.output("logits", logits, &[sizes.iter().sum::<i64>() as usize]);
            }
            Self::Gaussian { mean, log_std } => {
                let ((dim, _), mean) = (mean.sizes(e), mean.export(e, features));
                let log_std = e.param(*log_std);
                let std = e.graph.op(Op::Exp, &[log_std]);
                let std = e.graph.op(Op::ExpandAs, &[std, mean]);
                e.graph.output("mean", mean, &[dim]);
                e.graph.output("std", std, &[dim]);
            }
        }
    }
}
