//! Scheduled sampling (Bengio, Vinyals, Jaitly and Shazeer 2015): the decoder's inputs in training are true tokens or its own samples.
//!
//! ```text
//! teacher forcing     every input is the true previous token: fast and stable, but the decoder never trains on its own
//!                     mistakes
//! scheduled sampling  the true token with probability ε_i, else the model's own; ε falls from 1 during training
//!
//! linear              ε_i = max(ε, k − c·i)
//! exponential         ε_i = kⁱ,                  k < 1
//! inverse sigmoid     ε_i = k / (k + exp(i/k)),  k ≥ 1
//! ```
//!
//! Sampling is independent for each *token*, not each sequence (the paper, section 2.4). The gradient does not flow through the
//! model's samples, so it is not an estimate of the gradient of the free-running loss, and at ε = 0 training is inconsistent (Huszár
//! 2015). Keep ε above 0 if the decoder's distribution matters. If a model trained by teacher forcing already decodes well, scheduled
//! sampling is unnecessary.

use playfield_core::rng::Rng;
use playfield_core::{Error, Result};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

/// Schedule of ε, the probability of the true token, by the number of updates i.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Decay {
    /// ε_i = `epsilon`: 1 is teacher forcing, 0 is free running.
    Constant {
        /// In [0, 1].
        epsilon: f64,
    },
    /// ε_i = max(`floor`, `start` − `slope`·i).
    Linear {
        /// k, in (0, 1].
        start: f64,
        /// c, at least 0.
        slope: f64,
        /// The least ε, in [0, `start`].
        floor: f64,
    },
    /// ε_i = `base`ⁱ.
    Exponential {
        /// k, in (0, 1).
        base: f64,
    },
    /// ε_i = k/(k + exp(i/k)).
    InverseSigmoid {
        /// k, at least 1. ε begins at k/(k + 1) and is ½ at i = k·ln k.
        k: f64,
    },
}

impl Decay {
    /// Teacher forcing: ε = 1.
    pub const TEACHER_FORCING: Self = Self::Constant { epsilon: 1.0 };

    /// Checks that ε stays in [0, 1].
    ///
    /// # Errors
    /// [`Error::Config`] naming the number and its bounds.
    pub fn check(self) -> Result<()> {
        let within = |name: &str, value: f64, holds: bool, bounds: &str| match holds {
            true => Ok(()),
            false => Err(Error::config(format!("scheduled sampling: `{name}` = {value} must be {bounds}"))),
        };
        match self {
            Self::Constant { epsilon } => within("epsilon", epsilon, (0.0..=1.0).contains(&epsilon), "in [0, 1]"),
            Self::Linear { start, slope, floor } => {
                within("start", start, start > 0.0 && start <= 1.0, "in (0, 1]")?;
                within("slope", slope, slope >= 0.0, "at least 0")?;
                within("floor", floor, (0.0..=start).contains(&floor), &format!("in [0, `start` = {start}]"))
            }
            Self::Exponential { base } => within("base", base, base > 0.0 && base < 1.0, "in (0, 1)"),
            Self::InverseSigmoid { k } => within("k", k, k >= 1.0 && k.is_finite(), "at least 1"),
        }
    }

    /// ε after `updates` updates, in [0, 1].
    pub fn epsilon(self, updates: u64) -> f64 {
        let i = updates as f64;
        match self {
            Self::Constant { epsilon } => epsilon,
            Self::Linear { start, slope, floor } => floor.max(start - slope * i),
            Self::Exponential { base } => base.powf(i),
            Self::InverseSigmoid { k } => k / (k + (i / k).exp()),
        }
    }
}

/// For each of `n` tokens, whether the decoder receives the true one. With ε = 1 all do and `rng` is not used.
pub fn coins(epsilon: f64, n: usize, rng: &mut Rng) -> Vec<bool> {
    (0..n).map(|_| epsilon >= 1.0 || rng.random::<f64>() < epsilon).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::rng::stream;

    #[test]
    fn the_curves_are_those_of_the_paper() {
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a}, expected {b}");
        let linear = Decay::Linear { start: 1.0, slope: 0.01, floor: 0.25 };
        for (i, expected) in [(0, 1.0), (50, 0.5), (75, 0.25), (1000, 0.25)] {
            near(linear.epsilon(i), expected);
        }
        let exponential = Decay::Exponential { base: 0.5 };
        for (i, expected) in [(0, 1.0), (1, 0.5), (10, 1.0 / 1024.0)] {
            near(exponential.epsilon(i), expected);
        }
        let k = 100.0_f64;
        let sigmoid = Decay::InverseSigmoid { k };
        near(sigmoid.epsilon(0), 100.0 / 101.0);
        near(sigmoid.epsilon(100), 100.0 / (100.0 + std::f64::consts::E));
        let half = (k * k.ln()).round();
        assert!((sigmoid.epsilon(half as u64) - 0.5).abs() < 1e-2 / 2.0);
        assert_eq!(sigmoid.epsilon(u64::MAX), 0.0, "no overflow");
    }

    #[test]
    fn epsilon_never_increases() {
        let all = [
            Decay::TEACHER_FORCING,
            Decay::Linear { start: 0.9, slope: 1e-3, floor: 0.1 },
            Decay::Exponential { base: 0.99 },
            Decay::InverseSigmoid { k: 50.0 },
        ];
        for decay in all {
            decay.check().unwrap();
            let curve: Vec<f64> = (0..2000).map(|i| decay.epsilon(i)).collect();
            assert!(
                curve.windows(2).all(|w| w[1] <= w[0]) && curve.iter().all(|e| (0.0..=1.0).contains(e)),
                "{decay:?}"
            );
        }
    }

    #[test]
    fn each_token_is_sampled_independently() {
        let mut rng = stream(1, "coins");
        let heads = coins(0.3, 20_000, &mut rng).into_iter().filter(|&c| c).count();
        assert!((heads as f64 / 20_000.0 - 0.3).abs() < 0.01, "{heads}");
        let before = rng.clone();
        assert!(coins(1.0, 1000, &mut rng).into_iter().all(|c| c), "teacher forcing");
        assert_eq!(rng, before, "teacher forcing uses no random numbers");
        assert!(coins(0.0, 1000, &mut rng).into_iter().all(|c| !c), "free running");
    }

    #[test]
    fn an_epsilon_outside_the_unit_interval_is_an_error() {
        for (decay, expected) in [
            (Decay::Constant { epsilon: 1.5 }, "`epsilon` = 1.5 must be in [0, 1]"),
            (Decay::Linear { start: 0.0, slope: 1.0, floor: 0.0 }, "`start` = 0 must be in (0, 1]"),
            (Decay::Linear { start: 0.5, slope: 1.0, floor: 0.6 }, "`floor` = 0.6 must be in [0, `start` = 0.5]"),
            (Decay::Linear { start: 0.5, slope: -1.0, floor: 0.0 }, "`slope` = -1 must be at least 0"),
            (Decay::Exponential { base: 1.0 }, "`base` = 1 must be in (0, 1)"),
            (Decay::InverseSigmoid { k: 0.5 }, "`k` = 0.5 must be at least 1"),
        ] {
            let error = decay.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
