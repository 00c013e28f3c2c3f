//! The replay buffer: transitions, with each frame stored once.
//!
//! Each environment has its own ring buffer with one slot per step: the frame, the action chosen there, the reward, and flags.
//! An ended episode takes one more slot, for its final frame, which the value of a truncated episode bootstraps from.
//!
//! ```text
//! one ring, newest to the right      … f₅ a r │ f₆ a r │ F₇ │ f₀ a r │ f₁ a r │ f₂
//!                                              └ end ┘ final  └ first            └ newest: without an action yet
//! ```
//!
//! A transition starts at a slot with an action. It can be sampled once the next n steps (or the end of the episode) are stored,
//! and until the ring overwrites a frame of its stacked observation. Stacked observations and n-step returns are computed when
//! a transition is sampled, from single frames and single steps.

mod saved;

use crate::frames::{Frames, Scratch};
use crate::segments::put_bytes;
use playfield_core::text::thousands;
use playfield_core::{
    Actions, Dtype, EnvSpec, Error, Normalizer, Obs, ObsMut, ObsRef, Result, StepBatch, frame_stack, memory,
};
use serde::{Deserialize, Serialize};

/// The slot holds the first frame of an episode: no earlier frame is stacked with it.
const FIRST: u8 = 1;
/// The step from this slot terminated the episode (or lost a life with episodic life): its discount is 0.
const TERMINAL: u8 = 2;
/// The step from this slot ended the episode: the next slot holds the final frame.
const END: u8 = 4;
/// The slot holds the final frame of an episode, without an action.
const FINAL: u8 = 8;
/// The transition that starts here can be sampled.
const READY: u8 = 16;

/// Transitions of a batch of environments: see the [module](self).
#[derive(Clone, Debug)]
pub struct ReplayBuffer {
    frames: Frames,
    actions: Vec<i32>,
    rewards: Vec<f32>,
    flags: Vec<u8>,
    /// Whether each action is valid at the frame of a slot: a row per slot, empty where every action is.
    action_masks: Vec<bool>,
    mask_len: usize,
    rings: Vec<Ring>,
    /// Slots of one ring.
    ring_len: usize,
    frame_stack: usize,
    frame_len: usize,
    n_step: usize,
    gamma: f32,
    /// The number of actions.
    choices: usize,
    /// The number of transitions that can be sampled.
    ready: usize,
    changes: Changes,
}

/// The settings of a [`ReplayBuffer`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReplayConfig {
    /// The number of steps stored, over all environments.
    pub capacity: usize,
    /// n: the number of rewards in a return.
    pub n_step: usize,
    /// γ: the discount per step.
    pub gamma: f64,
    /// Whether frames are compressed: a tenth of the memory or less on Atari, at the cost of time per sample.
    pub compress: bool,
}

/// The ring of one environment. A position counts the slots ever written; position p is in slot p mod `ring_len`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Ring {
    /// The position after the newest slot.
    written: u64,
    /// The transitions before this position have been marked as ready.
    // Its name in checkpoints.
    #[serde(rename = "considered")]
    marked: u64,
}

/// The changes of a [`push`](ReplayBuffer::push), by index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Transitions that can be sampled now.
    pub added: Vec<usize>,
    /// Transitions that can no longer be sampled.
    pub removed: Vec<usize>,
    /// Slots with a new frame.
    pub written: Vec<usize>,
}

/// A transition that can be sampled, with the names of [`Transitions`].
#[derive(Clone, Copy, Debug)]
struct Found {
    env: usize,
    /// The positions of the observations' newest frames.
    s_tm1: u64,
    s_t: u64,
    r_t: f32,
    discount_t: f32,
}

/// A batch of sampled transitions, with the names of DQN Zoo.
#[derive(Clone, Debug, PartialEq)]
pub struct Transitions {
    /// The observations.
    pub s_tm1: Obs,
    /// The actions.
    pub a_tm1: Vec<i64>,
    /// The discounted sums of the next n rewards (fewer where the episode ended).
    pub r_t: Vec<f32>,
    /// The discounts of the value of `s_t`: γⁿ, or 0 after a termination.
    pub discount_t: Vec<f32>,
    /// The observations n steps later (or the final one of the episode).
    pub s_t: Obs,
    /// Whether each action is valid at `s_t`, `[n, actions]`; empty where every action is.
    pub mask_t: Vec<bool>,
}

