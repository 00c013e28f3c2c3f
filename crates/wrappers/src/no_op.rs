//! A random number of no-ops at a game's start, so that a deterministic game does not begin the same every time
//! (Mnih et al. 2015).
//!
//! ```text
//! inner     reset  FIRE  NOOP  NOOP      drawn: 3 frames, of which FIRE is one
//! obs       (0)    (1)   (2)   3
//! returned                     3
//! ```
//!
//! The number is drawn as ALE's vector environment draws it (`PreprocessedEnv::reset`): from 0 to `noop_max − 1`, and FIRE,
//! where it was pressed, counts as one of them. Gymnasium and Baselines draw from 1 to `noop_max` and press FIRE, if at
//! all, later. A game that ends meanwhile is reset, and the remaining no-ops follow.

use crate::saved::{pack, unpack};
use playfield_core::rng::{self, Rng};
use playfield_core::{Action, ActionSpace, Env, EnvSpec, Error, Image, ObsMut, Result, State, Step};
use rand::RngExt;

/// Does nothing for a random number of frames at the start of each episode.
pub struct NoOp {
    inner: Box<dyn Env>,
    /// The number of the action NOOP.
    noop: usize,
    count: Count,
    rng: Rng,
}

/// How many no-ops.
enum Count {
    /// A draw from 0 to `below − 1`, less the frames that the start has already used.
    Random { below: u32, used: u32 },
    /// Always this many.
    Exactly(u32),
}

impl NoOp {
    /// Draws a number of frames below `max` at each start of `inner`; `used` of them have passed already (1 where FIRE
    /// was pressed, else 0), and the rest are no-ops.
    ///
    /// # Errors
    /// [`Error::Config`] where `inner` has no action called NOOP.
    pub fn new(inner: Box<dyn Env>, max: usize, used: u32) -> Result<Self> {
        let below = u32::try_from(max).unwrap_or(u32::MAX).max(1);
        Self::with(inner, Count::Random { below, used })
    }

    /// Exactly `count` no-ops at each start of `inner`.
    ///
    /// # Errors
    /// [`Error::Config`] where `inner` has no action called NOOP.
    pub fn exactly(inner: Box<dyn Env>, count: u32) -> Result<Self> {
        Self::with(inner, Count::Exactly(count))
    }

    fn with(inner: Box<dyn Env>, count: Count) -> Result<Self> {
        let spec = inner.spec();
        let named = spec.action_named("NOOP").filter(|_| matches!(spec.actions, ActionSpace::Discrete { .. }));
        let missing = || Error::config(format!("[env]: `noop_max`: {} has no action NOOP; set it to 0", spec.id));
        Ok(Self { noop: named.ok_or_else(missing)?, inner, count, rng: rng::stream(0, "no-ops") })
    }
}

impl Env for NoOp {
    fn spec(&self) -> &EnvSpec {
        self.inner.spec()
    }

    fn reset(&mut self, seed: Option<u64>, mut obs: ObsMut<'_>) -> Result<Step> {
        if let Some(seed) = seed {
            self.rng = rng::stream(seed, "no-ops");
        }
        let mut start = self.inner.reset(seed, obs.reborrow())?;
        let count = match self.count {
            Count::Random { below, used } => self.rng.random_range(0..below).saturating_sub(used),
            Count::Exactly(count) => count,
        };
        for _ in 0..count {
            if self.inner.step(Action::Discrete(self.noop), obs.reborrow())?.done() {
                start = self.inner.reset(None, obs.reborrow())?;
            }
        }
        Ok(start)
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        self.inner.step(action, obs)
    }

    fn save_state(&self) -> Option<State> {
        pack(&self.rng, self.inner.save_state())
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        let (rng, inner) = unpack(&self.spec().id, "no-ops at the start", state)?;
        self.inner.load_state(inner)?;
        self.rng = rng;
        Ok(())
    }

    fn render(&mut self) -> Result<Option<Image>> {
        self.inner.render()
    }

    fn lives(&self) -> u32 {
        self.inner.lives()
    }
}
