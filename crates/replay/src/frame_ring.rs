//! The memory: what happened, each frame stored once.
//!
//! Every environment writes a ring of its own, one slot a step: the frame that was seen, the action that answered it, and
//! what came of that. An ended episode takes one slot more, for its final frame: a truncated episode bootstraps from it.
//!
//! ```text
//! one ring, newest to the right      … f₅ a r │ f₆ a r │ F₇ │ f₀ a r │ f₁ a r │ f₂
//!                                              └ end ┘ final  └ first            └ newest: its action is not known yet
//! ```
//!
//! A transition begins at a slot with an action. It can be sampled as soon as the n steps after it (or the episode's end)
//! are there, and until the ring overwrites a frame that its observation is stacked of. Observations and n-step returns
//! are put together when a transition is drawn, from single steps and single frames.

use crate::frames::{Frames, Scratch};
use crate::memory;
use crate::segments::put_bytes;
use playfield_core::{
    Actions, Array, Dtype, EnvSpec, Error, Normalizer, Obs, ObsMut, ObsRef, Result, Snapshot, StepBatch, frame_stack,
};
use serde::{Deserialize, Serialize};

/// The slot's frame is an episode's first: nothing before it belongs to its history.
const FIRST: u8 = 1;
/// The step after the slot ended the task (or lost a life that counts as an end): its discount is 0.
const TERMINAL: u8 = 2;
/// The step after the slot ended the episode: the next slot holds its final frame.
const END: u8 = 4;
/// The slot holds an episode's final frame and no action.
const FINAL: u8 = 8;
/// The transition that begins here can be sampled.
const READY: u8 = 16;

/// Transitions of `n` environments: see the [module](self).
#[derive(Clone, Debug)]
pub struct FrameRing {
    frames: Frames,
    actions: Vec<i32>,
    rewards: Vec<f32>,
    flags: Vec<u8>,
    lanes: Vec<Lane>,
    /// Slots of one lane.
    lane_len: usize,
    frame_stack: usize,
    frame_len: usize,
    n_step: usize,
    gamma: f32,
    ready: usize,
    changes: Changes,
}

/// What a ring holds, and what it makes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RingConfig {
    /// How many steps, over all environments.
    pub capacity: usize,
    /// How many rewards a return sums.
    pub n_step: usize,
    /// Discount of rewards per step.
    pub gamma: f64,
    /// Whether frames lie compressed: a tenth of the memory or less on Atari, for some time at each draw.
    pub compress: bool,
}

/// One environment's ring. Positions count every slot ever written; position p lies in slot p mod len.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Lane {
    /// Position after the newest.
    written: u64,
    /// Position before which every transition was considered ready once.
    considered: u64,
}

/// What a [`push`](FrameRing::push) changed about which transitions can be sampled, by index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Transitions that can be sampled now.
    pub entered: Vec<usize>,
    /// Transitions that no longer can.
    pub left: Vec<usize>,
}

/// Sampled transitions, named as in DQN Zoo.
#[derive(Clone, Debug, PartialEq)]
pub struct Transitions {
    /// Observations with their history.
    pub s_tm1: Obs,
    /// What was done there.
    pub a_tm1: Vec<i64>,
    /// The discounted sum of the next n rewards (fewer where the episode ended).
    pub r_t: Vec<f32>,
    /// What the value of `s_t` is multiplied with: γⁿ, 0 after a termination.
    pub discount_t: Vec<f32>,
    /// The observations n steps later (or the episode's last).
    pub s_t: Obs,
}

impl Transitions {
    /// Room for `n` transitions of `spec`.
    pub fn new(spec: &EnvSpec, n: usize) -> Self {
        let obs = Obs::zeros(spec.dtype, n * spec.obs_len());
        Self { s_tm1: obs.clone(), a_tm1: vec![0; n], r_t: vec![0.0; n], discount_t: vec![0.0; n], s_t: obs }
    }

    /// How many transitions.
    pub fn len(&self) -> usize {
        self.r_t.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.r_t.is_empty()
    }
}

