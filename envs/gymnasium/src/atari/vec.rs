//! ALE's own batch: C++ threads that skip frames, max-pool and resize without the GIL.
//!
//! It is used without its Python wrapper (`ale_py.vector_env.AtariVectorEnv` adds checks and arrays per step), with
//! `stack_num = 1`, as playfield stacks frames itself; `reward_clipping = False`, which would overwrite the raw reward; and
//! `episodic_life = life_loss_info = False`, of which the first resets the game and the second leaves `final_obs` unwritten. A
//! lost life is read from `info["lives"]`.
//!
//! The time limit is implemented here and not by ALE. At its limit ALE leaves the skip loop before it captures the last screen,
//! so the final observation of a truncated episode, which the value bootstraps from, would be a mix of two observations. Here
//! it is the true last observation, and only that row is reset.

use super::{life_lost, names, rom};
use crate::array::{contiguous, copy_observation};
use crate::python::{self, Failure, python_seed, reported};
use playfield_core::{ActionSpace, Actions, Dtype, EnvConfig, EnvSpec, Error, Result, Step, StepBatch, VecEnv};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// ALE's own limit to an episode, in emulator frames: never reached.
const NO_LIMIT: i32 = 2_000_000_000;

/// A batch of one Atari game.
pub struct AtariVec {
    spec: EnvSpec,
    seeds: Vec<i32>,
    /// Agent steps after which an episode is truncated; 0: never.
    limit: u64,
    /// Agent steps of each unfinished episode.
    lengths: Vec<u64>,
    /// Lives after the previous step.
    lives: Vec<u32>,
    /// Whether `send` was called without `recv`.
    sent: bool,
    calls: Option<Calls>,
}

/// ALE's vector environment, as its three bound methods, and the constant second argument of `send`.
struct Calls {
    reset: Py<PyAny>,
    send: Py<PyAny>,
    recv: Py<PyAny>,
    strengths: Py<PyTuple>,
}

impl AtariVec {
    /// Creates `seeds.len()` environments of game `id`, each with its own seed, preprocessed as `config` says.
    ///
    /// # Errors
    /// [`Error::Env`] where Python, `ale_py` or the ROM is missing; [`Error::Config`] without `resize`, which this batch needs.
    pub fn new(id: &str, config: &EnvConfig, seeds: &[u64]) -> Result<Self> {
        let &[height, width] = config.resize.as_slice() else {
            return Err(Error::config("`resize` must be [height, width] for a batch of Atari games"));
        };
        let n = seeds.len();
        let (names, calls) = python::with(id, |py| {
            let arguments = PyDict::new(py);
            arguments.set_item("rom_path", rom(py, id)?)?;
            arguments.set_item("num_envs", n)?;
            arguments.set_item("frame_skip", config.frame_skip)?;
            arguments.set_item("stack_num", 1)?;
            arguments.set_item("img_height", height)?;
            arguments.set_item("img_width", width)?;
            arguments.set_item("grayscale", true)?;
            arguments.set_item("maxpool", config.max_pool)?;
            arguments.set_item("noop_max", config.noop_max)?;
            arguments.set_item("use_fire_reset", config.fire_reset)?;
            arguments.set_item("episodic_life", false)?;
            arguments.set_item("life_loss_info", false)?;
            arguments.set_item("reward_clipping", false)?;
            arguments.set_item("max_episode_steps", NO_LIMIT)?;
            arguments.set_item("repeat_action_probability", config.repeat_action_probability)?;
            arguments.set_item("full_action_space", config.full_action_space)?;
            arguments.set_item("batch_size", 0)?;
            arguments.set_item("num_threads", config.thread_count().min(n))?;
            arguments.set_item("thread_affinity_offset", -1)?;
            arguments.set_item("autoreset_mode", "SameStep")?;
            let ale = py.import("ale_py")?.getattr("ALEVectorInterface")?.call((), Some(&arguments))?;
            let calls = Calls {
                reset: ale.getattr("reset")?.unbind(),
                send: ale.getattr("send")?.unbind(),
                recv: ale.getattr("recv")?.unbind(),
                strengths: PyTuple::new(py, vec![1.0_f32; n])?.unbind(),
            };
            Ok((names(&ale.call_method0("get_action_set")?)?, calls))
        })?;
        Ok(Self {
            spec: EnvSpec::new(id, &[height, width], Dtype::U8, ActionSpace::Discrete { n: names.len() })
                .with_frame_stack(config.frame_stack)
                .with_action_names(names),
            seeds: seeds.iter().map(|&seed| python_seed(seed)).collect(),
            limit: config.max_episode_steps,
            lengths: vec![0; n],
            lives: vec![0; n],
            sent: false,
            calls: Some(calls),
        })
    }

    fn calls(&self) -> &Calls {
        self.calls.as_ref().expect("only drop takes it")
    }

    /// Resets the rows of `truncated`, without reseeding, and copies their first observations.
    fn restart(
        &mut self,
        py: Python<'_>,
        truncated: &[usize],
        batch: &mut StepBatch,
    ) -> std::result::Result<(), Failure> {
        let no_seeds = vec![-1; truncated.len()];
        let result = self.calls().reset.bind(py).call1((truncated.to_vec(), no_seeds))?;
        let (obs, info) = result.extract::<(Bound<'_, PyAny>, Bound<'_, PyDict>)>()?;
        let frames = contiguous::<u8>(&obs)?;
        let lives = contiguous::<i32>(&item(&info, intern!(py, "lives"))?)?;
        let (frames, lives) = (frames.as_slice()?, lives.as_slice()?);
        let len = self.spec.frame_len();
        for &i in truncated {
            batch.obs_row_mut(i).u8().copy_from_slice(&frames[i * len..(i + 1) * len]);
            self.lives[i] = lives[i].max(0) as u32;
            self.lengths[i] = 0;
        }
        Ok(())
    }

