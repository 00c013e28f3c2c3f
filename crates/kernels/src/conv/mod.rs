//! Kernels of convolutional and fully connected layers, per element type: [`fp32`] for `f32`, [`amx`] and [`avx512_bf16`] for bf16.

#[cfg(any(target_arch = "x86_64", test))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
mod fp32;
mod shape;
#[cfg(test)]
mod test_values;

use crate::Element;
#[cfg(target_arch = "x86_64")]
use crate::bf16;
use crate::buffer::Buffer;
use crate::simd::{SimdLevel, level};
#[cfg(target_arch = "x86_64")]
use amx::Amx;
#[cfg(target_arch = "x86_64")]
use avx512_bf16::{Pair, Pairs};
use fp32::Vector;
use std::fmt::Debug;

pub use shape::LayerShape;

pub(crate) use fp32::{MIN_POSITIONS, at_least, floor, rectifier_gradient};

/// Element types with kernels for the layers of a [`ConvNet`](crate::ConvNet). Weights are `[outputs, inputs]`; `x` is a layer's
/// input, `y` its output, 0 or more if `rectify`; `dx`, `dy` and `dw` are gradients.
pub trait LayerKernels: Element + Default + Debug + Send + 'static {
    /// Weights in the order in which the kernels read them, and buffers.
    type Packed: Default + Debug + Send;

    /// Whether the kernels support `shape` on this processor.
    fn supports(shape: &LayerShape) -> bool;

    /// `to = (pixel − mean) · factor`.
    fn scale(frame: &[u8], mean: f32, factor: f32, to: &mut [Self]);

    /// Packs a convolution's weights for [`convolve`](Self::convolve).
    fn pack(shape: &LayerShape, weights: &[Self], packed: &mut Self::Packed);

    /// Packs a convolution's weights for [`input_gradient`](Self::input_gradient).
    fn pack_transposed(shape: &LayerShape, weights: &[Self], packed: &mut Self::Packed);

    /// `y[position] = Σ x·w + b` at the `positions` of an image. `y` `[positions, outputs]`.
    fn convolve(
        shape: &LayerShape,
        packed: &mut Self::Packed,
        bias: &[Self],
        rectify: bool,
        positions: &[usize],
        x: &[Self],
        y: &mut [Self],
    );

    /// The gradient of an image: `dx += Σ dy·w` at the `positions`.
    fn input_gradient(
        shape: &LayerShape,
        packed: &mut Self::Packed,
        weights: &[Self],
        positions: &[usize],
        dy: &[Self],
        dx: &mut [f32],
    );

    /// The weight gradient: `dw += Σ dy·x` over all positions.
    fn weight_gradient(
        shape: &LayerShape,
        packed: &mut Self::Packed,
        positions: &[usize],
        x: &[Self],
        dy: &[Self],
        dw: &mut [f32],
    );

    /// `y[row] = Σ x·w + b` of a fully connected layer: `x` `[rows, inputs]`, `y` `[rows, outputs]`.
    fn linear(
        shape: &LayerShape,
        packed: &mut Self::Packed,
        weights: &[Self],
        bias: &[Self],
        rectify: bool,
        x: &[Self],
        y: &mut [Self],
    );

    /// The input gradient of a fully connected layer, `[rows, inputs]`: `dx = Σ dy·w`.
    fn linear_input_gradient(
        shape: &LayerShape,
        packed: &mut Self::Packed,
        weights: &[Self],
        dy: &[Self],
        dx: &mut [f32],
    );

    /// The weight gradient of a fully connected layer: `dw = Σ dy·x` over all rows.
    fn linear_weight_gradient(shape: &LayerShape, packed: &mut Self::Packed, x: &[Self], dy: &[Self], dw: &mut [Self]);
}

/// The offsets of `n` rows of `len` elements.
fn row_offsets(n: usize, len: usize) -> Vec<usize> {
    (0..n).map(|row| row * len).collect()
}

impl LayerKernels for f32 {
    /// `[inputs][outputs / 16]`, padded with zeros.
    type Packed = Buffer<Vector>;

    /// The rows of fully connected layers must fill registers.
    fn supports(shape: &LayerShape) -> bool {
        let fast = level() != SimdLevel::Baseline || !cfg!(target_arch = "x86_64");
        let fills = shape.kernel_rows > 1 || shape.row_len.is_multiple_of(fp32::LANES);
        fast && fills && shape.outputs.is_multiple_of(4)
    }

