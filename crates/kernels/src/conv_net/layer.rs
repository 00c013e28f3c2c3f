//! A layer of a network: its products by [`LayerKernels`], then norm, pooling or residual sum, and rectifier, forward and backward.

use super::image::Image;
use super::transposed::Transposed;
use crate::buffer::Buffer;
use crate::conv::{LayerKernels, LayerShape, MIN_POSITIONS, floor, rectifier_gradient};
use crate::elementwise::{add, add_rows, narrow, raise, raise_gradient};
use crate::norm::{self, ChannelGradients, Moments, moments, normalize, normalize_gradient};
use crate::pool::{self, max_pool, max_pool_gradient, pooled};
use std::ops::Range;

/// A layer of a [`ConvNet`](super::ConvNet): products and bias, norm, [`Connection`], rectifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Output channels.
    pub outputs: usize,
    /// `None`: fully connected.
    pub convolution: Option<Convolution>,
    /// Where `[outputs, inputs]` lies in the flat parameters.
    pub weight: Range<usize>,
    /// Where `[outputs]` lies in the flat parameters.
    pub bias: Range<usize>,
    /// Where γ and β of a layer norm lie in the flat parameters, `[outputs]` each; `None`: no norm.
    pub norm: Option<[Range<usize>; 2]>,
    /// What follows the norm; [`Connection::Direct`] if fully connected.
    pub connection: Connection,
    /// Whether a rectifier follows that.
    pub rectifier: bool,
}

/// The geometry of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Side of the square kernel.
    pub size: usize,
    /// Stride.
    pub stride: usize,
    /// Zero padding on each side: none, or with a stride of 1 as much as keeps an image's size.
    pub padding: usize,
}

/// How the output of a convolution continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// As it is.
    Direct,
    /// Max-pooled, 3 × 3 with stride 2 and a padding of 1. The result begins a residual sum.
    MaxPool,
    /// Added to the residual sum: the result of the last [`MaxPool`](Self::MaxPool) and of the [`Residual`](Self::Residual)s since,
    /// before rectifiers.
    Residual,
}

/// A layer with its buffers.
#[derive(Debug)]
pub(super) struct Planned<T: LayerKernels> {
    pub shape: LayerShape,
    pub convolution: Option<Convolution>,
    pub weight: Range<usize>,
    pub bias: Range<usize>,
    norm: Option<Norm>,
    pub connection: Connection,
    rectifier: bool,
    /// Offset of the first element that the kernel reads at each position of the input.
    pub positions: Vec<usize>,
    /// Height and width of the products.
    size: [usize; 2],
    /// Of the input and of the output, with the padding of the layer that reads it.
    pub input: Image,
    pub output: Image,
    pub packed: T::Packed,
    /// For the input gradient of a padded convolution.
    pub transposed: Option<Transposed<T>>,
    /// Sums over frames.
    pub weight_gradient: Buffer<f32>,
    bias_gradient: Vec<f32>,
}

/// A layer norm: its parameters, and their gradients as sums over frames.
#[derive(Debug)]
struct Norm {
    scale: Range<usize>,
    shift: Range<usize>,
    scale_gradient: Vec<f32>,
    shift_gradient: Vec<f32>,
}

/// What a layer computes for one frame or, fully connected, for several.
#[derive(Debug, Default)]
pub(super) struct Activations<T> {
    /// The norm's input, and its moments for each frame; empty without a norm.
    products: Buffer<T>,
    moments: Vec<Moments>,
    /// Which tap of each window is the maximum; empty without pooling.
    taps: Vec<u8>,
    /// The layer's output, with its border.
    pub output: Buffer<T>,
}

/// Buffers of forward passes that the backward pass does not need.
#[derive(Debug, Default)]
pub(super) struct Scratch<T> {
    /// A layer's products, normalized.
    products: Buffer<T>,
    /// The residual sum.
    residual: Buffer<T>,
}

