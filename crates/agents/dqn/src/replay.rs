//! The replay buffer of a run: transitions, priorities, and the random stream of sampling.

use crate::config::Config;
use crate::learner::{Learner, Losses};
use playfield_collect::Experience;
use playfield_core::rng::Rng;
use playfield_core::text::thousands;
use playfield_core::{EnvSpec, Error, Normalizer, Persist, Result, Snapshot, StepBatch, rng};
use playfield_replay::{Changes, Lost, Prioritized, ReplayBuffer, ReplayConfig, Segments, uniform};
use std::path::Path;

/// A replay buffer with its sampler.
#[derive(Debug)]
pub struct Replay {
    buffer: ReplayBuffer,
    priorities: Option<Prioritized>,
    indices: Vec<usize>,
    weights: Vec<f32>,
    rng: Rng,
    segments: Option<Segments>,
}

impl Replay {
    /// An empty buffer for `envs` environments of `spec`, whose frames are saved below `dir` (`None`: never).
    ///
    /// # Errors
    /// [`Error::Config`](playfield_core::Error::Config) where the machine has too little memory, or settings cannot work.
    pub fn new(config: &Config, spec: &EnvSpec, envs: usize, seed: u64, dir: Option<&Path>) -> Result<Self> {
        let buffer = ReplayBuffer::new(spec, envs, ring(config))?;
        let priorities = match config.prioritized {
            true => Some(Prioritized::new(config.priority.clone(), buffer.capacity())?),
            false => None,
        };
        let n = config.batch_size;
        let (indices, weights, rng) = (vec![0; n], vec![1.0; n], rng::stream(seed, "dqn/replay"));
        let segments = dir.map(|dir| Segments::new(dir.join("replay")));
        Ok(Self { buffer, priorities, indices, weights, rng, segments })
    }

    /// The memory that the buffer will take, as a message.
    pub fn size(config: &Config, spec: &EnvSpec) -> String {
        let gigabytes = ReplayBuffer::bytes(spec, ring(config)) as f64 / 1e9;
        let (steps, about) =
            (thousands(config.buffer_size as u64), if config.buffer_compression { "compressed, about " } else { "" });
        format!("replay buffer: {steps} steps, {about}{gigabytes:.2} GB when full")
    }

    /// The number of transitions that can be sampled.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether no transition can be sampled.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Every environment starts an episode with the observations of `batch`; current episodes are discarded.
    pub fn reset(&mut self, batch: &StepBatch) {
        let changes = self.buffer.reset(batch);
        follow(&mut self.priorities, changes);
    }

    /// Stores one step of all environments.
    pub fn push(&mut self, step: &Experience) {
        let changes = self.buffer.push(&step.actions, &step.batch);
        follow(&mut self.priorities, changes);
    }

    /// Samples a batch, normalizes it, updates `learner` with it, and sets its priorities.
    ///
    /// # Errors
    /// [`Error::Diverged`](playfield_core::Error::Diverged) where an error is not finite.
    pub fn train(
        &mut self,
        learner: &mut Learner,
        (beta, learning_rate): (f64, f64),
        normalizer: Option<&Normalizer>,
    ) -> Result<Losses> {
        match &self.priorities {
            Some(priorities) => priorities.sample(&mut self.rng, beta, &mut self.indices, &mut self.weights),
            None => uniform::sample(&self.buffer, &mut self.rng, &mut self.indices),
        }
        let losses = learner.update(learning_rate, |rows, batch, weights| {
            self.buffer.gather_normalized(&self.indices[rows.clone()], normalizer, batch);
            weights.copy_from_slice(&self.weights[rows]);
        })?;
        if let Some(priorities) = &mut self.priorities {
            priorities.update(&self.indices, &losses.errors)?;
        }
        Ok(losses)
    }

    /// Restores what [`save`](Persist::save) wrote, into a new buffer. Returns the files of frames that were lost, with their transitions.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) naming what is missing, damaged or of another buffer.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<Vec<Lost>> {
        self.buffer.load(snapshot)?;
        if let Some(priorities) = &mut self.priorities {
            priorities.load(snapshot)?;
            let items = priorities.items();
            if items.len() != self.buffer.len() || !items.iter().all(|&item| self.buffer.contains(item)) {
                return Err(Error::checkpoint("priorities", "of other transitions than the replay buffer's"));
            }
        }
        let lost = match &mut self.segments {
            Some(segments) => segments.restore(&mut self.buffer, snapshot.get("replay.segments")?)?,
            None => Vec::new(),
        };
        follow(&mut self.priorities, self.buffer.changes());
        self.rng = snapshot.get("replay.rng")?;
        Ok(lost)
    }
}

/// New frames go to files of their own, the rest into the snapshot; files that no checkpoint needs any more are removed once the
/// snapshot is on disk.
impl Persist for Replay {
    fn save(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        if let Some(segments) = &mut self.segments {
            segments.append(&self.buffer)?;
            snapshot.put("replay.segments", &segments.list());
            self.buffer.save(snapshot);
            snapshot.put("replay.rng", &self.rng);
            if let Some(priorities) = &self.priorities {
                priorities.save(snapshot);
            }
        }
        Ok(())
    }

    fn saved(&mut self) -> Result<()> {
        match &mut self.segments {
            Some(segments) => segments.prune(&self.buffer),
            None => Ok(()),
        }
    }
}

fn ring(config: &Config) -> ReplayConfig {
    let Config { buffer_size: capacity, buffer_compression: compress, n_step, gamma, .. } = *config;
    ReplayConfig { capacity, n_step, gamma, compress }
}

fn follow(priorities: &mut Option<Prioritized>, changes: &Changes) {
    if let Some(priorities) = priorities {
        priorities.apply(changes);
    }
}
