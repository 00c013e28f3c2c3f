//! Random search with successive halving: each trial is a training run in its own process, and the worst trials are stopped early.
//!
//! ```text
//! sweeps/ppo-pong-1/sweep.toml      the searched settings; config.toml: the experiment
//!                   trials.csv      the state of every trial, read when a sweep is resumed
//!                   trial-000/      the run of a trial; trial-000.log: its output
//!                   sweep.svg, png  return against each setting
//! ```

use crate::args::Sweep as Args;
use crate::experiment::{self, Experiment};
use crate::folder::{self, next_free};
use crate::jobs::{Jobs, Training};
use crate::output::{note, out};
use crate::{Registry, paths, signals};
use indicatif::{ProgressBar, ProgressStyle};
use playfield_core::files::atomic_write;
use playfield_core::run::Stop;
use playfield_core::text::thousands;
use playfield_core::{Error, Result, rng};
use playfield_lab::chart;
use playfield_lab::trick::Panel;
use playfield_log::duration;
use playfield_report::format::number;
use playfield_tricks::lr_search::{ADVICE, Range, should_stop};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use toml::{Table, Value};

/// The options of a sweep, saved as `sweep.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Plan {
    trials: usize,
    seed: u64,
    keep: usize,
    params: Vec<Param>,
}

/// A searched setting.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Param {
    /// The complete key.
    key: String,
    /// `LOW..HIGH` or `LOW..HIGH:log`.
    range: String,
    /// Whether it is a whole number.
    whole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// Not started, running or interrupted.
    Open,
    /// Trained for all steps.
    Done,
    /// Stopped early at a rung.
    Stopped,
    /// Ended with an error, which is in its log.
    Failed,
}

struct Trial {
    run: Training,
    values: Vec<f64>,
    status: Status,
    /// The mean return at each reached rung.
    rungs: Vec<f64>,
}

/// The text after the options in `playfield sweep --help`.
pub fn advice() -> String {
    let mut text =
        String::from("What raises a model's capacity (Goodfellow, Bengio and Courville 2016, table 11.1):\n");
    for advice in ADVICE {
        text += &format!("  {:<30} {}: {}\n", advice.setting, advice.raises_capacity, advice.reason);
        text += &format!("  {:<30} {}\n", "", advice.note);
    }
    text += "\nExamples:
  playfield sweep configs/dqn/cartpole.toml --param learning_rate=1e-4..1e-2:log --param gamma=0.9..0.999 --trials 20
  playfield sweep --resume sweeps/ppo-cartpole-1 --trials 40";
    text
}

/// `playfield sweep`.
pub fn sweep(registry: &Registry, args: &Args) -> Result<ExitCode> {
    let stop = signals::listen("each trial finishes its update and saves")?;
    let (path, mut plan, table) = match &args.resume {
        Some(path) => {
            let plan = path.join("sweep.toml");
            let text = fs::read_to_string(&plan).map_err(Error::io("read", &plan))?;
            let plan: Plan =
                toml::from_str(&text).map_err(|e| Error::config(format!("{}: {e}", paths::shown(&plan))))?;
            let table = folder::read_toml(&path.join("config.toml"))?;
            registry.check_trust(&table, path)?;
            (path.clone(), plan, table)
        }
        None => fresh(registry, args)?,
    };
    plan.trials = if args.resume.is_some() { args.trials.unwrap_or(plan.trials).max(plan.trials) } else { plan.trials };
    let experiment = Experiment::new(table, &[], registry)?;
    let write = |name: &str, text: String| {
        let file = path.join(name);
        fs::write(&file, text).map_err(Error::io("write", &file))
    };
    write("config.toml", experiment.to_table()?.to_string())?;
    write("sweep.toml", toml::to_string(&plan).map_err(Error::other)?)?;
    let ranges = plan.params.iter().map(Param::range).collect::<Result<Vec<_>>>()?;
    let mut trials: Vec<Trial> = (0..plan.trials).map(|i| Trial::new(i, &plan, &ranges)).collect();
    restore(&path, &mut trials)?;
    let (rungs, mut jobs) = (rungs(experiment.steps), Jobs::new(args.jobs, plan.trials));
    let [first, second, third] = rungs.map(thousands);
    note!(
        "{} trials of {} steps, {} in parallel, into {}; the worst {} are stopped after {first}, {second} and {third} steps",
        plan.trials,
        thousands(experiment.steps),
        jobs.slots(),
        paths::shown(&path),
        if plan.keep == 2 { "half".into() } else { format!("{} of {}", plan.keep - 1, plan.keep) },
    );
    let resumed: Vec<String> = registry.trust_option().into_iter().collect();
    Sweep { path: &path, plan: &plan, rungs: &rungs, experiment: &experiment, resumed: &resumed }.run(
        &mut trials,
        &mut jobs,
        &stop,
    )?;
    let has_best = report(&path, &plan, &ranges, &mut trials)?;
    match stop.requested() {
        Some(signal) => {
            out!("resume     {} sweep --resume {}", paths::program(), paths::shown(&path));
            Ok(ExitCode::from(128 + signal as u8))
        }
        None if has_best => Ok(ExitCode::SUCCESS),
        None => Err(no_best_trial(&path, &trials)),
    }
}

