//! The action must repeat the observation: Stable-Baselines3's `IdentityEnv`, `IdentityEnvMultiDiscrete` and `IdentityEnvBox`. Every algorithm must solve
//! them in 2,000 steps; one that does not has a bug.

use crate::support::{continuous, discrete, indices, reseed, restore, uniform};
use playfield_core::rng::{self, Rng};
use playfield_core::{Action, ActionSpace, Dtype, Env, EnvSpec, Error, ObsMut, Result, State, Step};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Repeat a discrete state.
///
/// Observation, `f32[size]`: a state, sampled at each step, one-hot. Actions: the states. Reward: 1 for the action that equals
/// the state, else 0. An episode never terminates; by default it is truncated after 100 steps.
#[derive(Clone, Debug)]
pub struct Identity {
    spec: EnvSpec,
    sim: Simulation<usize>,
}

/// The `[env.kwargs]` of [`Identity`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// The number of states, at least 1.
    pub size: usize,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self { size: 4 }
    }
}

/// The sizes of the components of [`IdentityMulti`].
const SIZES: [usize; 2] = [3, 2];

/// Repeat a state of two components.
///
/// Observation, `f32[5]`: the two components of a state, sampled at each step, one-hot each. Actions: a component of 3 choices, and one
/// of 2. Reward: 1 for the action that equals the state, else 0. An episode never terminates; by default it is truncated after 100
/// steps.
#[derive(Clone, Debug)]
pub struct IdentityMulti {
    spec: EnvSpec,
    sim: Simulation<[usize; 2]>,
}

/// Repeat a continuous state.
///
/// Observation, `f32[1]`: a state from [−1, 1), sampled at each step. Action: `f32[1]` in [−1, 1]. Reward:
/// −(action − state)². An episode never terminates; by default it is truncated after 100 steps.
#[derive(Clone, Debug)]
pub struct IdentityBox {
    spec: EnvSpec,
    sim: Simulation<f32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Simulation<S> {
    rng: Rng,
    state: S,
}

impl Identity {
    /// Creates the environment; call [`reset`](Env::reset) first.
    ///
    /// # Errors
    /// [`Error::Config`] for no state at all.
    pub fn new(config: &IdentityConfig) -> Result<Self> {
        let n = config.size;
        if n == 0 {
            return Err(Error::config("[env.kwargs]: Identity needs a `size` of 1 or more"));
        }
        let spec = EnvSpec::new("Identity", &[n], Dtype::F32, ActionSpace::Discrete { n });
        Ok(Self { spec, sim: Simulation { rng: rng::stream(0, "game"), state: 0 } })
    }

    fn next(&mut self, mut obs: ObsMut<'_>) {
        self.sim.state = self.sim.rng.random_range(0..self.spec.frame_len());
        let obs = obs.f32();
        obs.fill(0.0);
        obs[self.sim.state] = 1.0;
    }
}

impl Env for Identity {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        reseed(&mut self.sim.rng, seed);
        self.next(obs);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let is_correct = discrete(&self.spec, action)? == self.sim.state;
        self.next(obs);
        Ok(Step { reward: f32::from(is_correct), ..Step::default() })
    }

    fn save_state(&self) -> Option<State> {
        serde_json::to_value(&self.sim).ok()
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        let sim: Simulation<usize> = restore(&self.spec, state)?;
        if sim.state >= self.spec.frame_len() {
            return Err(Error::env(&self.spec.id, "the saved state is from an environment with more states"));
        }
        self.sim = sim;
        Ok(())
    }
}

impl IdentityMulti {
    /// Creates the environment; call [`reset`](Env::reset) first.
    pub fn new() -> Self {
        let actions = ActionSpace::MultiDiscrete { sizes: SIZES.to_vec() };
        let spec = EnvSpec::new("IdentityMulti", &[SIZES.iter().sum()], Dtype::F32, actions);
        Self { spec, sim: Simulation { rng: rng::stream(0, "game"), state: [0; 2] } }
    }

    fn next(&mut self, mut obs: ObsMut<'_>) {
        self.sim.state = SIZES.map(|size| self.sim.rng.random_range(0..size));
        let obs = obs.f32();
        obs.fill(0.0);
        let [first, second] = self.sim.state;
        (obs[first], obs[SIZES[0] + second]) = (1.0, 1.0);
    }
}

impl Default for IdentityMulti {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for IdentityMulti {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        reseed(&mut self.sim.rng, seed);
        self.next(obs);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let is_correct = indices(&self.spec, action)?.iter().zip(self.sim.state).all(|(&a, s)| a == s as i64);
        self.next(obs);
        Ok(Step { reward: f32::from(is_correct), ..Step::default() })
    }

    fn save_state(&self) -> Option<State> {
        serde_json::to_value(&self.sim).ok()
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        let sim: Simulation<[usize; 2]> = restore(&self.spec, state)?;
        if sim.state.iter().zip(SIZES).any(|(&state, size)| state >= size) {
            return Err(Error::env(&self.spec.id, "the saved state is from an environment with more states"));
        }
        self.sim = sim;
        Ok(())
    }
}

impl IdentityBox {
    /// Creates the environment; call [`reset`](Env::reset) first.
    pub fn new() -> Self {
        let actions = ActionSpace::Box { low: vec![-1.0], high: vec![1.0] };
        let spec = EnvSpec::new("IdentityBox", &[1], Dtype::F32, actions);
        Self { spec, sim: Simulation { rng: rng::stream(0, "game"), state: 0.0 } }
    }

    fn next(&mut self, mut obs: ObsMut<'_>) {
        self.sim.state = uniform(&mut self.sim.rng, -1.0, 1.0) as f32;
        obs.f32()[0] = self.sim.state;
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
        reseed(&mut self.sim.rng, seed);
        self.next(obs);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let error = continuous(&self.spec, action)? - self.sim.state;
        self.next(obs);
        Ok(Step { reward: -error * error, ..Step::default() })
    }

    fn save_state(&self) -> Option<State> {
        serde_json::to_value(&self.sim).ok()
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        self.sim = restore(&self.spec, state)?;
        Ok(())
    }
}
