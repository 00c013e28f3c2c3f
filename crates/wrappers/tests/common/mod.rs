//! Two small environments: one that follows a script and records the calls to it, and a random one.

#![allow(dead_code)] // Each test file uses some of it.

use playfield_core::rng::{self, Rng};
use playfield_core::{Action, ActionSpace, Dtype, Env, EnvSpec, Error, Obs, ObsMut, Result, State, Step};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::rc::Rc;

/// A call to a [`Script`].
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Reset(Option<u64>),
    Act(usize),
}

/// Identical episodes: observation 0 at the reset, then one observation and one result per step. The last observation is
/// repeated.
pub struct Script {
    spec: EnvSpec,
    frames: Vec<Obs>,
    steps: Vec<Step>,
    t: usize,
    pub log: Rc<RefCell<Vec<Event>>>,
}

pub fn space(n: usize) -> ActionSpace {
    ActionSpace::Discrete { n }
}

pub fn spec(shape: &[usize], dtype: Dtype, names: &[&str]) -> EnvSpec {
    EnvSpec::new("Script", shape, dtype, space(names.len().max(2))).with_action_names(names.iter().copied())
}

impl Script {
    /// Frames of `shape`. Actions have no names.
    pub fn frames(shape: &[usize], frames: Vec<Vec<u8>>) -> Self {
        Self::new(spec(shape, Dtype::U8, &[]), frames.into_iter().map(Obs::U8).collect(), vec![])
    }

    /// Vectors of one element.
    pub fn numbers(actions: ActionSpace, numbers: Vec<f32>) -> Self {
        let spec = EnvSpec::new("Script", &[1], Dtype::F32, actions);
        Self::new(spec, numbers.into_iter().map(|x| Obs::F32(vec![x])).collect(), vec![])
    }

    /// The observation is the number of frames since the reset. Actions have the `names`.
    pub fn game(names: &[&str], steps: Vec<Step>) -> Self {
        let frames = (0..=steps.len().max(200)).map(|t| Obs::U8(vec![t as u8])).collect();
        Self::new(spec(&[1], Dtype::U8, names), frames, steps)
    }

    pub fn new(spec: EnvSpec, frames: Vec<Obs>, steps: Vec<Step>) -> Self {
        Self { spec, frames, steps, t: 0, log: Rc::default() }
    }

    fn observe(&self, mut obs: ObsMut<'_>) {
        obs.copy_from(self.frames[self.t.min(self.frames.len() - 1)].as_ref());
    }
}

impl Env for Script {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        self.log.borrow_mut().push(Event::Reset(seed));
        self.t = 0;
        self.observe(obs);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        if let Action::Discrete(a) = action {
            self.log.borrow_mut().push(Event::Act(a));
        }
        self.t += 1;
        self.observe(obs);
        Ok(self.steps.get(self.t - 1).copied().unwrap_or_default())
    }

    fn save_state(&self) -> Option<State> {
        Some(self.t.into())
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        self.t = state.as_u64().ok_or_else(|| Error::env("Script", "no number"))? as usize;
        Ok(())
    }
}

/// The results of an episode: `n` steps without an event, then `last`.
pub fn episode(n: usize, last: Step) -> Vec<Step> {
    let mut steps = vec![Step { reward: 1.0, ..Step::default() }; n];
    steps.push(last);
    steps
}

pub const TERMINATED: Step = Step { reward: 1.0, terminated: true, truncated: false, life_lost: false };
pub const TRUNCATED: Step = Step { reward: 1.0, terminated: false, truncated: true, life_lost: false };
pub const LIFE: Step = Step { reward: 1.0, terminated: false, truncated: false, life_lost: true };
pub const PLAIN: Step = Step { reward: 1.0, terminated: false, truncated: false, life_lost: false };

/// A random game: ends of episodes, lost lives and rewards are sampled. The observation contains the action.
pub struct Random {
    spec: EnvSpec,
    sim: Simulation,
}

#[derive(Clone, Serialize, Deserialize)]
struct Simulation {
    rng: Rng,
    t: u32,
}

impl Random {
    /// `u8[6, 4]`, or `f32[24]`.
    pub fn new(dtype: Dtype) -> Self {
        let shape: &[usize] = if dtype == Dtype::U8 { &[6, 4] } else { &[24] };
        let mut spec = spec(shape, dtype, &["NOOP", "FIRE", "LEFT"]);
        spec.id = "Random".into();
        Self { spec, sim: Simulation { rng: rng::stream(0, "t"), t: 0 } }
    }

    fn observe(&mut self, action: usize, obs: ObsMut<'_>) {
        let rng = &mut self.sim.rng;
        match obs {
            ObsMut::U8(o) => {
                o.iter_mut().for_each(|x| *x = rng.random_range(0..=255));
                (o[0], o[1]) = (action as u8, self.sim.t as u8);
            }
            ObsMut::F32(o) => {
                o.iter_mut().for_each(|x| *x = rng.random_range(-5.0..5.0));
                (o[0], o[1]) = (action as f32, self.sim.t as f32);
            }
        }
    }
}

impl Env for Random {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        if let Some(seed) = seed {
            self.sim.rng = rng::stream(seed, "t");
        }
        self.sim.t = 0;
        self.observe(9, obs);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let Action::Discrete(action) = action else { return Err(Error::env("Random", "no number")) };
        self.sim.t += 1;
        self.observe(action, obs);
        let rng = &mut self.sim.rng;
        let reward = rng.random_range(-30..30) as f32 / 4.0;
        let [terminated, truncated, life_lost] = [24, 36, 8].map(|odds| rng.random_range(0..odds) == 0);
        Ok(Step { reward, terminated, truncated, life_lost })
    }

    fn save_state(&self) -> Option<State> {
        serde_json::to_value(&self.sim).ok()
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        self.sim = Simulation::deserialize(state).map_err(|e| Error::env("Random", e.to_string()))?;
        Ok(())
    }
}
