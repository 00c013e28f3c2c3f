//! A fully connected layer: `y = x Wᵀ + b`.

use crate::export::Exporter;
use crate::init::Init;
use crate::params::{Builder, Slot, Weights};
use playfield_core::graph::{Op, Value};
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
