//! Atari preprocessing, compared frame for frame over whole games, lost lives, resets and truncations: playfield's wrappers
//! around [`AleRaw`], [`AtariVec`](playfield_gymnasium::AtariVec), and
//!
//! - ALE's own `AtariVectorEnv` in plain Python. It differs in one place: at its time limit it leaves the skip loop before the
//!   last screen is captured, so the final observation of a *truncated* episode is a mix of two observations; ours is the true
//!   one, the same from batch and wrappers. (Where a *game* ends all three leave the loop early.)
//! - Gymnasium's `AtariPreprocessing` and `FrameStackObservation`, with `padding_type="zero"`, as by default the stack repeats
//!   the first frame. It presses no FIRE and samples 1 to 30 no-ops where ALE samples 0 to 29: ours is set accordingly.
//!
//! The two sides sample the number of no-ops by different generators. It follows from the frame counter at the first
//! observation, and is passed to the wrappers.

mod common;

use common::{config, python, sample_actions};
use playfield_core::{
    Action, Actions, Env, EnvSource, EnvSpec, FrameStack, Obs, ObsMut, ObsRef, Result, State, Step, StepBatch, rng,
};
use playfield_gymnasium::{AleRaw, AtariSource, python_seed};
use playfield_wrappers::{EnvWrapper, FireReset, FrameSkip, NoopReset, Resize, TimeLimit, WrappedEnv};
use pyo3::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;

const FRAME: usize = 84 * 84;

/// A game that outlives its wrappers, which are created for each episode with its number of no-ops.
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
        fn wrap<W: EnvWrapper + 'static>(env: impl Env + 'static, wrapper: W) -> WrappedEnv<W> {
            WrappedEnv::new(Box::new(env), wrapper)
        }
        let raw = &self.1;
        let fire_wrapper = FireReset::new(raw);
        let pressed = if fire { fire_wrapper.frames() } else { 0 };
        let noop = NoopReset::fixed(raw, frames - pressed).unwrap();
        let inner = match fire {
            true => Box::new(wrap(self.clone(), fire_wrapper)) as Box<dyn Env>,
            false => Box::new(self.clone()),
        };
        let skip = wrap(WrappedEnv::new(inner, noop), FrameSkip::new(raw, 4, true).unwrap());
        Box::new(wrap(wrap(skip, TimeLimit::new(limit)), Resize::new(raw, 84, 84).unwrap()))
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

/// Steps two games of `id` `steps` times. Returns the numbers of terminations, truncations and lost lives.
fn ale(id: &str, rom: &str, limit: u64, steps: usize) -> (usize, usize, usize) {
    const ENVS: usize = 2;
    python();
    let source = AtariSource::new(id);
    let settings = format!("max_episode_steps = {limit}\nnum_threads = 2");
    let seeds = rng::seeds(11, "env", ENVS);
    let mut vec = source.batch(&config(&source, id, &settings), &seeds).unwrap().unwrap();
    let mut random = rng::stream(11, id);
    let actions: Vec<Actions> = (0..steps).map(|_| sample_actions(vec.spec(), ENVS, &mut random)).collect();
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
    let (mut terminations, mut truncations, mut lost) = (0, 0, 0);
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
                assert!(ours == ObsRef::U8(&obs), "{at}: final observations");
                assert!(step.truncated || obs == row(last, i), "{at}: final observation");
                envs[i] = games[i].wrapped(true, started[i], limit);
                envs[i].reset(None, ObsMut::U8(&mut obs)).unwrap();
            } else {
                assert_eq!(step.life_lost, 0 < lives[i] && lives[i] < before, "{at}");
            }
            assert_eq!(envs[i].lives(), lives[i], "{at}");
            assert!(obs == row(frames, i), "{at}: observation");
            terminations += usize::from(step.terminated);
            truncations += usize::from(step.truncated);
            lost += usize::from(step.life_lost);
        }
    }
    (terminations, truncations, lost)
}

fn discrete(actions: &Actions) -> Vec<i64> {
    let Actions::Discrete(actions) = actions else { panic!("Atari's actions are discrete") };
    actions.clone()
}

