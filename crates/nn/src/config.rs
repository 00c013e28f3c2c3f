//! The `[network]` section of a configuration.

use playfield_core::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// The `[network]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// What turns an observation into features.
    pub torso: TorsoKind,
    /// Widths of the `mlp` torso's layers.
    pub hidden: Vec<i64>,
    /// What follows each layer of the `mlp` torso.
    pub activation: Activation,
    /// What normalizes each hidden layer before its nonlinearity.
    pub norm: NormKind,
    /// Width of an LSTM between torso and heads, for agents that act by a policy; 0: none. A3C-LSTM: 256.
    pub lstm: i64,
    /// Initial weights.
    pub init: InitKind,
    /// Whether policy and value share one torso.
    pub shared: bool,
    /// Whether frames are shifted and scaled to mean 0 and deviation 1, each observation by its own numbers, rather than
    /// divided by 255. Most of a frame is background: left in, it drowns what moves.
    pub standardize: bool,
    /// The floats that layers compute in. Parameters, optimizer and losses are always `f32`.
    pub precision: Precision,
    /// Who computes a convolutional torso on the processor.
    pub kernels: Kernels,
}

/// What turns an observation into features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TorsoKind {
    /// `nature` for frames that are large enough, `mlp` for everything else.
    #[default]
    Auto,
    /// A3C's network (Mnih et al. 2013, "nips"): 16@8/4, 32@4/2, 256.
    Nips,
    /// A quarter of `nips`: half of each layer's width (8@8/4, 16@4/2, 128). For a student of a larger network.
    Small,
    /// DQN's network (Mnih et al. 2015): 32@8/4, 64@4/2, 64@3/1, 512.
    Nature,
    /// The residual network of Espeholt et al. 2018 (*IMPALA*, figure 3, right): 16, 32, 32 channels, 256. For frames of any
    /// size.
    Impala,
    /// Fully connected layers on the flattened observation.
    Mlp,
    /// What `auto` means, and an LSTM after it: of width `lstm`, or 256 where that is 0.
    Lstm,
}

impl TorsoKind {
    /// Whether it consists of convolutions.
    pub fn convolves(self) -> bool {
        matches!(self, Self::Nips | Self::Small | Self::Nature | Self::Impala)
    }
}

/// What normalizes the hidden layers of a network: see [`norm`](crate::norm).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormKind {
    /// Nothing.
    #[default]
    None,
    /// Batch norm: by the batch's statistics where the network learns, by running ones where it acts.
    Batch,
    /// Layer norm: each observation by its own statistics.
    Layer,
}

/// The nonlinearity of an `mlp` torso.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// tanh.
    #[default]
    Tanh,
    /// max(x, 0).
    Relu,
    /// 1/(1 + e⁻ˣ): the nonlinearity that batch norm was first shown on, flat at both ends.
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
}

/// A rule for initial weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitKind {
    /// U(±1/√fan_in), biases alike: Torch's default, and so DQN's, A3C's and PAAC's.
    #[default]
    FanIn,
    /// Orthogonal with gain √2 (policy .01, value 1), biases 0: as OpenAI's baselines.
    Orthogonal,
    /// He et al. 2015: N(0, 2/fan_in) before rectifiers, biases 0.
    He,
    /// Glorot and Bengio 2010: U(±√(6/(fan_in + fan_out))), biases 0.
    Glorot,
}

/// Who computes a convolutional torso on the processor: see [`dispatch`](crate::dispatch).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kernels {
    /// Whichever is faster here, measured for each batch size when it first occurs.
    #[default]
    Auto,
    /// playfield's own kernels, where they can.
    Own,
    /// libtorch.
    Libtorch,
}

/// The floats that layers compute in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// bf16 for convolutional torsos where the processor multiplies it natively (AVX-512 BF16, AMX, CUDA), else fp32.
    #[default]
    Auto,
    /// 32-bit floats.
    Fp32,
    /// bfloat16 activations and weights; products are summed in f32.
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
            shared: true,
            standardize: false,
            precision: Precision::Auto,
            kernels: Kernels::Auto,
        }
    }
}

impl NetworkConfig {
    /// Refuses values that cannot work.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn check(&self) -> Result<()> {
        if self.hidden.iter().any(|&h| h < 1) {
            return Err(Error::config("[network]: every width in `hidden` must be at least 1"));
        }
        if self.lstm < 0 {
            return Err(Error::config(format!("[network]: `lstm` = {} must not be negative (0: none)", self.lstm)));
        }
        Ok(())
    }

    /// The width of the LSTM after the torso; 0: none.
    pub fn lstm_width(&self) -> i64 {
        if self.torso == TorsoKind::Lstm && self.lstm == 0 { 256 } else { self.lstm }
    }

    /// The precision on `device` for a torso that convolves or not.
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

/// Whether this processor multiplies bf16 natively.
pub fn native_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}