    /// Writes the results of `recv` into `batch`. Returns the rows that the time limit truncated.
    fn read(&mut self, py: Python<'_>, batch: &mut StepBatch) -> std::result::Result<Vec<usize>, Failure> {
        let result = self.calls().recv.bind(py).call0()?;
        let (obs, rewards, ended, _, info) =
            result
                .extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyDict>)>(
                )?;
        let (rewards, ended) = (contiguous::<i32>(&rewards)?, contiguous::<bool>(&ended)?);
        let (rewards, ended) = (rewards.as_slice()?, ended.as_slice()?);
        let lives = contiguous::<i32>(&item(&info, intern!(py, "lives"))?)?;
        let lives = lives.as_slice()?;
        copy_observation(&self.spec.id, &obs, batch.obs.as_mut())?;
        let mut rows = Vec::new();
        for i in 0..self.lives.len() {
            let now = lives[i].max(0) as u32;
            self.lengths[i] += 1;
            let truncated = self.limit != 0 && self.lengths[i] >= self.limit && !ended[i];
            batch.set(
                i,
                Step {
                    reward: rewards[i] as f32,
                    terminated: ended[i],
                    truncated,
                    // After the end of an episode these are the lives of the next one.
                    life_lost: !ended[i] && life_lost(self.lives[i], now),
                },
            );
            self.lives[i] = now;
            if ended[i] {
                self.lengths[i] = 0;
            } else if truncated {
                rows.push(i);
            }
        }
        if ended.contains(&true) {
            let last = item(&info, intern!(py, "final_obs"))?;
            let last = contiguous::<u8>(&last)?;
            let (last, len) = (last.as_slice()?, self.spec.frame_len());
            for i in (0..ended.len()).filter(|&i| ended[i]) {
                batch.final_obs_row_mut(i).u8().copy_from_slice(&last[i * len..(i + 1) * len]);
            }
        }
        Ok(rows)
    }
}

impl VecEnv for AtariVec {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn num_envs(&self) -> usize {
        self.seeds.len()
    }

    fn reset(&mut self, batch: &mut StepBatch) -> Result<()> {
        let id = self.spec.id.clone();
        if self.sent {
            // Discard the results of the step in progress.
            python::with(&id, |py| {
                self.calls().recv.bind(py).call0()?;
                Ok(())
            })?;
            self.sent = false;
        }
        batch.clear();
        python::with(&id, |py| {
            let rows: Vec<i32> = (0..self.seeds.len() as i32).collect();
            let result = self.calls().reset.bind(py).call1((rows, self.seeds.clone()))?;
            let (obs, info) = result.extract::<(Bound<'_, PyAny>, Bound<'_, PyDict>)>()?;
            let lives = contiguous::<i32>(&item(&info, intern!(py, "lives"))?)?;
            self.lives = lives.as_slice()?.iter().map(|&l| l.max(0) as u32).collect();
            self.lengths.fill(0);
            copy_observation(&self.spec.id, &obs, batch.obs.as_mut())?;
            Ok(())
        })
    }

    /// Checks the actions: ALE's `recv` would never return after an invalid one.
    fn send(&mut self, actions: &Actions) -> Result<()> {
        actions.check(&self.spec.actions, self.seeds.len())?;
        let Actions::Discrete(actions) = actions else { unreachable!("checked above") };
        if self.sent {
            return Err(Error::env(&self.spec.id, "`send` was called twice without `recv`"));
        }
        let calls = self.calls();
        python::with(&self.spec.id, |py| {
            calls.send.bind(py).call1((PyTuple::new(py, actions)?, calls.strengths.bind(py)))?;
            Ok(())
        })?;
        self.sent = true;
        Ok(())
    }

    fn steps_in_background(&self) -> bool {
        true
    }

    fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
        if !std::mem::take(&mut self.sent) {
            return Err(Error::env(&self.spec.id, "`recv` was called without `send`"));
        }
        let id = self.spec.id.clone();
        python::with(&id, |py| {
            let truncated = self.read(py, batch)?;
            if truncated.is_empty() {
                return Ok(());
            }
            for &i in &truncated {
                let StepBatch { obs, final_obs, .. } = batch;
                let (at, len) = (i * self.spec.frame_len(), self.spec.frame_len());
                final_obs.slice_mut(at, len).copy_from(obs.slice(at, len));
            }
            self.restart(py, &truncated, batch)
        })
    }
}

impl Drop for AtariVec {
    /// Joins ALE's threads now, and not at a later call that holds the GIL.
    fn drop(&mut self) {
        let calls = self.calls.take();
        Python::attach(|_| drop(calls));
    }
}

fn item<'py>(
    info: &Bound<'py, PyDict>,
    key: &Bound<'py, pyo3::types::PyString>,
) -> std::result::Result<Bound<'py, PyAny>, Failure> {
    let missing =
        || reported(Error::env("ALE", format!("the installed `ale_py` reports no `{key}`: run `make setup`")));
    info.get_item(key)?.ok_or_else(missing)
}
