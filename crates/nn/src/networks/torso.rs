//! Torsos: the layers from an observation to features, chosen by `[network] torso`, each normalized by `[network] norm` before its
//! nonlinearity.

use super::config::{Activation, InitKind, NetworkConfig, NormKind, TorsoKind};
use super::impala::Impala;
use super::input::Input;
use super::own_kernels::kernel_layer;
use crate::export::Exporter;
use crate::init::{RECTIFIER_GAIN, hidden_init};
use crate::layers::conv::Conv;
use crate::layers::linear::Linear;
use crate::layers::norm::Norm;
use crate::params::{Builder, Params, Weights};
use crate::pass::Pass;
use playfield_core::graph::{Op, Value};
use playfield_core::{Dtype, EnvSpec, Error, Result};
use playfield_kernels::Layer;
use tch::Tensor;

/// Observations `[n, …]` to features `[n, width]`.
#[derive(Clone, Debug)]
pub struct Torso {
    images: Images,
    layers: Vec<(Linear, Norm)>,
    activation: Activation,
    /// Factor of the input.
    scale: f64,
    norm: NormKind,
    width: i64,
}

/// The convolutional part.
#[derive(Clone, Debug)]
enum Images {
    /// None: observations are flat.
    Flat,
    /// A sequence of convolutions, each with a rectifier.
    Stack(Vec<(Conv, Norm)>),
    /// IMPALA's residual network.
    Residual(Impala),
}

