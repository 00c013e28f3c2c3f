//! FIRE at a game's start, for games (Breakout) that stand still until it is pressed.
//!
//! ```text
//! inner     reset   FIRE
//! obs       (0)     1
//! returned          1
//! ```
//!
//! It is pressed once, right after the reset and *before* the no-ops, as ALE's vector environment does
//! (`PreprocessedEnv::reset`). Baselines' `FireResetEnv` comes after the no-ops, and then presses action 2 as well.

use playfield_core::{Action, Env, EnvSpec, Image, ObsMut, Result, State, Step};

/// Presses FIRE at the start of each episode of a game that has this action; else it does nothing.
pub struct FireReset {
    inner: Box<dyn Env>,
    fire: Option<usize>,
}

impl FireReset {
    /// FIRE at each start of `inner`.
    pub fn new(inner: Box<dyn Env>) -> Self {
        let fire = inner.spec().action_named("FIRE");
        Self { inner, fire }
    }

    /// Whether the game has the action, so that a start takes one frame.
    pub fn presses(&self) -> bool {
        self.fire.is_some()
    }
}

impl Env for FireReset {
    fn spec(&self) -> &EnvSpec {
        self.inner.spec()
    }

    fn reset(&mut self, seed: Option<u64>, mut obs: ObsMut<'_>) -> Result<Step> {
        let start = self.inner.reset(seed, obs.reborrow())?;
        let Some(fire) = self.fire else { return Ok(start) };
        match self.inner.step(Action::Discrete(fire), obs.reborrow())?.done() {
            // A game that FIRE ends cannot be started by it.
            true => self.inner.reset(None, obs),
            false => Ok(start),
        }
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        self.inner.step(action, obs)
    }

    fn save_state(&self) -> Option<State> {
        self.inner.save_state()
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        self.inner.load_state(state)
    }

    fn render(&mut self) -> Result<Option<Image>> {
        self.inner.render()
    }

    fn lives(&self) -> u32 {
        self.inner.lives()
    }
}
