//! A run: what training is told about its outside (how far to go, when to stop) and what it reports to it.
//!
//! An algorithm owns its loop and its clock; a [`Run`] never calls back into it. It answers a few questions
//! ([`goes_on`](Run::goes_on), [`log_due`](Run::log_due), [`save_due`](Run::save_due)) and takes reports.

use crate::metrics::{EpisodeRow, Row, Sink, Window};
use crate::{Checkpoints, EpisodeEnd, Error, Result, Snapshot};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// The number of the signal that asked the run to stop; 0 while nobody did.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicI32>);

impl Stop {
    /// Asks the run to finish its update, save and return.
    pub fn request(&self, signal: i32) {
        self.0.store(signal, Ordering::Relaxed);
    }

    /// The signal that asked, if one did.
    pub fn requested(&self) -> Option<i32> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&s| s != 0)
    }
}

/// How often a run reports and saves.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Intervals {
    /// Seconds between two rows of metrics.
    pub log_seconds: f64,
    /// Seconds between two checkpoints.
    pub checkpoint_seconds: f64,
    /// How many of the latest checkpoints are kept, beside the best.
    pub keep_checkpoints: usize,
}

impl Default for Intervals {
    fn default() -> Self {
        Self { log_seconds: 5.0, checkpoint_seconds: 300.0, keep_checkpoints: 2 }
    }
}

/// One training run.
pub struct Run {
    seed: u64,
    steps: u64,
    stop: Stop,
    intervals: Intervals,
    checkpoints: Option<Checkpoints>,
    sinks: Vec<Box<dyn Sink>>,
    resume: Option<Snapshot>,
    start: Instant,
    before: Duration,
    step: u64,
    first_step: u64,
    last_log: (Instant, u64),
    last_save: Instant,
    episodes: u64,
    window: Window,
}

/// What a run was, at its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Agent steps in all.
    pub step: u64,
    /// Agent steps a second, over this session.
    pub steps_per_second: f64,
    /// Wall time in all.
    pub elapsed: Duration,
    /// Episodes in all.
    pub episodes: u64,
    /// Mean raw return of the last 100 episodes.
    pub mean_reward: Option<f64>,
}

impl Run {
    /// A run that trains to `steps` agent steps from `seed`, reports nothing and saves nothing: what a test needs.
    pub fn new(seed: u64, steps: u64) -> Self {
        let now = Instant::now();
        Self {
            seed,
            steps,
            stop: Stop::default(),
            intervals: Intervals::default(),
            checkpoints: None,
            sinks: Vec::new(),
            resume: None,
            start: now,
            before: Duration::ZERO,
            step: 0,
            first_step: 0,
            last_log: (now, 0),
            last_save: now,
            episodes: 0,
            window: Window::default(),
        }
    }

