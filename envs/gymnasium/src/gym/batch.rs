//! A batch of Gymnasium environments, in this process or in one process each.

use super::single::close;
use super::{arguments, process, report_restarts, spaces};
use crate::array::copy_observation;
use crate::python::{self, Failure, python_seed};
use playfield_core::config::{OnFailure, Vectorization};
use playfield_core::{Actions, EnvConfig, EnvSpec, Error, Result, Step, StepBatch, VecEnv};
use pyo3::intern;
use pyo3::prelude::*;

/// A batch of environments, with same-step autoreset, or a registered vector environment.
///
/// With `vectorization = "async"` each environment has its own Python process, and [`send`](VecEnv::send) returns at once.
/// Without, the environments step in [`recv`](VecEnv::recv).
pub struct GymVec {
    spec: EnvSpec,
    seeds: Vec<i32>,
    lives: Vec<u32>,
    env: Option<Py<PyAny>>,
    sent: bool,
    on_failure: OnFailure,
    /// Whether each environment has a process.
    processes: bool,
}

impl GymVec {
    /// Creates `seeds.len()` environments `id`, each with its own seed (converted by [`python_seed`]).
    ///
    /// # Errors
    /// As [`GymEnv::new`](super::GymEnv::new), and for a vector environment without autoreset mode.
    pub fn new(id: &str, config: &EnvConfig, seeds: &[u64]) -> Result<Self> {
        let (n, processes) = (seeds.len(), config.vectorization == Vectorization::Async);
        let (spec, env) = python::with(id, |py| {
            let limit = i64::try_from(config.max_episode_steps).ok().filter(|&limit| limit > 0);
            let made = (id, n, arguments(py, config, limit)?, process(config));
            let env = python::vector(py)?.call_method1("batch", made)?;
            Ok((spaces::spec(id, config, &env.getattr("description")?)?, Some(env.unbind())))
        })?;
        let seeds = seeds.iter().map(|&seed| python_seed(seed)).collect();
        Ok(Self { spec, seeds, lives: vec![0; n], env, sent: false, on_failure: config.on_failure, processes })
    }

    fn env<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.env.as_ref().expect("only drop takes it").bind(py)
    }

    fn read(&mut self, answer: &Bound<'_, PyAny>, batch: &mut StepBatch) -> std::result::Result<(), Failure> {
        type Mask = Option<Vec<u8>>;
        type Final<'py> = (usize, Bound<'py, PyAny>, Mask);
        type Flags = Option<Vec<bool>>;
        type Answer<'py> = (Bound<'py, PyAny>, Vec<f64>, Vec<bool>, Vec<bool>, Vec<u32>, Mask, Vec<Final<'py>>, Flags);
        let (obs, rewards, terminated, truncated, lives, masks, finals, ignored) = answer.extract::<Answer<'_>>()?;
        copy_observation(&self.spec.id, &obs, batch.obs.as_mut())?;
        for i in 0..self.seeds.len() {
            // After the end of an episode these are the lives of the next one; `set` clears the flag there.
            let life_lost = 0 < lives[i] && lives[i] < self.lives[i];
            let (terminated, truncated) = (terminated[i], truncated[i]);
            batch.set(i, Step { reward: rewards[i] as f32, terminated, truncated, life_lost });
            if ignored.as_ref().is_some_and(|ignored| ignored[i]) {
                batch.set_ignored(i);
            }
        }
        spaces::copy_mask(masks.as_deref(), &mut batch.action_mask);
        for (i, last, mask) in finals {
            copy_observation(&self.spec.id, &last, batch.final_obs_row_mut(i))?;
            spaces::copy_mask(mask.as_deref(), batch.final_mask_row_mut(i));
        }
        self.lives = lives;
        Ok(())
    }
}

impl VecEnv for GymVec {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn num_envs(&self) -> usize {
        self.seeds.len()
    }

    fn reset(&mut self, batch: &mut StepBatch) -> Result<()> {
        let id = self.spec.id.clone();
        self.sent = false;
        batch.clear();
        python::with(&id, |py| {
            let answer = self.env(py).call_method1(intern!(py, "reset"), (&self.seeds,));
            report_restarts(py, &id, self.on_failure)?;
            let (obs, lives, masks) = answer?.extract::<(Bound<'_, PyAny>, Vec<u32>, Option<Vec<u8>>)>()?;
            copy_observation(&id, &obs, batch.obs.as_mut())?;
            spaces::copy_mask(masks.as_deref(), &mut batch.action_mask);
            self.lives = lives;
            Ok(())
        })
    }

    fn send(&mut self, actions: &Actions) -> Result<()> {
        actions.check(&self.spec.actions, self.seeds.len())?;
        if self.sent {
            return Err(Error::env(&self.spec.id, "`send` was called twice without `recv`"));
        }
        python::with(&self.spec.id, |py| {
            self.env(py).call_method1(intern!(py, "send"), (spaces::many(py, actions)?,))?;
            Ok(())
        })?;
        self.sent = true;
        Ok(())
    }

    /// Processes of their own do; what a registered vector environment does is not known.
    fn steps_in_background(&self) -> bool {
        self.processes
    }

    fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
        if !std::mem::take(&mut self.sent) {
            return Err(Error::env(&self.spec.id, "`recv` was called without `send`"));
        }
        let id = self.spec.id.clone();
        python::with(&id, |py| {
            let answer = self.env(py).call_method0(intern!(py, "recv"));
            report_restarts(py, &id, self.on_failure)?;
            self.read(&answer?, batch)
        })
    }
}

impl Drop for GymVec {
    /// Closes the environments and ends their processes.
    fn drop(&mut self) {
        close(&self.spec.id, self.env.take());
    }
}