/// The error of a sweep without a best trial.
fn no_best_trial(path: &Path, trials: &[Trial]) -> Error {
    let Some(failed) = trials.iter().find(|t| t.status == Status::Failed) else {
        return Error::config(format!(
            "no episode ended in any of the {} trials, so they cannot be compared: increase --steps",
            trials.len()
        ));
    };
    let reason = failed.run.error(path);
    let count = trials.iter().filter(|t| t.status == Status::Failed).count();
    Error::config(format!("{count} of {} trials failed, and no other trial has a return; {reason}", trials.len()))
}

/// The folder, plan and configuration of a new sweep. All settings are validated before the folder is created.
fn fresh(registry: &Registry, args: &Args) -> Result<(PathBuf, Plan, Table)> {
    let config = args.config.as_deref().expect("clap requires it without --resume");
    let mut table = folder::read_toml(config)?;
    let overrides = [("env.id", args.env.clone()), ("steps", args.steps.map(|n| n.to_string()))];
    let overrides = overrides.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value?)));
    let sets: Vec<_> = args.set.iter().cloned().chain(overrides).collect();
    let experiment = Experiment::new(table, &sets, registry)?;
    let name = experiment.name();
    table = experiment.to_table()?;
    let mut params: Vec<Param> = Vec::new();
    for text in &args.param {
        let Some((key, range)) = text.split_once('=') else {
            return Err(Error::config(format!("--param {text}: write it as KEY=LOW..HIGH or KEY=LOW..HIGH:log")));
        };
        let (key, value) = experiment::setting(&table, key.trim(), registry)?;
        let whole = match value {
            Value::Integer(_) => true,
            Value::Float(_) => false,
            other => return Err(Error::config(format!("--param {key}: {other} is not a number, so it has no range"))),
        };
        if params.iter().any(|p| p.key == key) {
            return Err(Error::config(format!("--param {key}: specified twice")));
        }
        let param = Param { key, range: range.into(), whole };
        // Both bounds must be valid values of the setting.
        for share in [0.0, 1.0] {
            let end = param.to_toml(param.range()?.at(share));
            Experiment::new(table.clone(), &[format!("{}={end}", param.key)], registry)?;
        }
        params.push(param);
    }
    let path = match &args.dir {
        Some(path) if path.join("sweep.toml").exists() => {
            let path = paths::shown(path);
            return Err(Error::config(format!(
                "{path} already contains a sweep: resume it ({} sweep --resume {path}), or choose another --dir",
                paths::program()
            )));
        }
        Some(path) => {
            fs::create_dir_all(path).map_err(Error::io("create", path))?;
            path.clone()
        }
        None => next_free(&paths::absolute("sweeps"), &name)?,
    };
    Ok((path, Plan { trials: args.trials.unwrap_or(20), seed: args.seed, keep: args.keep, params }, table))
}