/// Buffers of backward passes: gradients of what [`Scratch`] holds.
#[derive(Debug, Default)]
pub(super) struct GradientScratch {
    products: Buffer<f32>,
    /// Empty where no later layer adds to the residual sum.
    residual: Buffer<f32>,
    /// Before pooling.
    pooled: Buffer<f32>,
}

impl<T: LayerKernels> Planned<T> {
    /// `layer` on images `input`, for a reader that pads its output by `padding`; `None` where the kernels do not support it.
    pub fn new(layer: &Layer, input: Image, padding: usize) -> Option<Self> {
        let Layer { outputs, convolution, weight, bias, norm, connection, rectifier } = layer.clone();
        let (shape, positions, size);
        if let Some(Convolution { size: side, stride, .. }) = convolution {
            let row_stride = input.row_stride();
            shape = LayerShape { outputs, kernel_rows: side, row_len: side * input.channels, row_stride };
            (size, positions) = (input.convolved(side, stride), input.positions(side, stride));
        } else {
            let row_len = input.len();
            shape = LayerShape { outputs, kernel_rows: 1, row_len, row_stride: row_len };
            (size, positions) = ([1, 1], vec![0]);
        }
        let [height, width] = if connection == Connection::MaxPool { pooled(size) } else { size };
        let [rows, columns] = size;
        let gradient = Image { height: rows, width: columns, channels: outputs, padding: input.padding };
        let supported = T::supports(&shape)
            && (input.padding == 0 || size == [input.height, input.width])
            && (convolution.is_none() || positions.len() >= MIN_POSITIONS)
            && (norm.is_none() || outputs.is_multiple_of(norm::CHANNELS))
            && (connection != Connection::MaxPool || outputs.is_multiple_of(pool::CHANNELS));
        supported.then(|| Self {
            shape,
            convolution,
            weight,
            bias,
            norm: norm.map(|[scale, shift]| Norm {
                scale,
                shift,
                scale_gradient: vec![0.0; outputs],
                shift_gradient: vec![0.0; outputs],
            }),
            connection,
            rectifier,
            positions,
            size,
            input,
            output: Image { height, width, channels: outputs, padding },
            packed: T::Packed::default(),
            transposed: (input.padding > 0).then(|| Transposed::new(input.channels, gradient)).flatten(),
            weight_gradient: Buffer::default(),
            bias_gradient: vec![0.0; outputs],
        })
    }

    /// Elements of a frame's products.
    fn products(&self) -> usize {
        self.positions.len() * self.shape.outputs
    }

    /// The output for `frames` frames. `multiply(rectify, y)` computes `Σ x·w + b`, rectified if `rectify`.
    pub fn activate(
        &self,
        weights: &[T],
        frames: usize,
        activations: &mut Activations<T>,
        scratch: &mut Scratch<T>,
        multiply: impl FnOnce(bool, &mut [T]),
    ) {
        let Activations { products, moments: all, taps, output } = activations;
        let (zero, len, image) = (T::default(), self.products(), self.output);
        output.resize(frames * image.len(), zero);
        // The kernel or the norm writes the output itself where nothing follows.
        let direct = self.connection == Connection::Direct && image.padding == 0;
        let rectify = direct && self.rectifier;
        let y = if direct { &mut *output } else { &mut scratch.products };
        y.resize(frames * len, zero);
        if let Some(Norm { scale, shift, .. }) = &self.norm {
            products.resize(frames * len, zero);
            multiply(false, products);
            all.clear();
            for (x, y) in products.chunks_exact(len).zip(y.chunks_exact_mut(len)) {
                let m = moments(x);
                normalize(x, m, &weights[scale.clone()], &weights[shift.clone()], floor(rectify), y);
                all.push(m);
            }
        } else {
            multiply(rectify, y);
        }
        if direct {
            return;
        }
        let Scratch { products, residual } = scratch;
        match self.connection {
            Connection::Direct => {}
            Connection::MaxPool => {
                residual.resize(image.inner_len(), zero);
                taps.resize(image.inner_len(), 0);
                max_pool(products, self.size, residual, taps);
            }
            Connection::Residual => add(products, residual),
        }
        let before = if self.connection == Connection::Direct { products } else { residual };
        for (before, output) in before.chunks_exact(image.row_len()).zip(image.rows_mut(output)) {
            raise(before, floor(self.rectifier), output);
        }
    }

