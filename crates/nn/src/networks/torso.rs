//! Torsos: the layers from an observation to features, chosen by `[network] torso`, each normalized by `[network] norm` before its
//! nonlinearity.

use super::config::{Activation, InitKind, NetworkConfig, NormKind, TorsoKind};
use super::impala::Impala;
use super::input::Input;
use super::own_kernels::kernel_layer;
use super::parts;
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
use std::ops::Range;
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
    /// One torso for each image of an observation with several parts: see [`parts`].
    Parts(Vec<Torso>),
}

/// Outputs, kernel side and stride of each convolution, and the width of the fully connected layer.
type Architecture = (&'static [(i64, i64, i64)], i64);

const NIPS: Architecture = (&[(16, 8, 4), (32, 4, 2)], 256);
const SMALL: Architecture = (&[(8, 8, 4), (16, 4, 2)], 128);
const NATURE: Architecture = (&[(32, 8, 4), (64, 4, 2), (64, 3, 1)], 512);

/// Its convolutions are in [`Impala`].
const IMPALA: Architecture = (&[], 256);

/// The torso of `config` for `spec` (or for its images), with `auto` and `lstm` resolved; the LSTM is not part of the torso.
pub fn resolve(config: &NetworkConfig, spec: &EnvSpec) -> TorsoKind {
    let has_frames = || match spec.parts.is_empty() {
        true => fits(TorsoKind::Nature, spec),
        false => spec.parts.iter().any(|part| fits(TorsoKind::Nature, &spec.of_part(part))),
    };
    match config.torso {
        TorsoKind::Auto | TorsoKind::Lstm if has_frames() => TorsoKind::Nature,
        TorsoKind::Auto | TorsoKind::Lstm => TorsoKind::Mlp,
        chosen => chosen,
    }
}

/// The architecture of a convolutional torso and its name.
fn architecture(kind: TorsoKind) -> Option<(Architecture, &'static str)> {
    match kind {
        TorsoKind::Nips => Some((NIPS, "nips")),
        TorsoKind::Small => Some((SMALL, "small")),
        TorsoKind::Nature => Some((NATURE, "nature")),
        TorsoKind::Impala => Some((IMPALA, "impala")),
        TorsoKind::Mlp | TorsoKind::Auto | TorsoKind::Lstm => None,
    }
}

/// Whether observations of `spec` are frames that are large enough for the convolutional torso `kind`; false for another torso.
pub(super) fn fits(kind: TorsoKind, spec: &EnvSpec) -> bool {
    let Some(((convs, _), _)) = architecture(kind) else { return false };
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
            let name = match torso.images {
                Images::Flat | Images::Parts(_) => format!("fc{}", torso.layers.len() + 1),
                Images::Stack(_) | Images::Residual(_) => "fc".into(),
            };
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
        let kind = resolve(config, spec);
        if !spec.parts.is_empty() {
            let (images, width) = Self::of_images(b, &NetworkConfig { torso: kind, ..config.clone() }, spec)?;
            return Ok(Self::with_hidden_layers(b, config, Images::Parts(images), width, 1.0));
        }
        let Some((architecture, name)) = architecture(kind) else {
            return Ok(Self::with_hidden_layers(b, config, Images::Flat, spec.obs_len() as i64, scale));
        };
        if !fits(kind, spec) {
            let least = if architecture.0.is_empty() { "" } else { " of at least 36×36" };
            return Err(Error::config(format!(
                "[network]: the {name} torso needs u8 frames{least}, and {} observes {}; use torso = \"mlp\"",
                spec.id,
                spec.observation_text()
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

    /// All but the last of the `hidden` layers of `config` on `width` inputs, and the width of the last one.
    fn with_hidden_layers(
        b: &mut Builder<'_>,
        config: &NetworkConfig,
        images: Images,
        width: i64,
        scale: f64,
    ) -> (Self, Option<i64>) {
        let (layers, activation, norm) = (Vec::new(), config.activation, config.norm);
        let mut torso = Self { images, layers, activation, scale, norm, width };
        let (last, before) = config.hidden.split_last().unzip();
        for (i, &outputs) in before.unwrap_or_default().iter().enumerate() {
            torso.push(b, &format!("fc{}", i + 1), outputs, config.init);
        }
        (torso, last.copied())
    }

    /// The torsos of the images of an observation with several parts, and the number of their features and of all elements of
    /// other parts.
    fn of_images(b: &mut Builder<'_>, config: &NetworkConfig, spec: &EnvSpec) -> Result<(Vec<Self>, i64)> {
        let (mut torsos, mut width) = (Vec::new(), 0);
        for part in &spec.parts {
            let of_part = spec.of_part(part);
            if parts::has_torso(config, spec, part) {
                let torso = b.scope(&format!("image{}", torsos.len()), |b| Self::new(b, config, &of_part))?;
                width += torso.width;
                torsos.push(torso);
            } else {
                width += of_part.obs_len() as i64;
            }
        }
        if config.torso.convolves() && torsos.is_empty() {
            return Err(Error::config(format!(
                "[network]: a convolutional torso needs an image of at least 36×36, and {} observes {}; use torso = \"mlp\"",
                spec.id,
                spec.observation_text()
            )));
        }
        Ok((torsos, width))
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

    /// Whether it has convolutions.
    pub fn is_convolutional(&self) -> bool {
        match &self.images {
            Images::Flat => false,
            Images::Stack(_) | Images::Residual(_) => true,
            Images::Parts(torsos) => !torsos.is_empty(),
        }
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
            Images::Parts(torsos) => torsos.iter_mut().for_each(|torso| torso.fold(params)),
        }
        self.layers.iter_mut().for_each(|(layer, norm)| norm.fold(params, layer.slots()));
        if self.norm == NormKind::Batch {
            self.norm = NormKind::None;
        }
    }

    /// Its layers as playfield's own kernels have them; `None` for flat observations, for those with several parts, and with batch norm.
    pub(super) fn kernel_layers(&self, params: &Params) -> Option<Vec<Layer>> {
        let convolution = |(conv, norm): &(Conv, Norm)| kernel_layer(params, conv.slots(), Some(conv), norm);
        let images = match &self.images {
            Images::Flat | Images::Parts(_) => return None,
            Images::Stack(convs) => convs.iter().map(convolution).collect(),
            Images::Residual(impala) => impala.kernel_layers(params),
        };
        let layers = self.layers.iter().map(|(linear, norm)| kernel_layer(params, linear.slots(), None, norm));
        (self.norm != NormKind::Batch).then(|| images.into_iter().chain(layers).collect())
    }

    /// The elements of the flat buffers that its parameters are, one range each; none where the own kernels do not support it.
    pub(super) fn ranges(&self, params: &Params) -> Vec<Range<usize>> {
        let of_layer = |layer: Layer| [layer.weight, layer.bias].into_iter().chain(layer.norm.into_iter().flatten());
        self.kernel_layers(params).unwrap_or_default().into_iter().flat_map(of_layer).collect()
    }

    /// The number of features.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// Applies the torso to the result of [`Input::load`].
    pub fn forward(&self, w: &Weights, inputs: &[Tensor], pass: Pass) -> Tensor {
        let x = &inputs[0];
        let mut x = match &self.images {
            Images::Parts(torsos) => {
                let (images, others) = inputs.split_at(torsos.len());
                let features = torsos.iter().zip(images.chunks(1)).map(|(torso, image)| torso.forward(w, image, pass));
                Tensor::cat(&features.chain(others.iter().map(Tensor::shallow_clone)).collect::<Vec<_>>(), 1)
            }
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
        if x.dim() == 4 {
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
            Images::Parts(_) => unreachable!("`Input::export` refuses observations with several parts"),
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