impl Param {
    fn range(&self) -> Result<Range> {
        let range = self.range.parse::<Range>().and_then(|range| range.whole(self.whole));
        range.map_err(|error| Error::config(format!("--param {}={error}", self.key)))
    }

    /// A value in TOML syntax.
    fn to_toml(&self, value: f64) -> String {
        if self.whole { format!("{}", value as i64) } else { format!("{value:?}") }
    }
}

impl Trial {
    /// Trial `i`. Its values depend only on the seed of the sweep and on `i`, so a resumed sweep samples the same ones.
    fn new(i: usize, plan: &Plan, ranges: &[Range]) -> Self {
        let mut rng = rng::stream(rng::derive(plan.seed, "sweep", i as u64), "values");
        let values = ranges.iter().map(|range| range.sample(&mut rng)).collect();
        let (status, rungs) = (Status::Open, Vec::new());
        Self { run: Training::new(format!("trial-{i:03}")), values, status, rungs }
    }

    /// Reads the current step and return of the run, and its returns at the rungs.
    fn read_progress(&mut self, folder: &Path, rungs: &[u64]) {
        let Self { run, rungs: reached, .. } = self;
        reached.clear();
        run.read_progress(folder, |step, score| {
            if let (Some(rung), Some(score)) = (rungs.get(reached.len()), score)
                && step >= *rung
            {
                reached.push(score);
            }
        });
    }
}

/// The steps at which trials are compared: 1/8, 1/4 and 1/2 of all steps.
fn rungs(steps: u64) -> [u64; 3] {
    [8, 4, 2].map(|part| steps / part)
}

/// The expected number of steps that remain, of trials of `steps` steps each: one of `keep` trials passes each rung.
fn remaining(trials: &[Trial], steps: u64, keep: usize) -> u64 {
    let of = |trial: &Trial| {
        let (mut from, mut passing, mut sum) = (trial.run.step, 1.0, 0.0);
        for end in rungs(steps).into_iter().chain([steps]).filter(|end| *end > trial.run.step) {
            sum += passing * (end - from) as f64;
            passing /= keep as f64;
            from = end;
        }
        sum
    };
    trials.iter().filter(|trial| trial.status == Status::Open).map(of).sum::<f64>().round() as u64
}

/// A running sweep.
struct Sweep<'a> {
    path: &'a Path,
    plan: &'a Plan,
    rungs: &'a [u64],
    experiment: &'a Experiment,
    /// Further arguments of a trial that is resumed.
    resumed: &'a [String],
}

