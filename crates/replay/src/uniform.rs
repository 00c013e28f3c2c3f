//! Uniform sampling (Lin 1992; Mnih et al. 2015): all transitions in the buffer are equally likely.

use crate::ReplayBuffer;
use playfield_core::rng::Rng;
use rand::RngExt as _;

/// Samples the indices of `indices.len()` transitions of `buffer`, with replacement.
///
/// It is rejection sampling over all slots: in a full buffer nearly all can be sampled.
///
/// # Panics
/// If no transition can be sampled: a bug of the caller.
pub fn sample(buffer: &ReplayBuffer, rng: &mut Rng, indices: &mut [usize]) {
    assert!(!buffer.is_empty(), "the replay buffer is empty");
    for index in indices {
        *index = loop {
            let slot = rng.random_range(0..buffer.capacity());
            if buffer.contains(slot) {
                break slot;
            }
        };
    }
}
