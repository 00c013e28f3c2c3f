//! Dropout: elements set to 0 at random in training (Srivastava et al. 2014).
//!
//! ```text
//! y = x · m / (1 − p),    m ~ Bernoulli(1 − p) for every element
//! ```
//!
//! The division in training ("inverted" dropout) makes inference the identity: pass no generator. The generator is playfield's own,
//! so that a resumed run samples the same masks.
//!
//! Not together with batch normalization, except at low rates (Ioffe and Szegedy 2015, section 4.2.1); and not on the recurrent
//! connections: see [`crate::stack`] and [`crate::lstm`].

use playfield_core::rng::Rng;
use playfield_core::{Error, Result};
use rand::RngExt as _;
use tch::{Device, Kind, Tensor};

/// A dropout rate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dropout {
    rate: f64,
}

impl Dropout {
    /// A layer that drops the fraction `rate` of the elements; `name` is the setting that an error names.
    ///
    /// # Errors
    /// [`Error::Config`] where the rate is not in [0, 1).
    pub fn new(name: &str, rate: f64) -> Result<Self> {
        if (0.0..1.0).contains(&rate) {
            return Ok(Self { rate });
        }
        Err(Error::config(format!("`{name}` = {rate} must be at least 0 and less than 1")))
    }

    /// Whether the rate is greater than 0.
    pub fn drops(self) -> bool {
        self.rate > 0.0
    }

    /// A mask of `shape`: 0 with probability p, else 1/(1 − p).
    pub fn mask(self, shape: &[i64], (kind, device): (Kind, Device), rng: &mut Rng) -> Tensor {
        let kept = (1.0 / (1.0 - self.rate)) as f32;
        let len: i64 = shape.iter().product();
        let mask: Vec<f32> = (0..len).map(|_| if rng.random::<f64>() < self.rate { 0.0 } else { kept }).collect();
        Tensor::from_slice(&mask).view(shape).to_device(device).to_kind(kind)
    }

    /// `x` times a new mask in training, that is, with a generator; without one `x` itself.
    pub fn apply(self, x: &Tensor, rng: Option<&mut Rng>) -> Tensor {
        match rng {
            Some(rng) if self.drops() => x * self.mask(&x.size(), (x.kind(), x.device()), rng),
            _ => x.shallow_clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::rng::stream;

    #[test]
    fn the_mean_stays_and_the_fraction_is_dropped() {
        let x = Tensor::ones([100_000], (Kind::Float, Device::Cpu));
        let y = Dropout::new("dropout", 0.3).unwrap().apply(&x, Some(&mut stream(1, "dropout")));
        let dropped = y.eq(0.0).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        assert!((dropped - 0.3).abs() < 0.01, "{dropped}");
        assert!((y.mean(Kind::Float).double_value(&[]) - 1.0).abs() < 0.01);
        assert!((y.max().double_value(&[]) - 1.0 / 0.7).abs() < 1e-6);
    }

    #[test]
    fn inference_drops_nothing() {
        let x = Tensor::ones([10], (Kind::Float, Device::Cpu));
        assert_eq!(Dropout::new("dropout", 0.9).unwrap().apply(&x, None), x);
    }

    #[test]
    fn a_rate_outside_its_bounds_is_refused() {
        for rate in [1.0, -0.1, f64::NAN] {
            let error = Dropout::new("dropout", rate).unwrap_err().to_string();
            assert!(error.contains(&format!("`dropout` = {rate}")) && error.contains("less than 1"), "{error}");
        }
    }
}
