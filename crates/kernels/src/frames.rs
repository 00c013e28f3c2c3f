//! Scaling frames: `u8` pixels to floats.

use crate::Element;
use crate::simd::multiversion;

/// The brightest pixel.
pub const WHITE: f32 = 255.0;

/// How the pixels of an observation are scaled: `(pixel − mean) · factor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// Divided by 255.
    Unit,
    /// To mean 0 and standard deviation 1 over the observation.
    Standardize,
}

impl Scaling {
    /// Mean and factor for the observation `pixels`.
    pub fn mean_and_factor(self, pixels: &[u8]) -> (f32, f32) {
        match self {
            Self::Unit => (0.0, 1.0 / WHITE),
            Self::Standardize => mean_and_inverse_deviation(pixels),
        }
    }
}

multiversion! {
    /// `to = (pixel − mean) · factor`.
    pub fn scale<T: Element>(pixels: &[u8], mean: f32, factor: f32, to: &mut [T]) {
        to.iter_mut().zip(pixels).for_each(|(to, &p)| *to = T::narrow((f32::from(p) - mean) * factor));
    }
}

multiversion! {
    /// The mean of an observation's pixels and the inverse of their standard deviation (1 for a uniform observation).
    pub fn mean_and_inverse_deviation(pixels: &[u8]) -> (f32, f32) {
        // Sums within a chunk fit u32 and vectorize; sums over chunks are f64.
        let (mut sum, mut squares) = (0.0_f64, 0.0_f64);
        for chunk in pixels.chunks(1 << 15) {
            let (s, q) =
                chunk.iter().fold((0_u32, 0_u32), |(s, q), &p| (s + u32::from(p), q + u32::from(p) * u32::from(p)));
            (sum, squares) = (sum + f64::from(s), squares + f64::from(q));
        }
        let n = pixels.len() as f64;
        let mean = sum / n;
        let variance = squares / n - mean * mean;
        (mean as f32, if variance > 1e-6 { variance.sqrt().recip() as f32 } else { 1.0 })
    }
}
