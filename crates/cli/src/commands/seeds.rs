//! One experiment with several seeds: each is a training run in its own process.
//!
//! ```text
//! runs/ppo-cartpole-seeds-1/seeds.toml       the seeds; experiment.toml: the experiment
//!                           seed-1/          the run of a seed; seed-1.log: its output
//! ```

use crate::args::Train as Args;
use crate::experiment::Experiment;
use crate::folder::{self, is_group, next_free};
use crate::jobs::{Jobs, Training};
use crate::output::{note, out};
use crate::{Registry, paths};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use playfield_core::files::atomic_write;
use playfield_core::run::Stop;
use playfield_core::text::thousands;
use playfield_core::{Error, Result};
use playfield_log::duration;
use playfield_report::stats;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Time between two lines of progress where stderr is not a terminal.
const INTERVAL: Duration = Duration::from_secs(30);

/// `seeds.toml`.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    /// One run each.
    seeds: Vec<u64>,
    /// Agent steps of each run.
    steps: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Status {
    /// Not started, running or interrupted.
    Open,
    /// Trained for all steps.
    Done,
    /// Ended with an error, which is in its log.
    Failed,
}

/// The run of a seed.
struct Seed {
    seed: u64,
    run: Training,
    status: Status,
}

impl Seed {
    /// The last evaluation, or without one the last training episodes.
    fn score(&self) -> Option<f64> {
        self.run.evaluated.or(self.run.score)
    }
}

/// `playfield train CONFIG --seeds N`: `experiment` with `count` seeds, from its own on.
pub fn start(experiment: &Experiment, count: u64, args: &Args, stop: &Stop) -> Result<ExitCode> {
    let last = experiment.seed.checked_add(count - 1).filter(|last| i64::try_from(*last).is_ok());
    let last = last.ok_or_else(|| Error::config(format!("--seeds {count}: the last seed is too large")))?;
    let path = folder(experiment, args)?;
    write(&path, "experiment.toml", experiment.to_table()?.to_string())?;
    let plan = Plan { seeds: (experiment.seed..=last).collect(), steps: experiment.steps };
    write(&path, "seeds.toml", toml::to_string(&plan).map_err(Error::other)?)?;
    train(&path, &plan, args, &[], stop)
}

/// `playfield train --resume FOLDER` of such a folder: resumes each run that is not complete.
pub fn resume(registry: &Registry, path: &Path, args: &Args, stop: &Stop) -> Result<ExitCode> {
    let name = path.join("seeds.toml");
    let table = folder::read_toml(&name)?;
    let mut plan: Plan = table
        .try_into()
        .map_err(|error: toml::de::Error| Error::config(format!("{}: {}", paths::shown(&name), error.message())))?;
    let table = folder::read_toml(&path.join("experiment.toml"))?;
    registry.check_trust(&table, path)?;
    if let Some(steps) = args.steps {
        // Also for runs that have not started.
        let experiment = Experiment::new(table, &[format!("steps={steps}")], registry)?;
        write(path, "experiment.toml", experiment.to_table()?.to_string())?;
        plan.steps = steps;
        write(path, "seeds.toml", toml::to_string(&plan).map_err(Error::other)?)?;
    }
    let trust: Vec<String> = registry.trust_option().into_iter().collect();
    train(path, &plan, args, &trust, stop)
}

/// The folder of the runs: `--run-dir`, or the first unused `runs/<algorithm>-<environment>-seeds-<n>`.
fn folder(experiment: &Experiment, args: &Args) -> Result<PathBuf> {
    let Some(path) = &args.run_dir else {
        return next_free(&paths::absolute("runs"), &format!("{}-seeds", experiment.name()));
    };
    let shown = paths::shown(path);
    if is_group(path) {
        let program = paths::program();
        return Err(Error::config(format!(
            "{shown} already contains runs of several seeds: resume them ({program} train --resume {shown}), or choose another \
             --run-dir"
        )));
    }
    fs::create_dir_all(path).map_err(Error::io("create", path))?;
    match fs::read_dir(path).map_err(Error::io("read", path))?.next() {
        None => Ok(path.clone()),
        Some(_) => Err(Error::config(format!("{shown} is not empty: choose another --run-dir"))),
    }
}

