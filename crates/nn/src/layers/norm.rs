//! Normalization layers: batch, layer and local response normalization.
//!
//! ```text
//! y = γ · (x − μ)/√(σ² + ε) + β
//! batch norm   μ, σ² of each feature, over the elements of a batch (of images, and positions)  Ioffe and Szegedy 2015
//! layer norm   μ, σ² of each element, over its features (of images: channels, positions)      Ba, Kiros and Hinton 2016
//! ```
//!
//! In [`Pass::Train`] batch norm normalizes by the batch's mean and *biased* variance, through which the gradient flows, and moves
//! the running mean and the running, *unbiased* variance towards them by the fraction `momentum`. In [`Pass::Infer`] it normalizes by
//! the running statistics, and is then an affine map that [`fold()`] merges into the layer before it.
//!
//! Running statistics are not parameters: no optimizer steps them, bf16 does not round them, and copies and checkpoints of a network
//! include them ([`Params`]).
//!
//! **When not**: batch norm couples the elements of a batch. Statistics of few elements are noisy, those of elements that one
//! policy collected in a few steps are biased, too, and the acting policy differs from the trained one. Reinforcement
//! learning mostly uses no norm, or layer norm, which has none of these problems.

use crate::export::Exporter;
use crate::params::{Builder, Params, Running, Slot, Weights};
use crate::pass::Pass;
use playfield_core::graph::{Op, Value};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

/// The kind of normalization of hidden layers: `[network] norm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormKind {
    /// None.
    #[default]
    None,
    /// Batch norm: batch statistics in training, running statistics in inference.
    Batch,
    /// Layer norm: each observation's own statistics.
    Layer,
}

/// Batch normalization of `[n, features]` or, channel by channel, of `[n, channels, h, w]`: PyTorch's `BatchNorm1d` and
/// `BatchNorm2d`.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm {
    weight: Slot,
    bias: Slot,
    mean: Running,
    variance: Running,
    /// ε, added to a variance before the root; 1e-5.
    pub eps: f64,
    /// The fraction by which running statistics move towards a batch's; .1.
    pub momentum: f64,
}

impl BatchNorm {
    /// A layer called `name`, with PyTorch's tensors: `weight` (γ, 1 at first), `bias` (β, 0), `running_mean` (0) and
    /// `running_var` (1), each `[features]`.
    pub fn new(b: &mut Builder<'_>, name: &str, features: i64) -> Self {
        let (weight, bias) = affine(b, name, features);
        b.scope(name, |b| Self {
            weight,
            bias,
            mean: b.running_stats("running_mean", features, 0.0),
            variance: b.running_stats("running_var", features, 1.0),
            eps: 1e-5,
            momentum: 0.1,
        })
    }

    /// Normalizes `x`. A batch with one element per feature has no variance: it is normalized by the running statistics in either
    /// pass (an error in PyTorch).
    pub fn forward(&self, w: &Weights, x: &Tensor, pass: Pass) -> Tensor {
        let features = x.size()[1] as usize;
        let batch = pass == Pass::Train && x.numel() > features;
        // Statistics, γ and β are f32 for bf16 activations, too.
        let [weight, bias] = [self.weight, self.bias].map(|slot| w[slot].to_kind(w[self.mean].kind()));
        let (mean, variance) = (&w[self.mean], &w[self.variance]);
        x.batch_norm(Some(&weight), Some(&bias), Some(mean), Some(variance), batch, self.momentum, self.eps, false)
    }

    /// Adds its inference form to a graph; `image`: on `[n, channels, h, w]`.
    pub fn export(&self, e: &mut Exporter<'_>, x: Value, image: bool) -> Value {
        let (mean, variance) = (e.running(self.mean), e.running(self.variance));
        let [mean, variance] = [mean, variance].map(|v| per_feature(e, v, image));
        let variance = e.graph.op_scalar(Op::Add, variance, self.eps as f32);
        let x = e.standardize(x, mean, variance);
        export_affine(e, x, (self.weight, self.bias), image)
    }