    fn scale(frame: &[u8], mean: f32, factor: f32, to: &mut [Self]) {
        crate::frames::scale(frame, mean, factor, to);
    }

    fn pack(shape: &LayerShape, weights: &[Self], packed: &mut Self::Packed) {
        fp32::pack(weights, shape.inputs(), packed);
    }

    fn pack_transposed(_: &LayerShape, _: &[Self], _: &mut Self::Packed) {}

    fn convolve(
        shape: &LayerShape,
        packed: &mut Self::Packed,
        bias: &[Self],
        rectify: bool,
        positions: &[usize],
        x: &[Self],
        y: &mut [Self],
    ) {
        fp32::convolve(shape, packed, bias, floor(rectify), positions, x, y);
    }

    fn input_gradient(
        shape: &LayerShape,
        _: &mut Self::Packed,
        weights: &[Self],
        positions: &[usize],
        dy: &[Self],
        dx: &mut [f32],
    ) {
        fp32::input_gradient(shape, weights, positions, dy, dx);
    }

    fn weight_gradient(
        shape: &LayerShape,
        _: &mut Self::Packed,
        positions: &[usize],
        x: &[Self],
        dy: &[Self],
        dw: &mut [f32],
    ) {
        fp32::weight_gradient(shape, positions, x, dy, dw, true);
    }

    fn linear(
        shape: &LayerShape,
        _: &mut Self::Packed,
        weights: &[Self],
        bias: &[Self],
        rectify: bool,
        x: &[Self],
        y: &mut [Self],
    ) {
        fp32::linear(shape, weights, bias, floor(rectify), x, y);
    }

    fn linear_input_gradient(shape: &LayerShape, _: &mut Self::Packed, weights: &[Self], dy: &[Self], dx: &mut [f32]) {
        dx.fill(0.0);
        fp32::input_gradient(shape, weights, &row_offsets(dy.len() / shape.outputs, shape.inputs()), dy, dx);
    }

    fn linear_weight_gradient(shape: &LayerShape, _: &mut Self::Packed, x: &[Self], dy: &[Self], dw: &mut [Self]) {
        fp32::weight_gradient(shape, &row_offsets(dy.len() / shape.outputs, shape.inputs()), x, dy, dw, false);
    }
}

/// Whether AMX computes a layer for `rows` rows of a batch, or positions of an image; otherwise AVX-512 BF16 does.
#[cfg(target_arch = "x86_64")]
fn uses_amx(shape: &LayerShape, rows: usize) -> bool {
    level() == SimdLevel::Amx && amx::suits(shape, rows)
}

/// Weights and buffers of both kinds of kernels; those of one kind stay empty unless it computes the layer.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Default)]
pub struct Packed {
    vectors: Paired,
    tiles: amx::Packed,
}

/// Weights in pairs of inputs and of outputs.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Default)]
struct Paired {
    inputs: Vec<Pairs>,
    outputs: Vec<Pairs>,
    /// Output gradients in pairs of positions.
    gradients: Vec<Pair>,
    /// Inputs in pairs of positions.
    buffer: Vec<[Pairs; 2]>,
}

// SAFETY of every call below: `supports` is false where the processor lacks AVX-512 BF16.
#[cfg(target_arch = "x86_64")]
impl LayerKernels for bf16 {
    type Packed = Packed;

    fn supports(shape: &LayerShape) -> bool {
        avx512_bf16::supported() && shape.row_len.is_multiple_of(2) && shape.outputs.is_multiple_of(8)
    }

    fn scale(frame: &[u8], mean: f32, factor: f32, to: &mut [Self]) {
        unsafe { avx512_bf16::scale(frame, mean, factor, to) }
    }

    fn pack(shape: &LayerShape, weights: &[Self], Packed { vectors, tiles }: &mut Self::Packed) {
        if uses_amx(shape, MIN_POSITIONS) {
            amx::pack(shape, weights, tiles);
        } else {
            avx512_bf16::pack_inputs(weights, shape.inputs(), &mut vectors.inputs);
        }
    }