impl Transitions {
    /// Buffers for `n` transitions of `spec`.
    pub fn new(spec: &EnvSpec, n: usize) -> Self {
        let obs = Obs::zeros(spec.dtype, n * spec.obs_len());
        let mask_t = vec![true; n * spec.mask_len()];
        Self { s_tm1: obs.clone(), a_tm1: vec![0; n], r_t: vec![0.0; n], discount_t: vec![0.0; n], s_t: obs, mask_t }
    }

    /// The number of transitions.
    pub fn len(&self) -> usize {
        self.r_t.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.r_t.is_empty()
    }
}

impl ReplayBuffer {
    /// An empty buffer for `envs` environments of `spec`.
    ///
    /// # Errors
    /// [`Error::Config`] where a ring is too short for one transition, or the machine has too little memory.
    pub fn new(spec: &EnvSpec, envs: usize, config: ReplayConfig) -> Result<Self> {
        let ReplayConfig { capacity, n_step, gamma, compress } = config;
        let len = capacity / envs.max(1);
        let least = spec.frame_stack.saturating_add(n_step).saturating_add(2);
        if n_step == 0 || len < least {
            return Err(Error::config(format!(
                "a replay buffer of {} steps for {envs} environments is too small: a frame stack of {} and {n_step}-step returns need at least {}: raise `buffer_size`, or lower `n_step`",
                thousands(capacity as u64),
                spec.frame_stack,
                thousands(least.saturating_mul(envs) as u64)
            )));
        }
        let what = format!("a replay buffer of {} steps", thousands(capacity as u64));
        let advice = match spec.dtype == Dtype::U8 && !compress {
            true => "lower `buffer_size`, or set `buffer_compression` = true",
            false => "lower `buffer_size`",
        };
        memory::require(&what, Self::bytes(spec, config), advice)?;
        let slots = len * envs;
        Ok(Self {
            frames: Frames::new(spec.dtype, spec.frame_len(), slots, compress)?,
            actions: vec![0; slots],
            rewards: vec![0.0; slots],
            flags: vec![0; slots],
            action_masks: vec![true; slots * spec.mask_len()],
            mask_len: spec.mask_len(),
            rings: vec![Ring::default(); envs],
            ring_len: len,
            frame_stack: spec.frame_stack,
            frame_len: spec.frame_len(),
            n_step,
            gamma: gamma as f32,
            choices: spec.actions.sizes().first().copied().unwrap_or(0),
            ready: 0,
            changes: Changes::default(),
        })
    }

    /// The memory of a full buffer, in bytes. The size of compressed frames is unknown in advance: a sixth is assumed, twice
    /// what Atari games need.
    pub fn bytes(spec: &EnvSpec, config: ReplayConfig) -> u64 {
        let frames = Frames::bytes(spec.dtype, spec.frame_len(), config.capacity);
        (if config.compress { frames / 6 } else { frames }) + (9 + spec.mask_len() as u64) * config.capacity as u64
    }

    /// The memory of the stored transitions, in bytes (plain frames: that of all slots).
    pub fn resident_bytes(&self) -> u64 {
        self.frames.resident_bytes() + (9 + self.mask_len as u64) * self.capacity() as u64
    }

    /// The number of slots: the bound of an index.
    pub fn capacity(&self) -> usize {
        self.flags.len()
    }

    /// The number of transitions that can be sampled.
    pub fn len(&self) -> usize {
        self.ready
    }

    /// Whether no transition can be sampled.
    pub fn is_empty(&self) -> bool {
        self.ready == 0
    }

    /// Whether the transition at `index` can be sampled.
    pub fn contains(&self, index: usize) -> bool {
        self.flags[index] & READY != 0
    }

    /// Starts an episode in every environment with the frames of `batch`. The last transitions of unfinished episodes, which
    /// lack n steps after them, are never sampled.
    pub fn reset(&mut self, batch: &StepBatch) -> &Changes {
        self.start_changes();
        for env in 0..self.rings.len() {
            // Transitions that are not ready yet never will be.
            self.rings[env].marked = self.rings[env].written;
            self.write(env, batch.obs_row(env), batch.mask_row(env), FIRST);
        }
        &self.changes
    }

