//! One Gymnasium environment, for playfield's wrappers and pool.

use super::arguments;
use super::spaces::{self, Codec};
use crate::array::{numbers, observe};
use crate::python::{self, Failure, python_seed, said};
use playfield_core::{Action, ActionSpace, Env, EnvConfig, EnvSpec, Error, Image, ObsMut, Result, Step};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// One environment made by `gymnasium.make`. Lives are read from `info["lives"]`, where it says any.
pub struct GymEnv {
    spec: EnvSpec,
    codec: Codec,
    env: Option<Py<PyAny>>,
    lives: u32,
}

impl GymEnv {
    /// Environment `id` with `config.kwargs`, without Gymnasium's own time limit where `config` sets one.
    ///
    /// # Errors
    /// [`Error::Env`] where Python or a package is missing, the id is unknown, the constructor fails, or a space is
    /// neither a Box nor (for actions) Discrete.
    pub fn new(id: &str, config: &EnvConfig) -> Result<Self> {
        let (spec, codec, env) = python::with(id, |py| {
            let limit = (config.max_episode_steps != 0).then_some(-1);
            let env = python::helper(py)?.call_method1("make", (id, arguments(py, config, limit)?))?;
            let both = (env.getattr("observation_space")?, env.getattr("action_space")?);
            let (spec, codec) = spaces::read(id, config, both, Some(&env))?;
            Ok((spec, codec, Some(env.unbind())))
        })?;
        Ok(Self { spec, codec, env, lives: 0 })
    }

    fn env<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.env.as_ref().expect("taken by drop alone").bind(py)
    }

    fn lives_of(&self, info: &Bound<'_, PyAny>) -> std::result::Result<u32, Failure> {
        let lives = info.cast::<PyDict>().ok().map(|info| info.get_item(intern!(info.py(), "lives"))).transpose()?;
        Ok(lives.flatten().and_then(|lives| lives.extract::<i64>().ok()).map_or(0, |lives| lives.max(0) as u32))
    }

    fn shape_of_answer(&self, call: &str, expected: &str) -> Failure {
        said(Error::env(&self.spec.id, format!("its `{call}` did not return ({expected})")))
    }
}

impl Env for GymEnv {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        self.lives = python::with(&self.spec.id, |py| {
            let arguments = PyDict::new(py);
            if let Some(seed) = seed {
                arguments.set_item("seed", python_seed(seed))?;
            }
            let answer = self.env(py).call_method(intern!(py, "reset"), (), Some(&arguments))?;
            let (first, info) = answer
                .extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()
                .map_err(|_| self.shape_of_answer("reset", "observation, info"))?;
            observe(&self.spec.id, &first, obs)?;
            self.lives_of(&info)
        })?;
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        check(&self.spec, action)?;
        let (mut step, lives) = python::with(&self.spec.id, |py| {
            let action = self.codec.one(py, action)?;
            let answer = self.env(py).call_method1(intern!(py, "step"), (action,))?;
            type Answer<'py> =
                (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);
            let (next, reward, terminated, truncated, info) = answer
                .extract::<Answer<'_>>()
                .map_err(|_| self.shape_of_answer("step", "observation, reward, terminated, truncated, info"))?;
            observe(&self.spec.id, &next, obs)?;
            let step = Step {
                reward: reward.extract::<f64>()? as f32,
                terminated: terminated.is_truthy()?,
                truncated: truncated.is_truthy()?,
                life_lost: false,
            };
            Ok((step, self.lives_of(&info)?))
        })?;
        step.life_lost = !step.done() && 0 < lives && lives < self.lives;
        self.lives = lives;
        Ok(step)
    }

    /// A picture, where `render_mode = "rgb_array"` stands in `[env.kwargs]`.
    fn render(&mut self) -> Result<Option<Image>> {
        python::with(&self.spec.id, |py| {
            let screen = self.env(py).call_method0("render")?;
            let Ok((height, width, 3)) = screen.getattr("shape").and_then(|s| s.extract::<(usize, usize, usize)>())
            else {
                return Ok(None);
            };
            Ok(Some(Image { width, height, rgb: numbers::<u8>(&screen)?.as_slice()?.to_vec() }))
        })
    }

    fn lives(&self) -> u32 {
        self.lives
    }
}

impl Drop for GymEnv {
    fn drop(&mut self) {
        let env = self.env.take();
        // An environment that cannot be closed has nobody left to hear of it.
        let _ = python::with(&self.spec.id, |py| Ok(python::helper(py)?.call_method1("close", (env,))?.unbind()));
    }
}

/// Refuses an action that is not of the space.
fn check(spec: &EnvSpec, action: Action<'_>) -> Result<()> {
    match (action, &spec.actions) {
        (Action::Discrete(a), ActionSpace::Discrete { n }) if a < *n => Ok(()),
        (Action::Continuous(a), ActionSpace::Box { low, .. })
            if a.len() == low.len() && a.iter().all(|v| v.is_finite()) =>
        {
            Ok(())
        }
        _ => Err(Error::config(format!("{}: action {action:?} is not of its space {:?}", spec.id, spec.actions))),
    }
}
