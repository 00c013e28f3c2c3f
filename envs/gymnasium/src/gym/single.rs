//! One Gymnasium environment, for playfield's wrappers and thread pool.

use super::{arguments, process, report_restarts, spaces};
use crate::array::copy_observation;
use crate::python::{self, python_seed};
use playfield_core::config::OnFailure;
use playfield_core::{Action, Env, EnvConfig, EnvSpec, Image, ObsMut, Result, Step};
use pyo3::intern;
use pyo3::prelude::*;

/// One environment created by `gymnasium.make`, in this process or (`vectorization = "async"`) in its own. Lives are read from
/// `info["lives"]` where that is an integer.
pub struct GymEnv {
    spec: EnvSpec,
    env: Option<Py<PyAny>>,
    lives: u32,
    action_mask: Vec<bool>,
    on_failure: OnFailure,
}

impl GymEnv {
    /// Creates environment `id` with `[env.kwargs]`, without Gymnasium's own time limit where `config` sets one.
    ///
    /// # Errors
    /// [`Error::Env`](playfield_core::Error::Env) where Python or a package is missing, the id is unknown, the constructor
    /// fails, or a space is not supported.
    pub fn new(id: &str, config: &EnvConfig) -> Result<Self> {
        let (spec, env) = python::with(id, |py| {
            let limit = (config.max_episode_steps != 0).then_some(-1);
            let made = (id, arguments(py, config, limit)?, process(config));
            let env = python::environments(py)?.call_method1("one", made)?;
            let spec = spaces::spec(id, config, &env.call_method1("call", ("describe",))?)?;
            Ok((spec, Some(env.unbind())))
        })?;
        let action_mask = vec![true; spec.mask_len()];
        Ok(Self { spec, env, lives: 0, action_mask, on_failure: config.on_failure })
    }
}

fn bound<'a, 'py>(env: &'a Option<Py<PyAny>>, py: Python<'py>) -> &'a Bound<'py, PyAny> {
    env.as_ref().expect("only drop takes it").bind(py)
}

impl Env for GymEnv {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        let Self { spec, env, action_mask, on_failure, .. } = self;
        self.lives = python::with(&spec.id, |py| {
            let call = (intern!(py, "reset"), seed.map(python_seed));
            let answer = bound(env, py).call_method1(intern!(py, "call"), call);
            report_restarts(py, &spec.id, *on_failure)?;
            let (first, lives, mask) = answer?.extract::<(Bound<'_, PyAny>, u32, Option<Vec<u8>>)>()?;
            copy_observation(&spec.id, &first, obs)?;
            spaces::copy_mask(mask.as_deref(), action_mask);
            Ok(lives)
        })?;
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        action.check(&self.spec.actions)?;
        let Self { spec, env, action_mask, on_failure, .. } = self;
        let (mut step, lives) = python::with(&spec.id, |py| {
            let call = (intern!(py, "step"), spaces::one(py, action)?);
            let answer = bound(env, py).call_method1(intern!(py, "call"), call);
            report_restarts(py, &spec.id, *on_failure)?;
            let (next, reward, terminated, truncated, lives, mask) =
                answer?.extract::<(Bound<'_, PyAny>, f64, bool, bool, u32, Option<Vec<u8>>)>()?;
            copy_observation(&spec.id, &next, obs)?;
            spaces::copy_mask(mask.as_deref(), action_mask);
            Ok((Step { reward: reward as f32, terminated, truncated, life_lost: false }, lives))
        })?;
        step.life_lost = 0 < lives && lives < self.lives;
        self.lives = lives;
        Ok(step.with_exclusive_flags())
    }

    /// Renders where the environment was created with `render_mode = "rgb_array"`.
    fn render(&mut self) -> Result<Option<Image>> {
        python::with(&self.spec.id, |py| {
            let answer = bound(&self.env, py).call_method1("call", ("render",))?;
            let frame = answer.extract::<Option<(usize, usize, Vec<u8>)>>()?;
            Ok(frame.map(|(height, width, rgb)| Image { width, height, rgb }))
        })
    }

    fn lives(&self) -> u32 {
        self.lives
    }

    fn action_mask(&self, mask: &mut [bool]) {
        mask.copy_from_slice(&self.action_mask);
    }
}

impl Drop for GymEnv {
    fn drop(&mut self) {
        close(&self.spec.id, self.env.take());
    }
}

/// Closes an environment or a batch. Errors are ignored: it is called on drop.
pub(super) fn close(id: &str, env: Option<Py<PyAny>>) {
    if let Some(env) = env {
        let _ = python::with(id, |py| Ok(env.bind(py).call_method0("close").map(Bound::unbind)?));
    }
}
