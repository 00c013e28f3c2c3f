use crate::args::Distill as Args;
use crate::commands::agent::Agent;
use crate::experiment::Experiment;
use crate::folder::Folder;
use crate::output::{note, out};
use crate::{Registry, paths, signals};
use indicatif::{ProgressBar, ProgressStyle};
use playfield_collect::evaluate;
use playfield_core::metrics::{EpisodeRow, Row};
use playfield_core::rng::Rng;
use playfield_core::run::Stop;
use playfield_core::text::thousands;
use playfield_core::{
    ActionSpace, Actions, Algorithm as _, EnvFactory as _, Error, Mode, Obs, Outputs, Policy, Result, Snapshot, rng,
};
use playfield_nn::NetworkConfig;
use playfield_paac::Paac;
use playfield_tricks::policy_distillation::{SHARP, Student};
use rand::RngExt as _;
use serde::Serialize;
use std::process::ExitCode;
use std::time::Instant;
use toml::{Table, Value};

/// Observations per update.
const BATCH_SIZE: usize = 64;

/// Agent steps between two updates.
const TRAIN_INTERVAL: u64 = 4;

/// The tag of the loss.
const DIVERGENCE: &str = "distill/kl_divergence";

/// Rows of `progress.csv`.
const LOG_ROWS: u64 = 200;

/// Capacity of the buffer of recent observations.
const BUFFER_SIZE: usize = 4096;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    teacher: Performance,
    student: Performance,
    /// Mean return of the student divided by that of the teacher, if the latter is positive.
    kept: Option<f64>,
    run: String,
}

#[derive(Debug, Serialize)]
struct Performance {
    mean_return: f64,
    parameters: usize,
    /// Median time to select one action, in microseconds.
    microseconds: f64,
}

