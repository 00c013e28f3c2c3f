//! A training run: seed, number of steps, stop requests, logging and checkpoints.
//!
//! An algorithm owns its training loop; a [`Run`] never calls back into it. The loop queries the run
//! ([`should_continue`](Run::should_continue), [`log_due`](Run::log_due), [`save_due`](Run::save_due)) and reports to it
//! ([`progress`](Run::progress), [`log`](Run::log), [`evaluated`](Run::evaluated), [`save`](Run::save)).
//!
//! Of a run in several processes each rank has a [`Run`] with the same [`group`](Run::group), and calls the same methods in the same
//! order. Rank 0 has the sinks and writes the files.

use crate::group::{self, SingleProcess};
use crate::metrics::{EpisodeRow, Row, Sink, Tag, Window};
use crate::text::thousands;
use crate::{Checkpoints, EpisodeEnd, Error, Group, Image, Result, Snapshot, notices, resume};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod ranks;
mod settings;

pub use settings::{EvalConfig, Intervals, Stop};

/// A part of a run whose state is saved in checkpoints.
pub trait Persist {
    /// Writes the state into `snapshot`.
    ///
    /// # Errors
    /// [`Error::Io`] if the part has its own files and writing fails.
    fn save(&mut self, snapshot: &mut Snapshot) -> Result<()>;

    /// Called after the checkpoint of the last [`save`](Self::save) is on disk.
    ///
    /// # Errors
    /// [`Error::Io`] if the part has its own files and writing fails.
    fn saved(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What an evaluation in training saw.
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    /// The episodes, with raw returns.
    pub episodes: Vec<EpisodeEnd>,
    /// Frames of the beginning of another episode, where [`EvalConfig::video`] asks for them.
    pub video: Vec<Image>,
    /// Frames per second of the video.
    pub video_fps: f64,
}

/// One training run.
pub struct Run {
    group: Arc<dyn Group>,
    distributed: group::Config,
    /// What the ranks have agreed on for this iteration.
    agreed: Agreed,
    /// Episodes that this rank has not yet reported to rank 0.
    unreported: Vec<(u64, EpisodeEnd)>,
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
    last_checkpoint: Option<u64>,
    episodes: u64,
    window: Window,
    evaluation: EvalConfig,
    /// The mean return of the last evaluation, until a checkpoint with this score is saved.
    score: Option<f64>,
    /// The mean return of the last evaluation.
    evaluated: Option<f64>,
}

/// The decisions for an iteration in a run in several processes: what one rank alone knows, its clock and its signals.
#[derive(Clone, Copy, Debug, Default)]
struct Agreed {
    stop: bool,
    log: bool,
    save: bool,
}

/// Summary of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Total number of agent steps.
    pub step: u64,
    /// Agent steps per second in this session.
    pub steps_per_second: f64,
    /// Total wall time.
    pub elapsed: Duration,
    /// Total number of episodes.
    pub episodes: u64,
    /// Mean raw return of the last 100 episodes.
    pub mean_reward: Option<f64>,
    /// Mean raw return of the last evaluation.
    pub evaluated: Option<f64>,
}

impl Run {
    /// A run of `steps` agent steps with the given `seed`, without sinks and checkpoints.
    pub fn new(seed: u64, steps: u64) -> Self {
        let now = Instant::now();
        Self {
            group: SingleProcess::shared(),
            distributed: group::Config::default(),
            agreed: Agreed::default(),
            unreported: Vec::new(),
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
            last_checkpoint: None,
            episodes: 0,
            window: Window::default(),
            evaluation: EvalConfig::default(),
            score: None,
            evaluated: None,
        }
    }

    /// Makes this the run of one rank of `group`.
    pub fn with_group(mut self, group: Arc<dyn Group>, config: group::Config) -> Self {
        (self.group, self.distributed) = (group, config);
        self
    }

    /// The processes that train together.
    pub fn group(&self) -> &Arc<dyn Group> {
        &self.group
    }

