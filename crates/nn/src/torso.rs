//! What turns an observation into features: every network's first part, chosen by `[network] torso`, each of its layers
//! normalized by `[network] norm` before its nonlinearity.

use crate::config::{Activation, InitKind, NetworkConfig, NormKind, TorsoKind};
use crate::conv::Conv;
use crate::direct::Plain;
use crate::impala::Impala;
use crate::init::Init;
use crate::input::Input;
use crate::linear::Linear;
use crate::norm::Norm;
use crate::params::{Builder, Params, Weights};
use playfield_core::{Dtype, EnvSpec, Error, Result};
use tch::Tensor;

/// Observations `[n, …]` to features `[n, width]`.
#[derive(Clone, Debug)]
pub struct Torso {
    images: Images,
    layers: Vec<(Linear, Norm)>,
    activation: Activation,
    scale: f64,
    norm: NormKind,
    width: i64,
}

/// What takes observations as images.
#[derive(Clone, Debug)]
enum Images {
    /// Nothing: observations are flat.
    Flat,
    /// One convolution after the other, each with a rectifier.
    Stack(Vec<(Conv, Norm)>),
    /// The residual network.
    Residual(Impala),
}

/// Outputs, kernel side and stride of each convolution, and the width of the layer after them.
type Recipe = (&'static [(i64, i64, i64)], i64);

const NIPS: Recipe = (&[(16, 8, 4), (32, 4, 2)], 256);
const SMALL: Recipe = (&[(8, 8, 4), (16, 4, 2)], 128);
const NATURE: Recipe = (&[(32, 8, 4), (64, 4, 2), (64, 3, 1)], 512);

/// Its convolutions are a room of their own.
const IMPALA: Recipe = (&[], 256);

/// The gain of an orthogonal initial weight before a rectifier.
pub(crate) const GAIN: f64 = std::f64::consts::SQRT_2;

/// Initial weight and bias of a hidden layer with `fan_in` inputs.
pub fn hidden_init(kind: InitKind, fan_in: i64, gain: f64) -> (Init, Init) {
    match kind {
        InitKind::FanIn => (Init::Uniform { fan_in }, Init::Uniform { fan_in }),
        InitKind::Orthogonal => (Init::Orthogonal { gain }, Init::Constant(0.0)),
        InitKind::He => (Init::He { gain }, Init::Constant(0.0)),
        // Made for layers without a rectifier: its gain there is 1.
        InitKind::Glorot => (Init::Glorot { gain: gain.min(1.0) }, Init::Constant(0.0)),
    }
}

/// The torso that `config` means for `spec`: `auto` resolved, and `lstm`, whose LSTM is not the torso's part.
pub fn resolve(config: &NetworkConfig, spec: &EnvSpec) -> TorsoKind {
    match config.torso {
        TorsoKind::Auto | TorsoKind::Lstm if fits(NATURE.0, spec) => TorsoKind::Nature,
        TorsoKind::Auto | TorsoKind::Lstm => TorsoKind::Mlp,
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
            TorsoKind::Small => (SMALL, "small"),
            TorsoKind::Nature => (NATURE, "nature"),
            TorsoKind::Impala => (IMPALA, "impala"),
            TorsoKind::Mlp | TorsoKind::Auto | TorsoKind::Lstm => {
                let (images, layers, width) = (Images::Flat, Vec::new(), spec.obs_len() as i64);
                let mut torso = Self { images, layers, activation: config.activation, scale, norm: config.norm, width };
                let (last, before) = config.hidden.split_last().unzip();
                for (i, &outputs) in before.unwrap_or_default().iter().enumerate() {
                    torso.push(b, &format!("fc{}", i + 1), outputs, config.init);
                }
                return Ok((torso, last.copied()));
            }
        };
        if !fits(recipe.0, spec) {
            let least = if recipe.0.is_empty() { "" } else { " of at least 36×36" };
            return Err(Error::config(format!(
                "[network]: the {name} torso needs u8 frames{least}, and {} observes {:?} of {:?}; use torso = \"mlp\"",
                spec.id, spec.shape, spec.dtype
            )));
        }
        let (mut h, mut w) = (spec.shape[0] as i64, spec.shape[1] as i64);
        let mut channels = (spec.obs_len() as i64) / (h * w);
        let images = if recipe.0.is_empty() {
            let images = Images::Residual(Impala::new(b, config, channels));
            (h, w, channels) = Impala::size(h, w);
            images
        } else {
            let mut convs = Vec::new();
            for (i, &(outputs, size, stride)) in recipe.0.iter().enumerate() {
                let init = hidden_init(config.init, channels * size * size, GAIN);
                let name = format!("conv{}", i + 1);
                let conv = Conv::new(b, &name, (channels, outputs), (size, stride), init);
                convs.push((conv, Norm::new(b, &format!("{name}_norm"), config.norm, outputs)));
                (h, w, channels) = ((h - size) / stride + 1, (w - size) / stride + 1, outputs);
            }
            Images::Stack(convs)
        };
        let (activation, width) = (Activation::Relu, h * w * channels);
        let torso = Self { images, layers: Vec::new(), activation, scale, norm: config.norm, width };
        Ok((torso, Some(recipe.1)))
    }

    /// Adds a fully connected layer.
    pub(crate) fn push(&mut self, b: &mut Builder<'_>, name: &str, outputs: i64, init: InitKind) {
        let (weight, bias) = hidden_init(init, self.width, GAIN);
        let layer = Linear::new(b, name, self.width, outputs, weight, bias);
        self.layers.push((layer, Norm::new(b, &format!("{name}_norm"), self.norm, outputs)));
        self.width = outputs;
    }

    /// What follows each of its fully connected layers.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Whether it takes observations as images.
    pub fn convolves(&self) -> bool {
        !matches!(self.images, Images::Flat)
    }

    /// Whether the rows of a batch change each other's features where it learns: by batch norm.
    pub fn uses_batch_statistics(&self) -> bool {
        self.norm == NormKind::Batch
    }

    /// Folds every batch norm into the layer before it: see [`norm::fold`](crate::norm::fold).
    pub fn fold(&mut self, params: &mut Params) {
        match &mut self.images {
            Images::Flat => {}
            Images::Stack(convs) => convs.iter_mut().for_each(|(conv, norm)| norm.fold(params, conv.slots())),
            Images::Residual(impala) => impala.fold(params),
        }
        self.layers.iter_mut().for_each(|(layer, norm)| norm.fold(params, layer.slots()));
        if self.norm == NormKind::Batch {
            self.norm = NormKind::None;
        }
    }

    /// Its layers, first to last, if they are convolutions and fully connected layers with rectifiers and nothing else.
    pub(crate) fn plain(&self) -> Option<Vec<Plain>> {
        let Images::Stack(convs) = &self.images else { return None };
        let plain = |(weight, bias), stride| (weight, bias, stride);
        let convs = convs.iter().map(|(conv, _)| plain(conv.slots(), Some(conv.stride)));
        let layers = self.layers.iter().map(|(layer, _)| plain(layer.slots(), None));
        (self.norm == NormKind::None).then(|| convs.chain(layers).collect())
    }

    /// How many features it yields.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// Applies the torso to what [`Input::load`] returned.
    pub fn forward(&self, w: &Weights, x: &Tensor) -> Tensor {
        let mut x = match &self.images {
            Images::Flat if self.scale != 1.0 => x * self.scale,
            Images::Flat => x.shallow_clone(),
            Images::Stack(convs) => {
                let (mut x, mut scale) = (x.shallow_clone(), self.scale);
                for (conv, norm) in convs {
                    x = norm.forward(w, conv.forward_scaled(w, &x, scale)).relu_();
                    scale = 1.0;
                }
                x
            }
            Images::Residual(impala) => impala.forward(w, x, self.scale),
        };
        if self.convolves() {
            // The features lie as (h, w, channel) in memory: flattened so, without a copy.
            x = x.permute([0, 2, 3, 1]).flatten(1, -1);
        }
        for (layer, norm) in &self.layers {
            x = self.activation.apply(norm.forward(w, layer.forward(w, &x)));
        }
        x
    }
}