    /// Appends a step with `actions` and the results in `batch`. The stored action is the executed one ([`StepBatch::forced`]). Of a
    /// step that ignored the action only the observation is stored, as the first of its episode.
    ///
    /// # Panics
    /// Before the first [`reset`](Self::reset), and for continuous actions: bugs of the caller.
    pub fn push(&mut self, actions: &Actions, batch: &StepBatch) -> &Changes {
        let Actions::Discrete(actions) = actions else { panic!("this replay buffer stores discrete actions") };
        self.start_changes();
        for (env, &action) in actions.iter().enumerate() {
            let newest = self.slot(env, self.rings[env].written - 1);
            if batch.ignored[env] {
                // The newest frame repeats the final one of the last episode, and no action follows it.
                self.flags[newest] = FINAL;
                self.write(env, batch.obs_row(env), batch.mask_row(env), FIRST);
                continue;
            }
            self.actions[newest] = batch.forced[env].unwrap_or(action) as i32;
            self.rewards[newest] = batch.reward[env];
            if batch.terminated[env] || batch.life_lost[env] {
                self.flags[newest] |= TERMINAL;
            }
            if batch.done(env) {
                self.flags[newest] |= END;
                self.write(env, batch.final_obs_row(env), batch.final_mask_row(env), FINAL);
                self.mark_ready(env, self.rings[env].written);
                self.write(env, batch.obs_row(env), batch.mask_row(env), FIRST);
            } else {
                self.write(env, batch.obs_row(env), batch.mask_row(env), 0);
                self.mark_ready(env, self.rings[env].written.saturating_sub(self.n_step as u64));
            }
        }
        &self.changes
    }

    /// Writes the transitions at `indices` into `out`.
    ///
    /// # Panics
    /// If one of them cannot be sampled, or `out` has another length: bugs of the caller.
    pub fn gather(&self, indices: &[usize], out: &mut Transitions) {
        self.gather_normalized(indices, None, out);
    }

    /// The same, with normalized observations and rewards.
    ///
    /// # Panics
    /// As [`gather`](Self::gather).
    pub fn gather_normalized(&self, indices: &[usize], normalizer: Option<&Normalizer>, out: &mut Transitions) {
        assert_eq!(indices.len(), out.len());
        let obs_len = self.frame_len * self.frame_stack;
        let mut scratch = Scratch::default();
        for (row, &index) in indices.iter().enumerate() {
            let found @ Found { env, s_tm1, s_t, .. } = self.find(index, normalizer);
            self.copy_step(index, found, row, out);
            scratch.clear();
            self.stack(env, s_tm1, &mut scratch, out.s_tm1.slice_mut(row * obs_len, obs_len));
            self.stack(env, s_t, &mut scratch, out.s_t.slice_mut(row * obs_len, obs_len));
        }
        for obs in [&mut out.s_tm1, &mut out.s_t] {
            if let (Some(normalizer), Obs::F32(values)) = (normalizer, obs) {
                normalizer.observations(values, self.frame_stack);
            }
        }
    }

    /// Writes all but the observations of the transitions at `indices` into `out`, with normalized rewards.
    ///
    /// # Panics
    /// As [`gather`](Self::gather).
    pub fn gather_steps(&self, indices: &[usize], normalizer: Option<&Normalizer>, out: &mut Transitions) {
        assert_eq!(indices.len(), out.len());
        for (row, &index) in indices.iter().enumerate() {
            self.copy_step(index, self.find(index, normalizer), row, out);
        }
    }

    /// Writes all but the observations of the transition at `index` into a row of `out`.
    fn copy_step(&self, index: usize, found: Found, row: usize, out: &mut Transitions) {
        let (len, next) = (self.mask_len, self.slot(found.env, found.s_t));
        (out.r_t[row], out.discount_t[row]) = (found.r_t, found.discount_t);
        out.a_tm1[row] = i64::from(self.actions[index]);
        out.mask_t[row * len..(row + 1) * len].copy_from_slice(&self.action_masks[next * len..(next + 1) * len]);
    }

    /// The slots of the frames that the observations `s_tm1` and `s_t` of the transitions at `indices` consist of, oldest first,
    /// `[n, frame_stack]` each; `None` for frames before the first of an episode, which are zero.
    ///
    /// # Panics
    /// If one of the transitions cannot be sampled: a bug of the caller.
    pub fn frame_slots(&self, indices: &[usize]) -> [Vec<Option<usize>>; 2] {
        let depth = self.frame_stack as u64;
        let slots = |env: usize, last: u64| {
            let before = (depth - 1) - (last - self.first_stacked(env, last));
            (0..depth).map(move |i| (i >= before).then(|| self.slot(env, last + 1 + i - depth)))
        };
        let found: Vec<_> = indices.iter().map(|&index| self.find(index, None)).collect();
        [
            found.iter().flat_map(|found| slots(found.env, found.s_tm1)).collect(),
            found.iter().flat_map(|found| slots(found.env, found.s_t)).collect(),
        ]
    }

