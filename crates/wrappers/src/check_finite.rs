//! Refuses NaN and infinities in rewards and observations, before they turn the network's parameters into NaN. The error names
//! the environment and the value.

use crate::VecEnvWrapper;
use playfield_core::obs::read_vector;
use playfield_core::{Dtype, EnvSpec, Error, ObsRef, Result, StepBatch};
use std::ops::Range;

/// Ends a run at the first reward or observation that is not finite. The innermost wrapper of a batch.
#[derive(Clone, Debug)]
pub struct CheckFinite {
    id: String,
    /// The names and bytes of the vectors of an observation with several parts.
    vectors: Vec<(String, Range<usize>)>,
    allow_infinite_rewards: bool,
}

impl CheckFinite {
    /// For environments of `spec`. Infinite rewards are allowed where they are [clipped](crate::ClipReward) and not normalized.
    pub fn new(spec: &EnvSpec, allow_infinite_rewards: bool) -> Self {
        let vectors = spec.part_ranges().filter(|(part, _)| part.dtype == Dtype::F32);
        let vectors = vectors.map(|(part, range)| (part.name.clone(), range)).collect();
        Self { id: spec.id.clone(), vectors, allow_infinite_rewards }
    }

    fn observation(&self, i: usize, row: ObsRef<'_>) -> Result<()> {
        match row {
            ObsRef::F32(values) => self.values(i, "its observation", values),
            ObsRef::U8(bytes) => self.vectors.iter().try_for_each(|(name, range)| {
                let mut values = Vec::new();
                read_vector(&bytes[range.clone()], 1, &mut values);
                self.values(i, &format!("part '{name}' of its observation"), &values)
            }),
        }
    }

    fn values(&self, i: usize, what: &str, values: &[f32]) -> Result<()> {
        // The sum is not finite if an element is not: one test instead of many. Finite elements may overflow, so look again.
        if values.iter().sum::<f32>().is_finite() {
            return Ok(());
        }
        match values.iter().enumerate().find(|(_, x)| !x.is_finite()) {
            None => Ok(()),
            Some((index, x)) => {
                let message = format!("environment {i}: element {index} of {what} is {x}, and must be finite");
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

impl VecEnvWrapper for CheckFinite {
    const NAME: &'static str = "the check for finite values";

    fn reset(&mut self, batch: &mut StepBatch) -> Result<()> {
        (0..batch.num_envs()).try_for_each(|i| self.observation(i, batch.obs_row(i)))
    }

    fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
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
