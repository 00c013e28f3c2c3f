//! Every other Gymnasium environment, including a user's own (`module:Id`, `file.py:Class`).

mod batch;
mod single;
mod spaces;

pub use batch::GymVec;
pub use single::GymEnv;

use crate::python::{self, Failure};
use playfield_core::check::{Finding, Inspection, Level};
use playfield_core::config::{OnFailure, Vectorization};
use playfield_core::{Env, EnvConfig, EnvSource, Result, VecEnv, notices};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// The source of a Gymnasium id: `CartPole-v1`; `module:Id`, which imports `module` first, so that it registers `Id`; or
/// `path/to/file.py:Class`, a subclass of `gymnasium.Env` that need not be registered.
/// `[env.kwargs]` are the keyword arguments of the environment's constructor.
#[derive(Clone, Debug)]
pub struct GymSource {
    id: String,
}

impl GymSource {
    /// The environment of `id`. An unknown id is an error when an environment is created.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into() }
    }
}

impl EnvSource for GymSource {
    fn env_settings(&self) -> &'static [&'static str] {
        &["vectorization", "step_timeout_seconds", "on_failure", "kwargs"]
    }

    /// `vectorization = "auto"` is `async` where a batch of processes is expected to be faster: see [`is_faster_in_processes`].
    fn resolve(&self, config: &EnvConfig) -> Result<EnvConfig> {
        if config.vectorization != Vectorization::Auto {
            return Ok(config.clone());
        }
        let limit = i64::try_from(config.max_episode_steps).ok().filter(|&limit| limit > 0);
        let seconds = python::with(&self.id, |py| {
            let measured = (&self.id, arguments(py, config, limit)?);
            Ok(python::inspection(py)?.call_method1("step_seconds", measured)?.extract::<Option<f64>>()?)
        })?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(config.num_envs);
        let is_faster = seconds.is_some_and(|seconds| is_faster_in_processes(seconds, cores));
        let (vectorization, name) =
            if is_faster { (Vectorization::Async, "async") } else { (Vectorization::Sync, "sync") };
        let measured = seconds.map(|seconds| format!(": a step takes {:.0} µs", seconds * 1e6)).unwrap_or_default();
        notices::push(format!("vectorization = \"auto\" selects \"{name}\" for {}{measured}", self.id));
        Ok(EnvConfig { vectorization, ..config.clone() })
    }

    /// With `max_episode_steps` Gymnasium's own limit is disabled: playfield's wrapper replaces it.
    fn env(&self, config: &EnvConfig) -> Result<Box<dyn Env>> {
        Ok(Box::new(GymEnv::new(&self.id, config)?))
    }

    /// Sets `render_mode` where the environment's `metadata` lists RGB frames: other constructors may not accept it.
    fn enable_rendering(&self, config: &mut EnvConfig) {
        // A failed import is reported when the environment is created.
        if self.renders(config).unwrap_or(false) {
            config.kwargs.entry("render_mode").or_insert_with(|| "rgb_array".into());
        }
    }

    /// By the environment's `metadata`: none is created.
    fn renders(&self, _config: &EnvConfig) -> Result<bool> {
        python::with(&self.id, |py| Ok(python::environments(py)?.call_method1("renders", (&self.id,))?.extract()?))
    }

    /// `metadata["render_fps"]`.
    fn render_fps(&self) -> f64 {
        let fps = |py: Python<'_>| Ok(python::environments(py)?.call_method1("render_fps", (&self.id,))?.extract()?);
        // A failed import is reported when the environment is created.
        python::with(&self.id, fps).unwrap_or(DEFAULT_FPS)
    }

    fn batch_settings(&self) -> &'static [&'static str] {
        &["vectorization", "step_timeout_seconds", "on_failure", "max_episode_steps", "kwargs"]
    }

    /// In this process, a time limit needs threads, which a pool has.
    fn batch(&self, config: &EnvConfig, seeds: &[u64]) -> Result<Option<Box<dyn VecEnv>>> {
        if config.vectorization != Vectorization::Async && config.step_timeout().is_some() {
            return Ok(None);
        }
        Ok(Some(Box::new(GymVec::new(&self.id, config, seeds)?)))
    }

    fn inspect(&self, config: &EnvConfig, steps: u64) -> Result<Option<Inspection>> {
        type Found = (Vec<(String, String, String, Option<String>)>, Option<f64>);
        let limit = i64::try_from(config.max_episode_steps).ok().filter(|&limit| limit > 0);
        let (findings, step_seconds) = python::with(&self.id, |py| {
            let inspected = (&self.id, arguments(py, config, limit)?, steps);
            Ok(python::inspection(py)?.call_method1("inspect_env", inspected)?.extract::<Found>()?)
        })?;
        let finding = |(check, level, found, advice): (String, String, String, Option<String>)| {
            let level = match level.as_str() {
                "ok" => Level::Ok,
                "warning" => Level::Warning,
                _ => Level::Error,
            };
            Finding { level, advice, ..Finding::ok(&check, found) }
        };
        Ok(Some(Inspection { findings: findings.into_iter().map(finding).collect(), step_seconds }))
    }
}

