//! Three ways to prepare an Atari game, frame for frame, over whole games, deaths, resets and truncations:
//! playfield's wrappers around [`AleRaw`], [`AtariVec`](playfield_gymnasium::AtariVec), and
//!
//! - ALE's own `AtariVectorEnv`, driven from plain Python. It differs in one place: at its time limit it leaves the skip
//!   loop before the last screen is captured, so that a *truncated* episode's final observation mixes the last two; ours
//!   is the true one, the same from the batch and from the wrappers. (Where a *game* ends all three leave the loop early.)
//! - Gymnasium's `AtariPreprocessing` and `FrameStackObservation`, with `padding_type="zero"`, as by default the stack would
//!   repeat the first frame. It presses no FIRE and draws 1 to 30 no-ops where ALE draws 0 to 29: ours is set likewise.
//!
//! The number of no-ops is drawn by another generator on each side. It is known from the frames that a game has run when
//! its first observation is returned, and given to the wrappers.

mod common;

use common::{config, draw, python};
use playfield_core::{
    Action, Actions, Env, EnvSource, EnvSpec, FrameStack, Obs, ObsMut, Result, State, Step, StepBatch, rng,
};
use playfield_gymnasium::{AleRaw, AtariSource, python_seed};
use playfield_wrappers::{FireReset, FrameSkip, NoOp, Resize, TimeLimit};
use pyo3::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;

const FRAME: usize = 84 * 84;

/// One game that outlives the wrappers around it, which are made anew for each episode's number of no-ops.
#[derive(Clone)]
struct Shared(Rc<RefCell<AleRaw>>, EnvSpec);

impl Shared {
    fn new(id: &str) -> Self {
        let source = AtariSource::new(id);
        let game = AleRaw::new(id, &config(&source, id, "")).unwrap();
        let spec = game.spec().clone();
        Self(Rc::new(RefCell::new(game)), spec)
    }

    /// The wrappers of `[env]`, in their order.
    fn wrapped(&self, fire: bool, frames: u32, limit: u64) -> Box<dyn Env> {
        let mut env: Box<dyn Env> = Box::new(self.clone());
        let mut pressed = 0;
        if fire {
            let wrapper = FireReset::new(env);
            pressed = u32::from(wrapper.presses());
            env = Box::new(wrapper);
        }
        env = Box::new(NoOp::exactly(env, frames - pressed).unwrap());
        env = Box::new(FrameSkip::new(env, 4, true).unwrap());
        env = Box::new(TimeLimit::new(env, limit));
        Box::new(Resize::new(env, 84, 84).unwrap())
    }
}

impl Env for Shared {
    fn spec(&self) -> &EnvSpec {
        &self.1
    }
    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        self.0.borrow_mut().reset(seed, obs)
    }
    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        self.0.borrow_mut().step(action, obs)
    }
    fn save_state(&self) -> Option<State> {
        self.0.borrow().save_state()
    }
    fn lives(&self) -> u32 {
        self.0.borrow().lives()
    }
}

/// Observations, rewards, terminated, truncated, lives, frames since the start, final observations.
type AleStep = (Vec<u8>, Vec<i32>, Vec<bool>, Vec<bool>, Vec<u32>, Vec<u32>, Vec<u8>);

fn row(frames: &[u8], i: usize) -> &[u8] {
    &frames[i * FRAME..(i + 1) * FRAME]
}

fn u8s(obs: &Obs) -> &[u8] {
    let Obs::U8(v) = obs else { panic!("frames are bytes") };
    v
}

