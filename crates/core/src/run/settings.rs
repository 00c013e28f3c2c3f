//! The settings of a run: the `[run]` and `[eval]` sections, and the request to stop it.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// A request to stop the run: the number of the signal, or 0.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicI32>);

impl Stop {
    /// Requests the run to finish its update, save a checkpoint and return.
    pub fn request(&self, signal: i32) {
        self.0.store(signal, Ordering::Relaxed);
    }

    /// The signal of the request, if there is one.
    pub fn requested(&self) -> Option<i32> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&s| s != 0)
    }
}

/// How often a run reports and saves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Intervals {
    /// Seconds between two rows of metrics. A row is due as soon as one of the two intervals has passed.
    pub log_seconds: f64,
    /// Agent steps between two rows of metrics, so that runs with other seeds have rows at the same steps. 0: a 200th of the run's
    /// steps.
    pub log_steps: u64,
    /// Seconds between two checkpoints. The first one of a run is due after a tenth of this time, at most 30 seconds.
    pub checkpoint_seconds: f64,
    /// Number of latest checkpoints to keep, in addition to the best.
    pub keep_checkpoints: usize,
    /// Whether to log histograms of parameters and gradients to TensorBoard with each row of metrics.
    pub histograms: bool,
}

impl Intervals {
    /// The intervals of a run of `steps` agent steps, with `log_steps` resolved. Resolving twice changes nothing.
    #[must_use]
    pub fn resolve(self, steps: u64) -> Self {
        let log_steps = if self.log_steps == 0 { (steps / 200).max(1) } else { self.log_steps };
        Self { log_steps, ..self }
    }

    /// Seconds until the next checkpoint, depending on whether the run already has one.
    pub(super) fn until_save(&self, has_checkpoint: bool) -> f64 {
        if has_checkpoint { self.checkpoint_seconds } else { (self.checkpoint_seconds / 10.0).min(30.0) }
    }
}

impl Default for Intervals {
    fn default() -> Self {
        Self { log_seconds: 5.0, log_steps: 0, checkpoint_seconds: 300.0, keep_checkpoints: 2, histograms: false }
    }
}

/// The `[eval]` section: evaluation of the policy during training, in separate environments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Agent steps between two evaluations; 0: none.
    pub every_steps: u64,
    /// Episodes of one evaluation.
    pub episodes: usize,
    /// Whether to select the most probable (or most valuable) action instead of sampling (or acting ε-greedily).
    pub deterministic: bool,
    /// The seed of the environments and of the policy's random stream. Every evaluation starts from it.
    pub seed: u64,
    /// Keys of `[env]` to override in evaluation, for example `{ repeat_action_probability = 0.25 }`. Rewards are always raw, and
    /// a lost life never ends an episode.
    pub env: toml::Table,
    /// Whether TensorBoard gets a video of the beginning of an episode, with each evaluation.
    pub video: bool,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self { every_steps: 0, episodes: 10, deterministic: true, seed: 0, env: toml::Table::new(), video: false }
    }
}
