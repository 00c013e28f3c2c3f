//! Whether a lost life ends an episode for the learner (Mnih et al. 2015: "episodic life").
//!
//! Batches report every lost life ([`StepBatch::life_lost`]), and learners use a discount of 0 there. Without episodic life this
//! wrapper clears the flag. In both cases the game continues, and its return covers all lives.

use crate::VecEnvWrapper;
use playfield_core::{Result, StepBatch};

/// Keeps [`StepBatch::life_lost`] if a lost life ends the episode for the learner, else clears it.
///
/// It is outside [`FireOnLifeLoss`](crate::FireOnLifeLoss), which needs every lost life.
#[derive(Clone, Copy, Debug)]
pub struct EpisodicLife {
    /// Whether a lost life ends the episode for the learner.
    pub enabled: bool,
}

impl VecEnvWrapper for EpisodicLife {
    const NAME: &'static str = "episodic life";

    fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
        if !self.enabled {
            batch.life_lost.fill(false);
        }
        Ok(())
    }
}
