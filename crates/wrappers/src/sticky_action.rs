//! StickyAction actions: the emulator repeats the previous action at random (Machado et al. 2018, section 5.2), so that a memorized
//! sequence of actions is no way to play.
//!
//! ```text
//! asked for   NOOP  a  a  a  a  b  b  b  b      per emulator frame: this stands inside the frame skip
//! executed    NOOP  a  a  a  a  a  b  b  b      the change to b came a frame late
//! ```
//!
//! As in ALE, what may be repeated is the action last *executed*, and an episode starts after a NOOP; in an environment
//! without that action the first one of an episode is executed as it is.

use crate::saved::{pack, unpack};
use playfield_core::rng::{self, Rng};
use playfield_core::{Action, Env, EnvSpec, Image, ObsMut, Result, State, Step};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Repeats the previous action with a fixed probability at each step.
pub struct StickyAction {
    inner: Box<dyn Env>,
    probability: f64,
    rng: Rng,
    previous: Previous,
}

/// The action last executed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Previous {
    None,
    Discrete(usize),
    Continuous(Vec<f32>),
}

impl StickyAction {
    /// Repeats with `probability` (0 to 1) at each step of `inner`.
    pub fn new(inner: Box<dyn Env>, probability: f64) -> Self {
        Self { inner, probability, rng: rng::stream(0, "sticky"), previous: Previous::None }
    }
}

impl Env for StickyAction {
    fn spec(&self) -> &EnvSpec {
        self.inner.spec()
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        if let Some(seed) = seed {
            self.rng = rng::stream(seed, "sticky");
        }
        self.previous = self.spec().action_named("NOOP").map_or(Previous::None, Previous::Discrete);
        self.inner.reset(seed, obs)
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        // Drawn at each step, so that the stream does not depend on the actions.
        let repeat = self.rng.random::<f64>() < self.probability;
        if !repeat || self.previous == Previous::None {
            match (action, &mut self.previous) {
                (Action::Discrete(a), previous) => *previous = Previous::Discrete(a),
                (Action::Continuous(a), Previous::Continuous(kept)) => kept.copy_from_slice(a),
                (Action::Continuous(a), previous) => *previous = Previous::Continuous(a.to_vec()),
            }
        }
        match &self.previous {
            Previous::None => self.inner.step(action, obs),
            Previous::Discrete(a) => self.inner.step(Action::Discrete(*a), obs),
            Previous::Continuous(a) => self.inner.step(Action::Continuous(a), obs),
        }
    }

    fn save_state(&self) -> Option<State> {
        pack((&self.rng, &self.previous), self.inner.save_state())
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        let (own, inner) = unpack(&self.spec().id, "sticky actions", state)?;
        self.inner.load_state(inner)?;
        (self.rng, self.previous) = own;
        Ok(())
    }

    fn render(&mut self) -> Result<Option<Image>> {
        self.inner.render()
    }

    fn lives(&self) -> u32 {
        self.inner.lives()
    }
}
