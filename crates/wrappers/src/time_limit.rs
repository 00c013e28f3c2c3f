//! A limit to the length of an episode.
//!
//! ```text
//! limit 3      step  1   2   3
//! inner              .   .   .            truncated at 3: its value goes on from the last observation
//! inner              .   .   terminated   terminated at 3, and nothing else: the task itself has ended
//! ```

use crate::saved::{pack, unpack};
use playfield_core::{Action, Env, EnvSpec, Image, ObsMut, Result, State, Step};

/// Truncates an episode after a number of steps.
pub struct TimeLimit {
    inner: Box<dyn Env>,
    limit: u64,
    elapsed: u64,
}

impl TimeLimit {
    /// At most `limit` steps of `inner` in an episode. Around a frame skip these are agent steps.
    pub fn new(inner: Box<dyn Env>, limit: u64) -> Self {
        Self { inner, limit, elapsed: 0 }
    }
}

impl Env for TimeLimit {
    fn spec(&self) -> &EnvSpec {
        self.inner.spec()
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        self.elapsed = 0;
        self.inner.reset(seed, obs)
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let mut step = self.inner.step(action, obs)?;
        self.elapsed += 1;
        if self.elapsed >= self.limit && !step.terminated {
            step.truncated = true;
        }
        Ok(step)
    }

    fn save_state(&self) -> Option<State> {
        pack(self.elapsed, self.inner.save_state())
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        let (elapsed, inner) = unpack(&self.spec().id, "a time limit", state)?;
        self.inner.load_state(inner)?;
        self.elapsed = elapsed;
        Ok(())
    }

    fn render(&mut self) -> Result<Option<Image>> {
        self.inner.render()
    }

    fn lives(&self) -> u32 {
        self.inner.lives()
    }
}