    /// How the processes exchange gradients.
    pub fn distributed(&self) -> group::Config {
        self.distributed
    }

    /// Adds a sink, which receives all reports.
    pub fn with_sink(mut self, sink: impl Into<Box<dyn Sink>>) -> Self {
        self.sinks.push(sink.into());
        self
    }

    /// Stops the run when `stop` is requested.
    pub fn with_stop(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// Saves checkpoints and logs metrics at the given `intervals`.
    pub fn with_checkpoints(mut self, checkpoints: Checkpoints, intervals: Intervals) -> Self {
        self.checkpoints = Some(checkpoints);
        self.intervals = intervals.resolve(self.steps);
        self
    }

    /// Sets the configuration of evaluation.
    pub fn with_evaluation(mut self, evaluation: EvalConfig) -> Self {
        self.evaluation = evaluation;
        self
    }

    /// The configuration of evaluation.
    pub fn evaluation(&self) -> &EvalConfig {
        &self.evaluation
    }

    /// Whether `snapshot` is from a training run. That of a distilled student is not.
    pub fn can_resume(snapshot: &Snapshot) -> bool {
        snapshot.state.contains_key("run.elapsed_seconds")
    }

    /// Resumes from `snapshot`, including its steps, elapsed time and last episodes.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the snapshot has no valid state of a run.
    pub fn with_resume(mut self, snapshot: Snapshot) -> Result<Self> {
        self.before = Duration::try_from_secs_f64(snapshot.get("run.elapsed_seconds")?)
            .map_err(|error| Error::checkpoint("state.json", format!("'run.elapsed_seconds': {error}")))?;
        self.episodes = snapshot.get("run.episodes")?;
        self.window = snapshot.get("run.window")?;
        self.step = snapshot.step;
        self.first_step = snapshot.step;
        self.last_log.1 = snapshot.step;
        self.last_checkpoint = Some(snapshot.step);
        self.resume = Some(snapshot);
        Ok(self)
    }

    /// The seed from which every random stream of the run is derived.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The seed of this rank's random streams: that of the run for rank 0, and another one for each other rank.
    pub fn rank_seed(&self) -> u64 {
        self.group.seed(self.seed)
    }

    /// The seeds of this rank's `n` environments: its part of those of all ranks. See [`resume::environment_seeds`].
    pub fn environment_seeds(&self, n: usize, resumed: Option<&Snapshot>) -> Vec<u64> {
        let all = resume::environment_seeds(self.seed, n * self.group.world_size(), resumed);
        all[n * self.group.rank()..][..n].to_vec()
    }

    /// The number of agent steps to train, the horizon of schedules that span the run.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Removes and returns the snapshot to resume from; `None` for a new run.
    pub fn take_resume(&mut self) -> Option<Snapshot> {
        self.resume.take()
    }

    /// The folder for further files of the algorithm: that of the checkpoints, or a folder there for another rank than 0. `None` if
    /// nothing is saved.
    pub fn checkpoint_dir(&self) -> Option<PathBuf> {
        let dir = self.checkpoints.as_ref()?.dir();
        Some(match self.group.rank() {
            0 => dir.to_path_buf(),
            rank => dir.join(format!("rank-{rank}")),
        })
    }

    /// Reports the network of the run: `summary` to the user and, in a new run, its `layers` as a text in Markdown.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn network(&mut self, summary: &str, layers: &str) -> Result<()> {
        self.notify(summary);
        if self.first_step == 0 { self.text(0, "network", layers) } else { Ok(()) }
    }

    /// Shows a message to the user.
    pub fn notify(&mut self, message: &str) {
        self.sinks.iter_mut().for_each(|s| s.notify(message));
    }

