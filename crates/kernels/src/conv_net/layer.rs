//! A layer of a network: its products by [`LayerKernels`], then its norm and its rectifier, forward and backward.

use crate::conv::{LayerKernels, LayerShape, floor, rectifier_gradient, rectifier_mask};
use crate::norm::{self, ChannelGradients, Moments, moments, normalize, normalize_gradient};
use std::ops::Range;

/// A layer of a [`ConvNet`](super::ConvNet).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Output channels.
    pub outputs: usize,
    /// Kernel side and stride of a convolution; `None`: fully connected.
    pub convolution: Option<(usize, usize)>,
    /// Where `[outputs, inputs]` lies in the flat parameters.
    pub weight: Range<usize>,
    /// Where `[outputs]` lies in the flat parameters.
    pub bias: Range<usize>,
    /// Where γ and β of a layer norm before the rectifier lie in the flat parameters, `[outputs]` each; `None`: no norm.
    pub norm: Option<[Range<usize>; 2]>,
}

/// A layer with its buffers.
#[derive(Debug)]
pub(super) struct Planned<T: LayerKernels> {
    pub shape: LayerShape,
    pub weight: Range<usize>,
    pub bias: Range<usize>,
    norm: Option<Norm>,
    /// Offset of the first element that the kernel reads at each position of the input.
    pub positions: Vec<usize>,
    /// Elements of the input.
    pub inputs: usize,
    pub packed: T::Packed,
    /// Sums over frames.
    pub weight_gradient: Vec<f32>,
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

/// The output of a layer for one frame or, fully connected, for several.
#[derive(Debug, Default)]
pub(super) struct Output<T> {
    /// The norm's input, and its moments for each frame; empty without a norm.
    linear: Vec<T>,
    moments: Vec<Moments>,
    /// After norm and rectifier, `[frames, positions, outputs]`.
    pub values: Vec<T>,
}

impl<T: LayerKernels> Planned<T> {
    /// `layer` on images of `[height, width, channels]`, whose size becomes that of the layer's output; `None` where the kernels do not
    /// support it.
    pub fn new(layer: &Layer, [h, w, c]: &mut [usize; 3]) -> Option<Self> {
        let Layer { outputs, convolution, weight, bias, norm } = layer.clone();
        let inputs = *h * *w * *c;
        let (shape, positions);
        if let Some((size, stride)) = convolution {
            let (rows, columns) = ((*h - size) / stride + 1, (*w - size) / stride + 1);
            let (step, row_stride) = (*c * stride, *w * *c);
            shape = LayerShape { outputs, kernel_rows: size, row_len: size * *c, row_stride };
            let row = |y: usize| (0..columns).map(move |x| y * stride * row_stride + x * step);
            positions = (0..rows).flat_map(row).collect::<Vec<_>>();
            (*h, *w, *c) = (rows, columns, outputs);
        } else {
            shape = LayerShape { outputs, kernel_rows: 1, row_len: inputs, row_stride: inputs };
            positions = vec![0];
            (*h, *w, *c) = (1, 1, outputs);
        }
        let many = convolution.is_none() || positions.len() >= crate::conv::MIN_POSITIONS;
        let normalizable = norm.is_none() || outputs.is_multiple_of(norm::CHANNELS);
        (T::supports(&shape) && many && normalizable).then(|| Self {
            shape,
            weight,
            bias,
            norm: norm.map(|[scale, shift]| Norm {
                scale,
                shift,
                scale_gradient: vec![0.0; outputs],
                shift_gradient: vec![0.0; outputs],
            }),
            positions,
            inputs,
            packed: T::Packed::default(),
            weight_gradient: Vec::new(),
            bias_gradient: vec![0.0; outputs],
        })
    }

    /// Elements of a frame's output.
    pub fn outputs(&self) -> usize {
        self.positions.len() * self.shape.outputs
    }

    /// The output for `frames` frames. `multiply(rectify, y)` computes `Σ x·w + b`, rectified if `rectify`.
    pub fn activate(
        &self,
        weights: &[T],
        frames: usize,
        output: &mut Output<T>,
        multiply: impl FnOnce(bool, &mut [T]),
    ) {
        let Output { linear, moments: all, values } = output;
        values.resize(frames * self.outputs(), T::default());
        let Some(Norm { scale, shift, .. }) = &self.norm else { return multiply(true, values) };
        linear.resize(values.len(), T::default());
        multiply(false, linear);
        all.clear();
        for (x, y) in linear.chunks_exact(self.outputs()).zip(values.chunks_exact_mut(self.outputs())) {
            let m = moments(x);
            normalize(x, m, &weights[scale.clone()], &weights[shift.clone()], floor(true), y);
            all.push(m);
        }
    }

    /// The gradient of the products, `to`, from that of the output, `dy`, which is overwritten; adds to the gradients of bias and norm.
    pub fn activation_gradient(&mut self, weights: &[T], output: &Output<T>, dy: &mut [f32], to: &mut Vec<T>) {
        to.resize(dy.len(), T::default());
        let len = self.outputs();
        let Some(Norm { scale, scale_gradient, shift_gradient, .. }) = &mut self.norm else {
            return rectifier_gradient(&output.values, dy, to, &mut self.bias_gradient);
        };
        rectifier_mask(&output.values, dy);
        let frames = output.linear.chunks_exact(len).zip(&output.moments);
        for (((x, m), dy), to) in frames.zip(dy.chunks_exact(len)).zip(to.chunks_exact_mut(len)) {
            let sums = ChannelGradients { scale: scale_gradient, shift: shift_gradient, bias: &mut self.bias_gradient };
            normalize_gradient(x, *m, &weights[scale.clone()], dy, sums, to);
        }
    }

    /// Sets the sums over frames to zero: those of `weights` too, if they are a convolution's.
    pub fn clear_gradients(&mut self, weights: bool) {
        self.weight_gradient.clear();
        self.weight_gradient.resize(if weights { self.weight.len() } else { 0 }, 0.0);
        self.bias_gradient.fill(0.0);
        if let Some(Norm { scale_gradient, shift_gradient, .. }) = &mut self.norm {
            scale_gradient.fill(0.0);
            shift_gradient.fill(0.0);
        }
    }

    /// Writes the sums over frames to their parts of `gradient`.
    pub fn store_gradients(&self, gradient: &mut [T]) {
        let mut store = |range: &Range<usize>, from: &[f32]| {
            gradient[range.clone()].iter_mut().zip(from).for_each(|(to, x)| *to = T::narrow(*x));
        };
        store(&self.weight, &self.weight_gradient);
        store(&self.bias, &self.bias_gradient);
        if let Some(Norm { scale, shift, scale_gradient, shift_gradient }) = &self.norm {
            store(scale, scale_gradient);
            store(shift, shift_gradient);
        }
    }
}
