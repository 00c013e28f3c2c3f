//! Whether a lost life ends an episode for the learner.
//!
//! Batches report every lost life ([`StepBatch::life_lost`]), and learners take each as a discount of 0 (Mnih et al.
//! 2015: "episodic life"). Where that is not wanted, this rule takes the report away. The game itself goes on either way,
//! and its return counts all of its lives.

use crate::Rule;
use playfield_core::{Result, StepBatch};

/// Keeps [`StepBatch::life_lost`] if lives are episodes for the learner, else clears it.
///
/// It stands outside [`FireOnLifeLoss`](crate::FireOnLifeLoss), which must see lost lives in any case.
#[derive(Clone, Copy, Debug)]
pub struct LifeLoss {
    /// Whether a lost life ends the episode for the learner.
    pub episodic: bool,
}

impl Rule for LifeLoss {
    const NAME: &'static str = "episodic life";

    fn outcome(&mut self, batch: &mut StepBatch) -> Result<()> {
        if !self.episodic {
            batch.life_lost.fill(false);
        }
        Ok(())
    }
}