    /// Merges this layer's inference form into the layer before it, whose parameters are given: see [`fold()`].
    pub fn fold(&self, params: &mut Params, (weight, bias): (Slot, Slot)) {
        let running = [self.mean, self.variance].map(|r| params.weights()[r].to_kind(Kind::Double));
        let own = [weight, bias, self.weight, self.bias].map(|slot| params.param(slot));
        let [w, b, gamma, beta] = own.each_ref().map(|t| t.to_kind(Kind::Double));
        let (folded, shifted) = fold((&w, &b), (&gamma, &beta), (&running[0], &running[1]), self.eps);
        no_grad(|| {
            own[0].shallow_clone().copy_(&folded);
            own[1].shallow_clone().copy_(&shifted);
        });
        params.mark_updated();
    }
}

/// Weight and bias of the linear or convolutional layer that equals the given one followed by a batch norm in inference. `weight`
/// `[outputs, …]`, the others `[outputs]`.
///
/// `W′ = W·γ/√(σ² + ε)`, `b′ = (b − μ)·γ/√(σ² + ε) + β`: PyTorch's `fuse_conv_bn_eval` and `fuse_linear_bn_eval`. For networks
/// that are not trained further: batch statistics cannot be folded.
pub fn fold(
    (weight, bias): (&Tensor, &Tensor),
    (gamma, beta): (&Tensor, &Tensor),
    (mean, variance): (&Tensor, &Tensor),
    eps: f64,
) -> (Tensor, Tensor) {
    let scale = gamma / (variance + eps).sqrt();
    let mut rows = vec![1; weight.dim()];
    rows[0] = -1;
    (weight * scale.view(&rows[..]), (bias - mean) * &scale + beta)
}

/// Layer normalization of `[n, features]` (PyTorch's `LayerNorm`) or of `[n, channels, h, w]`, over channels and positions, with
/// γ and β per channel (PyTorch's `GroupNorm` with one group): as many parameters as batch norm, and images of any size.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    weight: Slot,
    bias: Slot,
    features: i64,
    /// ε, added to a variance before the root; 1e-5.
    pub eps: f64,
}

impl LayerNorm {
    /// A layer called `name`, with PyTorch's tensors `weight` (γ, 1 at first) and `bias` (β, 0), each `[features]`.
    pub fn new(b: &mut Builder<'_>, name: &str, features: i64) -> Self {
        let (weight, bias) = affine(b, name, features);
        Self { weight, bias, features, eps: 1e-5 }
    }

    /// Its weight and bias.
    pub fn slots(&self) -> [Slot; 2] {
        [self.weight, self.bias]
    }

    /// Normalizes each row of `x`.
    pub fn forward(&self, w: &Weights, x: &Tensor) -> Tensor {
        let (weight, bias) = (Some(&w[self.weight]), Some(&w[self.bias]));
        match x.dim() {
            2 => x.layer_norm([self.features], weight, bias, self.eps, false),
            _ => x.group_norm(1, weight, bias, self.eps, false),
        }
    }

    /// Adds the layer to a graph; `image`: on `[n, channels, h, w]`.
    pub fn export(&self, e: &mut Exporter<'_>, x: Value, image: bool) -> Value {
        let (mean, variance) = e.moments(x, if image { &[1, 2, 3] } else { &[1] });
        let variance = e.graph.op_scalar(Op::Add, variance, self.eps as f32);
        let x = e.standardize(x, mean, variance);
        export_affine(e, x, (self.weight, self.bias), image)
    }
}

/// `[features]`, so that it is broadcast to `[n, features]`, or to `[n, features, h, w]`.
fn per_feature(e: &mut Exporter<'_>, v: Value, image: bool) -> Value {
    if image { e.graph.reshape(v, &[1, 1]) } else { v }
}

