//! Photometric distortions (Howard 2013, *Some Improvements on Deep Convolutional Neural Network Based Image Classification*):
//! random brightness, contrast and noise of training images, to which the network becomes invariant.
//!
//! Reduce distortions with batch norm: training takes fewer epochs, so the network should see less distorted images (Ioffe and
//! Szegedy 2015, section 4.2.1). Never distort test images.

use playfield_core::rng::Rng;
use playfield_core::{Error, Result};
use rand::RngExt as _;
use rand_distr::StandardNormal;

/// Photometric distortion of images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Photometric {
    strength: f32,
}

impl Photometric {
    /// Distortions of `strength`: 0 is none, 1 the strongest.
    ///
    /// # Errors
    /// [`Error::Config`] unless 0 ≤ `strength` ≤ 1.
    pub fn new(strength: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&strength) {
            return Err(Error::config(format!("a photometric distortion of {strength}: it must lie between 0 and 1")));
        }
        Ok(Self { strength: strength as f32 })
    }

    /// Distorts one image with pixels in [0, 1] and clamps the result to [0, 1]:
    ///
    /// `x ← ½ + (x − ½)·contrast + brightness + noise`, with contrast in U(1 − s, 1 + s) and brightness in U(−s/2, s/2) for the
    /// whole image, and noise in N(0, (s/4)²) for each pixel.
    pub fn apply(&self, image: &mut [f32], rng: &mut Rng) {
        let s = self.strength;
        if s == 0.0 {
            return;
        }
        let (contrast, brightness) = (rng.random_range(1.0 - s..=1.0 + s), rng.random_range(-s / 2.0..=s / 2.0));
        for x in image {
            let noise = rng.sample::<f32, _>(StandardNormal) * s / 4.0;
            *x = (0.5 + (*x - 0.5) * contrast + brightness + noise).clamp(0.0, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::rng::stream;

    /// A strength of 0 changes nothing and uses no random numbers; changes grow with the strength; pixels stay in [0, 1].
    #[test]
    fn distortion_grows_with_strength() {
        let image: Vec<f32> = (0..64).map(|i| i as f32 / 63.0).collect();
        let moved = |strength| {
            let (mut rng, distortion) = (stream(1, "distort"), Photometric::new(strength).unwrap());
            let mean = (0..200).map(|_| {
                let mut x = image.clone();
                distortion.apply(&mut x, &mut rng);
                assert!(x.iter().all(|p| (0.0..=1.0).contains(p)));
                x.iter().zip(&image).map(|(a, b)| (a - b).abs()).sum::<f32>() / 64.0
            });
            let mean = mean.sum::<f32>() / 200.0;
            (mean, rng)
        };
        assert_eq!(moved(0.0), (0.0, stream(1, "distort")));
        let (weak, strong) = (moved(0.2).0, moved(0.8).0);
        // E|brightness| = s/4; contrast and noise add to this.
        assert!(weak > 0.05 && strong > 2.0 * weak, "{weak}, {strong}");
    }

    #[test]
    fn a_strength_beyond_the_strongest_is_refused() {
        for strength in [-0.1, 1.1, f64::NAN] {
            let refusal = Photometric::new(strength).unwrap_err().to_string();
            assert!(refusal.contains(&format!("{strength}")) && refusal.contains("between 0 and 1"), "{refusal}");
        }
    }
}