/// Outputs, kernel side and stride of each convolution, and the width of the fully connected layer.
type Architecture = (&'static [(i64, i64, i64)], i64);

const NIPS: Architecture = (&[(16, 8, 4), (32, 4, 2)], 256);
const SMALL: Architecture = (&[(8, 8, 4), (16, 4, 2)], 128);
const NATURE: Architecture = (&[(32, 8, 4), (64, 4, 2), (64, 3, 1)], 512);

/// Its convolutions are in [`Impala`].
const IMPALA: Architecture = (&[], 256);

/// The torso of `config` for `spec`, with `auto` and `lstm` resolved; the LSTM is not part of the torso.
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
    /// [`Error::Config`] where a convolutional torso and the observations do not fit.
    pub fn new(b: &mut Builder<'_>, config: &NetworkConfig, spec: &EnvSpec) -> Result<Self> {
        let (mut torso, last) = Self::without_last_layer(b, config, spec)?;
        if let Some(outputs) = last {
            let name = if torso.is_convolutional() { "fc".into() } else { format!("fc{}", torso.layers.len() + 1) };
            torso.push(b, &name, outputs, config.init);
        }
        Ok(torso)
    }

    /// All but its last fully connected layer, and that layer's width: for networks with several of these.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn without_last_layer(
        b: &mut Builder<'_>,
        config: &NetworkConfig,
        spec: &EnvSpec,
    ) -> Result<(Self, Option<i64>)> {
        let scale = Input::scale(config, spec);
        let (architecture, name) = match resolve(config, spec) {
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
        if !fits(architecture.0, spec) {
            let least = if architecture.0.is_empty() { "" } else { " of at least 36×36" };
            return Err(Error::config(format!(
                "[network]: the {name} torso needs u8 frames{least}, and {} observes {:?} of {:?}; use torso = \"mlp\"",
                spec.id, spec.shape, spec.dtype
            )));
        }
        let (mut h, mut w) = (spec.shape[0] as i64, spec.shape[1] as i64);
        let mut channels = (spec.obs_len() as i64) / (h * w);
        let images = if architecture.0.is_empty() {
            let images = Images::Residual(Impala::new(b, config, channels));
            (h, w, channels) = Impala::size(h, w);
            images
        } else {
            let mut convs = Vec::new();
            for (i, &(outputs, size, stride)) in architecture.0.iter().enumerate() {
                let init = hidden_init(config.init, channels * size * size, RECTIFIER_GAIN);
                let name = format!("conv{}", i + 1);
                let conv = Conv::new(b, &name, (channels, outputs), (size, stride), init);
                convs.push((conv, Norm::new(b, &format!("{name}_norm"), config.norm, outputs)));
                (h, w, channels) = ((h - size) / stride + 1, (w - size) / stride + 1, outputs);
            }
            Images::Stack(convs)
        };
        let (activation, width) = (Activation::Relu, h * w * channels);
        let torso = Self { images, layers: Vec::new(), activation, scale, norm: config.norm, width };
        Ok((torso, Some(architecture.1)))
    }

    /// Adds a fully connected layer.
    pub(super) fn push(&mut self, b: &mut Builder<'_>, name: &str, outputs: i64, init: InitKind) {
        let (weight, bias) = hidden_init(init, self.width, RECTIFIER_GAIN);
        let layer = Linear::new(b, name, self.width, outputs, weight, bias);
        self.layers.push((layer, Norm::new(b, &format!("{name}_norm"), self.norm, outputs)));
        self.width = outputs;
    }

    /// The nonlinearity after each of its fully connected layers.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Whether its input is an image.
    pub fn is_convolutional(&self) -> bool {
        !matches!(self.images, Images::Flat)
    }

    /// Whether features depend on the whole batch in training, by batch norm.
    pub fn uses_batch_statistics(&self) -> bool {
        self.norm == NormKind::Batch
    }

    /// Folds every batch norm into the layer before it: see [`norm::fold`](crate::norm::fold()).
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

    /// Its layers as playfield's own kernels have them; `None` for flat observations and with batch norm.
    pub(super) fn kernel_layers(&self, params: &Params) -> Option<Vec<Layer>> {
        let convolution = |(conv, norm): &(Conv, Norm)| kernel_layer(params, conv.slots(), Some(conv), norm);
        let images = match &self.images {
            Images::Flat => return None,
            Images::Stack(convs) => convs.iter().map(convolution).collect(),
            Images::Residual(impala) => impala.kernel_layers(params),
        };
        let layers = self.layers.iter().map(|(linear, norm)| kernel_layer(params, linear.slots(), None, norm));
        (self.norm != NormKind::Batch).then(|| images.into_iter().chain(layers).collect())
    }

    /// The number of features.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// Applies the torso to the result of [`Input::load`].
    pub fn forward(&self, w: &Weights, x: &Tensor, pass: Pass) -> Tensor {
        let mut x = match &self.images {
            Images::Flat if self.scale != 1.0 => x * self.scale,
            Images::Flat => x.shallow_clone(),
            Images::Stack(convs) => {
                let (mut x, mut scale) = (x.shallow_clone(), self.scale);
                for (conv, norm) in convs {
                    x = norm.forward(w, conv.forward_scaled(w, &x, scale), pass).relu_();
                    scale = 1.0;
                }
                x
            }
            Images::Residual(impala) => impala.forward(w, x, self.scale, pass),
        };
        if self.is_convolutional() {
            // Channels-last in memory: flattened without a copy.
            x = x.permute([0, 2, 3, 1]).flatten(1, -1);
        }
        for (layer, norm) in &self.layers {
            x = self.activation.apply(norm.forward(w, layer.forward(w, &x), pass));
        }
        x
    }

    /// Adds the torso to a graph, on the result of [`Input::export`].
    pub fn export(&self, e: &mut Exporter<'_>, mut x: Value) -> Value {
        if self.scale != 1.0 {
            x = e.graph.op_scalar(Op::Mul, x, self.scale as f32);
        }
        match &self.images {
            Images::Flat => {}
            Images::Stack(convs) => {
                for (conv, norm) in convs {
                    let y = conv.export(e, x);
                    let y = norm.export(e, y, true);
                    x = e.graph.op(Op::Relu, &[y]);
                }
            }
            Images::Residual(impala) => x = impala.export(e, x),
        }
        if self.is_convolutional() {
            let features = self.layers.first().map_or(self.width as usize, |(layer, _)| layer.sizes(e).1);
            x = e.graph.op(Op::Transpose(vec![0, 2, 3, 1]), &[x]);
            x = e.graph.reshape(x, &[features]);
        }
        for (layer, norm) in &self.layers {
            let y = layer.export(e, x);
            let y = norm.export(e, y, false);
            x = self.activation.export(e, y);
        }
        x
    }
}
