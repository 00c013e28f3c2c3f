//! [`GymVec`] and [`GymEnv`] held to plain Gymnasium loops: same seeds, same actions, same numbers, bit for bit.

mod common;

use common::{config, draw, python};
use playfield_core::{Action, ActionSpace, Actions, Dtype, EnvSource, Obs, Step, StepBatch, rng};
use playfield_gymnasium::{GymSource, python_seed};
use pyo3::prelude::*;
use std::collections::BTreeMap;

const ENVS: usize = 3;

type Bytes = Vec<u8>;
/// Observations, rewards, terminated, truncated, final observations by row.
type PlainStep = (Vec<Bytes>, Vec<f64>, Vec<bool>, Vec<bool>, BTreeMap<usize, Bytes>);

fn bytes(obs: &Obs, row: usize) -> Bytes {
    let len = obs.len() / ENVS;
    match obs {
        Obs::F32(v) => v[row * len..(row + 1) * len].iter().flat_map(|x| x.to_le_bytes()).collect(),
        Obs::U8(_) => panic!("these environments observe floats"),
    }
}

/// Plays `steps` random steps in a batch and in plain Python; returns how many episodes ended, by either rule.
fn same(id: &str, settings: &str, limit: u64, steps: usize) -> (usize, usize) {
    python();
    let source = GymSource::new(id);
    let config = config(&source, id, settings);
    let seeds = rng::seeds(7, "env", ENVS);
    let mut vec = source.batch(&config, &seeds).unwrap().expect("a batch");
    let mut random = rng::stream(7, "actions");
    let actions: Vec<Actions> = (0..steps).map(|_| draw(vec.spec(), ENVS, &mut random)).collect();
    let (first, plain) = Python::attach(|py| {
        let rows: Vec<Vec<Bound<'_, PyAny>>> = actions.iter().map(|a| rows(py, a)).collect();
        let seeds: Vec<i32> = seeds.iter().map(|&s| python_seed(s)).collect();
        let answer = py.import("reference").unwrap().call_method1("episodes", (id, seeds, rows, limit)).unwrap();
        answer.extract::<(Vec<Bytes>, Vec<PlainStep>)>().unwrap()
    });
    let mut batch = StepBatch::new(vec.spec(), ENVS);
    // Twice: a reset starts anew from the seeds, whatever happened before.
    for _ in 0..2 {
        vec.reset(&mut batch).unwrap();
        vec.send(&actions[3]).unwrap();
        vec.reset(&mut batch).unwrap();
        for (i, first) in first.iter().enumerate() {
            assert_eq!(&bytes(&batch.obs, i), first, "first observation {i}");
        }
        for (t, (actions, (obs, rewards, terminated, truncated, last))) in actions.iter().zip(&plain).enumerate() {
            vec.step(actions, &mut batch).unwrap();
            for i in 0..ENVS {
                assert_eq!(bytes(&batch.obs, i), obs[i], "observation {i}, step {t}");
                assert_eq!(batch.reward[i], rewards[i] as f32, "reward {i}, step {t}");
                if let Some(last) = last.get(&i) {
                    assert_eq!(&bytes(&batch.final_obs, i), last, "final observation {i}, step {t}");
                }
            }
            assert_eq!((&batch.terminated, &batch.truncated), (terminated, truncated), "step {t}");
        }
    }
    let count = |pick: fn(&PlainStep) -> &Vec<bool>| plain.iter().flat_map(pick).filter(|&&b| b).count();
    (count(|s| &s.2), count(|s| &s.3))
}

fn rows<'py>(py: Python<'py>, actions: &Actions) -> Vec<Bound<'py, PyAny>> {
    (0..actions.len())
        .map(|i| match actions.row(i) {
            Action::Discrete(a) => a.into_pyobject(py).unwrap().into_any(),
            Action::Continuous(a) => a.to_vec().into_pyobject(py).unwrap().into_any(),
        })
        .collect()
}

#[test]
fn cartpole_equals_plain_loops() {
    let (terminated, truncated) = same("CartPole-v1", "", 0, 300);
    assert!(terminated > 10 && truncated == 0);
}

#[test]
fn a_limit_of_ours_replaces_gymnasiums() {
    let (terminated, truncated) = same("CartPole-v1", "max_episode_steps = 12", 12, 300);
    assert!(terminated > 3 && truncated > 10);
}

#[test]
fn pendulum_equals_plain_loops_with_actions_clipped() {
    let (terminated, truncated) = same("Pendulum-v1", "", 0, 420);
    assert_eq!((terminated, truncated), (0, 2 * ENVS));
}

#[test]
fn processes_equal_plain_loops() {
    let (terminated, _) = same("CartPole-v1", "vectorisation = 'async'", 0, 200);
    assert!(terminated > 10);
    same("Pendulum-v1", "vectorisation = 'async'", 0, 210);
}

