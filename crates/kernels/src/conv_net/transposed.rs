//! The input gradient of a convolution that keeps an image's size, as a convolution: of the padded output gradient, with kernels that are
//! turned by 180° and whose inputs and outputs are exchanged.
//!
//! [`LayerKernels::input_gradient`], which works for any stride, adds to each input once for every output that reads it: for a 3 × 3 kernel
//! nine times. Here each sum stays in registers. Other strides or no padding would add multiplications by zeros.

use super::image::Image;
use crate::buffer::Buffer;
use crate::conv::{LayerKernels, LayerShape};

/// Kernels and buffers.
#[derive(Debug)]
pub(super) struct Transposed<T: LayerKernels> {
    shape: LayerShape,
    positions: Vec<usize>,
    turned: Vec<T>,
    bias: Vec<T>,
    packed: T::Packed,
    /// The output gradient, padded, and its layout.
    image: Image,
    padded: Buffer<T>,
    dx: Buffer<T>,
}

impl<T: LayerKernels> Transposed<T> {
    /// For a convolution on images of `inputs` channels whose output gradient, with the padding of the convolution, is `image`. `None` where the kernels do not support it.
    pub fn new(inputs: usize, image: Image) -> Option<Self> {
        let size = 2 * image.padding + 1;
        let row_len = size * image.channels;
        let shape = LayerShape { outputs: inputs, kernel_rows: size, row_len, row_stride: image.row_stride() };
        let zeros = |len| vec![T::default(); len];
        T::supports(&shape).then(|| Self {
            shape,
            positions: image.positions(size, 1),
            turned: zeros(inputs * shape.inputs()),
            bias: zeros(inputs),
            packed: T::Packed::default(),
            image,
            padded: Buffer::zeros(image.len()),
            dx: Buffer::zeros(image.height * image.width * inputs),
        })
    }

    /// Packs the convolution's `weights` `[outputs, size, size, inputs]`.
    pub fn pack(&mut self, weights: &[T]) {
        let Self { shape, turned, packed, image, .. } = self;
        let (inputs, outputs, taps) = (shape.outputs, image.channels, shape.kernel_rows * shape.kernel_rows);
        for (output, weights) in weights.chunks_exact(taps * inputs).enumerate() {
            for (tap, weights) in weights.chunks_exact(inputs).enumerate() {
                for (input, w) in weights.iter().enumerate() {
                    turned[(input * taps + taps - 1 - tap) * outputs + output] = *w;
                }
            }
        }
        T::pack(shape, turned, packed);
    }

    /// The gradient of an image, `dx`, from that of the convolution's output.
    pub fn input_gradient(&mut self, dy: &[T], dx: &mut Buffer<f32>) {
        let Self { shape, positions, bias, packed, image, padded, dx: rounded, .. } = self;
        for (row, dy) in image.rows_mut(padded).zip(dy.chunks_exact(image.row_len())) {
            row.copy_from_slice(dy);
        }
        T::convolve(shape, packed, bias, false, positions, padded, rounded);
        dx.resize(rounded.len(), 0.0);
        dx.iter_mut().zip(rounded.iter()).for_each(|(dx, x)| *dx = x.widen());
    }
}
