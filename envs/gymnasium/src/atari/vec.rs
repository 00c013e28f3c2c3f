//! ALE's own batch: C++ threads that skip, max-pool and resize, without Python's lock.
//!
//! It is used below its Python wrapper (`ale_py.vector_env.AtariVectorEnv` adds checks and arrays per step), with
//! `stack_num = 1`, as playfield stacks history itself; `reward_clipping = False`, which would overwrite the raw reward;
//! and `episodic_life = life_loss_info = False`, of which the first resets the game and the second leaves `final_obs`
//! unwritten: a lost life is read from `info["lives"]`.
//!
//! The time limit is kept here and not by ALE. ALE leaves its skip loop at the limit before it has captured the last
//! screen, so that the final observation of a truncated episode, from which the learner bootstraps, would mix the last
//! two; here the episode ends with its true last frame, and that row alone is reset.

use super::{life_lost, names, rom};
use crate::array::{numbers, observe};
use crate::python::{self, Failure, python_seed, said};
use playfield_core::{ActionSpace, Actions, Dtype, EnvConfig, EnvSpec, Error, Result, Step, StepBatch, VecEnv};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// Emulator frames after which ALE would end an episode by itself: never.
const NO_LIMIT: i32 = 2_000_000_000;

/// A batch of one Atari game.
pub struct AtariVec {
    spec: EnvSpec,
    seeds: Vec<i32>,
    /// Agent steps after which an episode is truncated; 0: never.
    limit: u64,
    /// Agent steps of each running episode.
    lengths: Vec<u64>,
    /// Lives at the end of the step before.
    lives: Vec<u32>,
    /// Whether a `send` waits for its `recv`.
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
    /// `seeds.len()` environments of game `id`, each with its own seed, prepared as `config` says.
    ///
    /// # Errors
    /// [`Error::Env`] where Python, `ale_py` or the ROM is missing; [`Error::Config`] where `resize` is empty, which this
    /// batch cannot do.
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
            spec: EnvSpec {
                id: id.into(),
                shape: vec![height, width],
                dtype: Dtype::U8,
                frame_stack: config.frame_stack,
                actions: ActionSpace::Discrete { n: names.len() },
                action_names: names,
            },
            seeds: seeds.iter().map(|&seed| python_seed(seed)).collect(),
            limit: config.max_episode_steps,
            lengths: vec![0; n],
            lives: vec![0; n],
            sent: false,
            calls: Some(calls),
        })
    }

    fn calls(&self) -> &Calls {
        self.calls.as_ref().expect("taken by drop alone")
    }

    /// Starts a new episode in the rows of `cut`, whose generators go on, and fetches their first observations.
    fn restart(&mut self, py: Python<'_>, cut: &[usize], batch: &mut StepBatch) -> std::result::Result<(), Failure> {
        let no_seeds = vec![-1; cut.len()];
        let result = self.calls().reset.bind(py).call1((cut.to_vec(), no_seeds))?;
        let (obs, info) = result.extract::<(Bound<'_, PyAny>, Bound<'_, PyDict>)>()?;
        let frames = numbers::<u8>(&obs)?;
        let lives = numbers::<i32>(&item(&info, intern!(py, "lives"))?)?;
        let (frames, lives) = (frames.as_slice()?, lives.as_slice()?);
        let len = self.spec.frame_len();
        for &i in cut {
            batch.obs_row_mut(i).u8().copy_from_slice(&frames[i * len..(i + 1) * len]);
            self.lives[i] = lives[i].max(0) as u32;
            self.lengths[i] = 0;
        }
        Ok(())
    }

    /// Writes what `recv` returned into `batch`; returns the rows that the time limit has cut.
    fn read(&mut self, py: Python<'_>, batch: &mut StepBatch) -> std::result::Result<Vec<usize>, Failure> {
        let result = self.calls().recv.bind(py).call0()?;
        let (obs, rewards, ended, _, info) =
            result
                .extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyDict>)>(
                )?;
        let (rewards, ended) = (numbers::<i32>(&rewards)?, numbers::<bool>(&ended)?);
        let (rewards, ended) = (rewards.as_slice()?, ended.as_slice()?);
        let lives = numbers::<i32>(&item(&info, intern!(py, "lives"))?)?;
        let lives = lives.as_slice()?;
        observe(&self.spec.id, &obs, batch.obs.as_mut())?;
        let mut cut = Vec::new();
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
                    // Lives of a game that is over are already the next one's.
                    life_lost: !ended[i] && life_lost(self.lives[i], now),
                },
            );
            self.lives[i] = now;
            if ended[i] {
                self.lengths[i] = 0;
            } else if truncated {
                cut.push(i);
            }
        }
        if ended.contains(&true) {
            let last = item(&info, intern!(py, "final_obs"))?;
            let last = numbers::<u8>(&last)?;
            let (last, len) = (last.as_slice()?, self.spec.frame_len());
            for i in (0..ended.len()).filter(|&i| ended[i]) {
                batch.final_obs_row_mut(i).u8().copy_from_slice(&last[i * len..(i + 1) * len]);
            }
        }
        Ok(cut)
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
            // The outcome of steps under way belongs to nobody.
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
            let lives = numbers::<i32>(&item(&info, intern!(py, "lives"))?)?;
            self.lives = lives.as_slice()?.iter().map(|&l| l.max(0) as u32).collect();
            self.lengths.fill(0);
            observe(&self.spec.id, &obs, batch.obs.as_mut())?;
            Ok(())
        })
    }

    /// Checked here, as a wrong action would make ALE's `recv` wait for ever.
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

    fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
        if !std::mem::take(&mut self.sent) {
            return Err(Error::env(&self.spec.id, "`recv` was called without `send`"));
        }
        let id = self.spec.id.clone();
        python::with(&id, |py| {
            let cut = self.read(py, batch)?;
            if cut.is_empty() {
                return Ok(());
            }
            for &i in &cut {
                let StepBatch { obs, final_obs, .. } = batch;
                let (at, len) = (i * self.spec.frame_len(), self.spec.frame_len());
                final_obs.slice_mut(at, len).copy_from(obs.slice(at, len));
            }
            self.restart(py, &cut, batch)
        })
    }
}

impl Drop for AtariVec {
    /// ALE's threads are joined now, and not when some later call happens to hold Python's lock.
    fn drop(&mut self) {
        let calls = self.calls.take();
        Python::attach(|_| drop(calls));
    }
}

fn item<'py>(
    info: &Bound<'py, PyDict>,
    key: &Bound<'py, pyo3::types::PyString>,
) -> std::result::Result<Bound<'py, PyAny>, Failure> {
    let missing = || said(Error::env("ALE", format!("the installed `ale_py` reports no `{key}`: run `make setup`")));
    info.get_item(key)?.ok_or_else(missing)
}