#[test]
fn one_environment_alone_equals_the_batch() {
    python();
    let source = GymSource::new("CartPole-v1");
    let config = config(&source, "CartPole-v1", "max_episode_steps = 1000");
    let seeds = rng::seeds(3, "env", 1);
    let mut one = source.env(&config).unwrap();
    let mut vec = source.batch(&config, &seeds).unwrap().unwrap();
    assert_eq!(one.spec(), vec.spec());
    let mut batch = StepBatch::new(vec.spec(), 1);
    vec.reset(&mut batch).unwrap();
    let mut obs = Obs::zeros(Dtype::F32, 4);
    one.reset(Some(seeds[0]), obs.as_mut()).unwrap();
    let mut random = rng::stream(3, "actions");
    for _ in 0..100 {
        assert_eq!(obs, batch.obs);
        let actions = draw(vec.spec(), 1, &mut random);
        vec.step(&actions, &mut batch).unwrap();
        let step = one.step(actions.row(0), obs.as_mut()).unwrap();
        assert_eq!((step.reward, step.terminated), (batch.reward[0], batch.terminated[0]));
        if step.done() {
            assert_eq!(obs, batch.final_obs);
            one.reset(None, obs.as_mut()).unwrap();
        }
    }
}

/// `tiny:Count-v0`, step by step against its own definition: bytes, `start`, lives, names, keyword arguments, both limits.
#[test]
fn an_environment_of_ones_own() {
    python();
    let source = GymSource::new("tiny:Count-v0");
    let settings = "kwargs = { scale = 2, names = ['A', 'B', 'FIRE', 'D'] }";
    for mode in ["sync", "async"] {
        let config = config(&source, "tiny:Count-v0", &format!("vectorisation = '{mode}'\n{settings}"));
        let seeds = rng::seeds(1, "env", 2);
        let mut vec = source.batch(&config, &seeds).unwrap().unwrap();
        let spec = vec.spec().clone();
        assert_eq!((spec.shape.as_slice(), spec.dtype), ([1, 3].as_slice(), Dtype::U8));
        assert_eq!(spec.actions, ActionSpace::Discrete { n: 4 });
        assert_eq!(spec.action_named("FIRE"), Some(2), "{mode}");
        let mut batch = StepBatch::new(&spec, 2);
        vec.reset(&mut batch).unwrap();
        let seed = |i: usize| python_seed(seeds[i]) as u8;
        assert_eq!(batch.obs, Obs::U8(vec![0, 0, seed(0), 0, 0, seed(1)]));
        for t in 1..=20_u8 {
            vec.step(&Actions::Discrete(vec![0, 3]), &mut batch).unwrap();
            let k = (t - 1) % 8 + 1; // Gymnasium registers 8 steps
            let (obs, end) = if k == 8 { ([0, 0, 0], 8) } else { ([k, 10, 13], 0) };
            assert_eq!(batch.obs, Obs::U8(vec![obs[0], obs[1], seed(0), obs[0], obs[2], seed(1)]), "{mode} {t}");
            let step = Step { reward: f32::from(2 * k), truncated: k == 8, life_lost: k % 3 == 0, terminated: false };
            assert_eq!(
                (batch.reward[1], batch.truncated[1], batch.life_lost[1], batch.terminated[1]),
                (step.reward, step.truncated, step.life_lost, step.terminated),
                "{mode} {t}"
            );
            if end == 8 {
                assert_eq!(batch.final_obs, Obs::U8(vec![8, 10, seed(0), 8, 13, seed(1)]));
            }
        }
    }
}

#[test]
fn where_a_limit_is_set_gymnasiums_own_is_left_off() {
    python();
    let source = GymSource::new("tiny:Count-v0");
    let mut env = source.env(&config(&source, "tiny:Count-v0", "max_episode_steps = 100")).unwrap();
    let mut obs = Obs::zeros(Dtype::U8, 3);
    env.reset(None, obs.as_mut()).unwrap();
    let lasted = (1..).find(|_| env.step(Action::Discrete(0), obs.as_mut()).unwrap().done()).unwrap();
    assert_eq!((lasted, env.lives()), (15, 0));
}

#[test]
fn actions_are_clipped_to_bounds_that_may_be_infinite() {
    python();
    let source = GymSource::new("tiny:Clip-v0");
    let config = config(&source, "tiny:Clip-v0", "");
    let mut vec = source.batch(&config, &[1, 2]).unwrap().unwrap();
    let mut batch = StepBatch::new(vec.spec(), 2);
    vec.reset(&mut batch).unwrap();
    assert_eq!(batch.obs, Obs::F32(vec![0.1, 0.2, 0.1, 0.2]));
    vec.step(&Actions::Continuous { values: vec![-3.0, -3.0, 0.5, 1e6], dim: 2 }, &mut batch).unwrap();
    assert_eq!(batch.obs, Obs::F32(vec![-1.0, -2.0, 0.5, 1e6]));
    let mut env = source.env(&config).unwrap();
    let mut obs = Obs::zeros(Dtype::F32, 2);
    env.reset(None, obs.as_mut()).unwrap();
    env.step(Action::Continuous(&[7.0, -7.0]), obs.as_mut()).unwrap();
    assert_eq!(obs, Obs::F32(vec![1.0, -2.0]));
}

#[test]
fn what_wrappers_must_do_is_left_to_them() {
    python();
    let source = GymSource::new("CartPole-v1");
    for setting in ["frame_skip = 2", "noop_max = 3", "sticky = 0.25", "fire_reset = true", "warp = [2, 2]"] {
        assert!(source.batch(&config(&source, "CartPole-v1", setting), &[1]).unwrap().is_none(), "{setting}");
    }
}
