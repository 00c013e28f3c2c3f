//! A cue, a wait, a question: what only an agent with a memory can answer (the T-maze of Bakker 2002, without the maze;
//! bsuite's `memory_len`).

use crate::support::{discrete, reseed, restore, spec};
use playfield_core::rng::{self, Rng};
use playfield_core::{Action, ActionSpace, Dtype, Env, EnvSpec, Error, ObsMut, Result, State, Step};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Recalls a cue that was shown some steps ago.
///
/// Observation, `f32[2]`: the cue, −1 or 1, in an episode's first observation and 0 ever after; and 1 when the question is
/// asked, else 0. Actions: 0 and 1. The question comes `wait` steps after the cue; the action that follows it ends the
/// episode with reward 1 if it is the cue's (0 for −1, 1 for 1), else −1. All other actions and rewards mean nothing: who
/// cannot remember earns 0 in the mean, whatever it does.
#[derive(Clone, Debug)]
pub struct Recall {
    spec: EnvSpec,
    wait: usize,
    now: Now,
}

/// What a [`Recall`] can be given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecallConfig {
    /// Steps between cue and question, at least 1.
    pub wait: usize,
}

impl Default for RecallConfig {
    fn default() -> Self {
        Self { wait: 10 }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Now {
    rng: Rng,
    cue: usize,
    /// Steps since the cue was shown.
    t: usize,
}

impl Recall {
    /// A task, to be [`reset`](Env::reset).
    ///
    /// # Errors
    /// [`Error::Config`] where cue and question are one.
    pub fn new(config: &RecallConfig) -> Result<Self> {
        if config.wait == 0 {
            return Err(Error::config("[env.kwargs]: Recall needs a `wait` of 1 step or more"));
        }
        let spec = spec("Recall", &[2], Dtype::F32, ActionSpace::Discrete { n: 2 }, &["LEFT", "RIGHT"]);
        Ok(Self { spec, wait: config.wait, now: Now { rng: rng::stream(0, "game"), cue: 0, t: 0 } })
    }

    fn show(&self, mut obs: ObsMut<'_>) {
        let cue = if self.now.t == 0 { 2.0 * self.now.cue as f32 - 1.0 } else { 0.0 };
        let question = if self.now.t == self.wait { 1.0 } else { 0.0 };
        obs.f32().copy_from_slice(&[cue, question]);
    }
}

impl Env for Recall {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        reseed(&mut self.now.rng, seed);
        (self.now.cue, self.now.t) = (self.now.rng.random_range(0..2), 0);
        self.show(obs);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let action = discrete(&self.spec, action)?;
        if self.now.t > self.wait {
            return Err(Error::env(&self.spec.id, "the episode has ended: `reset` must come next"));
        }
        self.now.t += 1;
        self.show(obs);
        let terminated = self.now.t > self.wait;
        let reward = match (terminated, action == self.now.cue) {
            (false, _) => 0.0,
            (true, true) => 1.0,
            (true, false) => -1.0,
        };
        Ok(Step { reward, terminated, ..Step::default() })
    }

    fn save_state(&self) -> Option<State> {
        serde_json::to_value(&self.now).ok()
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        let now: Now = restore(&self.spec, state)?;
        if now.cue > 1 || now.t > self.wait + 1 {
            return Err(Error::env(&self.spec.id, "the saved state is one of a longer wait"));
        }
        self.now = now;
        Ok(())
    }
}