/// `playfield distill`.
pub fn distill(registry: &Registry, args: &Args) -> Result<ExitCode> {
    let stop = signals::listen("saving the current student")?;
    if !(args.learning_rate > 0.0 && args.learning_rate.is_finite()) {
        return Err(Error::config(format!("--learning-rate {} must be greater than 0", args.learning_rate)));
    }
    let teacher = Agent::open(registry, &args.run, None, args.best)?;
    let table = student_table(&teacher, args)?;
    if teacher.snapshot.params.keys().any(|name| name.starts_with("lstm.")) {
        note!(
            "warning: the teacher has an LSTM and the student has none: it only imitates what the last observation tells"
        );
    }
    let experiment = Experiment::new(table.clone(), &[], registry)?;
    let network: NetworkConfig = table["network"].clone().try_into().map_err(Error::other)?;
    let (spec, n) = (teacher.factory.spec().clone(), teacher.experiment.env.num_envs);
    let mut policy = teacher.policy(args.seed, "distill/actions")?;
    let mut collector = teacher.collector(&rng::seeds(args.seed, "distill", n))?;
    policy.begin(n);
    let first = policy.outputs(collector.observations(), n)?;
    let temperature = args.temperature.unwrap_or(if first.are_values { SHARP } else { 1.0 });
    let mut init = rng::stream(args.seed, "distill/init");
    let mut student = Student::new(&network, &spec, "auto", temperature, &mut init)?;
    if !matches!(spec.actions, ActionSpace::Discrete { .. }) {
        return Err(Error::config(format!(
            "{} has continuous actions or actions of several components: policy distillation needs discrete ones",
            spec.id
        )));
    }
    let parameters = teacher.snapshot.params.values().map(|a| a.shape.iter().product::<usize>()).sum();
    if student.parameters() >= parameters {
        return Err(Error::config(format!(
            "--torso {}: the student would have {} parameters, and the teacher has {parameters}: choose a smaller torso",
            args.torso,
            student.parameters()
        )));
    }
    let folder = folder(args)?;
    folder.append_session()?;
    let mut sinks = playfield_log::run_folder_sinks(folder.path(), None)?;
    let meaning = "mean KL divergence of the student's policy from the teacher's before the last update [nats]";
    sinks.iter_mut().for_each(|sink| sink.describe(DIVERGENCE, meaning));

    let bar = if args.json { ProgressBar::hidden() } else { ProgressBar::new(args.steps) };
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} steps, {per_sec}, {eta} left");
    bar.set_style(style.map_err(Error::other)?);
    let mut buffer = Buffer::new(spec.obs_len(), rng::stream(args.seed, "distill/batches"));
    let (mut updates, mut divergence) = (0, f64::NAN);
    let (start, log_steps) = (Instant::now(), (args.steps / LOG_ROWS).max(1));
    let mut train = || -> Result<u64> {
        while collector.steps() < args.steps && stop.requested().is_none() {
            let outputs = policy.outputs(collector.observations(), n)?;
            buffer.push(collector.observations(), &outputs, n);
            collector.step(&mut *policy, Mode::Sample)?;
            let (before, step) = (collector.steps() - n as u64, collector.steps());
            let rate = args.learning_rate * (1.0 - step as f64 / args.steps as f64).max(0.0);
            for (step, end) in collector.take_episodes() {
                let row = EpisodeRow { step, elapsed: start.elapsed(), end };
                sinks.iter_mut().try_for_each(|sink| sink.episode(&row))?;
            }
            while buffer.len >= BATCH_SIZE && updates * TRAIN_INTERVAL < step {
                let (obs, outputs) = buffer.sample();
                divergence = student.learn(&obs, BATCH_SIZE, &outputs, rate)?;
                updates += 1;
            }
            if step / log_steps > before / log_steps {
                let values =
                    [(DIVERGENCE, divergence), ("train/learning_rate", rate), ("train/n_updates", updates as f64)];
                let row = Row::new(step, start.elapsed(), values.map(|(tag, value)| (tag.into(), value)));
                sinks.iter_mut().try_for_each(|sink| sink.scalars(&row))?;
            }
            bar.set_position(step.min(args.steps));
            bar.set_message(format!("KL {divergence:.4}"));
        }
        bar.finish_and_clear();
        sinks.iter_mut().try_for_each(|sink| sink.flush())?;
        let step = collector.steps();
        let mut snapshot = Snapshot { step, ..Snapshot::default() };
        student.save(&mut snapshot);
        if let Some(name) = snapshot.non_finite() {
            return Err(Error::Diverged(format!("the student diverged: {name} is not finite. Lower --learning-rate")));
        }
        if let Some(statistics) = teacher.snapshot.state.get("env.statistics") {
            snapshot.state.insert("env.statistics".into(), statistics.clone());
        }
        folder.checkpoints(experiment.intervals.keep_checkpoints).save(&snapshot, None)?;
        // Written last, so that an incomplete folder is not mistaken for a run.
        folder.write_config(&experiment.to_table()?)?;
        Ok(step)
    };
    let step = match train() {
        Ok(step) => step,
        Err(error) => {
            folder.discard();
            return Err(error);
        }
    };
    let path = folder.path().to_path_buf();
    let small = Agent::open(registry, &path, None, false)?;
    let teacher = performance(&teacher, parameters, args, &stop)?;
    let student = performance(&small, student.parameters(), args, &stop)?;
    if let Some(signal) = stop.requested() {
        note!("stopped after {} steps; the current student is saved in {}", thousands(step), paths::shown(&path));
        return Ok(ExitCode::from(128 + signal as u8));
    }
    let kept = (teacher.mean_return > 0.0).then(|| student.mean_return / teacher.mean_return);
    let report = Report { teacher, student, kept, run: paths::shown(&path) };
    if args.json {
        out!("{}", serde_json::to_string(&report).map_err(Error::other)?);
    } else {
        print(&report, args, temperature);
    }
    Ok(ExitCode::SUCCESS)
}

/// The settings of the student: the teacher's environment and an actor-critic with the smaller torso.
fn student_table(teacher: &Agent, args: &Args) -> Result<Table> {
    let mut table = teacher.experiment.to_table()?;
    let before = table.get("network").and_then(Value::as_table).cloned().unwrap_or_default();
    let mut network = Table::new();
    for kept in ["activation", "standardize", "precision", "kernels"] {
        network.extend(before.get(kept).map(|value| (kept.to_string(), value.clone())));
    }
    network.insert("init".into(), "orthogonal".into());
    match args.torso.as_str() {
        // The student of an MLP is an MLP with half the width of each layer.
        "small" | "mlp" if before.get("torso").and_then(Value::as_str) == Some("mlp") => {
            let width = |w: &Value| Value::Integer((w.as_integer().unwrap_or(2) / 2).max(1));
            let hidden = before.get("hidden").and_then(Value::as_array);
            let halves: Vec<Value> = hidden.into_iter().flatten().map(width).collect();
            network.insert("torso".into(), "mlp".into());
            network.insert("hidden".into(), halves.into());
        }
        torso => drop(network.insert("torso".into(), torso.into())),
    }
    table.remove(teacher.experiment.algorithm.name);
    // PAAC loads the student, an actor-critic.
    table.insert("algorithm".into(), Paac::NAME.into());
    table.insert("steps".into(), Value::Integer(args.steps as i64));
    table.insert("seed".into(), Value::Integer(args.seed as i64));
    table.insert("network".into(), network.into());
    Ok(table)
}