/// Adds x · γ + β.
fn export_affine(e: &mut Exporter<'_>, x: Value, (weight, bias): (Slot, Slot), image: bool) -> Value {
    let (weight, bias) = (e.param(weight), e.param(bias));
    let [weight, bias] = [weight, bias].map(|v| per_feature(e, v, image));
    let x = e.graph.op(Op::Mul, &[x, weight]);
    e.graph.op(Op::Add, &[x, bias])
}

fn affine(b: &mut Builder<'_>, name: &str, features: i64) -> (Slot, Slot) {
    use crate::init::Init::Constant;
    b.scope(name, |b| (b.param("weight", &[features], Constant(1.0)), b.param("bias", &[features], Constant(0.0))))
}

/// Local response normalization across channels (Krizhevsky, Sutskever and Hinton 2012, section 3.3), as PyTorch's
/// `LocalResponseNorm` computes it, where α is divided by `size`:
///
/// `y_c = x_c / (k + α/size · Σ x_i²)^β`, the sum over the `size` channels around c.
///
/// It has no parameters. Batch norm makes it superfluous (Ioffe and Szegedy 2015, section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalResponseNorm {
    /// The number of neighboring channels in the sum.
    pub size: i64,
    /// α.
    pub alpha: f64,
    /// β.
    pub beta: f64,
    /// k.
    pub k: f64,
}

impl Default for LocalResponseNorm {
    /// The paper's: 5 channels, β = .75, k = 2, and α = 1e-4 for each channel of the sum.
    fn default() -> Self {
        Self { size: 5, alpha: 5e-4, beta: 0.75, k: 2.0 }
    }
}

impl LocalResponseNorm {
    /// Normalizes `x` `[n, channels, …]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let channels = x.size()[1];
        // Zeros beyond the first and the last channel: pairs of widths, from the last dimension to this one.
        let mut widths = vec![0; 2 * (x.dim() - 1)];
        let end = widths.len();
        (widths[end - 2], widths[end - 1]) = (self.size / 2, (self.size - 1) / 2);
        let squares = x.square().constant_pad_nd(&widths[..]);
        let sum = (1..self.size).fold(squares.narrow(1, 0, channels), |sum, i| sum + squares.narrow(1, i, channels));
        x / (sum * (self.alpha / self.size as f64) + self.k).pow_tensor_scalar(self.beta)
    }
}

/// The normalization of one hidden layer.
#[derive(Clone, Copy, Debug)]
pub enum Norm {
    /// None.
    None,
    /// Batch norm.
    Batch(BatchNorm),
    /// Layer norm.
    Layer(LayerNorm),
}

impl Norm {
    /// A layer of `kind` called `name`.
    pub fn new(b: &mut Builder<'_>, name: &str, kind: NormKind, features: i64) -> Self {
        match kind {
            NormKind::None => Self::None,
            NormKind::Batch => Self::Batch(BatchNorm::new(b, name, features)),
            NormKind::Layer => Self::Layer(LayerNorm::new(b, name, features)),
        }
    }

    /// The layer norm, if it is one.
    pub fn layer_norm(&self) -> Option<&LayerNorm> {
        if let Self::Layer(norm) = self { Some(norm) } else { None }
    }

    /// Normalizes `x`.
    pub fn forward(&self, w: &Weights, x: Tensor, pass: Pass) -> Tensor {
        match self {
            Self::None => x,
            Self::Batch(norm) => norm.forward(w, &x, pass),
            Self::Layer(norm) => norm.forward(w, &x),
        }
    }

    /// Adds the layer to a graph; `image`: on `[n, channels, h, w]`.
    pub fn export(&self, e: &mut Exporter<'_>, x: Value, image: bool) -> Value {
        match self {
            Self::None => x,
            Self::Batch(norm) => norm.export(e, x, image),
            Self::Layer(norm) => norm.export(e, x, image),
        }
    }

    /// Folds batch norm into the layer before it, whose parameters are given; this becomes [`Norm::None`].
    pub fn fold(&mut self, params: &mut Params, before: (Slot, Slot)) {
        if let Self::Batch(norm) = self {
            norm.fold(params, before);
            *self = Self::None;
        }
    }
}
