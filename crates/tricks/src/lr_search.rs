//! Random search for learning rates and other settings (Bergstra and Bengio 2012).
//!
//! Values are drawn independently, each from its range, uniformly or on a logarithmic scale: what counts for a learning rate is its
//! order of magnitude. Of k draws at least one lies in the best 5 % of the space with probability 1 − .95^k (60 draws: 95 %),
//! however many settings there are, where a grid spends its points on combinations of what does not matter. Each sample is evaluated after
//! a few epochs, the worst are stopped ([`hopeless`]), and the best are trained to the end.
//!
//! Not where one run takes days: choose each of few runs from the results of the previous ones.

use playfield_core::rng::Rng;
use playfield_core::{Error, Result};
use rand::RngExt as _;
use std::str::FromStr;

/// The scale on which a range is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// All values equally likely.
    Uniform,
    /// All orders of magnitude equally likely: for learning rates, weights of penalties, ε.
    Log,
}

/// The values of a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    low: f64,
    high: f64,
    scale: Scale,
    whole: bool,
}

impl Range {
    /// From `low` to `high`; `whole`: whole numbers, both ends included.
    ///
    /// # Errors
    /// [`Error::Config`] where the bounds are reversed or not finite, are no whole numbers where those are asked for, or are not
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

    /// The value at `share` of the way, 0 at the lower bound and (nearly) 1 at the upper.
    pub fn at(&self, share: f64) -> f64 {
        // Half a unit beyond either end, so that whole numbers are equally likely.
        let room = if self.whole { 0.5 } else { 0.0 };
        let (low, high) = (self.low - room, self.high + room);
        let value = match self.scale {
            Scale::Uniform => low + share * (high - low),
            Scale::Log => low * (high / low).powf(share),
        };
        (if self.whole { value.round() } else { value }).clamp(self.low, self.high)
    }

    /// A random value.
    pub fn sample(&self, rng: &mut Rng) -> f64 {
        self.at(rng.random())
    }

    /// `n` values at equal distances on the scale, in the middle of their parts: one axis of a grid.
    pub fn grid(&self, n: usize) -> Vec<f64> {
        (0..n).map(|i| self.at((i as f64 + 0.5) / n as f64)).collect()
    }

    /// The same of whole numbers, or not.
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
                return Err(Error::config(format!("{text}: a scale of '{other}': write :log, or nothing")));
            }
        };
        let bounds = range.split_once("..").and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
        let (low, high) =
            bounds.ok_or_else(|| Error::config(format!("{text}: write it as LOW..HIGH or LOW..HIGH:log")))?;
        Self::new(low, high, scale, false)
    }
}

/// Whether to stop a trial that scores `value` at a point of its training where other trials scored `others`: it is not among the
/// best 1/`keep` (higher is better). Successive halving (Jamieson and Talwalkar 2016) as
/// Li et al. 2020 have it for trials that don't wait for each other. The first `keep` − 1 trials are never stopped.
pub fn hopeless(value: f64, others: &[f64], keep: usize) -> bool {
    let places = (others.len() + 1) / keep;
    // Everything is better than training that diverged.
    let better = others.iter().filter(|other| **other > value || value.is_nan()).count();
    places > 0 && better >= places
}

/// Which way a setting moves a model's capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The setting.
    pub setting: &'static str,
    /// What raises capacity.
    pub raises_capacity: &'static str,
    /// Why.
    pub reason: &'static str,
    /// What to mind.
    pub mind: &'static str,
}

/// What to turn when a model learns too little (raise its capacity) or learns its data by heart (lower it): the content of table 11.1
/// of Goodfellow, Bengio and Courville 2016, *Deep Learning*, in other words, with what it means for an agent here.
pub const ADVICE: &[Advice] = &[
    Advice {
        setting: "learning rate",
        raises_capacity: "neither more nor less: the right one",
        reason: "too high or too low, training stops short of what the network could do",
        mind: "the first to search, on a log scale; `learning_rate`",
    },
    Advice {
        setting: "width of layers",
        raises_capacity: "more",
        reason: "more units represent more",
        mind: "time and memory of every step grow, too; `network.hidden`, `network.torso`",
    },
    Advice {
        setting: "width of convolution kernels",
        raises_capacity: "more",
        reason: "more parameters a layer",
        mind: "the image shrinks more, unless it is padded, which costs time",
    },
    Advice {
        setting: "zero padding of convolutions",
        raises_capacity: "more",
        reason: "the image stays large",
        mind: "time and memory of most operations grow",
    },
    Advice {
        setting: "weight decay",
        raises_capacity: "less",
        reason: "weights are free to grow",
        mind: "`optimizer.weight_decay`",
    },
    Advice {
        setting: "dropout",
        raises_capacity: "less",
        reason: "units may rely on each other",
        mind: "rarely of use in reinforcement learning: targets move as it is",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::rng::stream;

    /// The largest distance of the sample's distribution from the `law`'s, times √n (Kolmogorov; 1.95 is passed once in 1,000).
    fn kolmogorov(mut sample: Vec<f64>, law: impl Fn(f64) -> f64) -> f64 {
        sample.sort_by(f64::total_cmp);
        let n = sample.len() as f64;
        let distance = |(i, x): (usize, &f64)| (law(*x) - i as f64 / n).abs().max((law(*x) - (i + 1) as f64 / n).abs());
        sample.iter().enumerate().map(distance).fold(0.0, f64::max) * n.sqrt()
    }

    #[test]
    fn draws_follow_their_law() {
        let mut rng = stream(1, "search");
        let log: Range = "1e-5..1e-1:log".parse().unwrap();
        let draws: Vec<f64> = (0..5000).map(|_| log.sample(&mut rng)).collect();
        assert!(kolmogorov(draws.clone(), |x| (x.log10() + 5.0) / 4.0) < 1.95);
        // And the test can fail.
        assert!(kolmogorov(draws, |x| (x - 1e-5) / (1e-1 - 1e-5)) > 10.0);
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
        assert!(!hopeless(1.0, &[], 2), "the first has no comparison");
        assert!(hopeless(1.0, &[2.0], 2) && !hopeless(3.0, &[2.0], 2));
        assert!(!hopeless(3.0, &[1.0, 2.0, 4.0], 2) && hopeless(2.0, &[1.0, 3.0, 4.0], 2));
        assert!(hopeless(f64::NAN, &[1.0], 2) && !hopeless(3.0, &[4.0], 3));
    }

    #[test]
    fn invalid_settings_are_errors() {
        for (text, expected) in [
            ("2..1", "must be less"),
            ("1..1", "must be less"),
            ("0..1:log", "greater than 0"),
            ("-1..1:log", "greater than 0"),
            ("0..inf", "must be less"),
            ("0..1:exp", "scale of 'exp'"),
            ("0-1", "LOW..HIGH"),
            ("a..b", "LOW..HIGH"),
        ] {
            let error = text.parse::<Range>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(Range::new(0.5, 2.0, Scale::Uniform, true).unwrap_err().to_string().contains("whole number"));
    }
}