impl FrameRing {
    /// A memory for `envs` environments of `spec`.
    ///
    /// # Errors
    /// [`Error::Config`] where a ring would be too short for a single transition, or the machine has less memory.
    pub fn new(spec: &EnvSpec, envs: usize, config: RingConfig) -> Result<Self> {
        let RingConfig { capacity, n_step, gamma, compress } = config;
        let len = capacity / envs.max(1);
        let least = spec.frame_stack + n_step + 2;
        if n_step == 0 || len < least {
            return Err(Error::config(format!(
                "a replay of {capacity} steps for {envs} environments is too small: history {} and {n_step}-step returns need {} at least",
                spec.frame_stack,
                least * envs
            )));
        }
        let (needed, available) = (Self::bytes(spec, config), memory::available());
        if let Some(available) = available.filter(|&a| a < needed) {
            let gigabytes = |bytes: u64| bytes as f64 / 1e9;
            return Err(Error::config(format!(
                "a replay of {capacity} steps takes {:.2} GB and this machine has {:.2} GB left: lower `buffer_size`{}",
                gigabytes(needed),
                gigabytes(available),
                if spec.dtype == Dtype::U8 && !compress { ", or set `buffer_compression` = true" } else { "" }
            )));
        }
        let slots = len * envs;
        Ok(Self {
            frames: Frames::new(spec.dtype, spec.frame_len(), slots, compress)?,
            actions: vec![0; slots],
            rewards: vec![0.0; slots],
            flags: vec![0; slots],
            lanes: vec![Lane::default(); envs],
            lane_len: len,
            frame_stack: spec.frame_stack,
            frame_len: spec.frame_len(),
            n_step,
            gamma: gamma as f32,
            ready: 0,
            changes: Changes::default(),
        })
    }

    /// Bytes that such a memory takes when it is full. Of compressed frames nobody knows beforehand: a sixth is assumed,
    /// twice what Atari's games need.
    pub fn bytes(spec: &EnvSpec, config: RingConfig) -> u64 {
        let frames = Frames::bytes(spec.dtype, spec.frame_len(), config.capacity);
        (if config.compress { frames / 6 } else { frames }) + 9 * config.capacity as u64
    }

    /// Bytes that it takes now (plain frames: once every slot was written).
    pub fn resident_bytes(&self) -> u64 {
        self.frames.resident_bytes() + 9 * self.capacity() as u64
    }

    /// How many slots, and so the bound of an index.
    pub fn capacity(&self) -> usize {
        self.flags.len()
    }

    /// How many transitions can be sampled.
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

    /// Every environment starts an episode with the frames of `batch`. Episodes that were running are cut: their last
    /// transitions that have no n steps after them are forgotten.
    pub fn reset(&mut self, batch: &StepBatch) -> &Changes {
        self.start_changes();
        for lane in 0..self.lanes.len() {
            // What was not ready will never be.
            self.lanes[lane].considered = self.lanes[lane].written;
            self.write(lane, batch.obs_row(lane), FIRST);
        }
        &self.changes
    }

    /// Every environment did its action and found `batch`. A replaced action is remembered as replaced.
    ///
    /// # Panics
    /// Before the first [`reset`](Self::reset), and for continuous actions: bugs of the caller.
    pub fn push(&mut self, actions: &Actions, batch: &StepBatch) -> &Changes {
        let Actions::Discrete(actions) = actions else { panic!("a replay of discrete actions") };
        self.start_changes();
        for (lane, &action) in actions.iter().enumerate() {
            let newest = self.slot(lane, self.lanes[lane].written - 1);
            self.actions[newest] = batch.forced[lane].unwrap_or(action) as i32;
            self.rewards[newest] = batch.reward[lane];
            if batch.terminated[lane] || batch.life_lost[lane] {
                self.flags[newest] |= TERMINAL;
            }
            if batch.done(lane) {
                self.flags[newest] |= END;
                self.write(lane, batch.final_obs_row(lane), FINAL);
                self.consider(lane, self.lanes[lane].written);
                self.write(lane, batch.obs_row(lane), FIRST);
            } else {
                self.write(lane, batch.obs_row(lane), 0);
                self.consider(lane, self.lanes[lane].written.saturating_sub(self.n_step as u64));
            }
        }
        &self.changes
    }

