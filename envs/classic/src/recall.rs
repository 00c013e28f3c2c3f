//! A delayed-recall task that only a recurrent policy can solve (the T-maze of Bakker 2002, without the maze; bsuite's
//! `memory_len`).

use crate::support::{discrete, reseed, restore};
use playfield_core::rng::{self, Rng};
use playfield_core::{Action, ActionSpace, Dtype, Env, EnvSpec, Error, ObsMut, Result, State, Step};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Recall a cue that was observed some steps ago.
///
/// Observation, `f32[2]`: the cue, −1 or 1, in the first observation of an episode and 0 in all others; and 1 in the last
/// observation before the decision (the query), else 0. Actions: 0 and 1. The query comes `wait` steps after the cue. The next
/// action ends the episode with reward 1 if it matches the cue (0 for −1, 1 for 1), else −1. All other actions have no effect,
/// and all other rewards are 0, so a policy without recurrent state has a mean return of 0.
#[derive(Clone, Debug)]
pub struct Recall {
    spec: EnvSpec,
    wait: usize,
    sim: Simulation,
}

/// The `[env.kwargs]` of [`Recall`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecallConfig {
    /// The number of steps between cue and query, at least 1.
    pub wait: usize,
}

impl Default for RecallConfig {
    fn default() -> Self {
        Self { wait: 10 }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Simulation {
    rng: Rng,
    cue: usize,
    /// Steps since the cue.
    t: usize,
}

impl Recall {
    /// Creates the environment; call [`reset`](Env::reset) first.
    ///
    /// # Errors
    /// [`Error::Config`] for a wait of 0.
    pub fn new(config: &RecallConfig) -> Result<Self> {
        if config.wait == 0 {
            return Err(Error::config("[env.kwargs]: Recall needs a `wait` of 1 step or more"));
        }
        let spec = EnvSpec::new("Recall", &[2], Dtype::F32, ActionSpace::Discrete { n: 2 });
        let spec = spec.with_action_names(["LEFT", "RIGHT"]);
        Ok(Self { spec, wait: config.wait, sim: Simulation { rng: rng::stream(0, "game"), cue: 0, t: 0 } })
    }

    fn observe(&self, mut obs: ObsMut<'_>) {
        let cue = if self.sim.t == 0 { 2.0 * self.sim.cue as f32 - 1.0 } else { 0.0 };
        let query = if self.sim.t == self.wait { 1.0 } else { 0.0 };
        obs.f32().copy_from_slice(&[cue, query]);
    }
}

impl Env for Recall {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        reseed(&mut self.sim.rng, seed);
        (self.sim.cue, self.sim.t) = (self.sim.rng.random_range(0..2), 0);
        self.observe(obs);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let action = discrete(&self.spec, action)?;
        if self.sim.t > self.wait {
            return Err(Error::env(&self.spec.id, "the episode has ended: `reset` must come next"));
        }
        self.sim.t += 1;
        self.observe(obs);
        let terminated = self.sim.t > self.wait;
        let reward = match (terminated, action == self.sim.cue) {
            (false, _) => 0.0,
            (true, true) => 1.0,
            (true, false) => -1.0,
        };
        Ok(Step { reward, terminated, ..Step::default() })
    }

    fn save_state(&self) -> Option<State> {
        serde_json::to_value(&self.sim).ok()
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        let sim: Simulation = restore(&self.spec, state)?;
        if sim.cue > 1 || sim.t > self.wait + 1 {
            return Err(Error::env(&self.spec.id, "the saved state is from an environment with a longer wait"));
        }
        self.sim = sim;
        Ok(())
    }
}