    /// Whether training continues after `step` agent steps. Call it once in each iteration of the training loop.
    ///
    /// Several processes agree here, with one small all-reduce: a request to stop any rank stops all, and the clock of rank 0 decides
    /// whether [`log_due`](Self::log_due) and [`save_due`](Self::save_due) in this iteration.
    ///
    /// # Errors
    /// [`Error::Group`].
    pub fn should_continue(&mut self, step: u64) -> Result<bool> {
        match self.group.is_distributed() {
            true => {
                self.agree()?;
                // Not this rank's own request, which may have arrived since.
                Ok(step < self.steps && !self.agreed.stop)
            }
            false => Ok(self.continues(step)),
        }
    }

    fn continues(&self, step: u64) -> bool {
        step < self.steps && self.stop.requested().is_none()
    }

    /// Reports that training reached `step` agent steps, and the episodes that finished since the last call, each with its step.
    /// Shows the [notices](crate::notices).
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn progress(&mut self, step: u64, episodes: impl IntoIterator<Item = (u64, EpisodeEnd)>) -> Result<()> {
        self.step = step;
        self.sinks.iter_mut().for_each(|sink| sink.progress(step));
        notices::take().iter().for_each(|notice| self.notify(notice));
        if self.group.is_distributed() {
            // Rank 0 reports those of all ranks with the next row.
            self.unreported.extend(episodes);
            return Ok(());
        }
        episodes.into_iter().try_for_each(|(step, end)| self.episode(step, end))
    }

    fn episode(&mut self, step: u64, end: EpisodeEnd) -> Result<()> {
        self.episodes = self.episodes.saturating_add(1);
        self.window.push(end);
        let row = EpisodeRow { step, elapsed: self.elapsed(), end };
        self.sinks.iter_mut().try_for_each(|s| s.episode(&row))
    }

    /// Whether a row of metrics is due: at a multiple of the interval in steps, after that in seconds, or because training ends.
    pub fn log_due(&self) -> bool {
        let (since, row) = self.last_log;
        let count = |step: u64| step.checked_div(self.intervals.log_steps);
        let at_step = count(self.step) > count(row);
        match self.group.is_distributed() {
            // A request that arrives in this iteration ends training in the next one: no rank knows yet whether all have received it.
            true => at_step || self.agreed.log || self.step >= self.steps,
            false => {
                let at_time = since.elapsed().as_secs_f64() >= self.intervals.log_seconds;
                at_step || at_time || !self.continues(self.step)
            }
        }
    }

    /// Reports a row of metrics: those common to all runs, then `values`. Any tag is allowed; [`describe`](Self::describe) adds a
    /// description of a tag that is not in [`METRICS`](crate::metrics::METRICS). Several processes report the mean of their values.
    ///
    /// # Errors
    /// If a file cannot be written; [`Error::Diverged`] if a loss (`train/…loss`) is not finite.
    pub fn log<T: Clone + Into<Tag>>(&mut self, step: u64, values: &[(T, f64)]) -> Result<()> {
        let mut values: Vec<(Tag, f64)> = values.iter().map(|(tag, value)| (tag.clone().into(), *value)).collect();
        if self.group.is_distributed() {
            values = self.gather_reports(values)?;
        }
        let (since, from) = self.last_log;
        let fps = (step - from) as f64 / since.elapsed().as_secs_f64().max(1e-9);
        self.last_log = (Instant::now(), step);
        let of_every_run = [
            ("time/fps", (step > from).then_some(fps)),
            ("rollout/ep_rew_mean", self.window.mean_reward()),
            ("rollout/ep_len_mean", self.window.mean_length()),
        ];
        let of_every_run = of_every_run.into_iter().filter_map(|(tag, value)| Some((tag.into(), value?)));
        let row = Row::new(step, self.elapsed(), of_every_run.chain(values.iter().cloned()));
        self.sinks.iter_mut().try_for_each(|s| s.scalars(&row))?;
        match values.iter().find(|(tag, v)| tag.starts_with("train/") && tag.ends_with("loss") && !v.is_finite()) {
            None => Ok(()),
            Some((tag, v)) => Err(self.diverged(&format!("{tag} is {v} after {} steps", thousands(step)))),
        }
    }

