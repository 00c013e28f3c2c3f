//! The `[network]` section of a configuration.

use playfield_core::{Error, Result};
use playfield_kernels::simd::{self, SimdLevel};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

pub use crate::init::InitKind;
pub use crate::layers::activation::Activation;
pub use crate::layers::norm::NormKind;

/// The `[network]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// The feature extractor.
    pub torso: TorsoKind,
    /// Widths of the `mlp` torso's layers, and of those after the torsos of images where an observation has several parts.
    pub hidden: Vec<i64>,
    /// The nonlinearity after each of the `hidden` layers.
    pub activation: Activation,
    /// Normalization of each hidden layer, before its nonlinearity.
    pub norm: NormKind,
    /// Width of an LSTM between torso and heads, for actor-critics; 0: none. A3C-LSTM: 256.
    pub lstm: i64,
    /// Initial weights.
    pub init: InitKind,
    /// The initial standard deviation of a Gaussian policy, whose actions are bounded by ±1. Andrychowicz et al. 2020 (*What Matters In
    /// On-Policy Reinforcement Learning?*, section 3.2) recommend .5: with 1, as in Stable-Baselines3, a third of the actions are clipped.
    pub initial_std: f64,
    /// Whether policy and value share one torso.
    pub shared: bool,
    /// Whether frames are scaled to mean 0 and standard deviation 1, each observation by its own statistics, rather than divided by
    /// 255. Most of a frame is background, which otherwise dominates the input.
    pub standardize: bool,
    /// The precision that layers compute in. Parameters, optimizer and losses are always `f32`.
    pub precision: Precision,
    /// Whose kernels compute a convolutional torso on the CPU.
    pub kernels: Kernels,
}

/// A feature extractor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TorsoKind {
    /// `nature` for frames that are large enough, `mlp` for everything else.
    #[default]
    Auto,
    /// A3C's network (Mnih et al. 2013, "nips"): 16@8/4, 32@4/2, 256.
    Nips,
    /// Half of each of `nips`'s widths (8@8/4, 16@4/2, 128), a quarter of its weights. For a student of a larger network.
    Small,
    /// DQN's network (Mnih et al. 2015): 32@8/4, 64@4/2, 64@3/1, 512.
    Nature,
    /// The residual network of Espeholt et al. 2018 (*IMPALA*, figure 3, right): 16, 32, 32 channels, 256. For frames of any
    /// size.
    Impala,
    /// Fully connected layers on the flattened observation.
    Mlp,
    /// `auto`, followed by an LSTM of width `lstm`, or 256 where that is 0.
    Lstm,
}

impl TorsoKind {
    /// Whether it consists of convolutions.
    pub fn convolves(self) -> bool {
        matches!(self, Self::Nips | Self::Small | Self::Nature | Self::Impala)
    }
}

/// Whose kernels compute a convolutional torso on the CPU: see [`dispatch`](crate::dispatch).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kernels {
    /// The faster on this machine, measured for each batch size when it first occurs. On a CUDA device: libtorch, captured as CUDA graphs.
    #[default]
    Auto,
    /// playfield's own kernels, where they support the torso.
    Own,
    /// libtorch.
    Libtorch,
}

/// The precision that layers compute in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// bf16 for convolutional torsos of frames on hardware with native bf16 (AVX-512 BF16, AMX, CUDA), on the CPU only where a
    /// measurement does not favor fp32; else fp32: also for observations with several parts, whose vectors would be rounded.
    #[default]
    Auto,
    /// 32-bit floats.
    Fp32,
    /// bfloat16 activations and weights; sums in f32.
    Bf16,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            torso: TorsoKind::Auto,
            hidden: vec![64, 64],
            activation: Activation::Tanh,
            norm: NormKind::None,
            lstm: 0,
            init: InitKind::FanIn,
            initial_std: 0.5,
            shared: true,
            standardize: false,
            precision: Precision::Auto,
            kernels: Kernels::Auto,
        }
    }
}

/// The largest width of a layer: a larger one is a typing error, and overflows where sizes are multiplied.
const LARGEST_WIDTH: i64 = 100_000;

impl NetworkConfig {
    /// Refuses values that cannot work.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn check(&self) -> Result<()> {
        if self.hidden.iter().any(|h| !(1..=LARGEST_WIDTH).contains(h)) {
            return Err(Error::config(format!(
                "[network]: every width in `hidden` must lie between 1 and {LARGEST_WIDTH}"
            )));
        }
        if !(0..=LARGEST_WIDTH).contains(&self.lstm) {
            let lstm = self.lstm;
            return Err(Error::config(format!(
                "[network]: `lstm` = {lstm} must lie between 0 (none) and {LARGEST_WIDTH}"
            )));
        }
        if !(0.001..=100.0).contains(&self.initial_std) {
            let std = self.initial_std;
            return Err(Error::config(format!("[network]: `initial_std` = {std} must lie between 0.001 and 100")));
        }
        Ok(())
    }

    /// The width of the LSTM after the torso; 0: none.
    pub fn lstm_width(&self) -> i64 {
        if self.torso == TorsoKind::Lstm && self.lstm == 0 { 256 } else { self.lstm }
    }

    /// The precision on `device` for a torso that is convolutional or not.
    pub fn kind(&self, device: Device, convolves: bool) -> Kind {
        let native = device.is_cuda() || native_bf16();
        match self.precision {
            Precision::Fp32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::Auto if convolves && native => Kind::BFloat16,
            Precision::Auto => Kind::Float,
        }
    }
}

/// Whether this processor has AVX-512 BF16, and may use it ([`simd::limit`](playfield_kernels::simd::limit)).
pub fn native_bf16() -> bool {
    simd::level() >= SimdLevel::Avx512Bf16
}