/// The time that a step costs more in a process of its own, in seconds of one core: sending the action, waking the process, and
/// receiving the result (`make bench` measures it).
const PROCESS_SECONDS: f64 = 100e-6;

/// Whether environments whose step takes `seconds` are faster in processes on `cores` cores than in one process: the time that the
/// cores save exceeds what processes cost.
fn is_faster_in_processes(seconds: f64, cores: usize) -> bool {
    seconds * (1.0 - 1.0 / cores as f64) > PROCESS_SECONDS
}

/// Frames per second where an environment's `metadata` has no `render_fps`, as in Gymnasium.
const DEFAULT_FPS: f64 = 30.0;

/// How `environments.py` runs an environment: the mode, the time limit of a step in seconds, and whether it restarts.
fn process(config: &EnvConfig) -> (&'static str, Option<f64>, bool) {
    let mode = match config.vectorization {
        Vectorization::Async => "async",
        // Where `resolve` was not called, `auto` is the default.
        Vectorization::Sync | Vectorization::Auto => "sync",
    };
    (mode, config.step_timeout().map(|limit| limit.as_secs_f64()), config.on_failure == OnFailure::Restart)
}

/// Reports what `environments.py` has to say about restarted environments.
fn report_restarts(py: Python<'_>, id: &str, config: OnFailure) -> std::result::Result<(), Failure> {
    if config == OnFailure::Restart {
        let warnings: Vec<String> = python::environments(py)?.call_method0("take_warnings")?.extract()?;
        warnings.into_iter().for_each(|warning| notices::push(format!("warning: {id}: {warning}")));
    }
    Ok(())
}

/// The ids in Gymnasium's registry, sorted, without Atari's (see [`games`](crate::games)).
///
/// # Errors
/// [`Error::Env`](playfield_core::Error::Env) where Python or `gymnasium` is missing.
pub fn registered() -> Result<Vec<String>> {
    let mut ids: Vec<String> =
        python::with("gymnasium", |py| Ok(python::helper(py)?.call_method0("registered")?.extract()?))?;
    ids.sort();
    Ok(ids)
}

/// Whether the id is registered, or `module:Id` or `file.py:Class`, which are imported only when an environment is created.
pub(crate) fn is_registered(id: &str) -> Result<bool> {
    python::with(id, |py| Ok(python::helper(py)?.call_method1("is_registered", (id,))?.extract()?))
}

/// The constructor's arguments: `[env.kwargs]`, and `max_episode_steps` where `limit` is set (-1: no limit).
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

#[cfg(test)]
mod tests {
    use super::*;

    /// On two cores half of a step is saved, on one core nothing.
    #[test]
    fn processes_are_faster_for_long_steps_on_several_cores() {
        for (seconds, cores, expected) in
            [(1e-3, 2, true), (1e-3, 1, false), (1e-5, 64, false), (1.5e-4, 2, false), (1.5e-4, 4, true)]
        {
            assert_eq!(is_faster_in_processes(seconds, cores), expected, "{seconds} s on {cores} cores");
        }
    }
}
