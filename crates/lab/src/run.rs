//! Runs an experiment over seeds: in parallel, each on one libtorch thread, except where time is measured.

use crate::stats::{self, Verdict};
use crate::trick::Panel;
use crate::{Better, Trial, Trick};
use playfield_core::run::Stop;
use playfield_core::{Error, Result};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// The result of an experiment.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The trick's name.
    pub name: &'static str,
    /// The metric, with its unit.
    pub metric: &'static str,
    /// Which values of the metric are better.
    pub better: Better,
    /// The number of seeds, which are 1 to this number.
    pub seeds: u64,
    /// Total wall time.
    pub seconds: f64,
    /// The variants: the baseline, then the tested ones, then the untested ones.
    pub variants: Vec<Variant>,
    /// The labels of the curves' axes, if there are curves.
    pub axes: Option<(&'static str, &'static str)>,
    /// The curves of variants that recorded one.
    pub curves: Vec<Curve>,
    /// The first seed's panels of points.
    pub panels: Vec<Panel>,
}

/// A variant's values.
#[derive(Clone, Debug, Serialize)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// The metric of each seed.
    pub values: Vec<f64>,
    /// Their median.
    pub median: f64,
    /// Their quartiles.
    pub quartiles: (f64, f64),
    /// The verdict and p-value of the comparison with the baseline; none for the baseline and for untested variants.
    pub verdict: Option<(Verdict, f64)>,
}

/// A variant's curve over seeds: median and range at each x.
#[derive(Clone, Debug, Serialize)]
pub struct Curve {
    /// The variant.
    pub name: String,
    /// For each x: x, and the median, minimum and maximum of y.
    pub points: Vec<[f64; 4]>,
}

/// How often a stop request is looked for.
const TICK: Duration = Duration::from_millis(100);

