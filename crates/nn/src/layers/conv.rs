//! A two-dimensional convolution: without padding, as in DQN's and A3C's networks, or [padded](Conv::padded).

use crate::export::Exporter;
use crate::init::Init;
use crate::params::{Builder, Slot, Weights};
use playfield_core::graph::{Op, Value};
use tch::Tensor;

/// `[n, inputs, h, w] → [n, outputs, (h + 2·padding − size)/stride + 1, …]`, channels-last in memory.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    weight: Slot,
    bias: Slot,
    /// Side of the square kernel.
    pub size: i64,
    /// Stride.
    pub stride: i64,
    /// Zero padding on each side.
    pub padding: i64,
}

impl Conv {
    /// A layer called `name`, with PyTorch's tensors `weight` `[outputs, inputs, size, size]` and `bias` `[outputs]`.
    pub fn new(
        b: &mut Builder<'_>,
        name: &str,
        (inputs, outputs): (i64, i64),
        (size, stride): (i64, i64),
        (weight, bias): (Init, Init),
    ) -> Self {
        b.scope(name, |b| Self {
            weight: b.param("weight", &[outputs, inputs, size, size], weight),
            bias: b.param("bias", &[outputs], bias),
            size,
            stride,
            padding: 0,
        })
    }

    /// The same with zero padding on each side.
    pub fn padded(self, padding: i64) -> Self {
        Self { padding, ..self }
    }

    /// Its weight and bias.
    pub fn slots(&self) -> (Slot, Slot) {
        (self.weight, self.bias)
    }

    /// Applies the layer to `x` `[n, inputs, h, w]`.
    pub fn forward(&self, w: &Weights, x: &Tensor) -> Tensor {
        self.forward_scaled(w, x, 1.0)
    }

    /// Applies the layer to `x · scale`, by scaling the far smaller weights. This is how pixels are
    /// divided by 255.
    pub fn forward_scaled(&self, w: &Weights, x: &Tensor, scale: f64) -> Tensor {
        let (weight, bias) = (&w[self.weight], &w[self.bias]);
        let scaled = if scale == 1.0 { weight.shallow_clone() } else { weight * scale };
        x.conv2d(&scaled, Some(bias), self.stride, self.padding, 1, 1)
    }

    /// Adds the layer to a graph.
    pub fn export(&self, e: &mut Exporter<'_>, x: Value) -> Value {
        let (weight, bias) = (e.param(self.weight), e.param(self.bias));
        e.graph.op(Op::Conv { stride: self.stride, padding: self.padding }, &[x, weight, bias])
    }
}
