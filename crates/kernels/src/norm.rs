//! Layer norm (Ba, Kiros and Hinton 2016), forward and backward, in `f32` arithmetic.
//!
//! ```text
//! y  = γ · x̂ + β,   x̂ = (x − μ) · r,   r = 1/√(σ² + ε)
//! dx = r · (g − mean(g) − x̂ · mean(g · x̂)),   g = γ · dy
//! dγ = Σ dy · x̂,   dβ = Σ dy
//! ```
//!
//! A sample is `[positions, channels]` (an image) or `[channels]` (a row of a fully connected layer). μ, σ² and both means are over all
//! elements of a sample; γ and β are per channel. A sample fits a cache close to the core, so several loops over it are cheap.

use crate::Element;
use crate::conv::at_least;
use crate::simd::multiversion;

/// Channels that loops process at a time: γ, β and their gradients stay in registers. Divides the number of channels.
pub(crate) const CHANNELS: usize = 8;

/// ε, as in PyTorch.
const EPS: f32 = 1e-5;

/// Partial sums of four AVX-512 registers, so that an addition need not wait for the previous one.
const PARTIAL_SUMS: usize = 64;

/// μ and r of a sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    mean: f32,
    inverse_deviation: f32,
}

/// Sums over samples, `[channels]` each, to which [`normalize_gradient`] adds.
pub(crate) struct ChannelGradients<'a> {
    /// Of γ.
    pub scale: &'a mut [f32],
    /// Of β.
    pub shift: &'a mut [f32],
    /// Of the bias of the layer before, whose gradient is Σ dx.
    pub bias: &'a mut [f32],
}

multiversion! {
    /// The moments of a sample; σ² is computed from deviations from μ.
    pub(crate) fn moments<T: Element>(x: &[T]) -> Moments {
        let n = x.len() as f32;
        let mean = sum::<T, false>(x, 0.0) / n;
        let variance = sum::<T, true>(x, mean) / n;
        Moments { mean, inverse_deviation: (variance + EPS).sqrt().recip() }
    }
}