fn write(folder: &Path, name: &str, text: String) -> Result<()> {
    atomic_write(&folder.join(name), |file| file.write_all(text.as_bytes()))
}

/// Trains every run that is not complete, and prints the results. `resumed`: further arguments of a run that is resumed.
fn train(path: &Path, plan: &Plan, args: &Args, resumed: &[String], stop: &Stop) -> Result<ExitCode> {
    let seeds = plan.seeds.iter().map(|&seed| {
        let mut run = Training::new(format!("seed-{seed}"));
        run.read_progress(path, |_, _| {});
        let status = if run.is_complete(path, plan.steps) { Status::Done } else { Status::Open };
        Seed { seed, run, status }
    });
    let mut seeds: Vec<Seed> = seeds.collect();
    let open = seeds.iter().filter(|seed| seed.status == Status::Open).count();
    if open == 0 {
        return Err(Error::config(format!(
            "every run in {} has completed its {} steps: to continue training, give --steps more than that",
            paths::shown(path),
            thousands(plan.steps)
        )));
    }
    let mut jobs = Jobs::new(args.jobs, open);
    let shown = paths::shown(path);
    note!("{open} seeds, {} steps each, {} in parallel, into {shown}", thousands(plan.steps), jobs.slots());
    let device = args.device.iter().flat_map(|device| ["--device".into(), device.clone()]);
    let steps = ["--steps".into(), plan.steps.to_string()];
    let resumed: Vec<String> = steps.into_iter().chain(device).chain(resumed.iter().cloned()).collect();
    run(path, plan, &resumed, &mut seeds, &mut jobs, stop)?;

    report(&seeds);
    let program = paths::program();
    out!("runs       {shown}");
    let failed: Vec<&Seed> = seeds.iter().filter(|seed| seed.status == Status::Failed).collect();
    if seeds.iter().any(|seed| seed.status != Status::Done) {
        out!("resume     {program} train --resume {shown}");
    }
    out!("metrics    {program} board {shown}");
    out!("report     {program} report {shown}");
    match (stop.requested(), failed.first()) {
        (Some(signal), _) => Ok(ExitCode::from(128 + signal as u8)),
        (None, None) => Ok(ExitCode::SUCCESS),
        (None, Some(first)) => {
            let reason = first.run.error(path);
            Err(Error::config(format!("{} of {} runs failed; {reason}", failed.len(), seeds.len())))
        }
    }
}

/// Starts the runs, as many at a time as there are slots, until all have ended or `stop` is requested.
fn run(path: &Path, plan: &Plan, resumed: &[String], seeds: &mut [Seed], jobs: &mut Jobs, stop: &Stop) -> Result<()> {
    let config = path.join("experiment.toml");
    let mut progress = Progress::new(seeds, plan.steps)?;
    loop {
        let stopping = stop.requested().is_some();
        while !stopping && jobs.has_free_slot() {
            let open = |i: &usize| seeds[*i].status == Status::Open && !jobs.contains(*i);
            let Some(i) = (0..seeds.len()).find(open) else { break };
            let Seed { seed, run, .. } = &seeds[i];
            let own = ["--seed".into(), seed.to_string()];
            jobs.start(i, run.command(path, &config, &own, resumed)?, &run.log(path))?;
        }
        if jobs.is_empty() {
            return Ok(());
        }
        if stopping {
            jobs.interrupt_all();
        }
        std::thread::sleep(Duration::from_millis(200));
        for i in (0..seeds.len()).filter(|i| jobs.contains(*i)) {
            seeds[i].run.read_progress(path, |_, _| {});
        }
        for (i, status) in jobs.take_ended()? {
            seeds[i].run.read_progress(path, |_, _| {});
            seeds[i].status = match status.success() {
                true => Status::Done,
                // An interrupted run has saved a checkpoint and stays open.
                false if stop.requested().is_some() => Status::Open,
                false => Status::Failed,
            };
            progress.ended(&seeds[i]);
        }
        progress.show(seeds);
    }
}

/// A bar for each run on a terminal, else a line now and then and one for each run that ends.
struct Progress {
    steps: u64,
    bars: Vec<ProgressBar>,
    start: Instant,
    before: u64,
    shown: Instant,
}

