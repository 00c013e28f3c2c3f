//! Random search for learning rates and other settings (Bergstra and Bengio 2012).
//!
//! Each setting is sampled independently from its range, uniformly or on a logarithmic scale (for a learning rate the order of
//! magnitude matters). Of k samples at least one lies in the best 5 % of the space with probability 1 − .95^k (60 samples: 95 %),
//! for any number of settings. A grid spends most of its points on combinations of settings without effect. Trials are compared
//! during training, the worst are stopped early ([`should_stop`]), and the rest are trained to the end.
//!
//! If one run takes days, use sequential search instead: choose each run from the results of the previous ones.

use playfield_core::rng::Rng;
use playfield_core::{Error, Result};
use rand::RngExt as _;
use std::str::FromStr;

/// The scale on which a range is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// All values equally likely.
    Uniform,
    /// All orders of magnitude equally likely: for learning rates, penalty coefficients, ε.
    Log,
}

/// The range of a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    low: f64,
    high: f64,
    scale: Scale,
    whole: bool,
}

impl Range {
    /// From `low` to `high`; `whole`: whole numbers, both bounds included.
    ///
    /// # Errors
    /// [`Error::Config`] if the bounds are reversed or not finite, are not whole numbers although `whole` is set, or are not
    /// positive on a logarithmic scale.
    pub fn new(low: f64, high: f64, scale: Scale, whole: bool) -> Result<Self> {
        let range = format!("{low}..{high}");
        if !(low < high && low.is_finite() && high.is_finite()) {
            return Err(Error::config(format!("{range}: the first bound must be less than the second")));
        }
        if scale == Scale::Log && low <= 0.0 {
            return Err(Error::config(format!(
                "{range}:log: on a logarithmic scale both bounds must be greater than 0"
            )));
        }
        if whole && (low.fract() != 0.0 || high.fract() != 0.0) {
            return Err(Error::config(format!("{range}: the setting is a whole number, and its bounds must be")));
        }
        Ok(Self { low, high, scale, whole })
    }

    /// The value at `fraction` of the range on its scale: 0 is the lower bound, 1 the upper.
    pub fn at(&self, fraction: f64) -> f64 {
        // Half a unit beyond both bounds, so that all whole numbers are equally likely.
        let margin = if self.whole { 0.5 } else { 0.0 };
        let (low, high) = (self.low - margin, self.high + margin);
        let value = match self.scale {
            Scale::Uniform => low + fraction * (high - low),
            Scale::Log => low * (high / low).powf(fraction),
        };
        (if self.whole { value.round() } else { value }).clamp(self.low, self.high)
    }

    /// A random value.
    pub fn sample(&self, rng: &mut Rng) -> f64 {
        self.at(rng.random())
    }

    /// The midpoints of `n` equal intervals on the scale: one axis of a grid.
    pub fn grid(&self, n: usize) -> Vec<f64> {
        (0..n).map(|i| self.at((i as f64 + 0.5) / n as f64)).collect()
    }

    /// The same range, restricted to whole numbers or not.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn whole(self, whole: bool) -> Result<Self> {
        Self::new(self.low, self.high, self.scale, whole)
    }

    /// Whether its scale is logarithmic.
    pub fn is_log(&self) -> bool {
        self.scale == Scale::Log
    }
}

/// `1e-5..1e-2:log`, `0.9..0.999`.
impl FromStr for Range {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (range, scale) = match text.split_once(':') {
            None => (text, Scale::Uniform),
            Some((range, "log")) => (range, Scale::Log),
            Some((_, other)) => {
                return Err(Error::config(format!("{text}: unknown scale '{other}': write :log, or nothing")));
            }
        };
        let bounds = range.split_once("..").and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
        let (low, high) =
            bounds.ok_or_else(|| Error::config(format!("{text}: write it as LOW..HIGH or LOW..HIGH:log")))?;
        Self::new(low, high, scale, false)
    }
}

/// Whether to stop a trial that scores `value` after a number of steps at which other trials scored `others`: whether it is not
/// among the best 1/`keep` (higher is better). Asynchronous successive halving (Li et al. 2020, after Jamieson and Talwalkar
/// 2016). The first `keep` − 1 trials at a rung are never stopped.
pub fn should_stop(value: f64, others: &[f64], keep: usize) -> bool {
    let places = (others.len() + 1) / keep;
    // Every score is better than that of a diverged trial.
    let better = others.iter().filter(|other| **other > value || value.is_nan()).count();
    places > 0 && better >= places
}

/// The effect of a setting on the capacity of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The setting.
    pub setting: &'static str,
    /// The change that increases capacity.
    pub raises_capacity: &'static str,
    /// Why it does.
    pub reason: &'static str,
    /// Costs, recommendations, and the key in a configuration.
    pub note: &'static str,
}