    /// Puts the transitions at `indices` together in `out`.
    ///
    /// # Panics
    /// If one of them cannot be sampled, or `out` has another length: bugs of the caller.
    pub fn gather(&self, indices: &[usize], out: &mut Transitions) {
        self.gather_normalized(indices, None, out);
    }

    /// The same, each observation and reward normalized on the way.
    ///
    /// # Panics
    /// As [`gather`](Self::gather).
    pub fn gather_normalized(&self, indices: &[usize], normalizer: Option<&Normalizer>, out: &mut Transitions) {
        assert_eq!(indices.len(), out.len());
        let obs_len = self.frame_len * self.frame_stack;
        let mut scratch = Scratch::default();
        for (row, &index) in indices.iter().enumerate() {
            assert!(self.contains(index), "transition {index} cannot be sampled");
            let lane = index / self.lane_len;
            let position = self.position(lane, index % self.lane_len);
            let (mut r_t, mut discount, mut steps) = (0.0, 1.0, 0);
            while steps < self.n_step as u64 {
                let slot = self.slot(lane, position + steps);
                r_t += discount * normalizer.map_or(self.rewards[slot], |n| n.reward(self.rewards[slot]));
                discount *= self.gamma;
                steps += 1;
                if self.flags[slot] & TERMINAL != 0 {
                    discount = 0.0;
                }
                if self.flags[slot] & (TERMINAL | END) != 0 {
                    break;
                }
            }
            (out.r_t[row], out.discount_t[row]) = (r_t, discount);
            out.a_tm1[row] = i64::from(self.actions[index]);
            scratch.clear();
            self.stack(lane, position, &mut scratch, out.s_tm1.slice_mut(row * obs_len, obs_len));
            self.stack(lane, position + steps, &mut scratch, out.s_t.slice_mut(row * obs_len, obs_len));
        }
        for obs in [&mut out.s_tm1, &mut out.s_t] {
            if let (Some(normalizer), Obs::F32(values)) = (normalizer, obs) {
                normalizer.observations(values, self.frame_stack);
            }
        }
    }

    /// Writes everything but the frames (see [`Segments`](crate::Segments)) into `snapshot`.
    pub fn save(&self, snapshot: &mut Snapshot) {
        snapshot.put("replay.lanes", &self.lanes);
        snapshot.put("replay.frame", &(self.frame_len, self.lane_len));
        let n = [self.capacity()];
        snapshot.arrays.insert("replay.actions".into(), Array::new(&n, &self.actions));
        snapshot.arrays.insert("replay.rewards".into(), Array::new(&n, &self.rewards));
        snapshot.arrays.insert("replay.flags".into(), Array::new(&n, &self.flags));
    }

