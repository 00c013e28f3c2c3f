//! A fully connected layer: `y = x Wᵀ + b`.

use crate::export::Exporter;
use crate::init::Init;
use crate::params::{Builder, Params, Slot, Weights};
use playfield_core::graph::{Op, Value};
use playfield_kernels::heads;
use std::ops::Range;
use tch::Tensor;

/// `[n, inputs] → [n, outputs]`.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    weight: Slot,
    bias: Slot,
}

impl Linear {
    /// A layer called `name`, with PyTorch's tensors `weight` `[outputs, inputs]` and `bias` `[outputs]`.
    pub fn new(b: &mut Builder<'_>, name: &str, inputs: i64, outputs: i64, weight: Init, bias: Init) -> Self {
        b.scope(name, |b| Self {
            weight: b.param("weight", &[outputs, inputs], weight),
            bias: b.param("bias", &[outputs], bias),
        })
    }

    /// Its matrix `[outputs, inputs]`, for regularization.
    pub fn weight<'w>(&self, w: &'w Weights) -> &'w Tensor {
        &w[self.weight]
    }

    /// Its weight and bias.
    pub fn slots(&self) -> (Slot, Slot) {
        (self.weight, self.bias)
    }

    /// Applies the layer to `x` `[n, inputs]`, in the precision of its weights.
    pub fn forward(&self, w: &Weights, x: &Tensor) -> Tensor {
        let weight = &w[self.weight];
        x.to_kind(weight.kind()).linear(weight, Some(&w[self.bias]))
    }

    /// The outputs `[n, outputs]` for `x` `[n, inputs]`, of a layer in full precision on the CPU, without autograd.
    pub(crate) fn outputs(&self, params: &Params, x: &[f32]) -> Vec<f32> {
        let (weight, bias) = (params.range(self.weight), params.range(self.bias));
        let mut y = vec![0.0; x.len() / (weight.len() / bias.len()) * bias.len()];
        let (weights, start) = params.full_precision();
        let of = |range: Range<usize>| &weights[range.start - start..range.end - start];
        heads::forward(of(weight), of(bias), x, &mut y);
        y
    }

    /// Sets the layer's gradient, and adds that of `x` to `dx`, both `[n, inputs]`, from that of its [`outputs`](Self::outputs), `dy`
    /// `[n, outputs]`.
    pub(crate) fn backward(&self, params: &mut Params, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let (weight, bias) = (params.range(self.weight), params.range(self.bias));
        let (weights, gradient, start) = params.full_precision_and_gradient();
        let [weight, bias] = [weight, bias].map(|range| range.start - start..range.end - start);
        let [dw, db] = gradient.get_disjoint_mut([weight.clone(), bias]).expect("parameters do not overlap");
        heads::backward(&weights[weight], x, dy, dw, db, dx);
    }

    /// Adds the layer to a graph.
    pub fn export(&self, e: &mut Exporter<'_>, x: Value) -> Value {
        let (weight, bias) = (e.param(self.weight), e.param(self.bias));
        e.graph.op(Op::Linear, &[x, weight, bias])
    }

    /// `(out_features, in_features)`.
    pub fn sizes(&self, e: &Exporter<'_>) -> (usize, usize) {
        let shape = e.shape(self.weight);
        (shape[0], shape[1])
    }
}
