//! The replay buffer of a run: transitions, priorities, and the random stream of sampling.

use crate::config::Config;
use crate::learner::{Learner, Losses};
use playfield_collect::Experience;
use playfield_core::rng::Rng;
use playfield_core::text::thousands;
use playfield_core::{EnvSpec, Error, Normalizer, Persist, Result, Snapshot, StepBatch, rng};
use playfield_nn::DeviceFrames;
use playfield_replay::{Lost, Prioritized, ReplayBuffer, ReplayConfig, Segments, uniform};
use std::path::Path;
use tch::Device;

/// The most frames that are sent to a device at once.
const FRAMES_PER_TRANSFER: usize = 256;

/// A replay buffer with its sampler.
#[derive(Debug)]
pub struct Replay {
    buffer: ReplayBuffer,
    priorities: Option<Prioritized>,
    indices: Vec<usize>,
    weights: Vec<f32>,
    rng: Rng,
    segments: Option<Segments>,
    frame_stack: usize,
    /// A copy of the frames in the memory of the network's device, and the slots that are newer in the buffer.
    on_device: Option<(DeviceFrames, Vec<usize>)>,
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
        let frame_stack = spec.frame_stack;
        Ok(Self { buffer, priorities, indices, weights, rng, segments, frame_stack, on_device: None })
    }

    /// Keeps a copy of the frames in the memory of `device` from now on, so that samples are not sent. Only where observations of `spec`
    /// are frames alone.
    ///
    /// # Errors
    /// [`Error::Config`](playfield_core::Error::Config) where the device has too little memory.
    pub fn copy_frames_to(&mut self, spec: &EnvSpec, device: Device) -> Result<()> {
        let frames = DeviceFrames::new(spec, self.buffer.capacity(), device)?;
        self.on_device = frames.map(|frames| (frames, Vec::new()));
        Ok(())
    }

    /// The memory that the buffer will take, as a message.
    pub fn size(config: &Config, spec: &EnvSpec) -> String {
        let bytes = ReplayBuffer::bytes(spec, ring(config)) as f64;
        let size = if bytes < 1e8 { format!("{:.1} MB", bytes / 1e6) } else { format!("{:.2} GB", bytes / 1e9) };
        let (steps, about) =
            (thousands(config.buffer_size as u64), if config.buffer_compression { "compressed, about " } else { "" });
        format!("replay buffer: {steps} steps, {about}{size} when full")
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
        self.buffer.reset(batch);
        self.follow();
    }

    /// Stores one step of all environments.
    pub fn push(&mut self, step: &Experience) {
        self.buffer.push(&step.actions, &step.batch);
        self.follow();
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
        self.send();
        if let Some((frames, _)) = &self.on_device {
            let slots = self.buffer.frame_slots(&self.indices);
            learner.set_observations(slots.map(|slots| frames.stacked(&slots, self.frame_stack)));
        }
        let losses = learner.update(learning_rate, |rows, batch, weights| {
            match &self.on_device {
                Some(_) => self.buffer.gather_steps(&self.indices[rows.clone()], normalizer, batch),
                None => self.buffer.gather_normalized(&self.indices[rows.clone()], normalizer, batch),
            }
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
        self.follow();
        self.rng = snapshot.get("replay.rng")?;
        Ok(lost)
    }

    /// Applies the changes of the buffer to the priorities and to the device's frames.
    fn follow(&mut self) {
        let changes = self.buffer.changes();
        if let Some(priorities) = &mut self.priorities {
            priorities.apply(changes);
        }
        if let Some((_, newer)) = &mut self.on_device {
            newer.extend(&changes.written);
            if newer.len() >= FRAMES_PER_TRANSFER {
                self.send();
            }
        }
    }

    /// Sends the frames that the device lacks.
    fn send(&mut self) {
        let Some((frames, newer)) = &mut self.on_device else { return };
        for slots in newer.chunks(FRAMES_PER_TRANSFER) {
            let mut bytes = Vec::new();
            slots.iter().for_each(|&slot| self.buffer.copy_frame(slot, &mut bytes));
            frames.write(slots, &bytes);
        }
        newer.clear();
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
