//! Policies as distributions over actions: categorical for discrete ones, a diagonal Gaussian for continuous ones.

use crate::config::InitKind;
use crate::init::Init;
use crate::linear::Linear;
use crate::params::{Builder, Slot, Weights, to_vec};
use crate::torso::hidden_init;
use playfield_core::rng::Rng;
use playfield_core::{ActionSpace, Actions, Mode};
use rand::RngExt as _;
use rand_distr::StandardNormal;
use tch::{Kind, Tensor};

/// The last layer of a policy.
#[derive(Clone, Copy, Debug)]
pub enum PolicyHead {
    /// One logit per discrete action.
    Categorical(Linear),
    /// A mean per dimension, and a standard deviation that does not depend on the observation.
    Gaussian {
        /// The means.
        mean: Linear,
        /// The logarithm of the standard deviation, `[dim]`, initially 0.
        log_std: Slot,
    },
}

/// The distribution of a batch of policies, in `f32`.
#[derive(Debug)]
pub enum Distribution {
    /// Logits `[n, actions]`.
    Categorical(Tensor),
    /// Means `[n, dim]` and log standard deviations `[dim]`.
    Gaussian {
        /// Means.
        mean: Tensor,
        /// Logarithms of the standard deviations.
        log_std: Tensor,
    },
}

impl PolicyHead {
    /// A head for `space` on `width` features.
    pub fn new(b: &mut Builder<'_>, space: &ActionSpace, width: i64, init: InitKind) -> Self {
        let (weight, bias) = hidden_init(init, width, 0.01);
        match space {
            ActionSpace::Discrete { n } => Self::Categorical(Linear::new(b, "policy", width, *n as i64, weight, bias)),
            ActionSpace::Box { low, .. } => {
                let dim = low.len() as i64;
                Self::Gaussian {
                    mean: Linear::new(b, "policy", width, dim, weight, bias),
                    log_std: b.param("log_std", &[dim], Init::Constant(0.0)),
                }
            }
        }
    }

    /// The distribution at `features` `[n, width]`.
    pub fn forward(&self, w: &Weights, features: &Tensor) -> Distribution {
        match self {
            Self::Categorical(layer) => Distribution::Categorical(layer.forward(w, features).to_kind(Kind::Float)),
            Self::Gaussian { mean, log_std } => Distribution::Gaussian {
                mean: mean.forward(w, features).to_kind(Kind::Float),
                log_std: w[*log_std].to_kind(Kind::Float),
            },
        }
    }
}

impl Distribution {
    /// Draws one action per row, or takes the most likely one.
    ///
    /// # Panics
    /// If `actions` are of another space than the head's.
    pub fn choose(&self, mode: Mode, rng: &mut Rng, actions: &mut Actions) {
        match (self, actions) {
            (Self::Categorical(logits), Actions::Discrete(actions)) => {
                let k = logits.size()[1] as usize;
                for (row, action) in to_vec(logits).chunks_exact(k).zip(actions) {
                    *action = match mode {
                        Mode::Greedy => argmax(row),
                        Mode::Sample => sample(row, rng.random()),
                    } as i64;
                }
            }
            (Self::Gaussian { mean, log_std }, Actions::Continuous { values, dim }) => {
                let std: Vec<f32> = to_vec(log_std).iter().map(|l| l.exp()).collect();
                for (i, (mean, value)) in to_vec(mean).iter().zip(values).enumerate() {
                    let noise: f32 = if mode == Mode::Greedy { 0.0 } else { rng.sample(StandardNormal) };
                    *value = mean + std[i % *dim] * noise;
                }
            }
            _ => panic!("actions of another space than the policy's"),
        }
    }
}

fn argmax(logits: &[f32]) -> usize {
    (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

/// The action at `u` in \[0, 1) of the cumulative softmax of `logits`.
fn sample(logits: &[f32], u: f32) -> usize {
    let top = logits[argmax(logits)];
    let weight = |l: &f32| (l - top).exp();
    let mut left = u * logits.iter().map(weight).sum::<f32>();
    // Rounding may leave a trace above the last action: it is then the last one that has any probability.
    let mut last = argmax(logits);
    for (i, l) in logits.iter().enumerate() {
        let w = weight(l);
        if w > 0.0 {
            last = i;
        }
        if left < w {
            return i;
        }
        left -= w;
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn samples_follow_the_softmax() {
        let (mut rng, logits) = (Rng::seed_from_u64(1), [0.0_f32, 1.0, -2.0, f32::NEG_INFINITY]);
        let mut counts = [0_f64; 4];
        let n = 200_000;
        for _ in 0..n {
            counts[sample(&logits, rng.random())] += 1.0;
        }
        let total: f32 = logits.iter().map(|l| l.exp()).sum();
        let chi: f64 = (0..3)
            .map(|i| (f64::from(logits[i].exp() / total) * f64::from(n), counts[i]))
            .map(|(expected, seen)| (seen - expected).powi(2) / expected)
            .sum();
        assert!(chi < 13.8, "χ² = {chi}, over the 0.1 % bound at 2 degrees of freedom");
        assert_eq!(counts[3], 0.0);
    }

    #[test]
    fn greedy_takes_the_most_likely_and_gaussian_its_mean() {
        let mut rng = Rng::seed_from_u64(1);
        let mut actions = Actions::Discrete(vec![0; 2]);
        let logits = Tensor::from_slice2(&[[0.0_f32, 3.0], [1.0, -1.0]]);
        Distribution::Categorical(logits).choose(Mode::Greedy, &mut rng, &mut actions);
        assert_eq!(actions, Actions::Discrete(vec![1, 0]));
        let mut actions = Actions::Continuous { values: vec![0.0; 2], dim: 1 };
        let mean = Tensor::from_slice2(&[[0.5_f32], [-1.0]]);
        let log_std = Tensor::from_slice(&[0.0_f32]);
        Distribution::Gaussian { mean, log_std }.choose(Mode::Greedy, &mut rng, &mut actions);
        assert_eq!(actions, Actions::Continuous { values: vec![0.5, -1.0], dim: 1 });
    }

    #[test]
    fn gaussian_samples_have_the_stated_mean_and_deviation() {
        let mut rng = Rng::seed_from_u64(2);
        let n = 100_000;
        let mut actions = Actions::Continuous { values: vec![0.0; n], dim: 1 };
        let mean = Tensor::from_slice(&vec![2.0_f32; n]).view([n as i64, 1]);
        let log_std = Tensor::from_slice(&[0.5_f32.ln()]);
        Distribution::Gaussian { mean, log_std }.choose(Mode::Sample, &mut rng, &mut actions);
        let Actions::Continuous { values, .. } = actions else { unreachable!() };
        let mean = values.iter().sum::<f32>() / n as f32;
        let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n as f32).sqrt();
        assert!((mean - 2.0).abs() < 0.01 && (deviation - 0.5).abs() < 0.01, "{mean} ± {deviation}");
    }
}