/// Two games of `id` for `steps` steps; returns how many episodes were over, cut, and lives lost.
fn ale(id: &str, rom: &str, limit: u64, steps: usize) -> (usize, usize, usize) {
    const ENVS: usize = 2;
    python();
    let source = AtariSource::new(id);
    let settings = format!("max_episode_steps = {limit}\nnum_threads = 2");
    let seeds = rng::seeds(11, "env", ENVS);
    let mut vec = source.batch(&config(&source, id, &settings), &seeds).unwrap().unwrap();
    let mut random = rng::stream(11, id);
    let actions: Vec<Actions> = (0..steps).map(|_| draw(vec.spec(), ENVS, &mut random)).collect();
    let (first, reference) = Python::attach(|py| {
        let rows: Vec<Vec<i64>> = actions.iter().map(discrete).collect();
        let seeds: Vec<i32> = seeds.iter().map(|&s| python_seed(s)).collect();
        let answer = py.import("reference").unwrap().call_method1("atari_batch", (rom, seeds, rows, limit)).unwrap();
        answer.extract::<((Vec<u8>, Vec<u32>, Vec<u32>), Vec<AleStep>)>().unwrap()
    });
    let mut batch = StepBatch::new(vec.spec(), ENVS);
    vec.reset(&mut batch).unwrap();
    assert_eq!(u8s(&batch.obs), first.0, "the batch's first observations");
    let games = [Shared::new(id), Shared::new(id)];
    let mut obs = vec![0; FRAME];
    let mut envs: Vec<_> = (0..ENVS).map(|i| games[i].wrapped(true, first.2[i], limit)).collect();
    for i in 0..ENVS {
        envs[i].reset(Some(seeds[i]), ObsMut::U8(&mut obs)).unwrap();
        assert!(obs == row(&first.0, i), "{id}: the wrappers' first observation {i}");
        assert_eq!(envs[i].lives(), first.1[i]);
    }
    let (mut over, mut cut, mut lost) = (0, 0, 0);
    for (t, (actions, (frames, rewards, terminated, truncated, lives, started, last))) in
        actions.iter().zip(&reference).enumerate()
    {
        vec.step(actions, &mut batch).unwrap();
        assert_eq!(u8s(&batch.obs), frames, "{id}: observations of step {t}");
        assert_eq!((&batch.terminated, &batch.truncated), (terminated, truncated), "{id}: step {t}");
        for i in 0..ENVS {
            let at = format!("{id}: environment {i}, step {t}");
            let before = envs[i].lives();
            let step = envs[i].step(actions.row(i), ObsMut::U8(&mut obs)).unwrap();
            assert_eq!((step.reward, batch.reward[i]), (rewards[i] as f32, rewards[i] as f32), "{at}");
            assert_eq!((step.terminated, step.truncated), (terminated[i], truncated[i]), "{at}");
            assert_eq!(step.life_lost, batch.life_lost[i], "{at}");
            if step.done() {
                let ours = batch.final_obs_row(i);
                assert!(ours == playfield_core::ObsRef::U8(&obs), "{at}: final observations");
                assert!(step.truncated || obs == row(last, i), "{at}: final observation");
                envs[i] = games[i].wrapped(true, started[i], limit);
                envs[i].reset(None, ObsMut::U8(&mut obs)).unwrap();
            } else {
                assert_eq!(step.life_lost, 0 < lives[i] && lives[i] < before, "{at}");
            }
            assert_eq!(envs[i].lives(), lives[i], "{at}");
            assert!(obs == row(frames, i), "{at}: observation");
            over += usize::from(step.terminated);
            cut += usize::from(step.truncated);
            lost += usize::from(step.life_lost);
        }
    }
    (over, cut, lost)
}

fn discrete(actions: &Actions) -> Vec<i64> {
    let Actions::Discrete(actions) = actions else { panic!("Atari's actions are numbers") };
    actions.clone()
}

#[test]
fn pong_whole_games() {
    let (over, cut, lost) = ale("ALE/Pong-v5", "pong", 27_000, 1400);
    assert!(over >= 2 && cut == 0 && lost == 0, "{over} {cut} {lost}");
}

#[test]
fn breakout_with_fire_deaths_and_truncations() {
    let (over, cut, lost) = ale("ALE/Breakout-v5", "breakout", 190, 900);
    assert!(over >= 2 && cut >= 2 && lost >= 20, "{over} {cut} {lost}");
}

#[test]
fn space_invaders_deaths_and_truncations() {
    let (over, cut, lost) = ale("ALE/SpaceInvaders-v5", "space_invaders", 400, 1200);
    assert!(over >= 2 && cut >= 1 && lost >= 5, "{over} {cut} {lost}");
}

