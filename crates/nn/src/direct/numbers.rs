//! Which loops multiply which numbers.

#[cfg(target_arch = "x86_64")]
use super::dots::{self, Pair, Pairs};
use super::kernels::{self, Kernel, Vector};
use crate::input::scale_into;
#[cfg(target_arch = "x86_64")]
use crate::simd::Bf16;
use crate::simd::{Number, Width, width};
use std::fmt::Debug;

/// Numbers that layers are computed in. A row of `x` is an image, of `y` and `dy` what the layer made of it, or its gradient.
pub(super) trait Arithmetic: Number + Default + Debug + Send + 'static {
    /// A layer's weights as its loops like them, and what else they need.
    type Packed: Default + Debug + Send;

    /// Whether a layer can be computed so.
    fn fits(kernel: &Kernel) -> bool;

    /// A frame as numbers: `(pixel − mean) · factor`.
    fn scale(frame: &[u8], mean: f32, factor: f32, to: &mut [Self]);

    /// Prepares a convolution's weights for [`convolve`](Self::convolve).
    fn pack(kernel: &Kernel, weights: &[Self], packed: &mut Self::Packed);

    /// Prepares a convolution's weights for [`input_gradient`](Self::input_gradient).
    fn pack_back(kernel: &Kernel, weights: &[Self], packed: &mut Self::Packed);

    /// `y[place] = max(0, Σ x·w + b)` at the `places` of an image. `y` `[places, outputs]`.
    fn convolve(kernel: &Kernel, packed: &Self::Packed, bias: &[Self], places: &[usize], x: &[Self], y: &mut [Self]);

    /// The gradient of an image: `dx += Σ dy·w` at each of its places.
    fn input_gradient(
        kernel: &Kernel,
        packed: &Self::Packed,
        weights: &[Self],
        places: &[usize],
        dy: &[Self],
        dx: &mut [f32],
    );

    /// The weights' gradient, `[outputs, inputs]`: `dw += Σ dy·x` over all places.
    fn weight_gradient(
        kernel: &Kernel,
        packed: &mut Self::Packed,
        places: &[usize],
        x: &[Self],
        dy: &[Self],
        dw: &mut [f32],
    );

    /// `y[row] = max(0, Σ x·w + b)` of a fully connected layer: `x` `[rows, inputs]`, `y` `[rows, outputs]`.
    fn connect(kernel: &Kernel, weights: &[Self], bias: &[Self], x: &[Self], y: &mut [Self]);

    /// The gradient of what it sees, `[rows, inputs]`: `dx = Σ dy·w`.
    fn connected_input_gradient(
        kernel: &Kernel,
        packed: &mut Self::Packed,
        weights: &[Self],
        dy: &[Self],
        dx: &mut [f32],
    );

    /// Its weights' gradient: `dw = Σ dy·x` over all rows.
    fn connected_gradient(kernel: &Kernel, packed: &mut Self::Packed, x: &[Self], dy: &[Self], dw: &mut [Self]);
}

/// Where the images of `rows` rows begin.
fn rows(rows: usize, len: usize) -> Vec<usize> {
    (0..rows).map(|row| row * len).collect()
}

impl Arithmetic for f32 {
    /// `[inputs][outputs / 16]`, zeros where there are no 16.
    type Packed = Vec<Vector>;

    fn fits(kernel: &Kernel) -> bool {
        let wide = width() != Width::Other || !cfg!(target_arch = "x86_64");
        wide && kernel.run.is_multiple_of(kernels::LANES) && kernel.outputs.is_multiple_of(4)
    }

    fn scale(frame: &[u8], mean: f32, factor: f32, to: &mut [Self]) {
        scale_into(frame, mean, factor, to);
    }

    fn pack(kernel: &Kernel, weights: &[Self], packed: &mut Self::Packed) {
        kernels::pack(weights, kernel.inputs(), packed);
    }

    fn pack_back(_: &Kernel, _: &[Self], _: &mut Self::Packed) {}

    fn convolve(kernel: &Kernel, packed: &Self::Packed, bias: &[Self], places: &[usize], x: &[Self], y: &mut [Self]) {
        kernels::convolve(kernel, packed, bias, places, x, y);
    }

    fn input_gradient(
        kernel: &Kernel,
        _: &Self::Packed,
        weights: &[Self],
        places: &[usize],
        dy: &[Self],
        dx: &mut [f32],
    ) {
        kernels::input_gradient(kernel, weights, places, dy, dx);
    }

    fn weight_gradient(
        kernel: &Kernel,
        _: &mut Self::Packed,
        places: &[usize],
        x: &[Self],
        dy: &[Self],
        dw: &mut [f32],
    ) {
        kernels::weight_gradient(kernel, places, x, dy, dw, true);
    }