    /// Reports to `sink` too.
    pub fn with_sink(mut self, sink: impl Sink + 'static) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }

    /// Stops when `stop` is requested.
    pub fn with_stop(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// Saves checkpoints, and reports, as often as `intervals` say.
    pub fn with_checkpoints(mut self, checkpoints: Checkpoints, intervals: Intervals) -> Self {
        self.checkpoints = Some(checkpoints);
        self.intervals = intervals;
        self
    }

    /// Goes on from `snapshot`: its steps, time and last episodes count.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where the snapshot has no account of its run.
    pub fn with_resume(mut self, snapshot: Snapshot) -> Result<Self> {
        self.before = Duration::from_secs_f64(snapshot.get("run.elapsed_seconds")?);
        self.episodes = snapshot.get("run.episodes")?;
        self.window = snapshot.get("run.window")?;
        self.step = snapshot.step;
        self.first_step = snapshot.step;
        self.last_log.1 = snapshot.step;
        self.resume = Some(snapshot);
        Ok(self)
    }

    /// The run's one seed, from which every random stream derives.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Agent steps to reach: the horizon of every schedule that spans the run.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What to continue from, once; `None` for a fresh run.
    pub fn take_resume(&mut self) -> Option<Snapshot> {
        self.resume.take()
    }

    /// Where checkpoints lie, and what an algorithm keeps beside them; `None` where nothing is saved.
    pub fn checkpoint_dir(&self) -> Option<&Path> {
        self.checkpoints.as_ref().map(Checkpoints::dir)
    }

    /// Tells whoever watches.
    pub fn say(&mut self, line: &str) {
        self.sinks.iter_mut().for_each(|s| s.say(line));
    }

    /// Whether training continues after `step` agent steps. Also moves the progress bar.
    pub fn goes_on(&mut self, step: u64) -> bool {
        self.step = step;
        for sink in &mut self.sinks {
            sink.tick(step);
        }
        step < self.steps && self.stop.requested().is_none()
    }

    /// Reports a finished episode.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn episode(&mut self, step: u64, end: EpisodeEnd) -> Result<()> {
        self.episodes += 1;
        self.window.push(end);
        let row = EpisodeRow { step, elapsed: self.elapsed(), end };
        self.sinks.iter_mut().try_for_each(|s| s.episode(&row))
    }

    /// Whether a row of metrics is due.
    pub fn log_due(&self) -> bool {
        self.last_log.0.elapsed().as_secs_f64() >= self.intervals.log_seconds
    }

    /// Reports a row of metrics: the caller's `values` after what every run reports.
    ///
    /// # Errors
    /// Where a file cannot be written; [`Error::Diverged`] where a loss is no longer finite.
    pub fn log(&mut self, step: u64, values: &[(&'static str, f64)]) -> Result<()> {
        let elapsed = self.elapsed();
        let (since, from) = self.last_log;
        let fps = (step - from) as f64 / since.elapsed().as_secs_f64().max(1e-9);
        self.last_log = (Instant::now(), step);
        let mut all = vec![("time/total_timesteps", step as f64), ("time/time_elapsed", elapsed.as_secs_f64())];
        if step > from {
            all.push(("time/fps", fps));
        }
        all.extend(self.window.mean_reward().map(|r| ("rollout/ep_rew_mean", r)));
        all.extend(self.window.mean_length().map(|l| ("rollout/ep_len_mean", l)));
        all.extend_from_slice(values);
        let row = Row { step, elapsed, values: all };
        self.sinks.iter_mut().try_for_each(|s| s.scalars(&row))?;
        match values.iter().find(|(tag, v)| tag.starts_with("train/") && tag.ends_with("loss") && !v.is_finite()) {
            None => Ok(()),
            Some((tag, v)) => Err(Error::Diverged(format!(
                "training diverged: {tag} is {v} after {step} steps. Lower the learning rate; the last checkpoint is whole"
            ))),
        }
    }

    /// Reports one scalar of each of several, threads for example. TensorBoard shows them; tables, whose columns are the same
    /// for every run, leave them out.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn log_each(&mut self, step: u64, tag: &str, values: &[Option<f64>]) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|s| s.each(step, tag, values))
    }

    /// Whether a checkpoint is due.
    pub fn save_due(&self) -> bool {
        self.checkpoints.is_some() && self.last_save.elapsed().as_secs_f64() >= self.intervals.checkpoint_seconds
    }

    /// Saves a checkpoint, with the run's own account added, after everything reported so far is on disk.
    ///
    /// # Errors
    /// [`Error::Io`] where the disk refuses; earlier checkpoints are untouched then.
    pub fn save(&mut self, mut snapshot: Snapshot) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|s| s.flush())?;
        snapshot.put("run.elapsed_seconds", &self.elapsed().as_secs_f64());
        snapshot.put("run.episodes", &self.episodes);
        snapshot.put("run.window", &self.window);
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.save(&snapshot, self.window.mean_reward())?;
        }
        self.last_save = Instant::now();
        Ok(())
    }

    /// The account of the run so far.
    pub fn summary(&self) -> Summary {
        let session = self.start.elapsed().as_secs_f64().max(1e-9);
        Summary {
            step: self.step,
            steps_per_second: (self.step - self.first_step) as f64 / session,
            elapsed: self.elapsed(),
            episodes: self.episodes,
            mean_reward: self.window.mean_reward(),
        }
    }

    fn elapsed(&self) -> Duration {
        self.before + self.start.elapsed()
    }
}
