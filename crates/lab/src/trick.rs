//! An experiment, and the record of one repetition.

use playfield_core::rng::{self, Rng};
use playfield_core::run::Stop;
use playfield_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Which values of a metric are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Losses, errors, steps to a goal.
    Lower,
    /// Accuracies, returns.
    Higher,
}

/// A trick and the experiment that measures its effect.
#[derive(Clone, Copy, Debug)]
pub struct Trick {
    /// Its place in the list of tricks, from 1.
    pub number: u8,
    /// Its name on the command line, `kebab-case`.
    pub name: &'static str,
    /// One line: what the trick is.
    pub about: &'static str,
    /// The paper.
    pub source: &'static str,
    /// The data of the experiment; contains "toy" for toy data.
    pub data: &'static str,
    /// The tests that verify the trick's definition, as `path: function`, separated by `; `.
    pub verified_by: &'static str,
    /// The metric, with its unit.
    pub metric: &'static str,
    /// Which values of the metric are better.
    pub better: Better,
    /// The variant without the trick.
    pub baseline: &'static str,
    /// The variants with it: each is compared with the baseline.
    pub with: &'static [&'static str],
    /// Whether the metric is a time: then seeds run one after the other.
    pub timed: bool,
    /// Measures all variants once, for one seed.
    pub run: fn(&mut Trial) -> Result<()>,
}

/// A panel of points, each of a class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Panel {
    /// The title.
    pub title: String,
    /// The labels of x and y, if any.
    pub axes: Option<(String, String)>,
    /// Whether x is drawn on a logarithmic scale.
    pub log: bool,
    /// The points.
    pub points: Vec<[f64; 2]>,
    /// The class of each, from 0.
    pub classes: Vec<u8>,
}

/// One repetition of an experiment: its seed and its recorded values.
#[derive(Clone, Debug)]
pub struct Trial {
    seed: u64,
    worst: f64,
    stop: Stop,
    pub(crate) values: Vec<(String, f64)>,
    pub(crate) curves: Vec<(String, Vec<[f64; 2]>)>,
    pub(crate) axes: Option<(&'static str, &'static str)>,
    pub(crate) panels: Vec<Panel>,
}

impl Trial {
    /// An empty record for `seed`.
    pub fn new(seed: u64, better: Better, stop: Stop) -> Self {
        let worst = if better == Better::Lower { f64::INFINITY } else { f64::NEG_INFINITY };
        Self { seed, worst, stop, values: Vec::new(), curves: Vec::new(), axes: None, panels: Vec::new() }
    }

    /// The seed of this repetition.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The random stream `name` of this repetition. Variants that use the same name get the same numbers.
    pub fn rng(&self, name: &str) -> Rng {
        rng::stream(self.seed, name)
    }

    /// The stop signal for a [`Run`](playfield_core::Run) inside the experiment, so that Ctrl-C ends it.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Records the metric of a variant, once per variant. Variants other than the baseline and [`Trick::with`] are reported
    /// without a test. NaN (diverged training) counts as the worst possible value.
    pub fn record(&mut self, variant: &str, value: f64) {
        self.values.push((variant.into(), if value.is_nan() { self.worst } else { value }));
    }

    /// Adds a point to the curve of a variant. Points that are not finite are left out.
    pub fn point(&mut self, variant: &str, x: f64, y: f64) {
        if !(x.is_finite() && y.is_finite()) {
            return;
        }
        match self.curves.iter_mut().find(|(v, _)| v == variant) {
            Some((_, points)) => points.push([x, y]),
            None => self.curves.push((variant.into(), vec![[x, y]])),
        }
    }

    /// Sets the labels of the curves' axes.
    pub fn axes(&mut self, x: &'static str, y: &'static str) {
        self.axes = Some((x, y));
    }

    /// Adds a scatter panel; `classes[i]` is the class of point `i`. Only the first seed's panels are drawn.
    pub fn scatter(&mut self, panel: &str, points: &[[f64; 2]], classes: &[u8]) {
        let (points, classes) = (points.to_vec(), classes.to_vec());
        self.panels.push(Panel { title: panel.into(), axes: None, log: false, points, classes });
    }

    /// Checks that each variant of `trick` was recorded exactly once.
    ///
    /// # Errors
    /// [`Error::Other`] naming the first variant that was not: a bug in the experiment.
    pub(crate) fn check(&self, trick: &Trick) -> Result<()> {
        for variant in [trick.baseline].iter().chain(trick.with) {
            let times = self.values.iter().filter(|(v, _)| v == variant).count();
            if times != 1 {
                let name = trick.name;
                return Err(Error::other(format!("{name}: variant '{variant}' was recorded {times} times, not once")));
            }
        }
        Ok(())
    }
}
