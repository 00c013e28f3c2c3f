//! FIRE at the start of an episode, for games (Breakout) that wait for it.
//!
//! ```text
//! environment  reset   FIRE
//! frame        (0)     1
//! obs                  1
//! ```
//!
//! FIRE is pressed once, right after the reset and *before* the no-ops, as in ALE's vector environment
//! (`PreprocessedEnv::reset`). Baselines' `FireResetEnv` comes after the no-ops, and presses action 2 as well.

use crate::EnvWrapper;
use playfield_core::{Action, Env, EnvSpec, ObsMut, Result, Step};

/// Presses FIRE at the start of each episode, in games that have this action.
pub struct FireReset {
    fire: Option<usize>,
}

impl FireReset {
    /// For an environment of `spec`.
    pub fn new(spec: &EnvSpec) -> Self {
        Self { fire: spec.action_named("FIRE") }
    }

    /// The number of frames that this wrapper adds to a reset: 1 where the game has the action, else 0.
    pub fn frames(&self) -> u32 {
        u32::from(self.fire.is_some())
    }
}

impl EnvWrapper for FireReset {
    const NAME: &'static str = "FIRE at the start";

    fn reset(&mut self, env: &mut dyn Env, seed: Option<u64>, mut obs: ObsMut<'_>) -> Result<Step> {
        let start = env.reset(seed, obs.reborrow())?;
        let Some(fire) = self.fire else { return Ok(start) };
        match env.step(Action::Discrete(fire), obs.reborrow())?.done() {
            // FIRE ended the episode: start without it.
            true => env.reset(None, obs),
            false => Ok(start),
        }
    }
}
