//! Every other environment that Gymnasium can make, a user's own included (`module:Id`).

mod batch;
mod single;
mod spaces;

pub use batch::GymVec;
pub use single::GymEnv;

use crate::python;
use playfield_core::config::Vectorization;
use playfield_core::{Env, EnvConfig, EnvSource, Error, Result, VecEnv};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// A Gymnasium id as a source of environments: `CartPole-v1`, or `module:Id`, which imports `module` first, so that it
/// can register `Id`. `[env.kwargs]` goes to the environment's constructor.
#[derive(Clone, Debug)]
pub struct GymSource {
    id: String,
}

impl GymSource {
    /// The environment of `id`. That it exists is found out when it is made.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into() }
    }
}

impl EnvSource for GymSource {
    /// Where `max_episode_steps` is set, Gymnasium's own limit is left off, as playfield's takes its place.
    fn env(&self, config: &EnvConfig) -> Result<Box<dyn Env>> {
        check(config)?;
        Ok(Box::new(GymEnv::new(&self.id, config)?))
    }

    /// Asks for RGB frames where the environment's `metadata` promises them: others may not know `render_mode`.
    fn enable_rendering(&self, config: &mut EnvConfig) {
        let renders = |py: Python<'_>| Ok(python::environments(py)?.call_method1("renders", (&self.id,))?.extract()?);
        // What cannot be imported here is reported when the environment is made.
        if python::with(&self.id, renders).unwrap_or(false) {
            config.kwargs.entry("render_mode").or_insert_with(|| "rgb_array".into());
        }
    }

    fn batch(&self, config: &EnvConfig, seeds: &[u64]) -> Result<Option<Box<dyn VecEnv>>> {
        let frames = config.frame_skip != 1 || config.max_pool || !config.resize.is_empty() || config.noop_max != 0;
        if frames || config.repeat_action_probability != 0.0 || config.fire_reset {
            return Ok(None);
        }
        check(config)?;
        Ok(Some(Box::new(GymVec::new(&self.id, config, seeds)?)))
    }
}

/// Refuses what no Gymnasium environment can do.
fn check(config: &EnvConfig) -> Result<()> {
    if config.full_action_space {
        let message = "[env]: `full_action_space` is for Atari games (ALE/…); pass settings of other environments in \
                       [env.kwargs]";
        return Err(Error::config(message));
    }
    Ok(())
}

/// Gymnasium's word for where environments run.
fn mode(config: &EnvConfig) -> &'static str {
    match config.vectorization {
        Vectorization::Sync => "sync",
        Vectorization::Async => "async",
    }
}

/// The ids of Gymnasium's registry, sorted, without Atari's (see [`games`](crate::games)).
///
/// # Errors
/// [`Error::Env`](playfield_core::Error::Env) where Python or `gymnasium` is missing.
pub fn registered() -> Result<Vec<String>> {
    let mut ids: Vec<String> =
        python::with("gymnasium", |py| Ok(python::helper(py)?.call_method0("registered")?.extract()?))?;
    ids.sort();
    Ok(ids)
}

/// Whether `gymnasium.make` would look for an environment of this id, rather than call it unknown.
pub(crate) fn knows(id: &str) -> Result<bool> {
    python::with(id, |py| Ok(python::helper(py)?.call_method1("knows", (id,))?.extract()?))
}

/// The constructor's arguments: `[env.kwargs]`, and Gymnasium's name for a limit of agent steps (-1: none).
fn arguments<'py>(py: Python<'py>, config: &EnvConfig, limit: Option<i64>) -> PyResult<Bound<'py, PyDict>> {
    let arguments = PyDict::new(py);
    if let Some(limit) = limit {
        arguments.set_item("max_episode_steps", limit)?;
    }
    for (key, value) in &config.kwargs {
        arguments.set_item(key, to_python(py, value)?)?;
    }
    Ok(arguments)
}

fn to_python<'py>(py: Python<'py>, value: &toml::Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        toml::Value::String(v) => v.into_pyobject(py)?.into_any(),
        toml::Value::Integer(v) => v.into_pyobject(py)?.into_any(),
        toml::Value::Float(v) => v.into_pyobject(py)?.into_any(),
        toml::Value::Boolean(v) => v.into_pyobject(py)?.to_owned().into_any(),
        toml::Value::Datetime(v) => v.to_string().into_pyobject(py)?.into_any(),
        toml::Value::Array(v) => {
            let items = v.iter().map(|item| to_python(py, item)).collect::<PyResult<Vec<_>>>()?;
            PyList::new(py, items)?.into_any()
        }
        toml::Value::Table(v) => {
            let dict = PyDict::new(py);
            for (key, item) in v {
                dict.set_item(key, to_python(py, item)?)?;
            }
            dict.into_any()
        }
    })
}