/// `Σ (x − center)`, or the sum of its squares.
#[inline(always)]
fn sum<T: Element, const SQUARED: bool>(x: &[T], center: f32) -> f32 {
    let mut sums = [0.0; PARTIAL_SUMS];
    let (chunks, rest) = x.as_chunks::<PARTIAL_SUMS>();
    for chunk in chunks {
        for i in 0..PARTIAL_SUMS {
            let d = chunk[i].widen() - center;
            sums[i] += if SQUARED { d * d } else { d };
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        let d = x.widen() - center;
        *sum += if SQUARED { d * d } else { d };
    }
    sums.iter().sum()
}

/// Eight channels of the sample's row `row`.
#[inline(always)]
fn channels<T: Copy>(x: &[T], row: usize, len: usize, first: usize) -> &[T; CHANNELS] {
    x[row * len + first..].first_chunk().expect("8 divides the channels")
}

multiversion! {
    /// `y = max(floor, γ · x̂ + β)` for a sample with moments `m`. γ: `scale`, β: `shift`.
    pub(crate) fn normalize<T: Element>(x: &[T], m: Moments, scale: &[T], shift: &[T], floor: f32, y: &mut [T]) {
        let ((scale, _), (shift, _)) = (scale.as_chunks::<CHANNELS>(), shift.as_chunks::<CHANNELS>());
        let row = scale.len();
        for (x, y) in x.as_chunks::<CHANNELS>().0.chunks_exact(row).zip(y.as_chunks_mut::<CHANNELS>().0.chunks_exact_mut(row)) {
            for (((x, y), scale), shift) in x.iter().zip(y).zip(scale).zip(shift) {
                for i in 0..CHANNELS {
                    let normalized = (x[i].widen() - m.mean) * m.inverse_deviation;
                    y[i] = T::narrow(at_least(floor, normalized * scale[i].widen() + shift[i].widen()));
                }
            }
        }
    }
}

multiversion! {
    /// The gradient of a sample, `dx`, from `dy`; adds to the gradients of the channels.
    pub(crate) fn normalize_gradient<T: Element>(x: &[T], m: Moments, scale: &[T], dy: &[f32], sums: ChannelGradients<'_>, dx: &mut [T]) {
        let (len, rows) = (scale.len(), x.len() / scale.len());
        let (mut mean, mut mean_product) = (0.0, 0.0);
        for first in (0..len).step_by(CHANNELS) {
            let (mut shift_sum, mut scale_sum) = ([0.0; CHANNELS], [0.0; CHANNELS]);
            for row in 0..rows {
                let (x, dy) = (channels(x, row, len, first), channels(dy, row, len, first));
                for i in 0..CHANNELS {
                    shift_sum[i] += dy[i];
                    scale_sum[i] += dy[i] * ((x[i].widen() - m.mean) * m.inverse_deviation);
                }
            }
            for i in 0..CHANNELS {
                sums.shift[first + i] += shift_sum[i];
                sums.scale[first + i] += scale_sum[i];
                mean += scale[first + i].widen() * shift_sum[i];
                mean_product += scale[first + i].widen() * scale_sum[i];
            }
        }
        let n = x.len() as f32;
        (mean, mean_product) = (mean / n, mean_product / n);
        for first in (0..len).step_by(CHANNELS) {
            let (scale, mut bias_sum) = (channels(scale, 0, len, first), [0.0; CHANNELS]);
            for row in 0..rows {
                let (x, dy) = (channels(x, row, len, first), channels(dy, row, len, first));
                let dx: &mut [T; CHANNELS] = dx[row * len + first..].first_chunk_mut().expect("8 divides the channels");
                for i in 0..CHANNELS {
                    let normalized = (x[i].widen() - m.mean) * m.inverse_deviation;
                    let d = m.inverse_deviation * (scale[i].widen() * dy[i] - mean - normalized * mean_product);
                    bias_sum[i] += d;
                    dx[i] = T::narrow(d);
                }
            }
            sums.bias[first..].iter_mut().zip(bias_sum).for_each(|(sum, s)| *sum += s);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
    }

    /// The formulas above in `f64`: the sample, dx, and the gradients of γ, β and the bias before.
    fn naive(x: &[f32], scale: &[f32], shift: &[f32], dy: &[f32]) -> [Vec<f64>; 5] {
        let (n, c) = (x.len() as f64, scale.len());
        let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let mean = x.iter().sum::<f64>() / n;
        let r = (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n + 1e-5).sqrt().recip();
        let hat: Vec<f64> = x.iter().map(|x| (x - mean) * r).collect();
        let g: Vec<f64> = dy.iter().enumerate().map(|(i, dy)| f64::from(dy * scale[i % c])).collect();
        let mean_g = g.iter().sum::<f64>() / n;
        let mean_product = g.iter().zip(&hat).map(|(g, h)| g * h).sum::<f64>() / n;
        let y = hat.iter().enumerate().map(|(i, h)| (h * f64::from(scale[i % c]) + f64::from(shift[i % c])).max(0.0));
        let dx: Vec<f64> = g.iter().zip(&hat).map(|(g, h)| r * (g - mean_g - h * mean_product)).collect();
        let per_channel = |of: &dyn Fn(usize) -> f64| {
            (0..c).map(|channel| (channel..x.len()).step_by(c).map(of).sum()).collect::<Vec<f64>>()
        };
        let sums =
            [per_channel(&|i| f64::from(dy[i]) * hat[i]), per_channel(&|i| f64::from(dy[i])), per_channel(&|i| dx[i])];
        let [d_scale, d_shift, d_bias] = sums;
        [y.collect(), dx, d_scale, d_shift, d_bias]
    }

    /// Samples of one row and of several, whose numbers of elements divide evenly into the partial sums or do not; a mean far from 0.
    #[test]
    fn a_norm_and_its_gradients_equal_the_formulas() {
        for (rows, channels) in [(1, 512), (400, 16), (81, 8), (49, 24)] {
            let x: Vec<f32> = values(rows * channels, 1).iter().map(|x| x * 0.5 + 3.0).collect();
            let (scale, shift, dy) = (values(channels, 2), values(channels, 3), values(rows * channels, 4));
            let m = moments(&x);
            let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
            normalize(&x, m, &scale, &shift, 0.0, &mut y);
            let (mut d_scale, mut d_shift, mut d_bias) =
                (vec![1.0; channels], vec![2.0; channels], vec![3.0; channels]);
            let sums = ChannelGradients { scale: &mut d_scale, shift: &mut d_shift, bias: &mut d_bias };
            normalize_gradient(&x, m, &scale, &dy, sums, &mut dx);
            for (sums, previous) in [(&mut d_scale, 1.0), (&mut d_shift, 2.0), (&mut d_bias, 3.0)] {
                sums.iter_mut().for_each(|sum| *sum -= previous);
            }
            let expected = naive(&x, &scale, &shift, &dy);
            for (what, (actual, expected)) in [y, dx, d_scale, d_shift, d_bias].iter().zip(&expected).enumerate() {
                let largest = expected.iter().fold(1.0, |m: f64, e| m.max(e.abs()));
                for (a, e) in actual.iter().zip(expected) {
                    assert!((f64::from(*a) - e).abs() < 1e-5 * largest, "{rows} × {channels}, {what}: {a} is not {e}");
                }
            }
        }
    }

    /// bf16 is converted at loads and stores only: results are those of `f32`, rounded. Without a rectifier outputs may be
    /// negative; a NaN stays one.
    #[test]
    fn bf16_computes_in_f32() {
        let narrow = |x: &[f32]| x.iter().map(|x| bf16::narrow(*x)).collect::<Vec<_>>();
        let (x, scale, shift) = (narrow(&values(160, 1)), narrow(&values(16, 2)), narrow(&values(16, 3)));
        let wide = |x: &[bf16]| x.iter().map(|x| x.widen()).collect::<Vec<_>>();
        let (mut y, mut expected) = (vec![bf16::ZERO; 160], vec![0.0; 160]);
        normalize(&x, moments(&x), &scale, &shift, f32::NEG_INFINITY, &mut y);
        normalize(&wide(&x), moments(&wide(&x)), &wide(&scale), &wide(&shift), f32::NEG_INFINITY, &mut expected);
        assert_eq!(y, narrow(&expected));
        assert!(expected.iter().any(|y| *y < 0.0));
        let nan = [vec![bf16::NAN], x[1..].to_vec()].concat();
        normalize(&nan, moments(&nan), &scale, &shift, 0.0, &mut y);
        assert!(y.iter().all(|y| y.is_nan()));
    }
}
