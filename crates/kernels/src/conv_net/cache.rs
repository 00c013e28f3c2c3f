use super::whole_frames::Convolved;
use rustc_hash::FxHasher;
use std::collections::VecDeque;
use std::hash::Hasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many frames keep their activations: a rollout of 7 steps of 32 environments, with the observations after it. Of Atari frames in
/// `nature` they take some 19 MB.
const CAPACITY: usize = 256;

/// Activations of the frames that were inferred last, for a training pass with the same weights: an on-policy learner trains on the frames
/// that it has just acted on, and their convolutions are not computed again. Networks of several threads share it, because a frame may be
/// trained on by another thread than the one that acted on it.
#[derive(Debug)]
pub(super) struct Cache<T>(Arc<Mutex<Entries<T>>>);

#[derive(Debug)]
struct Entries<T> {
    /// Version of the weights.
    version: u64,
    /// Each with the hash of its frame, the oldest first.
    frames: VecDeque<(u64, Convolved<T>)>,
    /// Allocations for reuse.
    spare: Vec<Convolved<T>>,
}

/// The hash of a frame.
pub(super) fn hash(pixels: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(pixels);
    hasher.finish()
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Entries { version: 0, frames: VecDeque::new(), spare: Vec::new() })))
    }
}

impl<T> Clone for Cache<T> {
    /// The same cache.
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Default> Cache<T> {
    fn lock(&self) -> MutexGuard<'_, Entries<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the activations of the frame `pixels` under the weights of `version`, if they are there.
    pub fn take(&self, version: u64, hash: u64, pixels: &[u8]) -> Option<Convolved<T>> {
        let entries = &mut *self.lock();
        let is_frame = |(known, convolved): &(u64, Convolved<T>)| *known == hash && convolved.frame == pixels;
        let i = entries.frames.iter().position(is_frame).filter(|_| entries.version == version)?;
        entries.frames.remove(i).map(|(_, convolved)| convolved)
    }

    /// Adds the activations of a frame. Those of other weights go, and the oldest where there are too many.
    pub fn put(&self, version: u64, hash: u64, convolved: Convolved<T>) {
        let Entries { version: current, frames, spare } = &mut *self.lock();
        let excess = if *current == version { (frames.len() + 1).saturating_sub(CAPACITY) } else { frames.len() };
        spare.extend(frames.drain(..excess).map(|(_, convolved)| convolved));
        *current = version;
        frames.push_back((hash, convolved));
    }

    /// An allocation for a frame.
    pub fn spare(&self) -> Convolved<T> {
        self.lock().spare.pop().unwrap_or_default()
    }

    /// Takes back allocations.
    pub fn recycle(&self, used: impl IntoIterator<Item = Convolved<T>>) {
        self.lock().spare.extend(used);
    }

    /// The number of frames.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.lock().frames.len()
    }
}