    /// The gradient of the products, `to`, from that of the output, `dy`, which has no border; adds to the gradients of bias and norm.
    pub fn activation_gradient(
        &mut self,
        weights: &[T],
        activations: &Activations<T>,
        dy: &[f32],
        scratch: &mut GradientScratch,
        to: &mut Buffer<T>,
    ) {
        let Self { norm, connection, output: image, bias_gradient, .. } = self;
        let Activations { products, moments, taps, output } = activations;
        let (len, frames) = (self.positions.len() * self.shape.outputs, dy.len() / image.inner_len());
        let rows = image.rows(output).zip(dy.chunks_exact(image.row_len()));
        to.resize(frames * len, T::default());
        if *connection == Connection::Direct && norm.is_none() && self.rectifier {
            for ((y, dy), to) in rows.zip(to.chunks_exact_mut(image.row_len())) {
                rectifier_gradient(y, dy, to, bias_gradient);
            }
            return;
        }
        // Before the rectifier.
        let GradientScratch { products: direct, residual, pooled } = scratch;
        let before = if *connection == Connection::Direct { &mut *direct } else { &mut *residual };
        if *connection == Connection::Direct {
            before.clear();
        }
        before.resize(frames * image.inner_len(), 0.0);
        for ((y, dy), before) in rows.zip(before.chunks_exact_mut(image.row_len())) {
            raise_gradient(y, floor(self.rectifier), dy, before);
        }
        // Before the connection and the norm.
        match (norm, *connection) {
            (None, Connection::MaxPool) => {
                add_rows(before, bias_gradient);
                max_pool_gradient(before, taps, self.size, to);
            }
            (None, _) => {
                add_rows(before, bias_gradient);
                narrow(before, to);
            }
            (Some(Norm { scale, scale_gradient, shift_gradient, .. }), connection) => {
                let dy = if connection == Connection::MaxPool {
                    pooled.resize(len, 0.0);
                    max_pool_gradient(before, taps, self.size, pooled);
                    pooled
                } else {
                    &*before
                };
                let frames = products.chunks_exact(len).zip(moments).zip(dy.chunks_exact(len));
                for (((x, m), dy), to) in frames.zip(to.chunks_exact_mut(len)) {
                    let sums = ChannelGradients { scale: scale_gradient, shift: shift_gradient, bias: bias_gradient };
                    normalize_gradient(x, *m, &weights[scale.clone()], dy, sums, to);
                }
            }
        }
        if *connection == Connection::MaxPool {
            residual.clear();
        }
    }

    /// Sets the sums over frames to zero: those of the weights, too, if it is a convolution.
    pub fn clear_gradients(&mut self, convolution: bool) {
        self.weight_gradient.fill_with_zeros(if convolution { self.weight.len() } else { 0 });
        self.bias_gradient.fill(0.0);
        if let Some(Norm { scale_gradient, shift_gradient, .. }) = &mut self.norm {
            scale_gradient.fill(0.0);
            shift_gradient.fill(0.0);
        }
    }

    /// Writes the sums over frames to their parts of `gradient`.
    pub fn store_gradients(&self, gradient: &mut [T]) {
        let mut store = |range: &Range<usize>, from: &[f32]| narrow(from, &mut gradient[range.clone()]);
        store(&self.weight, &self.weight_gradient);
        store(&self.bias, &self.bias_gradient);
        if let Some(Norm { scale, shift, scale_gradient, shift_gradient }) = &self.norm {
            store(scale, scale_gradient);
            store(shift, shift_gradient);
        }
    }
}
