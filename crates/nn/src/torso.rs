//! What turns an observation into features.

use crate::config::{Activation, InitKind, NetworkConfig, TorsoKind};
use crate::conv::Conv;
use crate::init::Init;
use crate::input::Input;
use crate::linear::Linear;
use crate::params::{Builder, Weights};
use playfield_core::{Dtype, EnvSpec, Error, Result};
use tch::Tensor;

/// Observations `[n, …]` to features `[n, width]`.
#[derive(Clone, Debug)]
pub struct Torso {
    convs: Vec<Conv>,
    layers: Vec<Linear>,
    activation: Activation,
    scale: f64,
    width: i64,
}

/// Outputs, kernel side and stride of each convolution, and the width of the layer after them.
type Recipe = (&'static [(i64, i64, i64)], i64);

const NIPS: Recipe = (&[(16, 8, 4), (32, 4, 2)], 256);
const NATURE: Recipe = (&[(32, 8, 4), (64, 4, 2), (64, 3, 1)], 512);

/// The gain of an orthogonal initial weight before a rectifier.
const GAIN: f64 = std::f64::consts::SQRT_2;

/// Initial weight and bias of a hidden layer with `fan_in` inputs.
pub fn hidden_init(kind: InitKind, fan_in: i64, gain: f64) -> (Init, Init) {
    match kind {
        InitKind::FanIn => (Init::Uniform { fan_in }, Init::Uniform { fan_in }),
        InitKind::Orthogonal => (Init::Orthogonal { gain }, Init::Constant(0.0)),
    }
}

/// The torso that `config` means for `spec`: `auto` resolved.
pub fn resolve(config: &NetworkConfig, spec: &EnvSpec) -> TorsoKind {
    match config.torso {
        TorsoKind::Auto if fits(NATURE.0, spec) => TorsoKind::Nature,
        TorsoKind::Auto => TorsoKind::Mlp,
        chosen => chosen,
    }
}

fn fits(convs: &[(i64, i64, i64)], spec: &EnvSpec) -> bool {
    let side = |length: usize| {
        convs.iter().try_fold(length as i64, |x, (_, size, stride)| (x >= *size).then(|| (x - size) / stride + 1))
    };
    spec.dtype == Dtype::U8 && matches!(spec.shape[..], [h, w, ..] if side(h).is_some() && side(w).is_some())
}

impl Torso {
    /// Builds the torso of `config` for observations of `spec`.
    ///
    /// # Errors
    /// [`Error::Config`] where a convolutional torso is asked for observations that are too small or no frames.
    pub fn new(b: &mut Builder<'_>, config: &NetworkConfig, spec: &EnvSpec) -> Result<Self> {
        let (mut torso, last) = Self::trunk(b, config, spec)?;
        if let Some(outputs) = last {
            let name = if torso.convolves() { "fc".into() } else { format!("fc{}", torso.layers.len() + 1) };
            torso.push(b, &name, outputs, config.init);
        }
        Ok(torso)
    }

    /// All of it but its last fully connected layer, and that layer's width: for networks that have several of them.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn trunk(b: &mut Builder<'_>, config: &NetworkConfig, spec: &EnvSpec) -> Result<(Self, Option<i64>)> {
        let scale = Input::scale(config, spec);
        let (recipe, name) = match resolve(config, spec) {
            TorsoKind::Nips => (NIPS, "nips"),
            TorsoKind::Nature => (NATURE, "nature"),
            TorsoKind::Mlp | TorsoKind::Auto => {
                let (convs, layers, width) = (Vec::new(), Vec::new(), spec.obs_len() as i64);
                let mut torso = Self { convs, layers, activation: config.activation, scale, width };
                let (last, before) = config.hidden.split_last().unzip();
                for (i, &outputs) in before.unwrap_or_default().iter().enumerate() {
                    torso.push(b, &format!("fc{}", i + 1), outputs, config.init);
                }
                return Ok((torso, last.copied()));
            }
        };
        if !fits(recipe.0, spec) {
            return Err(Error::config(format!(
                "[network]: the {name} torso needs u8 frames of at least 36×36, and {} observes {:?} of {:?}; use torso = \"mlp\"",
                spec.id, spec.shape, spec.dtype
            )));
        }
        let (mut h, mut w) = (spec.shape[0] as i64, spec.shape[1] as i64);
        let mut channels = (spec.obs_len() as i64) / (h * w);
        let mut convs = Vec::new();
        for (i, &(outputs, size, stride)) in recipe.0.iter().enumerate() {
            let init = hidden_init(config.init, channels * size * size, GAIN);
            convs.push(Conv::new(b, &format!("conv{}", i + 1), (channels, outputs), (size, stride), init));
            (h, w, channels) = ((h - size) / stride + 1, (w - size) / stride + 1, outputs);
        }
        let torso = Self { convs, layers: Vec::new(), activation: Activation::Relu, scale, width: h * w * channels };
        Ok((torso, Some(recipe.1)))
    }

    fn push(&mut self, b: &mut Builder<'_>, name: &str, outputs: i64, init: InitKind) {
        let (weight, bias) = hidden_init(init, self.width, GAIN);
        self.layers.push(Linear::new(b, name, self.width, outputs, weight, bias));
        self.width = outputs;
    }

    /// What follows each of its fully connected layers.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Whether it takes observations as images.
    pub fn convolves(&self) -> bool {
        !self.convs.is_empty()
    }

    /// How many features it yields.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// Applies the torso to what [`Input::load`] returned.
    pub fn forward(&self, w: &Weights, x: &Tensor) -> Tensor {
        let mut x = x.shallow_clone();
        let mut scale = self.scale;
        for conv in &self.convs {
            x = conv.forward_scaled(w, &x, scale).relu_();
            scale = 1.0;
        }
        if self.convolves() {
            // The features lie as (h, w, channel) in memory: flattened so, without a copy.
            x = x.permute([0, 2, 3, 1]).flatten(1, -1);
        } else if scale != 1.0 {
            x *= scale;
        }
        for layer in &self.layers {
            x = self.activation.apply(layer.forward(w, &x));
        }
        x
    }
}
