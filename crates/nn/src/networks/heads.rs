//! Policy heads: features to a [`Distribution`] over actions.

use super::distribution::Distribution;
use crate::init::{Init, InitKind, hidden_init};
use crate::layers::linear::Linear;
use crate::params::{Builder, Slot, Weights};
use playfield_core::ActionSpace;
use tch::Tensor;

/// The last layer of a policy.
#[derive(Clone, Copy, Debug)]
pub enum PolicyHead {
    /// One logit per discrete action.
    Categorical(Linear),
    /// A mean per dimension, and a standard deviation independent of the observation.
    Gaussian {
        /// The means.
        mean: Linear,
        /// The logarithm of the standard deviation, `[dim]`; the initial deviation is [`INITIAL_STD`].
        log_std: Slot,
    },
}

/// The initial standard deviation of a Gaussian policy whose actions are bounded by ±1, as Andrychowicz et al. 2020 (*What Matters In
/// On-Policy Reinforcement Learning?*, section 3.2) recommend. With 1, a third of the actions are clipped.
const INITIAL_STD: f32 = 0.5;

impl PolicyHead {
    /// A head for `space` on `width` features.
    pub fn new(b: &mut Builder<'_>, space: &ActionSpace, width: i64, init: InitKind) -> Self {
        let (weight, bias) = hidden_init(init, width, 0.01);
        match space {
            ActionSpace::Discrete { n } => Self::Categorical(Linear::new(b, "policy", width, *n as i64, weight, bias)),
            ActionSpace::Box { low, .. } => {
                let dim = low.len() as i64;
                Self::Gaussian {
                    mean: Linear::new(b, "policy", width, dim, weight, bias),
                    log_std: b.param("log_std", &[dim], Init::Constant(INITIAL_STD.ln())),
                }
            }
        }
    }

    /// The distribution at `features` `[n, width]`.
    pub fn forward(&self, w: &Weights, features: &Tensor) -> Distribution {
        match self {
            Self::Categorical(layer) => Distribution::Categorical(layer.forward(w, features)),
            Self::Gaussian { mean, log_std } => {
                Distribution::Gaussian { mean: mean.forward(w, features), log_std: w[*log_std].shallow_clone() }
            }
        }
    }
}