#[test]
fn the_batch_repeats_actions_as_ale_does() {
    python();
    let (id, seeds) = ("ALE/Breakout-v5", rng::seeds(5, "env", 2));
    let source = AtariSource::new(id);
    let mut vec = source.batch(&config(&source, id, "repeat_action_probability = 0.25"), &seeds).unwrap().unwrap();
    let mut random = rng::stream(5, id);
    let actions: Vec<Actions> = (0..200).map(|_| draw(vec.spec(), 2, &mut random)).collect();
    let (_, reference) = Python::attach(|py| {
        let rows: Vec<Vec<i64>> = actions.iter().map(discrete).collect();
        let seeds: Vec<i32> = seeds.iter().map(|&s| python_seed(s)).collect();
        let arguments = ("breakout", seeds, rows, 27_000, 0.25);
        let answer = py.import("reference").unwrap().call_method1("atari_batch", arguments).unwrap();
        answer.extract::<((Vec<u8>, Vec<u32>, Vec<u32>), Vec<AleStep>)>().unwrap()
    });
    let mut batch = StepBatch::new(vec.spec(), 2);
    vec.reset(&mut batch).unwrap();
    for (actions, step) in actions.iter().zip(&reference) {
        vec.step(actions, &mut batch).unwrap();
        assert_eq!(u8s(&batch.obs), step.0);
    }
}

/// Stacked observation, reward, terminated, truncated, lives, the reset that followed.
type GymnasiumStep = (Vec<u8>, f32, bool, bool, u32, Option<(Vec<u8>, u32)>);

/// The same against Gymnasium's wrappers, with the history of four frames that a learner sees.
fn gymnasium(id: &str, limit: u64, steps: usize) -> (usize, usize) {
    python();
    Python::attach(|py| py.import("cv2").map(|_| ())).expect("the Python package cv2 is missing: run `make setup`");
    let game = Shared::new(id);
    let mut random = rng::stream(3, id);
    let actions: Vec<i64> = (0..steps).flat_map(|_| discrete(&draw(&game.1, 1, &mut random))).collect();
    let ((mut first, mut frames), reference) = Python::attach(|py| {
        let arguments = (id, 5, actions.clone(), limit);
        let answer = py.import("reference").unwrap().call_method1("atari_preprocessing", arguments).unwrap();
        answer.extract::<((Vec<u8>, u32), Vec<GymnasiumStep>)>().unwrap()
    });
    let spec = game.wrapped(false, 0, limit).spec().clone();
    assert_eq!((spec.shape.as_slice(), spec.frame_stack), ([84, 84].as_slice(), 4));
    let (mut batch, mut history) = (StepBatch::new(&spec, 1), FrameStack::new(&spec, 1));
    let mut env = game.wrapped(false, frames, limit);
    env.reset(Some(1), batch.obs.as_mut()).unwrap();
    history.reset(&batch);
    assert!(planes(history.observations()) == first, "{id}: first observation");
    let (mut over, mut cut) = (0, 0);
    for (t, (action, (stacked, reward, terminated, truncated, lives, next))) in
        actions.iter().zip(reference).enumerate()
    {
        let step = env.step(Action::Discrete(*action as usize), batch.obs.as_mut()).unwrap();
        assert_eq!((step.reward, step.terminated, step.truncated), (reward, terminated, truncated), "{id}: step {t}");
        assert_eq!(env.lives(), lives, "{id}: step {t}");
        batch.set(0, step);
        if let Some(next) = next {
            batch.final_obs = batch.obs.clone();
            (first, frames) = next;
            env = game.wrapped(false, frames, limit);
            env.reset(None, batch.obs.as_mut()).unwrap();
            history.push(&batch);
            assert!(planes(history.final_observations()) == stacked, "{id}: final observation, step {t}");
            assert!(planes(history.observations()) == first, "{id}: first observation, step {t}");
        } else {
            history.push(&batch);
            assert!(planes(history.observations()) == stacked, "{id}: observation, step {t}");
        }
        over += usize::from(terminated);
        cut += usize::from(truncated);
    }
    (over, cut)
}

/// A history's pixels, whose last axis is time, as Gymnasium's, whose first is.
fn planes(stacked: &Obs) -> Vec<u8> {
    let pixels = u8s(stacked);
    (0..4).flat_map(|t| pixels.iter().skip(t).step_by(4)).copied().collect()
}

#[test]
fn gymnasiums_wrappers_on_breakout() {
    let (over, cut) = gymnasium("ALE/Breakout-v5", 190, 700);
    assert!(over >= 1 && cut >= 1, "{over} {cut}");
}

#[test]
fn gymnasiums_wrappers_on_pong_and_space_invaders() {
    assert!(gymnasium("ALE/Pong-v5", 27_000, 1400).0 >= 1);
    assert!(gymnasium("ALE/SpaceInvaders-v5", 27_000, 1400).0 >= 1);
}
