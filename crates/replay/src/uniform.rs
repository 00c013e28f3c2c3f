//! Uniform sampling (Lin 1992; Mnih et al. 2015): every transition that can be sampled is as likely as any other.

use crate::FrameRing;
use playfield_core::rng::Rng;
use rand::RngExt as _;

/// Draws `indices.len()` transitions of `memory`, with repetition.
///
/// Slots are drawn until one can be sampled: all but a few can once the memory is full.
///
/// # Panics
/// If none can be sampled: the caller waits for its first transitions.
pub fn sample(memory: &FrameRing, rng: &mut Rng, indices: &mut [usize]) {
    assert!(!memory.is_empty(), "a draw from an empty replay");
    for index in indices {
        *index = loop {
            let slot = rng.random_range(0..memory.capacity());
            if memory.contains(slot) {
                break slot;
            }
        };
    }
}