    fn connect(kernel: &Kernel, weights: &[Self], bias: &[Self], x: &[Self], y: &mut [Self]) {
        kernels::connect(kernel, weights, bias, x, y);
    }

    fn connected_input_gradient(kernel: &Kernel, _: &mut Self::Packed, weights: &[Self], dy: &[Self], dx: &mut [f32]) {
        dx.fill(0.0);
        kernels::input_gradient(kernel, weights, &rows(dy.len() / kernel.outputs, kernel.inputs()), dy, dx);
    }

    fn connected_gradient(kernel: &Kernel, _: &mut Self::Packed, x: &[Self], dy: &[Self], dw: &mut [Self]) {
        kernels::weight_gradient(kernel, &rows(dy.len() / kernel.outputs, kernel.inputs()), x, dy, dw, false);
    }
}

/// Weights in pairs.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Default)]
pub(super) struct Paired {
    /// Of inputs, and of outputs.
    inputs: Vec<Pairs>,
    outputs: Vec<Pairs>,
    /// Gradients, in pairs of places.
    gradients: Vec<Pair>,
}

// SAFETY of every call below: `fits` refuses layers where the processor lacks the instructions.
#[cfg(target_arch = "x86_64")]
impl Arithmetic for Bf16 {
    type Packed = Paired;

    /// Fully connected layers may end within a vector.
    fn fits(kernel: &Kernel) -> bool {
        let run = if kernel.runs > 1 { dots::LANES } else { 2 };
        dots::supported() && kernel.run.is_multiple_of(run) && kernel.outputs.is_multiple_of(8)
    }

    fn scale(frame: &[u8], mean: f32, factor: f32, to: &mut [Self]) {
        unsafe { dots::scale(frame, mean, factor, to) }
    }

    fn pack(kernel: &Kernel, weights: &[Self], packed: &mut Self::Packed) {
        dots::pack_inputs(weights, kernel.inputs(), &mut packed.inputs);
    }

    fn pack_back(kernel: &Kernel, weights: &[Self], packed: &mut Self::Packed) {
        dots::pack_outputs(weights, kernel.inputs(), &mut packed.outputs);
    }

    fn convolve(kernel: &Kernel, packed: &Self::Packed, bias: &[Self], places: &[usize], x: &[Self], y: &mut [Self]) {
        unsafe { dots::convolve(kernel, &packed.inputs, bias, places, x, y) }
    }

    fn input_gradient(
        kernel: &Kernel,
        packed: &Self::Packed,
        _: &[Self],
        places: &[usize],
        dy: &[Self],
        dx: &mut [f32],
    ) {
        unsafe { dots::input_gradient(kernel, &packed.outputs, places, dy, dx) }
    }

    fn weight_gradient(
        kernel: &Kernel,
        packed: &mut Self::Packed,
        places: &[usize],
        x: &[Self],
        dy: &[Self],
        dw: &mut [f32],
    ) {
        dots::pair_rows(dy, kernel.outputs, &mut packed.gradients);
        unsafe { dots::weight_gradient(kernel, places, x, &packed.gradients, dw, true) }
    }

    fn connect(kernel: &Kernel, weights: &[Self], bias: &[Self], x: &[Self], y: &mut [Self]) {
        unsafe { dots::connect(kernel, weights, bias, x, y) }
    }

    /// The gradient of weights with other names: rows are the outputs, and outputs the places where inputs are seen.
    fn connected_input_gradient(
        kernel: &Kernel,
        packed: &mut Self::Packed,
        weights: &[Self],
        dy: &[Self],
        dx: &mut [f32],
    ) {
        let (outputs, n) = (kernel.outputs, dy.len() / kernel.outputs);
        packed.gradients.clear();
        for o in (0..outputs).step_by(2) {
            packed.gradients.extend((0..n).map(|row| [dy[row * outputs + o], dy[row * outputs + o + 1]]));
        }
        let places = rows(outputs, kernel.inputs());
        let kernel = Kernel { outputs: n, ..*kernel };
        unsafe { dots::weight_gradient(&kernel, &places, weights, &packed.gradients, dx, false) }
    }

    fn connected_gradient(kernel: &Kernel, packed: &mut Self::Packed, x: &[Self], dy: &[Self], dw: &mut [Self]) {
        dots::pair_rows(dy, kernel.outputs, &mut packed.gradients);
        let places = rows(dy.len() / kernel.outputs, kernel.inputs());
        unsafe { dots::weight_gradient(kernel, &places, x, &packed.gradients, dw, false) }
    }
}
