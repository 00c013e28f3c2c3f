//! The action must repeat the observation: Stable-Baselines3's `IdentityEnv`, `IdentityEnvMultiDiscrete` and `IdentityEnvBox`. Every algorithm must solve
//! them in 2,000 steps; one that does not has a bug.

use crate::support::{continuous, indices, reseed, restore, uniform};
use playfield_core::rng::{self, Rng};
use playfield_core::{Action, ActionSpace, Dtype, Env, EnvSpec, Error, ObsMut, Result, State, Step};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Repeat a discrete state, of one component ([`new`](Self::new)) or several ([`multi_discrete`](Self::multi_discrete)).
///
/// Observation, `f32[choices]`: the components of a state, sampled at each step, each as a one-hot vector. Actions: the states. Reward:
/// 1 for the action that equals the state, else 0. An episode never terminates; by default it is truncated after 100 steps.
#[derive(Clone, Debug)]
pub struct Identity {
    spec: EnvSpec,
    sim: Simulation<Vec<i64>>,
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
    /// Creates an environment with `config.size` states; call [`reset`](Env::reset) first.
    ///
    /// # Errors
    /// [`Error::Config`] for no state at all.
    pub fn new(config: &IdentityConfig) -> Result<Self> {
        match config.size {
            0 => Err(Error::config("[env.kwargs]: Identity needs a `size` of 1 or more")),
            n => Ok(Self::with_actions("Identity", ActionSpace::Discrete { n })),
        }
    }

    /// Creates an environment whose states have a component of 3 choices and one of 2; call [`reset`](Env::reset) first.
    pub fn multi_discrete() -> Self {
        Self::with_actions("IdentityMultiDiscrete", ActionSpace::MultiDiscrete { sizes: vec![3, 2] })
    }

    fn with_actions(id: &str, actions: ActionSpace) -> Self {
        let sizes = actions.sizes();
        let (choices, state) = (sizes.iter().sum(), vec![0; sizes.len()]);
        let spec = EnvSpec::new(id, &[choices], Dtype::F32, actions);
        Self { spec, sim: Simulation { rng: rng::stream(0, "game"), state } }
    }

    fn next(&mut self, mut obs: ObsMut<'_>) {
        let mut rest = obs.f32();
        rest.fill(0.0);
        for (component, &size) in self.sim.state.iter_mut().zip(self.spec.actions.sizes()) {
            let (one_hot, after) = rest.split_at_mut(size);
            let state = self.sim.rng.random_range(0..size);
            one_hot[state] = 1.0;
            (*component, rest) = (state as i64, after);
        }
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
        let is_correct = indices(&self.spec, action)? == self.sim.state;
        self.next(obs);
        Ok(Step { reward: f32::from(is_correct), ..Step::default() })
    }

    fn save_state(&self) -> Option<State> {
        serde_json::to_value(&self.sim).ok()
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        let sim: Simulation<Vec<i64>> = restore(&self.spec, state)?;
        let sizes = self.spec.actions.sizes();
        let fits = sim.state.iter().zip(sizes).all(|(&state, &size)| (0..size as i64).contains(&state));
        if sim.state.len() != sizes.len() || !fits {
            return Err(Error::env(&self.spec.id, "the saved state is from an environment with other states"));
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