    /// Describes a custom tag, before its first value. TensorBoard shows the text.
    pub fn describe(&mut self, tag: &str, text: &str) {
        self.sinks.iter_mut().for_each(|s| s.describe(tag, text));
    }

    /// Reports the distribution of `values`, for example of the weights of a layer.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn histogram(&mut self, step: u64, tag: &str, values: &[f32]) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|s| s.histogram(step, tag, values))
    }

    /// Whether to report histograms of parameters and gradients with each row of metrics.
    pub fn wants_histograms(&self) -> bool {
        self.intervals.histograms
    }

    /// Reports several distributions, each with its tag.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn histograms(&mut self, step: u64, values: &[(String, Vec<f32>)]) -> Result<()> {
        values.iter().try_for_each(|(tag, values)| self.histogram(step, tag, values))
    }

    /// Reports a text in Markdown.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn text(&mut self, step: u64, tag: &str, text: &str) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|s| s.text(step, tag, text))
    }

    /// Reports a video of `fps` frames per second.
    ///
    /// # Errors
    /// If a file cannot be written; [`Error::Config`] if the frames differ in size.
    pub fn video(&mut self, step: u64, tag: &str, frames: &[Image], fps: f64) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|s| s.video(step, tag, frames, fps))
    }

    /// Reports the hyperparameters of the run and the metrics for comparison with other runs.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn hparams<T: Clone + Into<Tag>>(&mut self, settings: &toml::Table, metrics: &[(T, f64)]) -> Result<()> {
        let metrics = metrics.iter().map(|(tag, value)| (tag.clone().into(), *value)).collect();
        let metrics = Row { step: self.step, elapsed: self.elapsed(), values: metrics };
        self.sinks.iter_mut().try_for_each(|s| s.hparams(settings, &metrics))
    }

    /// The error for values that are not finite, described by `what`. It names the last checkpoint, if there is one.
    pub fn diverged(&self, what: &str) -> Error {
        let checkpoint = self.last_checkpoint.map(thousands);
        let checkpoint = checkpoint.map(|step| format!("; the last good checkpoint is that of step {step}"));
        let checkpoint = checkpoint.unwrap_or_default();
        Error::Diverged(format!("training diverged: {what}. Lower the learning rate{checkpoint}"))
    }

    /// `error`; if it is [`Error::Diverged`], with the last checkpoint named.
    pub fn explain(&self, error: Error) -> Error {
        match error {
            Error::Diverged(what) => self.diverged(&what),
            error => error,
        }
    }

    /// The step of the last saved checkpoint, or of the one from which the run resumed.
    pub fn last_checkpoint(&self) -> Option<u64> {
        self.last_checkpoint
    }

    /// Reports the episodes of an evaluation after `step` agent steps. A checkpoint is due afterwards. The best checkpoint of the
    /// run is the one with the highest mean return.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn evaluated(&mut self, step: u64, evaluation: &Evaluation) -> Result<()> {
        if self.group.rank() > 0 {
            // Rank 0 evaluates; a checkpoint is due on every rank.
            self.score = Some(f64::NAN);
            return Ok(());
        }
        let Evaluation { episodes, video, video_fps } = evaluation;
        let n = episodes.len() as f64;
        let mean = |of: fn(&EpisodeEnd) -> f64| episodes.iter().map(of).sum::<f64>() / n;
        let (mean_return, mean_length) = (mean(|e| e.episode_return), mean(|e| e.length as f64));
        let variance = episodes.iter().map(|e| (e.episode_return - mean_return).powi(2)).sum::<f64>() / n;
        (self.score, self.evaluated) = (Some(mean_return), Some(mean_return));
        let values = [
            ("eval/mean_reward", mean_return),
            ("eval/std_reward", variance.sqrt()),
            ("eval/mean_ep_length", mean_length),
        ];
        let row = Row::new(step, self.elapsed(), values.map(|(tag, value)| (tag.into(), value)));
        self.sinks.iter_mut().try_for_each(|s| s.evaluation(&row))?;
        match video.is_empty() {
            true => Ok(()),
            false => self.video(step, "eval/video", video, *video_fps),
        }
    }

    /// Whether a checkpoint is due: after the checkpoint interval, or after an evaluation.
    pub fn save_due(&self) -> bool {
        let at_time = if self.group.is_distributed() { self.agreed.save } else { self.save_time_passed() };
        self.checkpoints.is_some() && (at_time || self.score.is_some())
    }

    fn save_time_passed(&self) -> bool {
        let due = self.intervals.until_save(self.last_checkpoint.is_some());
        self.last_save.elapsed().as_secs_f64() >= due
    }

    /// Flushes all sinks and saves a checkpoint of `parts` and the run after `step` agent steps.
    ///
    /// The score that determines the best checkpoint is the mean return of the evaluation since the last checkpoint, or, in a run
    /// without evaluation, of the last 100 training episodes, once there are that many. At step 0 nothing is saved.
    ///
    /// Of several processes rank 0 writes the checkpoint, with a part of every rank.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a parameter or the optimizer state is not finite, [`Error::Io`] if writing fails. Earlier checkpoints
    /// are unchanged then.
    pub fn save(&mut self, step: u64, parts: &mut [&mut dyn Persist]) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|s| s.flush())?;
        let mut snapshot = Snapshot { step, ..Snapshot::default() };
        parts.iter_mut().try_for_each(|part| part.save(&mut snapshot))?;
        if step == 0 {
            return Ok(());
        }
        if let Some(name) = snapshot.non_finite() {
            return Err(self.diverged(&format!("{name} is not finite after {} steps", thousands(step))));
        }
        if self.group.is_distributed() {
            self.gather_reports(Vec::new())?;
        }
        snapshot.put("run.elapsed_seconds", &self.elapsed().as_secs_f64());
        snapshot.put("run.episodes", &self.episodes);
        snapshot.put("run.window", &self.window);
        if let Some(checkpoints) = &self.checkpoints {
            let score = match self.evaluation.every_steps {
                0 => self.window.mean_reward().filter(|_| self.window.is_full()),
                _ => self.score.take(),
            };
            match self.group.is_distributed() {
                true => ranks::save(&*self.group, checkpoints, &snapshot, score)?,
                false => _ = checkpoints.save(&snapshot, score)?,
            }
            self.last_checkpoint = Some(step);
            parts.iter_mut().try_for_each(|part| part.saved())?;
        }
        self.last_save = Instant::now();
        Ok(())
    }

    /// Ends training: saves a checkpoint, even after an error unless training diverged, and returns the result. After an error in one of
    /// several processes nothing is saved: the others wait for it in another operation. The last checkpoint stays.
    ///
    /// # Errors
    /// That of `trained`, else that of [`save`](Self::save).
    pub fn finish(&mut self, trained: Result<()>, step: u64, parts: &mut [&mut dyn Persist]) -> Result<()> {
        if matches!(trained, Err(Error::Diverged(_))) || (trained.is_err() && self.group.is_distributed()) {
            return trained;
        }
        let saved = self.save(step, parts);
        trained.and(saved)
    }

    /// A summary of the run so far.
    pub fn summary(&self) -> Summary {
        let session = self.start.elapsed().as_secs_f64().max(1e-9);
        Summary {
            step: self.step,
            steps_per_second: (self.step - self.first_step) as f64 / session,
            elapsed: self.elapsed(),
            episodes: self.episodes,
            mean_reward: self.window.mean_reward(),
            evaluated: self.evaluated,
        }
    }

    fn elapsed(&self) -> Duration {
        self.before.saturating_add(self.start.elapsed())
    }
}

#[cfg(test)]
mod tests;
