//! How a replay buffer is saved and restored: everything but the frames in a snapshot, frames one by one (see
//! [`Segments`](crate::Segments)).

use super::{END, FINAL, FIRST, READY, ReplayBuffer, Ring, TERMINAL};
use crate::frames::Frames;
use playfield_core::{Array, Dtype, Error, ObsRef, Result, Snapshot};

impl ReplayBuffer {
    /// Saves everything except the frames (see [`Segments`](crate::Segments)).
    pub fn save(&self, snapshot: &mut Snapshot) {
        snapshot.put("replay.rings", &self.rings);
        snapshot.put("replay.frame", &(self.frame_len, self.ring_len));
        let n = [self.capacity()];
        snapshot.arrays.insert("replay.actions".into(), Array::new(&n, &self.actions));
        snapshot.arrays.insert("replay.rewards".into(), Array::new(&n, &self.rewards));
        snapshot.arrays.insert("replay.flags".into(), Array::new(&n, &self.flags));
        if self.mask_len > 0 {
            let masks: Vec<u8> = self.action_masks.iter().map(|&valid| u8::from(valid)).collect();
            snapshot.arrays.insert("replay.action_masks".into(), Array::new(&[n[0], self.mask_len], &masks));
        }
    }

    /// Restores [`save`](Self::save). Frames are restored afterwards.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is missing or of another buffer; this one is unchanged then.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        let wrong = || Error::checkpoint("replay", "of another buffer size or environment");
        let (rings, frame): (Vec<Ring>, (usize, usize)) =
            (snapshot.get("replay.rings")?, snapshot.get("replay.frame")?);
        let actions: Vec<i32> = snapshot.array("replay.actions")?.values().ok_or_else(wrong)?;
        let rewards = snapshot.array("replay.rewards")?.values().ok_or_else(wrong)?;
        let flags = snapshot.array("replay.flags")?.values().ok_or_else(wrong)?;
        let masks: Vec<u8> = match self.mask_len {
            0 => Vec::new(),
            _ => snapshot.array("replay.action_masks")?.values().ok_or_else(wrong)?,
        };
        let n = self.capacity();
        if masks.len() != self.action_masks.len() {
            return Err(wrong());
        }
        if !actions.iter().all(|&action| (0..self.choices as i64).contains(&action.into())) {
            return Err(wrong());
        }
        let sizes = (actions.len(), rewards.len(), flags.len(), rings.len(), frame);
        if sizes != (n, n, n, self.rings.len(), (self.frame_len, self.ring_len)) {
            return Err(wrong());
        }
        if !rings.iter().enumerate().all(|(env, ring)| self.is_consistent(env, *ring, &flags)) {
            return Err(Error::checkpoint("replay", "has a transition without the steps or frames that it needs"));
        }
        (self.actions, self.rewards, self.flags, self.rings) = (actions, rewards, flags, rings);
        self.action_masks = masks.into_iter().map(|valid| valid != 0).collect();
        self.ready = self.flags.iter().filter(|&&f| f & READY != 0).count();
        Ok(())
    }

    /// Whether every transition of `env` that can be sampled by `flags` has its frames and the steps after it in `ring`.
    fn is_consistent(&self, env: usize, ring: Ring, flags: &[u8]) -> bool {
        let Ring { written, marked } = ring;
        if !(1..1 << 62).contains(&written) || marked > written {
            return false;
        }
        let (oldest, newest) = (written.saturating_sub(self.ring_len as u64), written - 1);
        let flag = |position: u64| flags[self.slot(env, position)];
        let has_frames = |position: u64| {
            let mut first = position;
            while position - first + 1 < self.frame_stack as u64 && flag(first) & FIRST == 0 {
                if first == oldest {
                    return false;
                }
                first -= 1;
            }
            true
        };
        let has_steps = |position: u64| {
            let last = position.saturating_add(self.n_step as u64);
            let ended = (position..last.min(newest)).find(|&p| flag(p) & (TERMINAL | END) != 0);
            ended.is_some() || last <= newest
        };
        let is_whole = |p: u64| p < marked && flag(p) & FINAL == 0 && has_frames(p) && has_steps(p);
        // Slots that were never written have no flags.
        let is_unused = |position: u64| flag(position) == 0;
        (oldest..written).all(|p| flag(p) & READY == 0 || is_whole(p)) && (written..self.ring_len as u64).all(is_unused)
    }

    /// The oldest position of each ring, and the position after its newest.
    pub(crate) fn extent(&self) -> (Vec<u64>, Vec<u64>) {
        self.rings.iter().map(|env| (env.written.saturating_sub(self.ring_len as u64), env.written)).unzip()
    }

    /// Appends the bytes of the frame at a position to `bytes`.
    pub(crate) fn frame_bytes(&self, env: usize, position: u64, bytes: &mut Vec<u8>) {
        self.copy_frame(self.slot(env, position), bytes);
    }

    /// Bytes of one frame.
    pub(crate) fn frame_byte_len(&self) -> usize {
        Frames::bytes(self.frames.dtype(), self.frame_len, 1) as usize
    }

    /// Removes the transitions whose observations contain a frame at the positions `from..to` of `env`, which are lost. Returns whether
    /// later observations would contain one, too.
    pub(crate) fn forget(&mut self, env: usize, from: u64, to: u64) -> bool {
        if from >= to {
            return false;
        }
        let Ring { written, marked } = self.rings[env];
        let (first, end) = (from.saturating_sub(self.n_step as u64), to + self.frame_stack as u64 - 1);
        let oldest = written.saturating_sub(self.ring_len as u64);
        for position in first.max(oldest)..end.min(written) {
            self.remove(self.slot(env, position));
        }
        self.rings[env].marked = marked.max(end.min(written));
        end > written
    }

    /// Writes the frame at a position from its bytes.
    pub(crate) fn restore_frame(&mut self, env: usize, position: u64, bytes: &[u8]) {
        let slot = self.slot(env, position);
        self.changes.written.push(slot);
        match self.frames.dtype() {
            Dtype::U8 => self.frames.write(slot, ObsRef::U8(bytes)),
            Dtype::F32 => {
                let numbers: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
                self.frames.write(slot, ObsRef::F32(&numbers));
            }
        }
    }
}
