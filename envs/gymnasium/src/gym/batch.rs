//! A batch of Gymnasium environments: Gymnasium's own, in this process or in one process each.

use super::arguments;
use super::spaces::{self, Codec};
use crate::array::{numbers, observe};
use crate::python::{self, Failure, python_seed, said};
use playfield_core::config::Vectorisation;
use playfield_core::{Actions, EnvConfig, EnvSpec, Error, Result, Step, StepBatch, VecEnv};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// A batch made by `gymnasium.make_vec` with same-step autoreset.
///
/// With `vectorisation = "async"` each environment lives in a Python process of its own, and [`send`](VecEnv::send)
/// returns at once; else everything happens in [`recv`](VecEnv::recv).
pub struct GymVec {
    spec: EnvSpec,
    codec: Codec,
    seeds: Vec<i32>,
    lives: Vec<u32>,
    env: Option<Py<PyAny>>,
    /// Whether the environments have processes of their own: `step_async` and `step_wait`.
    is_async: bool,
    sent: Option<Sent>,
}

/// What waits for `recv`.
enum Sent {
    /// The environments work.
    Started,
    /// The actions, kept until then.
    Kept(Py<PyAny>),
}

impl GymVec {
    /// `seeds.len()` environments `id`, each with its own seed (as [`python_seed`] makes it).
    ///
    /// # Errors
    /// As [`GymEnv::new`](super::GymEnv::new), and where the only batch there is resets itself in another way.
    pub fn new(id: &str, config: &EnvConfig, seeds: &[u64]) -> Result<Self> {
        let mode = match config.vectorisation {
            Vectorisation::Sync => "sync",
            Vectorisation::Async => "async",
        };
        let (spec, codec, is_async, env) = python::with(id, |py| {
            let limit = i64::try_from(config.max_episode_steps).ok().filter(|&limit| limit > 0);
            let helper = python::helper(py)?;
            let made = helper.call_method1("make_vec", (id, seeds.len(), mode, arguments(py, config, limit)?))?;
            let (env, one, is_async) = made.extract::<(Bound<'_, PyAny>, Option<Bound<'_, PyAny>>, bool)>()?;
            let both = (env.getattr("single_observation_space")?, env.getattr("single_action_space")?);
            let read = spaces::read(id, config, both, one.as_ref());
            if read.is_err() {
                helper.call_method1("close", (&env,))?;
            }
            let (spec, codec) = read?;
            Ok((spec, codec, is_async, Some(env.unbind())))
        })?;
        let n = seeds.len();
        let seeds = seeds.iter().map(|&seed| python_seed(seed)).collect();
        Ok(Self { spec, codec, seeds, lives: vec![0; n], env, is_async, sent: None })
    }

    fn env<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.env.as_ref().expect("taken by drop alone").bind(py)
    }

    /// What the environments answer to the actions that were sent.
    fn wait<'py>(&self, py: Python<'py>, sent: Sent) -> PyResult<Bound<'py, PyAny>> {
        match sent {
            Sent::Started => self.env(py).call_method0(intern!(py, "step_wait")),
            Sent::Kept(actions) => self.env(py).call_method1(intern!(py, "step"), (actions,)),
        }
    }

    /// Lives of each environment: 0 where it says nothing of lives.
    fn lives_of(&self, info: &Bound<'_, PyDict>) -> std::result::Result<Vec<u32>, Failure> {
        let py = info.py();
        let said = (info.get_item(intern!(py, "lives"))?, info.get_item(intern!(py, "_lives"))?);
        let (Some(lives), said) = said else { return Ok(vec![0; self.seeds.len()]) };
        let lives = numbers::<i64>(&lives)?;
        let mut lives: Vec<u32> = lives.as_slice()?.iter().map(|&l| l.max(0) as u32).collect();
        if let Some(said) = said {
            for (lives, said) in lives.iter_mut().zip(numbers::<bool>(&said)?.as_slice()?) {
                *lives *= u32::from(*said);
            }
        }
        Ok(lives)
    }

    fn read(&mut self, answer: &Bound<'_, PyAny>, batch: &mut StepBatch) -> std::result::Result<(), Failure> {
        let py = answer.py();
        type Answer<'py> =
            (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyDict>);
        let (obs, rewards, terminated, truncated, info) = answer.extract::<Answer<'_>>()?;
        observe(&self.spec.id, &obs, batch.obs.as_mut())?;
        let (rewards, terminated, truncated) =
            (numbers::<f64>(&rewards)?, numbers::<bool>(&terminated)?, numbers::<bool>(&truncated)?);
        let (rewards, terminated, truncated) = (rewards.as_slice()?, terminated.as_slice()?, truncated.as_slice()?);
        let lives = self.lives_of(&info)?;
        let mut last = None;
        for i in 0..self.seeds.len() {
            let done = terminated[i] || truncated[i];
            // Lives of an ended row are already the next episode's.
            let life_lost = !done && 0 < lives[i] && lives[i] < self.lives[i];
            let (terminated, truncated) = (terminated[i], truncated[i]);
            batch.set(i, Step { reward: rewards[i] as f32, terminated, truncated, life_lost });
            if done {
                if last.is_none() {
                    last = info.get_item(intern!(py, "final_obs"))?;
                }
                let missing = || said(Error::env(&self.spec.id, "an episode ended and `info` has no \"final_obs\""));
                let row = last.as_ref().ok_or_else(missing)?.get_item(i)?;
                observe(&self.spec.id, &row, batch.final_obs_row_mut(i))?;
            }
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
        if let Some(sent @ Sent::Started) = self.sent.take() {
            // The outcome of steps under way belongs to nobody.
            python::with(&id, |py| Ok(self.wait(py, sent).map(Bound::unbind)?))?;
        }
        batch.clear();
        python::with(&id, |py| {
            let arguments = PyDict::new(py);
            arguments.set_item("seed", &self.seeds)?;
            let answer = self.env(py).call_method(intern!(py, "reset"), (), Some(&arguments))?;
            let (obs, info) = answer.extract::<(Bound<'_, PyAny>, Bound<'_, PyDict>)>()?;
            observe(&id, &obs, batch.obs.as_mut())?;
            self.lives = self.lives_of(&info)?;
            Ok(())
        })
    }

    fn send(&mut self, actions: &Actions) -> Result<()> {
        actions.check(&self.spec.actions, self.seeds.len())?;
        if self.sent.is_some() {
            return Err(Error::env(&self.spec.id, "`send` was called twice without `recv`"));
        }
        self.sent = Some(python::with(&self.spec.id, |py| {
            let actions = self.codec.many(py, actions)?;
            if !self.is_async {
                return Ok(Sent::Kept(actions.unbind()));
            }
            self.env(py).call_method1(intern!(py, "step_async"), (actions,))?;
            Ok(Sent::Started)
        })?);
        Ok(())
    }

    fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
        let id = self.spec.id.clone();
        let none = || Error::env(&id, "`recv` was called without `send`");
        let sent = self.sent.take().ok_or_else(none)?;
        python::with(&id, |py| {
            let answer = self.wait(py, sent)?;
            self.read(&answer, batch)
        })
    }
}

impl Drop for GymVec {
    /// Ends the environments' processes.
    fn drop(&mut self) {
        let env = self.env.take();
        // A batch that cannot be closed has nobody left to hear of it.
        let _ = python::with(&self.spec.id, |py| Ok(python::helper(py)?.call_method1("close", (env,))?.unbind()));
    }
}