/// Repeats `trick`'s experiment for seeds 1 to `seeds`, one per core at a time, and calls `done` after each with the number of
/// finished seeds. Returns `None` soon after `stop` is requested. The threads of repetitions that have not finished then still compute:
/// the program should end.
///
/// # Errors
/// Those of the experiment, with the seed.
pub fn run(trick: &Trick, seeds: u64, stop: &Stop, done: &dyn Fn(usize)) -> Result<Option<Outcome>> {
    let start = Instant::now();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = if trick.timed { 1 } else { cores.min(seeds as usize) };
    let next = Arc::new(AtomicU64::new(1));
    let (sender, measured) = mpsc::channel();
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let (trick, stop, next, sender) = (*trick, stop.clone(), next.clone(), sender.clone());
            thread::spawn(move || {
                tch::set_num_threads(1);
                let seeds = std::iter::repeat_with(|| next.fetch_add(1, Relaxed)).take_while(|seed| *seed <= seeds);
                // Nothing more is measured once the receiver is gone, after an error.
                let _ = seeds.map(|seed| measure(&trick, seed, &stop)).all(|trial| sender.send(trial).is_ok());
            })
        })
        .collect();
    drop(sender);
    let mut trials = Vec::new();
    loop {
        match measured.recv_timeout(TICK) {
            _ if stop.requested().is_some() => return Ok(None),
            Ok(trial) => {
                trials.push(trial?);
                done(trials.len());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    for worker in workers {
        // All trials were received, or a worker panicked.
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
    trials.sort_by_key(Trial::seed);
    Ok(Some(Outcome::new(trick, &mut trials, start.elapsed().as_secs_f64())))
}

/// One repetition.
fn measure(trick: &Trick, seed: u64, stop: &Stop) -> Result<Trial> {
    let mut trial = Trial::new(seed, trick.better, stop.clone());
    let measured = (trick.run)(&mut trial).and_then(|()| trial.check(trick));
    measured.map(|()| trial).map_err(|error| Error::other(format!("{}, seed {seed}: {error}", trick.name)))
}

impl Outcome {
    fn new(trick: &Trick, trials: &mut [Trial], seconds: f64) -> Self {
        let values = |name: &str| -> Vec<f64> {
            let of = |trial: &Trial| trial.values.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
            trials.iter().filter_map(of).collect()
        };
        let baseline = values(trick.baseline);
        let judged: Vec<_> = [trick.baseline].iter().chain(trick.with).map(|v| v.to_string()).collect();
        let shown = trials[0].values.iter().map(|(n, _)| n.clone()).filter(|n| !judged.contains(n));
        let variants = judged.iter().cloned().chain(shown).map(|name| {
            let values = values(&name);
            let verdict = trick.with.contains(&&*name).then(|| stats::verdict(&baseline, &values, trick.better));
            let quartiles = (stats::quantile(&values, 0.25), stats::quantile(&values, 0.75));
            Variant { median: stats::median(&values), quartiles, verdict, name, values }
        });
        let (variants, curves) = (variants.collect(), curves(trials));
        let panels = std::mem::take(&mut trials[0].panels);
        let Trick { name, metric, better, .. } = *trick;
        Self {
            name,
            metric,
            better,
            seeds: trials.len() as u64,
            seconds,
            variants,
            axes: trials[0].axes,
            curves,
            panels,
        }
    }
}

fn curves(trials: &[Trial]) -> Vec<Curve> {
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in trials.iter().flat_map(|t| &t.curves) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let curve = |name: &String| {
        let of_name = trials.iter().flat_map(|t| &t.curves).filter(|(n, _)| n == name);
        let mut points: Vec<[f64; 2]> = of_name.flat_map(|(_, points)| points.iter().copied()).collect();
        points.sort_by(|a, b| a[0].total_cmp(&b[0]));
        let places = points.chunk_by(|a, b| a[0] == b[0]);
        let summary = |at: &[[f64; 2]]| {
            let ys: Vec<f64> = at.iter().map(|p| p[1]).collect();
            [at[0][0], stats::median(&ys), stats::quantile(&ys, 0.0), stats::quantile(&ys, 1.0)]
        };
        Curve { name: name.clone(), points: places.map(summary).collect() }
    };
    names.into_iter().map(curve).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const TOY: Trick = Trick {
        number: 0,
        name: "toy",
        about: "",
        source: "",
        data: "",
        verified_by: "",
        metric: "value",
        better: Better::Lower,
        baseline: "without",
        with: &["with"],
        timed: false,
        run: |trial| {
            let seed = trial.seed() as f64;
            trial.record("shown", f64::NAN);
            trial.record("with", seed);
            trial.record("without", 10.0 + seed);
            trial.point("with", 1.0, seed);
            Ok(())
        },
    };

    #[test]
    fn an_outcome_is_of_all_seeds_in_their_order() {
        let counted = Cell::new(0);
        let count = |_| counted.set(counted.get() + 1);
        let outcome = run(&TOY, 5, &Stop::default(), &count).unwrap().unwrap();
        let [without, with, shown] = &outcome.variants[..] else { panic!("{outcome:?}") };
        assert_eq!((&*without.name, &*with.name, &*shown.name), ("without", "with", "shown"));
        assert_eq!(
            (with.values.clone(), with.median, with.quartiles),
            (vec![1.0, 2.0, 3.0, 4.0, 5.0], 3.0, (2.0, 4.0))
        );
        assert_eq!(with.verdict.map(|v| v.0), Some(Verdict::Helps));
        assert_eq!((without.verdict, shown.verdict, shown.median), (None, None, f64::INFINITY));
        assert_eq!(outcome.curves[0].points, [[1.0, 3.0, 1.0, 5.0]]);
        assert_eq!(counted.get(), 5);
    }

    #[test]
    fn what_fails_is_said_with_its_seed_and_what_is_not_recorded_with_its_variant() {
        let fails = Trick { run: |t| if t.seed() == 2 { Err(Error::other("broken")) } else { TOY_RUN(t) }, ..TOY };
        let error = run(&fails, 3, &Stop::default(), &|_| ()).unwrap_err().to_string();
        assert!(error.contains("toy, seed 2") && error.contains("broken"), "{error}");
        let forgets = Trick { with: &["with", "other"], ..TOY };
        let error = run(&forgets, 1, &Stop::default(), &|_| ()).unwrap_err().to_string();
        assert!(error.contains("'other' was recorded 0 times"), "{error}");
    }

    const TOY_RUN: fn(&mut Trial) -> Result<()> = TOY.run;

    #[test]
    fn a_stopped_experiment_says_nothing() {
        let stop = Stop::default();
        stop.request(2);
        assert!(run(&TOY, 5, &stop, &|_| ()).unwrap().is_none());
    }

    /// A repetition that would take an hour is not waited for.
    #[test]
    fn a_stop_request_does_not_wait_for_repetitions() {
        let run_for_an_hour = |_: &mut Trial| {
            thread::sleep(Duration::from_secs(3600));
            Ok(())
        };
        let endless = Trick { run: run_for_an_hour, ..TOY };
        let stop = Stop::default();
        let requested = stop.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            requested.request(2);
        });
        assert!(run(&endless, 1, &stop, &|_| ()).unwrap().is_none());
    }
}