    fn pack_transposed(shape: &LayerShape, weights: &[Self], Packed { vectors, tiles }: &mut Self::Packed) {
        if uses_amx(shape, MIN_POSITIONS) {
            amx::pack_transposed(shape, weights, tiles);
        } else {
            avx512_bf16::pack_outputs(shape, weights, &mut vectors.outputs);
        }
    }

    fn convolve(
        shape: &LayerShape,
        Packed { vectors, tiles }: &mut Self::Packed,
        bias: &[Self],
        rectify: bool,
        positions: &[usize],
        x: &[Self],
        y: &mut [Self],
    ) {
        if uses_amx(shape, positions.len()) {
            amx::convolve::<Amx>(shape, tiles, (bias, floor(rectify)), positions, x, y);
        } else {
            unsafe { avx512_bf16::convolve(shape, &vectors.inputs, bias, floor(rectify), positions, x, y) }
        }
    }

    fn input_gradient(
        shape: &LayerShape,
        Packed { vectors, tiles }: &mut Self::Packed,
        _: &[Self],
        positions: &[usize],
        dy: &[Self],
        dx: &mut [f32],
    ) {
        if uses_amx(shape, positions.len()) {
            amx::input_gradient::<Amx>(shape, tiles, positions, dy, dx);
        } else {
            unsafe { avx512_bf16::input_gradient(shape, &vectors.outputs, positions, dy, dx) }
        }
    }

    fn weight_gradient(
        shape: &LayerShape,
        Packed { vectors, tiles }: &mut Self::Packed,
        positions: &[usize],
        x: &[Self],
        dy: &[Self],
        dw: &mut [f32],
    ) {
        if uses_amx(shape, positions.len()) {
            return amx::weight_gradient::<Amx>(shape, tiles, positions, x, dy, dw);
        }
        let Paired { gradients, buffer, .. } = vectors;
        avx512_bf16::pair_rows(dy, shape.outputs, gradients);
        unsafe { avx512_bf16::weight_gradient::<f32, true>(shape, positions, x, gradients, dw, buffer) }
    }

    fn linear(
        shape: &LayerShape,
        Packed { tiles, .. }: &mut Self::Packed,
        weights: &[Self],
        bias: &[Self],
        rectify: bool,
        x: &[Self],
        y: &mut [Self],
    ) {
        if uses_amx(shape, x.len() / shape.inputs()) {
            amx::linear::<Amx>(shape, tiles, weights, (bias, floor(rectify)), x, y);
        } else {
            unsafe { avx512_bf16::linear(shape, weights, bias, floor(rectify), x, y) }
        }
    }

    /// With AVX-512 BF16 computed by the weight-gradient kernel: rows take the part of outputs, outputs that of positions.
    fn linear_input_gradient(
        shape: &LayerShape,
        Packed { vectors, tiles }: &mut Self::Packed,
        weights: &[Self],
        dy: &[Self],
        dx: &mut [f32],
    ) {
        let (outputs, n) = (shape.outputs, dy.len() / shape.outputs);
        if uses_amx(shape, n) {
            return amx::linear_input_gradient::<Amx>(shape, tiles, weights, dy, dx);
        }
        let Paired { gradients, buffer, .. } = vectors;
        gradients.clear();
        for o in (0..outputs).step_by(2) {
            gradients.extend((0..n).map(|row| [dy[row * outputs + o], dy[row * outputs + o + 1]]));
        }
        let positions = row_offsets(outputs, shape.inputs());
        let shape = LayerShape { outputs: n, ..*shape };
        unsafe { avx512_bf16::weight_gradient::<f32, false>(&shape, &positions, weights, gradients, dx, buffer) }
    }

    fn linear_weight_gradient(
        shape: &LayerShape,
        Packed { vectors, tiles }: &mut Self::Packed,
        x: &[Self],
        dy: &[Self],
        dw: &mut [Self],
    ) {
        let n = dy.len() / shape.outputs;
        if uses_amx(shape, n) {
            return amx::linear_weight_gradient::<Amx>(shape, tiles, x, dy, dw);
        }
        let Paired { gradients, buffer, .. } = vectors;
        avx512_bf16::pair_rows(dy, shape.outputs, gradients);
        let positions = row_offsets(n, shape.inputs());
        unsafe { avx512_bf16::weight_gradient::<bf16, false>(shape, &positions, x, gradients, dw, buffer) }
    }
}
