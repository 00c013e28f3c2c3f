//! Refuses numbers that nothing can be learned from, where they come in: NaN and infinities in rewards and observations.
//!
//! Later they are a network full of NaN, and nobody knows where they came from. The error names the environment and the
//! value.

use crate::Rule;
use playfield_core::{EnvSpec, Error, ObsRef, Result, StepBatch};

/// Ends a run at the first reward or observation that is not finite. The innermost rule over a batch.
#[derive(Clone, Debug)]
pub struct Finite {
    id: String,
    allow_infinite_rewards: bool,
}

impl Finite {
    /// For environments of `spec`. Infinite rewards are allowed where [clipping](crate::ClipReward) is all that follows.
    pub fn new(spec: &EnvSpec, allow_infinite_rewards: bool) -> Self {
        Self { id: spec.id.clone(), allow_infinite_rewards }
    }

    fn observation(&self, i: usize, row: ObsRef<'_>) -> Result<()> {
        let ObsRef::F32(numbers) = row else { return Ok(()) };
        // A sum is not finite where a number is not: one test in place of many. A finite one may overflow: then look closer.
        if numbers.iter().sum::<f32>().is_finite() {
            return Ok(());
        }
        match numbers.iter().enumerate().find(|(_, x)| !x.is_finite()) {
            None => Ok(()),
            Some((place, x)) => {
                let message = format!("environment {i}: number {place} of its observation is {x}, and must be finite");
                Err(Error::env(&self.id, message))
            }
        }
    }

    fn reward(&self, i: usize, reward: f32) -> Result<()> {
        if reward.is_finite() || (reward.is_infinite() && self.allow_infinite_rewards) {
            return Ok(());
        }
        let advice = match reward.is_nan() {
            true => "",
            false => " (as float32); env.clip_reward = \"clamp\", without env.normalize_reward, makes it ±1",
        };
        Err(Error::env(&self.id, format!("environment {i}: its reward is {reward}, and must be finite{advice}")))
    }
}

impl Rule for Finite {
    const NAME: &'static str = "the check for finite numbers";

    fn reset(&mut self, batch: &mut StepBatch) -> Result<()> {
        (0..batch.num_envs()).try_for_each(|i| self.observation(i, batch.obs_row(i)))
    }

    fn outcome(&mut self, batch: &mut StepBatch) -> Result<()> {
        for i in 0..batch.num_envs() {
            self.reward(i, batch.reward[i])?;
            if batch.done(i) {
                self.observation(i, batch.final_obs_row(i))?;
            }
            self.observation(i, batch.obs_row(i))?;
        }
        Ok(())
    }
}
