//! The memory that a learner draws from: frames, priorities, and the buffers of a draw.

use crate::config::Config;
use crate::learner::{Learner, Losses};
use playfield_core::rng::Rng;
use playfield_core::{Actions, EnvSpec, Normalizer, Result, Snapshot, StepBatch, rng};
use playfield_replay::{Changes, Prioritized, ReplayBuffer, ReplayConfig, Segments, uniform};
use std::path::Path;

/// The memory, how it is drawn from, and what a draw fills.
#[derive(Debug)]
pub struct Replay {
    memory: ReplayBuffer,
    priorities: Option<Prioritized>,
    indices: Vec<usize>,
    weights: Vec<f32>,
    rng: Rng,
    segments: Option<Segments>,
}

impl Replay {
    /// An empty memory for `envs` environments of `spec`, whose frames are saved below `dir` (`None`: never).
    ///
    /// # Errors
    /// [`Error::Config`](playfield_core::Error::Config) where the machine has too little memory, or settings cannot work.
    pub fn new(config: &Config, spec: &EnvSpec, envs: usize, seed: u64, dir: Option<&Path>) -> Result<Self> {
        let memory = ReplayBuffer::new(spec, envs, ring(config))?;
        let priorities = match config.prioritized {
            true => Some(Prioritized::new(config.priority.clone(), memory.capacity())?),
            false => None,
        };
        let n = config.batch_size;
        let (indices, weights, rng) = (vec![0; n], vec![1.0; n], rng::stream(seed, "dqn/replay"));
        let segments = dir.map(|dir| Segments::new(dir.join("replay")));
        Ok(Self { memory, priorities, indices, weights, rng, segments })
    }

    /// What such a memory will take, in words.
    pub fn size(config: &Config, spec: &EnvSpec) -> String {
        let gigabytes = ReplayBuffer::bytes(spec, ring(config)) as f64 / 1e9;
        match config.buffer_compression {
            false => format!("replay: {} steps, {gigabytes:.2} GB when full", config.buffer_size),
            true => format!("replay: {} steps, compressed, some {gigabytes:.2} GB when full", config.buffer_size),
        }
    }

    /// How many transitions can be drawn.
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Whether none can be drawn.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// Every environment starts an episode with the frames of `batch`; running ones are cut.
    pub fn reset(&mut self, batch: &StepBatch) {
        let changes = self.memory.reset(batch);
        follow(&mut self.priorities, changes);
    }

    /// Every environment did its action and found `batch`.
    pub fn push(&mut self, actions: &Actions, batch: &StepBatch) {
        let changes = self.memory.push(actions, batch);
        follow(&mut self.priorities, changes);
    }

    /// Draws a batch, normalizes it, lets `learner` learn from it, and sets its priorities.
    ///
    /// # Errors
    /// [`Error::Diverged`](playfield_core::Error::Diverged) where an error is no number.
    pub fn learn(&mut self, learner: &mut Learner, beta: f64, normalizer: Option<&Normalizer>) -> Result<Losses> {
        match &self.priorities {
            Some(priorities) => priorities.sample(&mut self.rng, beta, &mut self.indices, &mut self.weights),
            None => uniform::sample(&self.memory, &mut self.rng, &mut self.indices),
        }
        let losses = learner.update(|rows, batch, weights| {
            self.memory.gather_normalized(&self.indices[rows.clone()], normalizer, batch);
            weights.copy_from_slice(&self.weights[rows]);
        });
        if let Some(priorities) = &mut self.priorities {
            priorities.update(&self.indices, &losses.errors)?;
        }
        Ok(losses)
    }

    /// Writes everything: frames that are new since the last time to their own files, the rest into `snapshot`.
    ///
    /// # Errors
    /// [`Error::Io`](playfield_core::Error::Io) where the disk refuses.
    pub fn save(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        if let Some(segments) = &mut self.segments {
            segments.append(&self.memory)?;
            snapshot.put("replay.segments", &segments.list());
            self.memory.save(snapshot);
            snapshot.put("replay.rng", &self.rng);
            if let Some(priorities) = &self.priorities {
                priorities.save(snapshot);
            }
        }
        Ok(())
    }

    /// Removes what no checkpoint needs any more, once the one with the last [`save`](Self::save) is whole.
    ///
    /// # Errors
    /// [`Error::Io`](playfield_core::Error::Io) where the disk refuses.
    pub fn saved(&mut self) -> Result<()> {
        match &mut self.segments {
            Some(segments) => segments.prune(&self.memory),
            None => Ok(()),
        }
    }

    /// Takes what [`save`](Self::save) wrote; must be as new.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) naming what is missing, damaged or of another memory.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.memory.load(snapshot)?;
        if let Some(segments) = &mut self.segments {
            segments.restore(&mut self.memory, snapshot.get("replay.segments")?)?;
        }
        if let Some(priorities) = &mut self.priorities {
            priorities.load(snapshot)?;
        }
        self.rng = snapshot.get("replay.rng")?;
        Ok(())
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