#[test]
fn pong_whole_games() {
    let (terminations, truncations, lost) = ale("ALE/Pong-v5", "pong", 27_000, 1400);
    assert!(terminations >= 2 && truncations == 0 && lost == 0, "{terminations} {truncations} {lost}");
}

#[test]
fn breakout_with_fire_deaths_and_truncations() {
    let (terminations, truncations, lost) = ale("ALE/Breakout-v5", "breakout", 190, 900);
    assert!(terminations >= 2 && truncations >= 2 && lost >= 20, "{terminations} {truncations} {lost}");
}

#[test]
fn space_invaders_deaths_and_truncations() {
    let (terminations, truncations, lost) = ale("ALE/SpaceInvaders-v5", "space_invaders", 400, 1200);
    assert!(terminations >= 2 && truncations >= 1 && lost >= 5, "{terminations} {truncations} {lost}");
}

#[test]
fn the_batch_repeats_actions_as_in_ale() {
    python();
    let (id, seeds) = ("ALE/Breakout-v5", rng::seeds(5, "env", 2));
    let source = AtariSource::new(id);
    let mut vec = source.batch(&config(&source, id, "repeat_action_probability = 0.25"), &seeds).unwrap().unwrap();
    let mut random = rng::stream(5, id);
    let actions: Vec<Actions> = (0..200).map(|_| sample_actions(vec.spec(), 2, &mut random)).collect();
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

/// The same with Gymnasium's wrappers and a stack of four frames. Returns the numbers of terminations and truncations.
fn gymnasium(id: &str, limit: u64, steps: usize) -> (usize, usize) {
    python();
    Python::attach(|py| py.import("cv2").map(|_| ())).expect("the Python package cv2 is missing: run `make setup`");
    let game = Shared::new(id);
    let mut random = rng::stream(3, id);
    let actions: Vec<i64> = (0..steps).flat_map(|_| discrete(&sample_actions(&game.1, 1, &mut random))).collect();
    let ((mut first, mut frames), reference) = Python::attach(|py| {
        let arguments = (id, 5, actions.clone(), limit);
        let answer = py.import("reference").unwrap().call_method1("atari_preprocessing", arguments).unwrap();
        answer.extract::<((Vec<u8>, u32), Vec<GymnasiumStep>)>().unwrap()
    });
    let spec = game.wrapped(false, 0, limit).spec().clone();
    assert_eq!((spec.shape.as_slice(), spec.frame_stack), ([84, 84].as_slice(), 4));
    let (mut batch, mut stack) = (StepBatch::new(&spec, 1), FrameStack::new(&spec, 1));
    let mut env = game.wrapped(false, frames, limit);
    env.reset(Some(1), batch.obs.as_mut()).unwrap();
    stack.reset(&batch);
    assert!(planes(stack.observations().as_ref()) == first, "{id}: first observation");
    let (mut terminations, mut truncations) = (0, 0);
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
            stack.push(&batch);
            assert!(planes(stack.final_observation(0)) == stacked, "{id}: final observation, step {t}");
            assert!(planes(stack.observations().as_ref()) == first, "{id}: first observation, step {t}");
        } else {
            stack.push(&batch);
            assert!(planes(stack.observations().as_ref()) == stacked, "{id}: observation, step {t}");
        }
        terminations += usize::from(terminated);
        truncations += usize::from(truncated);
    }
    (terminations, truncations)
}

/// The pixels of stacked frames, whose last axis is time, in Gymnasium's order, whose first axis is time.
fn planes(stacked: ObsRef<'_>) -> Vec<u8> {
    let pixels = stacked.u8();
    (0..4).flat_map(|t| pixels.iter().skip(t).step_by(4)).copied().collect()
}

#[test]
fn gymnasiums_wrappers_on_breakout() {
    let (terminations, truncations) = gymnasium("ALE/Breakout-v5", 190, 700);
    assert!(terminations >= 1 && truncations >= 1, "{terminations} {truncations}");
}

#[test]
fn gymnasiums_wrappers_on_pong_and_space_invaders() {
    assert!(gymnasium("ALE/Pong-v5", 27_000, 1400).0 >= 1);
    assert!(gymnasium("ALE/SpaceInvaders-v5", 27_000, 1400).0 >= 1);
}