impl Sweep<'_> {
    fn run(&self, trials: &mut [Trial], jobs: &mut Jobs, stop: &Stop) -> Result<()> {
        let done = |trials: &[Trial]| trials.iter().map(|trial| trial.run.step).sum::<u64>();
        let (start, before) = (Instant::now(), done(trials));
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{bar:24} {percent}%, {elapsed} elapsed{msg}");
        bar.set_style(style.map_err(Error::other)?);
        // Rungs at which each trial was compared.
        let mut compared = vec![0; trials.len()];
        loop {
            let stopping = stop.requested().is_some();
            while !stopping && jobs.has_free_slot() {
                let open = |i: &usize| trials[*i].status == Status::Open && !jobs.contains(*i);
                let Some(i) = (0..trials.len()).find(open) else { break };
                jobs.start(i, self.command(&trials[i])?, &trials[i].run.log(self.path))?;
            }
            if jobs.is_empty() {
                break;
            }
            if stopping {
                jobs.interrupt_all();
            }
            std::thread::sleep(Duration::from_millis(200));
            for i in (0..trials.len()).filter(|i| jobs.contains(*i)) {
                trials[i].read_progress(self.path, self.rungs);
                while let Some(value) = trials[i].rungs.get(compared[i]).copied() {
                    let others = trials.iter().enumerate().filter(|(j, _)| *j != i);
                    let others: Vec<f64> = others.filter_map(|(_, t)| t.rungs.get(compared[i]).copied()).collect();
                    compared[i] += 1;
                    if trials[i].status == Status::Open && should_stop(value, &others, self.plan.keep) {
                        trials[i].status = Status::Stopped;
                        jobs.interrupt(i);
                    }
                }
            }
            for (i, status) in jobs.take_ended()? {
                trials[i].read_progress(self.path, self.rungs);
                trials[i].status = match trials[i].status {
                    Status::Open if status.success() => Status::Done,
                    // An interrupted trial has saved a checkpoint and stays open: it resumes with the sweep.
                    Status::Open if !stopping => Status::Failed,
                    status => status,
                };
            }
            save(self.path, self.plan, trials)?;
            let (done, remaining) = (done(trials), remaining(trials, self.experiment.steps, self.plan.keep));
            bar.set_length(done + remaining);
            bar.set_position(done);
            let left = match done.saturating_sub(before) {
                0 => String::new(),
                new => format!(", about {} left", duration(start.elapsed().mul_f64(remaining as f64 / new as f64))),
            };
            let count = |status| trials.iter().filter(|t| t.status == status).count();
            let best = trials.iter().filter_map(|t| t.run.score).fold(f64::NEG_INFINITY, f64::max);
            let best = if best.is_finite() { format!(", best {}", number(best)) } else { String::new() };
            let (done, stopped) = (count(Status::Done), count(Status::Stopped));
            bar.set_message(format!("{left}; {done} done, {stopped} stopped{best}"));
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// The command that starts or resumes a trial.
    fn command(&self, trial: &Trial) -> Result<Command> {
        let seconds = format!("log_seconds={:?}", self.experiment.intervals.log_seconds.min(1.0));
        let values = self.plan.params.iter().zip(&trial.values);
        let values = values.map(|(param, value)| format!("{}={}", param.key, param.to_toml(*value)));
        let arguments: Vec<_> = [seconds].into_iter().chain(values).flat_map(|set| ["--set".into(), set]).collect();
        trial.run.command(self.path, &self.path.join("config.toml"), &arguments, self.resumed)
    }
}

/// Writes the state of every trial to `trials.csv`, atomically.
fn save(path: &Path, plan: &Plan, trials: &[Trial]) -> Result<()> {
    let keys: String = plan.params.iter().map(|p| format!(",{}", p.key)).collect();
    let mut text = format!("trial,status,step,return{keys}\n");
    for trial in trials {
        let status = Value::try_from(trial.status).map_err(Error::other)?;
        let (status, score) =
            (status.as_str().unwrap_or_default(), trial.run.score.map_or(String::new(), |s| s.to_string()));
        text += &format!("{},{status},{},{score}", trial.run.name, trial.run.step);
        plan.params.iter().zip(&trial.values).for_each(|(p, v)| text += &format!(",{}", p.to_toml(*v)));
        text.push('\n');
    }
    atomic_write(&path.join("trials.csv"), |file| file.write_all(text.as_bytes()))
}

/// Reads the state of the trials of an earlier session.
fn restore(path: &Path, trials: &mut [Trial]) -> Result<()> {
    let text = fs::read_to_string(path.join("trials.csv")).unwrap_or_default();
    for line in text.lines().skip(1) {
        let mut cells = line.split(',');
        let (name, status) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        if let Some(trial) = trials.iter_mut().find(|t| t.run.name == name) {
            trial.status = Value::from(status).try_into().map_err(|_| {
                Error::config(format!("{}: unknown status '{status}'", paths::shown(&path.join("trials.csv"))))
            })?;
            // The cause of a failure may have been temporary: the trial is repeated.
            if trial.status == Status::Failed {
                trial.status = Status::Open;
            }
            trial.read_progress(path, &[]);
        }
    }
    Ok(())
}

/// Plots and prints the results, sorts the trials, and returns whether there is a best one.
fn report(path: &Path, plan: &Plan, ranges: &[Range], trials: &mut [Trial]) -> Result<bool> {
    let points = |k: usize| {
        let of = |t: &Trial| Some(([t.values[k], t.run.score?], u8::from(t.status == Status::Done)));
        trials.iter().filter_map(of).unzip::<_, _, Vec<[f64; 2]>, Vec<u8>>()
    };
    let panels = plan.params.iter().zip(ranges).enumerate().map(|(k, (param, range))| {
        let (points, classes) = points(k);
        Panel {
            title: param.key.clone(),
            axes: Some(("".into(), "return".into())),
            log: range.is_log(),
            points,
            classes,
        }
    });
    let panels = panels.collect::<Vec<_>>();
    let title = "return (blue: trained for all steps, gray: not)";
    let (svg, png) = (path.join("sweep.svg"), path.join("sweep.png"));
    fs::write(&svg, chart::panels_svg(title, &panels)?).map_err(Error::io("write", &svg))?;
    fs::write(&png, chart::panels_png(title, &panels)?).map_err(Error::io("write", &png))?;

    // Completed trials first, by return; then the others, by number of steps.
    trials.sort_by(|a, b| {
        let done = |t: &Trial| t.status == Status::Done;
        let reached = |t: &Trial| if done(t) { u64::MAX } else { t.run.step };
        let score = |t: &Trial| t.run.score.unwrap_or(f64::NEG_INFINITY);
        reached(b).cmp(&reached(a)).then(score(b).total_cmp(&score(a)))
    });
    let names: Vec<&str> = plan.params.iter().map(|p| p.key.split_once('.').map_or(&*p.key, |(_, key)| key)).collect();
    let widths: Vec<usize> = names.iter().map(|n| n.len().max(9)).collect();
    let heads: String = names.iter().zip(&widths).map(|(name, width)| format!("  {name:>width$}")).collect();
    out!("{:<10} {:<8} {:>10} {:>9}{heads}", "trial", "", "steps", "return");
    for trial in trials.iter().filter(|t| t.run.step > 0).take(20) {
        let status = match trial.status {
            Status::Open => "open",
            Status::Done => "done",
            Status::Stopped => "stopped",
            Status::Failed => "failed",
        };
        let score = trial.run.score.map_or("-".into(), number);
        let mut line = format!("{:<10} {status:<8} {:>10} {score:>9}", trial.run.name, thousands(trial.run.step));
        for ((param, value), width) in plan.params.iter().zip(&trial.values).zip(&widths) {
            let value = if param.whole { param.to_toml(*value) } else { format!("{value:.3e}") };
            line += &format!("  {value:>width$}");
        }
        out!("{line}");
    }
    for trial in trials.iter().filter(|t| t.status == Status::Failed) {
        out!("failed     see {}", paths::shown(&trial.run.log(path)));
    }
    out!("sweep      {} (trials.csv, sweep.svg, sweep.png)", paths::shown(path));
    let best = trials.first().filter(|t| t.status == Status::Done && t.run.score.is_some());
    if let Some(best) = best {
        out!("best       {}", paths::shown(&path.join(&best.run.name)));
        out!("next       repeat with other seeds: the best of many trials is biased upwards");
        out!("advice     {} sweep --help lists the effect of each setting on model capacity", paths::program());
    }
    Ok(best.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remaining_steps_are_those_of_the_trials_that_pass_each_rung() {
        let trials = |steps: &[(u64, Status)]| -> Vec<Trial> {
            let plan = Plan { trials: steps.len(), seed: 1, keep: 2, params: Vec::new() };
            let mut trials: Vec<_> = (0..steps.len()).map(|i| Trial::new(i, &plan, &[])).collect();
            trials.iter_mut().zip(steps).for_each(|(trial, state)| (trial.run.step, trial.status) = *state);
            trials
        };
        // From 0 to the rungs at 100, 200 and 400 of 800 steps: 100 + 100/2 + 200/4 + 400/8.
        assert_eq!(remaining(&trials(&[(0, Status::Open)]), 800, 2), 250);
        assert_eq!(remaining(&trials(&[(0, Status::Open)]), 800, 4), 100 + 25 + 13 + 6);
        // Past the first rung, 50 + 200/2 + 400/4; past the last, all that is left.
        assert_eq!(remaining(&trials(&[(150, Status::Open), (500, Status::Open)]), 800, 2), 250 + 300);
        let ended = [(800, Status::Done), (110, Status::Stopped), (0, Status::Failed), (800, Status::Open)];
        assert_eq!(remaining(&trials(&ended), 800, 2), 0);
    }
}