    /// Appends the bytes of the frame in `slot` to `bytes`.
    pub fn copy_frame(&self, slot: usize, bytes: &mut Vec<u8>) {
        let mut scratch = Scratch::default();
        self.frames.load(slot, &mut scratch);
        put_bytes(self.frames.read(slot, &scratch), bytes);
    }

    /// What the last call changed.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Writes the stacked observation at a position: its frame and the frames before it in the same episode.
    fn stack(&self, env: usize, position: u64, scratch: &mut Scratch, out: ObsMut<'_>) {
        let slots = (self.first_stacked(env, position)..=position).map(|p| self.slot(env, p));
        slots.clone().for_each(|slot| self.frames.load(slot, scratch));
        let frames: Vec<_> = slots.map(|slot| self.frames.read(slot, scratch)).collect();
        frame_stack::stack(&frames, self.frame_stack, out);
    }

    /// The position of the oldest frame that is stacked with the frame at `position`: of the same episode.
    fn first_stacked(&self, env: usize, position: u64) -> u64 {
        let mut first = position;
        while position - first + 1 < self.frame_stack as u64 && self.flags[self.slot(env, first)] & FIRST == 0 {
            first -= 1;
        }
        first
    }

    /// The transition at `index`, with rewards normalized by `normalizer`.
    fn find(&self, index: usize, normalizer: Option<&Normalizer>) -> Found {
        assert!(self.contains(index), "transition {index} cannot be sampled");
        let env = index / self.ring_len;
        let s_tm1 = self.position(env, index % self.ring_len);
        let (mut r_t, mut discount_t, mut steps) = (0.0, 1.0, 0);
        while steps < self.n_step as u64 {
            let slot = self.slot(env, s_tm1 + steps);
            r_t += discount_t * normalizer.map_or(self.rewards[slot], |n| n.reward(self.rewards[slot]));
            discount_t *= self.gamma;
            steps += 1;
            if self.flags[slot] & TERMINAL != 0 {
                discount_t = 0.0;
            }
            if self.flags[slot] & (TERMINAL | END) != 0 {
                break;
            }
        }
        Found { env, s_tm1, s_t: s_tm1 + steps, r_t, discount_t }
    }

    /// Writes the next slot of a ring over its oldest one.
    fn write(&mut self, env: usize, frame: ObsRef<'_>, mask: &[bool], flags: u8) {
        let position = self.rings[env].written;
        if let Some(oldest) = position.checked_sub(self.ring_len as u64) {
            // The oldest frame is overwritten: no transition can be sampled whose observation contains it.
            self.remove(self.slot(env, oldest));
            for later in oldest + 1..oldest + self.frame_stack as u64 {
                let slot = self.slot(env, later);
                if self.flags[slot] & FIRST != 0 {
                    break;
                }
                self.remove(slot);
            }
        }
        let slot = self.slot(env, position);
        self.frames.write(slot, frame);
        self.action_masks[slot * self.mask_len..(slot + 1) * self.mask_len].copy_from_slice(mask);
        self.flags[slot] = flags;
        self.changes.written.push(slot);
        self.rings[env].written += 1;
    }

    /// Marks the transitions of `env` before `end` as ready: all steps after them are stored.
    fn mark_ready(&mut self, env: usize, end: u64) {
        while self.rings[env].marked < end {
            let slot = self.slot(env, self.rings[env].marked);
            self.rings[env].marked += 1;
            if self.flags[slot] & FINAL == 0 {
                self.flags[slot] |= READY;
                self.ready += 1;
                self.changes.added.push(slot);
            }
        }
    }

    fn remove(&mut self, slot: usize) {
        if self.flags[slot] & READY != 0 {
            self.flags[slot] &= !READY;
            self.ready -= 1;
            self.changes.removed.push(slot);
        }
    }

    pub(crate) fn start_changes(&mut self) {
        self.changes.added.clear();
        self.changes.removed.clear();
        self.changes.written.clear();
    }

    fn slot(&self, env: usize, position: u64) -> usize {
        env * self.ring_len + (position % self.ring_len as u64) as usize
    }

    /// The position that `slot` of `env` holds.
    fn position(&self, env: usize, slot: usize) -> u64 {
        let newest = self.rings[env].written - 1;
        let back = (newest + self.ring_len as u64 - slot as u64) % self.ring_len as u64;
        newest - back
    }
}
