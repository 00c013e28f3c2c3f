//! Policies as distributions over actions: categorical for discrete ones (independent for each component of a multi-discrete
//! one), a diagonal Gaussian for continuous ones.
//!
//! Softmax and logarithm are one operation: log(softmax(x) + ε) would lose what it is meant to save.

use crate::observations::upload;
use crate::params::to_vec;
use playfield_core::rng::Rng;
use playfield_core::{Actions, Mode};
use rand::RngExt as _;
use rand_distr::StandardNormal;
use std::f64::consts::PI;
use tch::{Device, Kind, Tensor};

/// The distribution of a batch of policies, in `f32`.
#[derive(Debug)]
pub enum Distribution {
    /// A categorical distribution for each component of an action.
    Categorical {
        /// Logits `[n, choices]`: those of all components, one after the other.
        logits: Tensor,
        /// The number of choices of each component; one number for a discrete action.
        sizes: Vec<i64>,
    },
    /// Means `[n, dim]` and log standard deviations `[dim]`.
    Gaussian {
        /// Means.
        mean: Tensor,
        /// Logarithms of the standard deviations.
        log_std: Tensor,
    },
}

/// The logit of an invalid action: its probability and its gradient are exactly 0, and the log-probability stays finite (Huang and
/// Ontañón 2020, *A Closer Look at Invalid Action Masking in Policy Gradient Algorithms*, section 3).
pub(super) const INVALID: f64 = -1e8;

pub(super) const ANOTHER_SPACE: &str = "actions of another space than the policy's";

impl Distribution {
    /// The distribution over the valid actions of `mask`, `[n, choices]`; the same where `mask` is empty.
    #[must_use]
    pub fn masked(self, mask: &[bool]) -> Self {
        match self {
            Self::Categorical { logits, sizes } if !mask.is_empty() => {
                let invalid: Vec<bool> = mask.iter().map(|valid| !valid).collect();
                let invalid = upload(&Tensor::from_slice(&invalid), logits.device()).view_as(&logits);
                Self::Categorical { logits: logits.masked_fill(&invalid, INVALID), sizes }
            }
            unmasked => unmasked,
        }
    }

    /// The same with `values` `[n]` in the memory of the host, which waits for the device once.
    pub fn to_host(&self, values: &Tensor) -> (Self, Tensor) {
        let values = values.unsqueeze(1);
        let all = match self {
            Self::Categorical { logits, .. } => Tensor::cat(&[&values, logits], 1),
            Self::Gaussian { mean, log_std } => Tensor::cat(&[&values, mean, &log_std.expand_as(mean)], 1),
        };
        let all = all.to_device(Device::Cpu);
        let (values, outputs) = (all.select(1, 0), all.narrow(1, 1, all.size()[1] - 1));
        let policy = match self {
            Self::Categorical { sizes, .. } => Self::Categorical { logits: outputs, sizes: sizes.clone() },
            Self::Gaussian { .. } => {
                let halves = outputs.chunk(2, 1);
                Self::Gaussian { mean: halves[0].shallow_clone(), log_std: halves[1].get(0) }
            }
        };
        (policy, values)
    }

    /// The logits, where the distribution is categorical.
    pub fn logits(&self) -> Option<&Tensor> {
        match self {
            Self::Categorical { logits, .. } => Some(logits),
            Self::Gaussian { .. } => None,
        }
    }

    /// The log-probability (or log-density) of one action per row, `[n]`.
    ///
    /// # Panics
    /// If `actions` are of another space than the head's.
    pub fn log_prob(&self, actions: &Actions) -> Tensor {
        match self {
            Self::Categorical { logits, sizes } => {
                let (indices, dim) = actions.indices().filter(|(_, dim)| *dim == sizes.len()).expect(ANOTHER_SPACE);
                let indices = upload(&Tensor::from_slice(indices), logits.device()).view([-1, dim as i64]);
                let parts = logits.split_sizes(sizes, -1).into_iter().zip(indices.split(1, 1));
                let log_probs = parts.map(|(logits, indices)| {
                    logits.log_softmax(-1, Kind::Float).gather(1, &indices, false).squeeze_dim(1)
                });
                log_probs.reduce(|sum, next| sum + next).expect("one component at least")
            }
            Self::Gaussian { mean, log_std } => {
                let Actions::Continuous { values, .. } = actions else { panic!("{ANOTHER_SPACE}") };
                let actions = upload(&Tensor::from_slice(values), mean.device()).view_as(mean);
                let z = (actions - mean) / log_std.exp();
                (z.square() * -0.5 - log_std - 0.5 * (2.0 * PI).ln()).sum_dim_intlist(-1, false, Kind::Float)
            }
        }
    }