    /// Takes what [`save`](Self::save) wrote. Frames come after it.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is missing or of another memory; the ring is as it was then.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        let wrong = || Error::checkpoint("replay", "of another size or environment");
        let (lanes, frame): (Vec<Lane>, (usize, usize)) =
            (snapshot.get("replay.lanes")?, snapshot.get("replay.frame")?);
        let actions = snapshot.array("replay.actions")?.values().ok_or_else(wrong)?;
        let rewards = snapshot.array("replay.rewards")?.values().ok_or_else(wrong)?;
        let flags = snapshot.array("replay.flags")?.values().ok_or_else(wrong)?;
        let n = self.capacity();
        let sizes = (actions.len(), rewards.len(), flags.len(), lanes.len(), frame);
        if sizes != (n, n, n, self.lanes.len(), (self.frame_len, self.lane_len)) {
            return Err(wrong());
        }
        (self.actions, self.rewards, self.flags, self.lanes) = (actions, rewards, flags, lanes);
        self.ready = self.flags.iter().filter(|&&f| f & READY != 0).count();
        Ok(())
    }

    /// The oldest position of each lane, and the one after its newest.
    pub(crate) fn extent(&self) -> (Vec<u64>, Vec<u64>) {
        self.lanes.iter().map(|lane| (lane.written.saturating_sub(self.lane_len as u64), lane.written)).unzip()
    }

    /// Appends the bytes of the frame at a position.
    pub(crate) fn frame_bytes(&self, lane: usize, position: u64, bytes: &mut Vec<u8>) {
        let (slot, mut scratch) = (self.slot(lane, position), Scratch::default());
        self.frames.load(slot, &mut scratch);
        put_bytes(self.frames.read(slot, &scratch), bytes);
    }

    /// Bytes of one frame.
    pub(crate) fn frame_byte_len(&self) -> usize {
        Frames::bytes(self.frames.dtype(), self.frame_len, 1) as usize
    }

    /// Writes the frame at a position, of its bytes.
    pub(crate) fn restore_frame(&mut self, lane: usize, position: u64, bytes: &[u8]) {
        let slot = self.slot(lane, position);
        match self.frames.dtype() {
            Dtype::U8 => self.frames.write(slot, ObsRef::U8(bytes)),
            Dtype::F32 => {
                let numbers: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
                self.frames.write(slot, ObsRef::F32(&numbers));
            }
        }
    }

    /// The observation at a position: its frame and those before it in its episode.
    fn stack(&self, lane: usize, position: u64, scratch: &mut Scratch, out: ObsMut<'_>) {
        let mut first = position;
        while position - first + 1 < self.frame_stack as u64 && self.flags[self.slot(lane, first)] & FIRST == 0 {
            first -= 1;
        }
        let slots = (first..=position).map(|p| self.slot(lane, p));
        slots.clone().for_each(|slot| self.frames.load(slot, scratch));
        let frames: Vec<_> = slots.map(|slot| self.frames.read(slot, scratch)).collect();
        frame_stack::stack(&frames, self.frame_stack, out);
    }

    /// Writes the next slot of a lane over its oldest one.
    fn write(&mut self, lane: usize, frame: ObsRef<'_>, flags: u8) {
        let position = self.lanes[lane].written;
        if let Some(oldest) = position.checked_sub(self.lane_len as u64) {
            // The oldest frame goes, and with it every transition whose observation is stacked of it.
            self.leave(self.slot(lane, oldest));
            for later in oldest + 1..oldest + self.frame_stack as u64 {
                let slot = self.slot(lane, later);
                if self.flags[slot] & FIRST != 0 {
                    break;
                }
                self.leave(slot);
            }
        }
        let slot = self.slot(lane, position);
        self.frames.write(slot, frame);
        self.flags[slot] = flags;
        self.lanes[lane].written += 1;
    }

    /// Transitions of `lane` before `end` have all that comes after them.
    fn consider(&mut self, lane: usize, end: u64) {
        while self.lanes[lane].considered < end {
            let slot = self.slot(lane, self.lanes[lane].considered);
            self.lanes[lane].considered += 1;
            if self.flags[slot] & FINAL == 0 {
                self.flags[slot] |= READY;
                self.ready += 1;
                self.changes.entered.push(slot);
            }
        }
    }

    fn leave(&mut self, slot: usize) {
        if self.flags[slot] & READY != 0 {
            self.flags[slot] &= !READY;
            self.ready -= 1;
            self.changes.left.push(slot);
        }
    }

    fn start_changes(&mut self) {
        self.changes.entered.clear();
        self.changes.left.clear();
    }

    fn slot(&self, lane: usize, position: u64) -> usize {
        lane * self.lane_len + (position % self.lane_len as u64) as usize
    }

    /// The position that lies in `slot` of `lane` now.
    fn position(&self, lane: usize, slot: usize) -> u64 {
        let newest = self.lanes[lane].written - 1;
        let back = (newest + self.lane_len as u64 - slot as u64) % self.lane_len as u64;
        newest - back
    }
}