impl Progress {
    fn new(seeds: &[Seed], steps: u64) -> Result<Self> {
        let style =
            ProgressStyle::with_template("{prefix:>10} {bar:30} {percent:>3} %  {msg}").map_err(Error::other)?;
        let target =
            if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let all = MultiProgress::with_draw_target(target);
        let bar = |seed: &Seed| {
            let bar = all.add(ProgressBar::new(steps)).with_style(style.clone());
            bar.set_prefix(seed.run.name.clone());
            bar.set_message("waiting");
            bar
        };
        let now = Instant::now();
        let bars = if all.is_hidden() { Vec::new() } else { seeds.iter().map(bar).collect() };
        Ok(Self { steps, bars, start: now, before: done(seeds), shown: now })
    }

    fn show(&mut self, seeds: &[Seed]) {
        for (bar, seed) in self.bars.iter().zip(seeds).filter(|(_, seed)| seed.run.step > 0) {
            bar.set_position(seed.run.step);
            let state = match seed.status {
                Status::Open => "",
                Status::Done => "done",
                Status::Failed => "failed",
            };
            bar.set_message(format!("return {:>9}  {state}", shown(seed.score())));
        }
        if self.bars.is_empty() && self.shown.elapsed() >= INTERVAL {
            self.shown = Instant::now();
            let (done, all) = (done(seeds), self.steps * seeds.len() as u64);
            let (new, left) = (done.saturating_sub(self.before), all.saturating_sub(done));
            let scores: Vec<_> = seeds.iter().map(|seed| shown(seed.score())).collect();
            let left = match new {
                0 => String::new(),
                _ => format!(", about {} left", duration(self.start.elapsed().mul_f64(left as f64 / new as f64))),
            };
            note!("{} % of all steps, returns {}{left}", 100 * done / all.max(1), scores.join(", "));
        }
    }

    fn ended(&self, seed: &Seed) {
        if self.bars.is_empty() {
            let state = match seed.status {
                Status::Open => "interrupted",
                Status::Done => "done",
                Status::Failed => "failed",
            };
            let (name, steps) = (&seed.run.name, thousands(seed.run.step));
            note!("{name} {state} after {steps} steps, return {}", shown(seed.score()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bars.iter().for_each(ProgressBar::abandon);
    }
}

/// Agent steps of all runs.
fn done(seeds: &[Seed]) -> u64 {
    seeds.iter().map(|seed| seed.run.step).sum()
}

fn shown(score: Option<f64>) -> String {
    score.map_or("-".into(), |score| format!("{score:.2}"))
}

/// The results: the final return of each run, and their mean, median, minimum and maximum.
fn report(seeds: &[Seed]) {
    let evaluated = seeds.iter().any(|seed| seed.run.evaluated.is_some());
    let kind = if evaluated { "last evaluation" } else { "last 100 training episodes" };
    out!("{:<10} {:>12} {:>12}", "seed", "steps", "return");
    for seed in seeds {
        let state = match seed.status {
            Status::Open => "  interrupted",
            Status::Done => "",
            Status::Failed => "  failed",
        };
        out!("{:<10} {:>12} {:>12}{state}", seed.seed, thousands(seed.run.step), shown(seed.score()));
    }
    let scores: Vec<f64> = seeds.iter().filter_map(Seed::score).collect();
    for (name, value) in summary(&scores) {
        out!("{name:<10} {:>12} {value:>12.2}", "");
    }
    out!("return     mean of the {kind}");
}

/// Mean, median, minimum and maximum; none without scores.
fn summary(scores: &[f64]) -> Vec<(&'static str, f64)> {
    if scores.is_empty() {
        return Vec::new();
    }
    let quantiles = [("median", 0.5), ("min", 0.0), ("max", 1.0)];
    let quantiles = quantiles.map(|(name, share)| (name, stats::quantile(scores, share)));
    [("mean", stats::mean(scores))].into_iter().chain(quantiles).collect()
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn the_summary_of_final_returns() {
        assert_eq!(summary(&[4.0, 1.0, 10.0]), [("mean", 5.0), ("median", 4.0), ("min", 1.0), ("max", 10.0)]);
        assert_eq!(summary(&[4.0, 1.0])[1], ("median", 2.5));
        assert!(summary(&[]).is_empty());
    }
}