    /// The entropies, in nats, `[n]`: −Σ π log π summed over components, or ½ log(2πe) + log σ summed over dimensions.
    pub fn entropy(&self) -> Tensor {
        match self {
            Self::Categorical { logits, sizes } => {
                let entropies = logits.split_sizes(sizes, -1).into_iter().map(|logits| {
                    let log_pi = logits.log_softmax(-1, Kind::Float);
                    // An impossible action (log π = −∞) adds nothing: 0 · −∞ would be NaN.
                    let terms = log_pi.exp() * log_pi.clamp_min(f64::from(f32::MIN));
                    -terms.sum_dim_intlist(-1, false, Kind::Float)
                });
                entropies.reduce(|sum, next| sum + next).expect("one component at least")
            }
            Self::Gaussian { mean, log_std } => {
                (log_std + 0.5 * (1.0 + (2.0 * PI).ln())).sum(Kind::Float).expand([mean.size()[0]], false)
            }
        }
    }

    /// Selects one action per batch element, sampled or the most probable, and returns the log-probability (or log-density) of
    /// each.
    ///
    /// # Panics
    /// If `actions` are of another space than the head's.
    pub fn select(&self, mode: Mode, rng: &mut Rng, actions: &mut Actions) -> Vec<f32> {
        match self {
            Self::Categorical { logits, sizes } => {
                let (indices, dim) = actions.indices_mut().filter(|(_, dim)| *dim == sizes.len()).expect(ANOTHER_SPACE);
                let mut select = |logits: &[f32], action: &mut i64| {
                    let (top, sum) = top_and_sum(logits);
                    let index = match mode {
                        Mode::Greedy => argmax(logits),
                        Mode::Sample => sample(logits, sum, rng.random()),
                    };
                    *action = index as i64;
                    logits[index] - top - sum.ln()
                };
                let choices = sizes.iter().sum::<i64>() as usize;
                let rows = to_vec(logits);
                let rows = rows.chunks_exact(choices).zip(indices.chunks_exact_mut(dim));
                rows.map(|(mut logits, action)| {
                    let parts = sizes.iter().zip(action).map(|(&size, index)| {
                        let (part, rest) = logits.split_at(size as usize);
                        logits = rest;
                        select(part, index)
                    });
                    parts.sum()
                })
                .collect()
            }
            Self::Gaussian { mean, log_std } => {
                let Actions::Continuous { values, dim } = actions else { panic!("{ANOTHER_SPACE}") };
                let log_std = to_vec(log_std);
                let constant = 0.5 * (2.0 * PI as f32).ln();
                let mut select = |i: usize, mean: f32, value: &mut f32| {
                    let noise: f32 = if mode == Mode::Greedy { 0.0 } else { rng.sample(StandardNormal) };
                    *value = mean + log_std[i].exp() * noise;
                    -0.5 * noise * noise - log_std[i] - constant
                };
                let rows = to_vec(mean);
                let rows = rows.chunks_exact(*dim).zip(values.chunks_exact_mut(*dim));
                rows.map(|(means, values)| {
                    means.iter().zip(values).enumerate().map(|(i, (mean, value))| select(i, *mean, value)).sum()
                })
                .collect()
            }
        }
    }
}

