//! Initial values of parameters.

use playfield_core::rng::Rng;
use rand::RngExt as _;
use rand_distr::StandardNormal;
use tch::{Kind, Tensor};

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All numbers equal.
    Constant(f32),
    /// U(−1/√fan_in, 1/√fan_in), so Var = 1/(3·fan_in) (Torch's default; Bottou, *Stochastic Gradient Descent Tricks*).
    /// `fan_in` is a parameter because a bias is drawn with its weight's.
    Uniform {
        /// Inputs of one unit: of a linear layer its inputs, of a convolution height · width · depth of the kernel.
        fan_in: i64,
    },
    /// U(−bound, bound), whatever the layer's size: what the other rules are compared with.
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
    /// rectifier keeps its input's second moment. Not where there is no rectifier.
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
    /// An LSTM's bias: 0, but `forget` for the second quarter.
    Gates {
        /// The forget gate's.
        forget: f32,
    },
}

impl Init {
    /// Draws the numbers of a parameter of `shape`, row-major.
    pub fn draw(self, shape: &[i64], rng: &mut Rng) -> Vec<f32> {
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
                // Of a convolution, both count the kernel's places.
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
                crate::params::to_vec(&(q * gain).to_kind(Kind::Float))
            }
        }
    }
}
