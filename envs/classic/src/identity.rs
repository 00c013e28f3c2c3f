//! The task of repeating what is seen, which every algorithm must solve in 2,000 steps: Stable-Baselines3's
//! `IdentityEnv` and `IdentityEnvBox`. Where it is not solved, something is broken, and nothing larger need be tried.

use crate::support::{continuous, discrete, reseed, restore, spec, uniform};
use playfield_core::rng::{self, Rng};
use playfield_core::{Action, ActionSpace, Dtype, Env, EnvSpec, Error, ObsMut, Result, State, Step};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Repeats the number of a state.
///
/// Observation, `f32[size]`: a state, drawn anew at each step, one-hot. Actions: the states. Reward: 1 for the action that
/// is the state, else 0. An episode never terminates; by default it is truncated after 100 steps.
#[derive(Clone, Debug)]
pub struct Identity {
    spec: EnvSpec,
    now: Now<usize>,
}

/// What an [`Identity`] can be given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// How many states there are, at least 1.
    pub size: usize,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self { size: 4 }
    }
}

/// Repeats a number.
///
/// Observation, `f32[1]`: a state from [−1, 1), drawn anew at each step. Action: one number in [−1, 1]. Reward:
/// −(action − state)². An episode never terminates; by default it is truncated after 100 steps.
#[derive(Clone, Debug)]
pub struct IdentityBox {
    spec: EnvSpec,
    now: Now<f32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Now<S> {
    rng: Rng,
    state: S,
}

impl Identity {
    /// A state, to be [`reset`](Env::reset).
    ///
    /// # Errors
    /// [`Error::Config`] for no state at all.
    pub fn new(config: &IdentityConfig) -> Result<Self> {
        let n = config.size;
        if n == 0 {
            return Err(Error::config("[env.kwargs]: Identity needs a `size` of 1 or more"));
        }
        let spec = spec("Identity", &[n], Dtype::F32, ActionSpace::Discrete { n }, &[]);
        Ok(Self { spec, now: Now { rng: rng::stream(0, "game"), state: 0 } })
    }

    fn next(&mut self, mut obs: ObsMut<'_>) {
        self.now.state = self.now.rng.random_range(0..self.spec.frame_len());
        let obs = obs.f32();
        obs.fill(0.0);
        obs[self.now.state] = 1.0;
    }
}

impl Env for Identity {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        reseed(&mut self.now.rng, seed);
        self.next(obs);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let right = discrete(&self.spec, action)? == self.now.state;
        self.next(obs);
        Ok(Step { reward: f32::from(right), ..Step::default() })
    }

    fn save_state(&self) -> Option<State> {
        serde_json::to_value(&self.now).ok()
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        let now: Now<usize> = restore(&self.spec, state)?;
        if now.state >= self.spec.frame_len() {
            return Err(Error::env(&self.spec.id, "the saved state is one of more states"));
        }
        self.now = now;
        Ok(())
    }
}

impl IdentityBox {
    /// A state, to be [`reset`](Env::reset).
    pub fn new() -> Self {
        let actions = ActionSpace::Box { low: vec![-1.0], high: vec![1.0] };
        let spec = spec("IdentityBox", &[1], Dtype::F32, actions, &[]);
        Self { spec, now: Now { rng: rng::stream(0, "game"), state: 0.0 } }
    }

    fn next(&mut self, mut obs: ObsMut<'_>) {
        self.now.state = uniform(&mut self.now.rng, -1.0, 1.0) as f32;
        obs.f32()[0] = self.now.state;
    }
}

impl Default for IdentityBox {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for IdentityBox {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        reseed(&mut self.now.rng, seed);
        self.next(obs);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let off = continuous(&self.spec, action)? - self.now.state;
        self.next(obs);
        Ok(Step { reward: -off * off, ..Step::default() })
    }

    fn save_state(&self) -> Option<State> {
        serde_json::to_value(&self.now).ok()
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        self.now = restore(&self.spec, state)?;
        Ok(())
    }
}