fn argmax(logits: &[f32]) -> usize {
    (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

/// The largest of `logits`, and the sum of their exponentials relative to it.
pub(super) fn top_and_sum(logits: &[f32]) -> (f32, f32) {
    let top = logits[argmax(logits)];
    (top, logits.iter().map(|logit| (logit - top).exp()).sum())
}

/// The action at `u` in \[0, 1) of the cumulative softmax of `logits`. `sum`: of their exponentials, relative to the largest.
fn sample(logits: &[f32], sum: f32, u: f32) -> usize {
    let top = logits[argmax(logits)];
    let weight = |l: &f32| (l - top).exp();
    let mut left = u * sum;
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
    use std::f64::consts::LN_2;

    fn assert_close(actual: &Tensor, expected: &[f64], tolerance: f64) {
        let difference = (actual.flatten(0, -1) - Tensor::from_slice(expected)).abs().max().double_value(&[]);
        assert!(difference < tolerance, "{actual:?}: off by {difference}");
    }

    fn discrete(logits: Tensor) -> Distribution {
        Distribution::Categorical { sizes: vec![logits.size()[1]], logits }
    }

    fn categorical(logits: [[f32; 2]; 2], actions: [i64; 2]) -> (Tensor, Tensor) {
        let policy = discrete(Tensor::from_slice2(&logits));
        (policy.log_prob(&Actions::Discrete(actions.to_vec())), policy.entropy())
    }

    /// π = (¼, ¾) has log-probabilities (−1.386294, −.287682) and entropy .562335; a uniform one over two has log 2.
    #[test]
    fn categorical_by_hand() {
        let (log_prob, entropy) = categorical([[0.0, 3.0_f32.ln()], [7.0, 7.0]], [0, 1]);
        assert_close(&log_prob, &[-1.386_294_361, -LN_2], 1e-6);
        assert_close(&entropy, &[0.562_335_145, LN_2], 1e-6);
    }

    /// Where log(softmax + ε) breaks: logits of ±1e4.
    #[test]
    fn huge_logits_stay_finite() {
        let logits = [[1e4_f32, -1e4], [-1e4, 1e4]];
        let (log_prob, entropy) = categorical(logits, [1, 1]);
        assert_close(&log_prob, &[-2e4, 0.0], 1e-6);
        assert_close(&entropy, &[0.0, 0.0], 1e-6);
        let naive = Tensor::from_slice2(&logits).softmax(-1, Kind::Float).log();
        assert!(naive.isinf().any().int64_value(&[]) == 1, "the naive form is expected to break here");
    }

    /// N(1, 2²) at 3 has log-density −½ − log 2 − ½ log 2π = −2.112086; its entropy is ½ log(2πe·4) = 2.112086. A second
    /// dimension N(0, 1) at 0 adds −.918939 and 1.418939.
    #[test]
    fn gaussian_by_hand() {
        let (mean, log_std) = (Tensor::from_slice2(&[[1.0_f32, 0.0]]), Tensor::from_slice(&[2.0_f32.ln(), 0.0]));
        let policy = Distribution::Gaussian { mean, log_std };
        let log_prob = policy.log_prob(&Actions::Continuous { values: vec![3.0, 0.0], dim: 2 });
        assert_close(&log_prob, &[-3.031_024_247], 1e-5);
        assert_close(&policy.entropy(), &[3.531_024_247], 1e-5);
    }

    /// Two components are independent: π₁ = (¼, ¾), π₂ = (½, ½, 0 by the mask). Log-probabilities and entropies add.
    #[test]
    fn components_add_and_masked_choices_have_no_probability() {
        let logits = Tensor::from_slice2(&[[0.0_f32, 3.0_f32.ln(), 7.0, 7.0, 50.0]]).set_requires_grad(true);
        let policy = || Distribution::Categorical { logits: logits.shallow_clone(), sizes: vec![2, 3] };
        let masked = policy().masked(&[true, true, true, true, false]);
        let mut actions = Actions::MultiDiscrete { indices: vec![0, 1], dim: 2 };
        let (log_prob, entropy) = (masked.log_prob(&actions), masked.entropy());
        assert_close(&log_prob, &[-1.386_294_361 - LN_2], 1e-6);
        assert_close(&entropy, &[0.562_335_145 + LN_2], 1e-6);
        (log_prob + entropy).sum(Kind::Float).backward();
        let gradient = logits.grad();
        assert!(gradient.isfinite().all().int64_value(&[]) == 1);
        assert_eq!(gradient.double_value(&[0, 4]), 0.0);
        assert!(gradient.double_value(&[0, 2]) != 0.0);

        let mut rng = Rng::seed_from_u64(5);
        for mode in [Mode::Greedy, Mode::Sample] {
            for _ in 0..200 {
                let log_prob = masked.select(mode, &mut rng, &mut actions);
                let Actions::MultiDiscrete { indices, .. } = &actions else { unreachable!() };
                assert!(indices[1] < 2 && (mode == Mode::Sample || indices[0] == 1), "{indices:?}");
                assert_close(&masked.log_prob(&actions), &[f64::from(log_prob[0])], 1e-5);
            }
        }
        // Without a mask the last choice wins; an empty mask changes nothing.
        policy().masked(&[]).select(Mode::Greedy, &mut rng, &mut actions);
        assert_eq!(actions, Actions::MultiDiscrete { indices: vec![1, 2], dim: 2 });
    }

    #[test]
    fn samples_follow_the_softmax() {
        let (mut rng, logits) = (Rng::seed_from_u64(1), [0.0_f32, 1.0, -2.0, f32::NEG_INFINITY]);
        let mut counts = [0_f64; 4];
        let n = 200_000;
        let total: f32 = logits.iter().map(|l| (l - 1.0).exp()).sum();
        for _ in 0..n {
            counts[sample(&logits, total, rng.random())] += 1.0;
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
        discrete(logits).select(Mode::Greedy, &mut rng, &mut actions);
        assert_eq!(actions, Actions::Discrete(vec![1, 0]));
        let mut actions = Actions::Continuous { values: vec![0.0; 2], dim: 1 };
        let mean = Tensor::from_slice2(&[[0.5_f32], [-1.0]]);
        let log_std = Tensor::from_slice(&[0.0_f32]);
        Distribution::Gaussian { mean, log_std }.select(Mode::Greedy, &mut rng, &mut actions);
        assert_eq!(actions, Actions::Continuous { values: vec![0.5, -1.0], dim: 1 });
    }

    /// The log-probabilities that come with a selection are those of the differentiable form.
    #[test]
    fn selected_actions_come_with_their_log_probabilities() {
        let mut rng = Rng::seed_from_u64(3);
        let logits = Tensor::from_slice2(&[[0.0_f32, 3.0, -1.0], [1.0, -1.0, f32::NEG_INFINITY]]);
        let mean = Tensor::from_slice2(&[[0.5_f32, -1.0], [2.0, 0.0]]);
        let log_std = Tensor::from_slice(&[-0.5_f32, 0.25]);
        for mode in [Mode::Sample, Mode::Greedy] {
            let mut actions = Actions::Discrete(vec![0; 2]);
            let policy = discrete(logits.shallow_clone());
            let log_probs = policy.select(mode, &mut rng, &mut actions);
            assert_close(
                &policy.log_prob(&actions),
                &log_probs.iter().map(|&p| f64::from(p)).collect::<Vec<_>>(),
                1e-5,
            );
            let mut actions = Actions::Continuous { values: vec![0.0; 4], dim: 2 };
            let policy = Distribution::Gaussian { mean: mean.shallow_clone(), log_std: log_std.shallow_clone() };
            let log_probs = policy.select(mode, &mut rng, &mut actions);
            assert_close(
                &policy.log_prob(&actions),
                &log_probs.iter().map(|&p| f64::from(p)).collect::<Vec<_>>(),
                1e-5,
            );
        }
    }

    #[test]
    fn gaussian_samples_have_the_stated_mean_and_deviation() {
        let mut rng = Rng::seed_from_u64(2);
        let n = 100_000;
        let mut actions = Actions::Continuous { values: vec![0.0; n], dim: 1 };
        let mean = Tensor::from_slice(&vec![2.0_f32; n]).view([n as i64, 1]);
        let log_std = Tensor::from_slice(&[0.5_f32.ln()]);
        Distribution::Gaussian { mean, log_std }.select(Mode::Sample, &mut rng, &mut actions);
        let Actions::Continuous { values, .. } = actions else { unreachable!() };
        let mean = values.iter().sum::<f32>() / n as f32;
        let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n as f32).sqrt();
        assert!((mean - 2.0).abs() < 0.01 && (deviation - 0.5).abs() < 0.01, "{mean} ± {deviation}");
    }
}