/// Settings to change if a model underfits (increase its capacity) or overfits (decrease it): table 11.1 of Goodfellow, Bengio and
/// Courville 2016, *Deep Learning*, paraphrased, with the corresponding configuration keys.
pub const ADVICE: &[Advice] = &[
    Advice {
        setting: "learning rate",
        raises_capacity: "the optimal value",
        reason: "too high or too low, optimization fails and effective capacity drops",
        note: "search this first, on a log scale; `learning_rate`",
    },
    Advice {
        setting: "width of layers",
        raises_capacity: "more",
        reason: "more units represent more functions",
        note: "increases time and memory of every step; `network.hidden`, `network.torso`",
    },
    Advice {
        setting: "width of convolution kernels",
        raises_capacity: "more",
        reason: "more parameters per layer",
        note: "decreases the output size unless the input is padded, which costs time",
    },
    Advice {
        setting: "zero padding of convolutions",
        raises_capacity: "more",
        reason: "keeps the size of the image",
        note: "increases time and memory of most operations",
    },
    Advice {
        setting: "weight decay",
        raises_capacity: "less",
        reason: "weights can become larger",
        note: "`optimizer.weight_decay`",
    },
    Advice {
        setting: "dropout",
        raises_capacity: "less",
        reason: "units can co-adapt",
        note: "rarely useful in reinforcement learning, whose targets are nonstationary already",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::rng::stream;

    /// The Kolmogorov–Smirnov statistic of `sample` against the distribution function `cdf`, times √n; it exceeds 1.95 with
    /// probability .001.
    fn kolmogorov(mut sample: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
        sample.sort_by(f64::total_cmp);
        let n = sample.len() as f64;
        let distance = |(i, x): (usize, &f64)| (cdf(*x) - i as f64 / n).abs().max((cdf(*x) - (i + 1) as f64 / n).abs());
        sample.iter().enumerate().map(distance).fold(0.0, f64::max) * n.sqrt()
    }

    #[test]
    fn samples_follow_their_distribution() {
        let mut rng = stream(1, "search");
        let log: Range = "1e-5..1e-1:log".parse().unwrap();
        let samples: Vec<f64> = (0..5000).map(|_| log.sample(&mut rng)).collect();
        assert!(kolmogorov(samples.clone(), |x| (x.log10() + 5.0) / 4.0) < 1.95);
        // The statistic detects a wrong distribution.
        assert!(kolmogorov(samples, |x| (x - 1e-5) / (1e-1 - 1e-5)) > 10.0);
        let uniform: Range = "0.9..0.999".parse().unwrap();
        assert!(kolmogorov((0..5000).map(|_| uniform.sample(&mut rng)).collect(), |x| (x - 0.9) / 0.099) < 1.95);
    }

    #[test]
    fn whole_numbers_are_equally_likely() {
        let (range, mut rng) = (Range::new(1.0, 4.0, Scale::Uniform, true).unwrap(), stream(1, "search"));
        let mut counts = [0; 4];
        (0..4000).for_each(|_| counts[range.sample(&mut rng) as usize - 1] += 1);
        assert!(counts.iter().all(|&c| (850..1150).contains(&c)), "{counts:?}");
    }

    #[test]
    fn a_grid_by_hand() {
        assert_eq!(Range::new(0.0, 4.0, Scale::Uniform, false).unwrap().grid(2), [1.0, 3.0]);
        let log = Range::new(1.0, 16.0, Scale::Log, false).unwrap().grid(2);
        assert!((log[0] - 2.0).abs() < 1e-12 && (log[1] - 8.0).abs() < 1e-12, "{log:?}");
    }

    #[test]
    fn the_worse_half_is_stopped() {
        assert!(!should_stop(1.0, &[], 2), "the first trial has no comparison");
        assert!(should_stop(1.0, &[2.0], 2) && !should_stop(3.0, &[2.0], 2));
        assert!(!should_stop(3.0, &[1.0, 2.0, 4.0], 2) && should_stop(2.0, &[1.0, 3.0, 4.0], 2));
        assert!(should_stop(f64::NAN, &[1.0], 2) && !should_stop(3.0, &[4.0], 3));
    }

    #[test]
    fn invalid_settings_are_errors() {
        for (text, expected) in [
            ("2..1", "must be less"),
            ("1..1", "must be less"),
            ("0..1:log", "greater than 0"),
            ("-1..1:log", "greater than 0"),
            ("0..inf", "must be less"),
            ("0..1:exp", "unknown scale 'exp'"),
            ("0-1", "LOW..HIGH"),
            ("a..b", "LOW..HIGH"),
        ] {
            let error = text.parse::<Range>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(Range::new(0.5, 2.0, Scale::Uniform, true).unwrap_err().to_string().contains("whole number"));
    }
}
