//! A limit to the length of an episode.
//!
//! ```text
//! limit 3      step  1   2   3
//! environment        .   .   .            truncated at 3: the value bootstraps from the last observation
//! environment        .   .   terminated   terminated at 3, and not truncated: the task has ended
//! ```

use crate::EnvWrapper;
use playfield_core::{Action, Env, ObsMut, Result, State, Step};

/// Truncates an episode after a number of steps.
pub struct TimeLimit {
    limit: u64,
    elapsed: u64,
}

impl TimeLimit {
    /// Truncates after `limit` steps. Outside a frame skip these are agent steps.
    pub fn new(limit: u64) -> Self {
        Self { limit, elapsed: 0 }
    }
}

impl EnvWrapper for TimeLimit {
    const NAME: &'static str = "a time limit";

    fn reset(&mut self, env: &mut dyn Env, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        self.elapsed = 0;
        env.reset(seed, obs)
    }

    fn step(&mut self, env: &mut dyn Env, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let mut step = env.step(action, obs)?;
        self.elapsed = self.elapsed.saturating_add(1);
        if self.elapsed >= self.limit && !step.terminated {
            step.truncated = true;
        }
        Ok(step)
    }

    fn save(&self) -> Option<State> {
        Some(self.elapsed.into())
    }

    fn load(&mut self, state: &State) -> Option<()> {
        self.elapsed = state.as_u64()?;
        Some(())
    }
}