/// The folder of the student: `--run-dir`, or a new folder next to the teacher's.
fn folder(args: &Args) -> Result<Folder> {
    let name = args.run.file_name().map(|s| s.to_string_lossy().into_owned()).unwrap_or_else(|| "agent".into());
    let parent = args.run.parent().unwrap_or(&args.run);
    Folder::create(args.run_dir.as_deref(), parent, &format!("{name}-{}", args.torso))
}

/// A circular buffer of recent observations and the teacher's outputs.
struct Buffer {
    obs: Option<Obs>,
    preferences: Vec<f32>,
    values: Vec<f32>,
    are_values: bool,
    obs_len: usize,
    len: usize,
    next: usize,
    rng: Rng,
}

impl Buffer {
    fn new(obs_len: usize, rng: Rng) -> Self {
        let (preferences, values) = (Vec::new(), vec![0.0; BUFFER_SIZE]);
        Self { obs: None, preferences, values, are_values: false, obs_len, len: 0, next: 0, rng }
    }

    fn push(&mut self, obs: &Obs, outputs: &Outputs, n: usize) {
        let (len, actions) = (self.obs_len, outputs.preferences.len() / n);
        let stored = self.obs.get_or_insert_with(|| Obs::zeros(obs.dtype(), BUFFER_SIZE * len));
        self.preferences.resize(BUFFER_SIZE * actions, 0.0);
        self.are_values = outputs.are_values;
        for i in 0..n {
            let at = self.next;
            stored.slice_mut(at * len, len).copy_from(obs.slice(i * len, len));
            self.preferences[at * actions..(at + 1) * actions]
                .copy_from_slice(&outputs.preferences[i * actions..(i + 1) * actions]);
            self.values[at] = outputs.values[i];
            self.next = (at + 1) % BUFFER_SIZE;
            self.len = (self.len + 1).min(BUFFER_SIZE);
        }
    }

    fn sample(&mut self) -> (Obs, Outputs) {
        let stored = self.obs.as_ref().expect("the buffer is not empty");
        let (len, actions) = (self.obs_len, self.preferences.len() / BUFFER_SIZE);
        let mut obs = Obs::zeros(stored.dtype(), BATCH_SIZE * len);
        let mut outputs = Outputs { are_values: self.are_values, ..Outputs::default() };
        for i in 0..BATCH_SIZE {
            let at = self.rng.random_range(0..self.len);
            obs.slice_mut(i * len, len).copy_from(stored.slice(at * len, len));
            outputs.preferences.extend_from_slice(&self.preferences[at * actions..(at + 1) * actions]);
            outputs.values.push(self.values[at]);
        }
        (obs, outputs)
    }
}

/// The mean greedy return of an agent and its time per action; incomplete if `stop` is requested.
fn performance(agent: &Agent, parameters: usize, args: &Args, stop: &Stop) -> Result<Performance> {
    let n = agent.experiment.env.num_envs.min(args.episodes as usize);
    let mut collector = agent.collector(&rng::seeds(args.seed, "eval", n))?;
    let mut policy = agent.policy(args.seed, "eval/actions")?;
    let ends = evaluate(&mut collector, &mut *policy, Mode::Greedy, args.episodes as usize, stop, || ())?;
    policy.begin(1);
    let mean_return = ends.iter().map(|e| e.episode_return).sum::<f64>() / ends.len() as f64;
    Ok(Performance { mean_return, parameters, microseconds: action_time(&mut *policy, agent)? })
}

/// The median time to select one action, in microseconds.
fn action_time(policy: &mut dyn Policy, agent: &Agent) -> Result<f64> {
    let spec = agent.factory.spec();
    let (obs, mut actions) = (Obs::zeros(spec.dtype, spec.obs_len()), Actions::zeros(&spec.actions, 1));
    let mut times = Vec::new();
    for _ in 0..201 {
        let start = Instant::now();
        policy.act(&obs, &[], Mode::Greedy, &mut actions)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn print(report: &Report, args: &Args, temperature: f64) {
    let Report { teacher, student, kept, run } = report;
    out!("{:<10} {:>12} {:>12} {:>16}", "", "return", "parameters", "µs per action");
    for (name, s) in [("teacher", teacher), ("student", student)] {
        out!("{name:<10} {:>12.2} {:>12} {:>16.0}", s.mean_return, thousands(s.parameters as u64), s.microseconds);
    }
    let kept = kept.map_or(String::new(), |kept| format!("{:.0} % of the return, ", 100.0 * kept));
    let parameters = 100.0 * student.parameters as f64 / teacher.parameters as f64;
    out!(
        "kept       {kept}with {parameters:.0} % of the parameters, {:.1} times as fast",
        teacher.microseconds / student.microseconds
    );
    out!("measured   {} greedy episodes, τ = {temperature}", args.episodes);
    out!("run        {run}");
    out!("evaluate   {} eval {run} --episodes 30 --deterministic", paths::program());
}
