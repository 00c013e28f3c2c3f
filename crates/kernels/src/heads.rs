//! The last layers of a network, fully connected, in `f32`.
//!
//! They have a few outputs each: in libtorch, dispatch and autograd's bookkeeping take longer than the arithmetic.

use crate::simd::multiversion;

/// A dot product has 4 × 16 partial sums, added in a fixed order, so that an output depends neither on the batch nor on the SIMD level.
const LANES: usize = 16;
const BLOCK: usize = 4 * LANES;

multiversion! {
    /// `y = x Wᵀ + b`. `weights`: `[outputs, inputs]`, `bias`: `[outputs]`, `x`: `[n, inputs]`, `y`: `[n, outputs]`.
    pub fn forward(weights: &[f32], bias: &[f32], x: &[f32], y: &mut [f32]) {
        let inputs = weights.len() / bias.len();
        for (x, y) in x.chunks_exact(inputs).zip(y.chunks_exact_mut(bias.len())) {
            for ((y, weights), bias) in y.iter_mut().zip(weights.chunks_exact(inputs)).zip(bias) {
                *y = bias + dot(weights, x);
            }
        }
    }
}

multiversion! {
    /// Sets the gradients of weights and bias, and adds that of `x` to `dx`, from the gradient `dy` of the output; shapes as in [`forward`].
    pub fn backward(weights: &[f32], x: &[f32], dy: &[f32], weight_gradient: &mut [f32], bias_gradient: &mut [f32], dx: &mut [f32]) {
        let outputs = bias_gradient.len();
        let inputs = weights.len() / outputs;
        weight_gradient.fill(0.0);
        bias_gradient.fill(0.0);
        for ((x, dx), dy) in x.chunks_exact(inputs).zip(dx.chunks_exact_mut(inputs)).zip(dy.chunks_exact(outputs)) {
            bias_gradient.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
            let layers = weights.chunks_exact(inputs).zip(weight_gradient.chunks_exact_mut(inputs));
            for ((weights, sums), &dy) in layers.zip(dy) {
                for (((sum, dx), w), x) in sums.iter_mut().zip(&mut *dx).zip(weights).zip(x) {
                    *sum += dy * x;
                    *dx += dy * w;
                }
            }
        }
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((blocks_a, rest_a), (blocks_b, rest_b)) = (a.as_chunks::<BLOCK>(), b.as_chunks::<BLOCK>());
    let mut sums = [[0.0_f32; LANES]; BLOCK / LANES];
    for (a, b) in blocks_a.iter().zip(blocks_b) {
        for ((sums, a), b) in sums.iter_mut().zip(a.as_chunks::<LANES>().0).zip(b.as_chunks::<LANES>().0) {
            sums.iter_mut().zip(a).zip(b).for_each(|((sum, a), b)| *sum += a * b);
        }
    }
    let [sum, others @ ..] = &mut sums;
    others.iter().for_each(|other| sum.iter_mut().zip(other).for_each(|(sum, x)| *sum += x));
    sum.iter().sum::<f32>() + rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two batch elements, three inputs, two outputs.
    #[test]
    fn a_layer_by_hand() {
        let (weights, bias) = ([1.0, 2.0, 3.0, -1.0, 0.5, 0.0], [10.0, 20.0]);
        let x = [1.0, 0.0, 2.0, -1.0, 4.0, 1.0];
        let mut y = [0.0; 4];
        forward(&weights, &bias, &x, &mut y);
        assert_eq!(y, [17.0, 19.0, 20.0, 23.0]);
        let (mut dw, mut db, mut dx) = ([7.0; 6], [7.0; 2], [100.0; 6]);
        backward(&weights, &x, &[1.0, 2.0, -1.0, 0.0], &mut dw, &mut db, &mut dx);
        assert_eq!(dw, [2.0, -4.0, 1.0, 2.0, 0.0, 4.0]);
        assert_eq!(db, [0.0, 2.0]);
        // 100 + (1 − 2, 2 + 1, 3), and 100 − (1, 2, 3).
        assert_eq!(dx, [99.0, 103.0, 103.0, 99.0, 98.0, 97.0]);
    }

    /// Against sums in `f64`, with inputs that fill lanes and inputs that don't; the outputs of a batch element do not depend on the others.
    #[test]
    fn outputs_are_dot_products() {
        for inputs in [1, LANES, BLOCK, 3 * BLOCK + LANES + 5] {
            let value = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 50.0;
            let weights: Vec<f32> = (0..3 * inputs).map(value).collect();
            let x: Vec<f32> = (0..4 * inputs).map(|i| value(7 * i + 3)).collect();
            let bias = [0.25, -0.5, 1.0];
            let mut y = [0.0; 12];
            forward(&weights, &bias, &x, &mut y);
            for (i, &y) in y.iter().enumerate() {
                let (element, output) = (i / 3, i % 3);
                let products =
                    (0..inputs).map(|k| f64::from(x[element * inputs + k]) * f64::from(weights[output * inputs + k]));
                assert!((products.sum::<f64>() + f64::from(bias[output]) - f64::from(y)).abs() < 1e-4, "{inputs}, {i}");
            }
            let mut third = [0.0; 3];
            forward(&weights, &bias, &x[2 * inputs..3 * inputs], &mut third);
            assert_eq!(third, y[6..9]);
        }
    }
}
