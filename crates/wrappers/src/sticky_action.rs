//! Sticky actions: the emulator repeats the previous action at random (Machado et al. 2018, section 5.2), so that replaying a
//! memorized sequence of actions is no solution.
//!
//! ```text
//! sent        NOOP  a  a  a  a  b  b  b  b      per emulator frame: this wrapper is inside the frame skip
//! executed    NOOP  a  a  a  a  a  b  b  b      b is executed one frame late
//! ```
//!
//! As in ALE, the action that may be repeated is the last one *executed*, and at the start of an episode that is NOOP. In an
//! environment without that action the first action of an episode is always executed.

use crate::EnvWrapper;
use playfield_core::rng::{self, Rng};
use playfield_core::{Action, Env, ObsMut, Result, State, Step};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Repeats the previous action with a fixed probability at each step.
pub struct StickyAction {
    probability: f64,
    rng: Rng,
    previous: Previous,
}

/// The action last executed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Previous {
    None,
    Discrete(usize),
    MultiDiscrete(Vec<i64>),
    Continuous(Vec<f32>),
}

impl StickyAction {
    /// Repeats the previous action with `probability` (0 to 1).
    pub fn new(probability: f64) -> Self {
        Self { probability, rng: rng::stream(0, "sticky"), previous: Previous::None }
    }
}

impl EnvWrapper for StickyAction {
    const NAME: &'static str = "sticky actions";

    fn reset(&mut self, env: &mut dyn Env, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        if let Some(seed) = seed {
            self.rng = rng::stream(seed, "sticky");
        }
        self.previous = env.spec().action_named("NOOP").map_or(Previous::None, Previous::Discrete);
        env.reset(seed, obs)
    }

    fn step(&mut self, env: &mut dyn Env, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        // Sampled at every step, so that the random stream does not depend on the actions.
        let repeat = self.rng.random::<f64>() < self.probability;
        if !repeat || self.previous == Previous::None {
            match (action, &mut self.previous) {
                (Action::Discrete(a), previous) => *previous = Previous::Discrete(a),
                (Action::MultiDiscrete(a), previous) => *previous = Previous::MultiDiscrete(a.to_vec()),
                (Action::Continuous(a), Previous::Continuous(kept)) => kept.copy_from_slice(a),
                (Action::Continuous(a), previous) => *previous = Previous::Continuous(a.to_vec()),
            }
        }
        match &self.previous {
            Previous::None => env.step(action, obs),
            Previous::Discrete(a) => env.step(Action::Discrete(*a), obs),
            Previous::MultiDiscrete(a) => env.step(Action::MultiDiscrete(a), obs),
            Previous::Continuous(a) => env.step(Action::Continuous(a), obs),
        }
    }

    fn save(&self) -> Option<State> {
        Some(json!([self.rng, self.previous]))
    }

    fn load(&mut self, state: &State) -> Option<()> {
        (self.rng, self.previous) = Deserialize::deserialize(state).ok()?;
        Some(())
    }
}
