//! A random number of no-ops at the start of an episode, so that a deterministic game does not always start in the same state
//! (Mnih et al. 2015).
//!
//! ```text
//! environment  reset  FIRE  NOOP  NOOP      sampled: 3 frames, of which FIRE is one
//! frame        (0)    (1)   (2)   3
//! obs                             3
//! ```
//!
//! The number is sampled as in ALE's vector environment (`PreprocessedEnv::reset`): from 0 to `noop_max − 1`, and FIRE, where
//! it was pressed, counts as one of them. Gymnasium and Baselines sample from 1 to `noop_max` and press FIRE, if at all,
//! after the no-ops. If the episode ends during the no-ops, the environment is reset and the remaining no-ops follow.

use crate::EnvWrapper;
use playfield_core::rng::{self, Rng};
use playfield_core::{Action, ActionSpace, Env, EnvSpec, Error, ObsMut, Result, State, Step};
use rand::RngExt;
use serde::Deserialize;
use serde_json::json;

/// Executes a random number of no-ops at the start of each episode.
pub struct NoopReset {
    /// The index of the action NOOP.
    noop: usize,
    count: Count,
    rng: Rng,
}

/// The number of no-ops.
enum Count {
    /// Sampled from 0 to `below − 1`, less the `used` frames of the reset so far.
    Random { below: u32, used: u32 },
    /// Always this many.
    Fixed(u32),
}

impl NoopReset {
    /// Samples a number of frames below `max` at each reset of an environment of `spec`. `used` of them have already passed
    /// (those of [`FireReset`](crate::FireReset)), and the rest are no-ops.
    ///
    /// # Errors
    /// [`Error::Config`] where the environment has no action called NOOP.
    pub fn new(spec: &EnvSpec, max: usize, used: u32) -> Result<Self> {
        let below = u32::try_from(max).unwrap_or(u32::MAX).max(1);
        Self::with_count(spec, Count::Random { below, used })
    }

    /// Executes exactly `count` no-ops at each reset of an environment of `spec`.
    ///
    /// # Errors
    /// [`Error::Config`] where the environment has no action called NOOP.
    pub fn fixed(spec: &EnvSpec, count: u32) -> Result<Self> {
        Self::with_count(spec, Count::Fixed(count))
    }

    fn with_count(spec: &EnvSpec, count: Count) -> Result<Self> {
        let named = spec.action_named("NOOP").filter(|_| matches!(spec.actions, ActionSpace::Discrete { .. }));
        let missing = || Error::config(format!("[env]: `noop_max`: {} has no action NOOP; set it to 0", spec.id));
        Ok(Self { noop: named.ok_or_else(missing)?, count, rng: rng::stream(0, "no-ops") })
    }
}

impl EnvWrapper for NoopReset {
    const NAME: &'static str = "no-ops at the start";

    fn reset(&mut self, env: &mut dyn Env, seed: Option<u64>, mut obs: ObsMut<'_>) -> Result<Step> {
        if let Some(seed) = seed {
            self.rng = rng::stream(seed, "no-ops");
        }
        let mut start = env.reset(seed, obs.reborrow())?;
        let count = match self.count {
            Count::Random { below, used } => self.rng.random_range(0..below).saturating_sub(used),
            Count::Fixed(count) => count,
        };
        for _ in 0..count {
            if env.step(Action::Discrete(self.noop), obs.reborrow())?.done() {
                start = env.reset(None, obs.reborrow())?;
            }
        }
        Ok(start)
    }

    fn save(&self) -> Option<State> {
        Some(json!(self.rng))
    }

    fn load(&mut self, state: &State) -> Option<()> {
        self.rng = Rng::deserialize(state).ok()?;
        Some(())
    }
}
