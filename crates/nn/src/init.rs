//! Initial values of parameters.

use crate::tensor::to_vec;
use playfield_core::rng::Rng;
use rand::RngExt as _;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// The rule for the initial weights of a network: `[network] init`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitKind {
    /// U(±1/√fan_in), biases too: Torch's default, and so DQN's, A3C's and PAAC's; PPO's default is `orthogonal`.
    #[default]
    FanIn,
    /// Orthogonal with gain √2 (policy .01, value 1), biases 0: as OpenAI's baselines.
    Orthogonal,
    /// He et al. 2015: N(0, 2/fan_in) before rectifiers, biases 0.
    He,
    /// Glorot and Bengio 2010: U(±√(6/(fan_in + fan_out))), biases 0.
    Glorot,
}

/// The gain of an orthogonal initial weight before a rectifier.
pub(crate) const RECTIFIER_GAIN: f64 = std::f64::consts::SQRT_2;

/// Initial weight and bias of a hidden layer with `fan_in` inputs.
pub fn hidden_init(kind: InitKind, fan_in: i64, gain: f64) -> (Init, Init) {
    match kind {
        InitKind::FanIn => (Init::Uniform { fan_in }, Init::Uniform { fan_in }),
        InitKind::Orthogonal => (Init::Orthogonal { gain }, Init::Constant(0.0)),
        InitKind::He => (Init::He { gain }, Init::Constant(0.0)),
        // Derived for layers without a rectifier, where the gain is 1.
        InitKind::Glorot => (Init::Glorot { gain: gain.min(1.0) }, Init::Constant(0.0)),
    }
}

/// The initial values of one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All elements equal.
    Constant(f32),
    /// U(−1/√fan_in, 1/√fan_in), so Var = 1/(3·fan_in) (Torch's default; Bottou, *Stochastic Gradient Descent Tricks*).
    /// A bias takes its weight's `fan_in`.
    Uniform {
        /// Inputs of one unit: of a linear layer its inputs, of a convolution height · width · depth of the kernel.
        fan_in: i64,
    },
    /// U(−bound, bound), whatever the layer's size: the baseline of the other rules.
    Bounded {
        /// The largest value.
        bound: f32,
    },
    /// A random matrix with orthonormal rows or columns, times `gain` (Saxe et al. 2013). Dimensions after the first
    /// count as columns.
    Orthogonal {
        /// √2 before a rectifier; small for a policy's last layer.
        gain: f64,
    },
    /// N(0, gain²/fan_in) (He et al. 2015, *Delving Deep into Rectifiers*, equation 10): with gain √2 a layer behind a
    /// rectifier keeps its input's second moment. Only before a rectifier.
    He {
        /// √2 before a rectifier.
        gain: f64,
    },
    /// U(±gain·√(6/(fan_in + fan_out))) (Glorot and Bengio 2010, equation 16): keeps the variance of activations, and of
    /// gradients, about equal through layers that are linear near 0. Behind rectifiers [`He`](Self::He) does better.
    Glorot {
        /// 1 before tanh.
        gain: f64,
    },
    /// An LSTM's bias: 0, and `forget` in the second quarter.
    Gates {
        /// The forget gate's.
        forget: f32,
    },
}

impl Init {
    /// Samples a parameter of `shape`, row-major.
    pub fn sample(self, shape: &[i64], rng: &mut Rng) -> Vec<f32> {
        let len: i64 = shape.iter().product();
        match self {
            Self::Constant(value) => vec![value; len as usize],
            Self::Bounded { bound } => (0..len).map(|_| rng.random_range(-bound..=bound)).collect(),
            Self::Gates { forget } => (0..len).map(|i| if i * 4 / len == 1 { forget } else { 0.0 }).collect(),
            Self::Uniform { fan_in } => {
                let bound = 1.0 / (fan_in as f32).sqrt();
                (0..len).map(|_| rng.random_range(-bound..=bound)).collect()
            }
            Self::He { gain } => {
                let deviation = gain / ((len / shape[0]) as f64).sqrt();
                (0..len).map(|_| (rng.sample::<f64, _>(StandardNormal) * deviation) as f32).collect()
            }
            Self::Glorot { gain } => {
                // Of a convolution, both count the positions of the kernel.
                let (fan_in, fan_out) = (len / shape[0], len / shape[1]);
                let bound = (gain * (6.0 / (fan_in + fan_out) as f64).sqrt()) as f32;
                (0..len).map(|_| rng.random_range(-bound..=bound)).collect()
            }
            Self::Orthogonal { gain } => {
                let (rows, columns) = (shape[0], len / shape[0]);
                let normal: Vec<f64> = (0..len).map(|_| rng.sample(StandardNormal)).collect();
                let (tall, wide) = (rows.max(columns), rows.min(columns));
                // Q of a QR decomposition, its signs fixed by R's diagonal so that it is uniform (Mezzadri 2006).
                let (q, r) = Tensor::linalg_qr(&Tensor::from_slice(&normal).view([tall, wide]), "reduced");
                let q = q * r.diagonal(0, 0, 1).sign();
                let q = if rows < columns { q.tr() } else { q };
                to_vec(&(q * gain).to_kind(Kind::Float))
            }
        }
    }
}
