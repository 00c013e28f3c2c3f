//! [`GymVec`] and [`GymEnv`] equal plain Gymnasium loops with the same seeds and actions, bit for bit.

mod common;

use common::{WAYS, config, python, sample_actions, try_wrapped, wrapped};
use playfield_core::config::Vectorization;
use playfield_core::{
    Action, ActionSpace, Actions, Dtype, EnvSource, EnvSpec, EpisodeEnd, Obs, ObsMut, ObsRef, Part, Step, StepBatch,
    rng,
};
use playfield_core::{EnvFactory as _, notices};
use playfield_gymnasium::{GymSource, python_seed};
use playfield_wrappers::Factory;
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

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

/// Executes `steps` random actions in a batch and in plain Python. Returns the numbers of terminations and truncations.
fn compare(id: &str, settings: &str, limit: u64, steps: usize) -> (usize, usize) {
    python();
    let source = GymSource::new(id);
    let config = config(&source, id, settings);
    let seeds = rng::seeds(7, "env", ENVS);
    let mut vec = source.batch(&config, &seeds).unwrap().expect("a batch");
    let mut random = rng::stream(7, "actions");
    let actions: Vec<Actions> = (0..steps).map(|_| sample_actions(vec.spec(), ENVS, &mut random)).collect();
    let (first, plain) = Python::attach(|py| {
        let rows: Vec<Vec<Bound<'_, PyAny>>> = actions.iter().map(|a| rows(py, a)).collect();
        let seeds: Vec<i32> = seeds.iter().map(|&s| python_seed(s)).collect();
        let answer = py.import("reference").unwrap().call_method1("episodes", (id, seeds, rows, limit)).unwrap();
        answer.extract::<(Vec<Bytes>, Vec<PlainStep>)>().unwrap()
    });
    let mut batch = StepBatch::new(vec.spec(), ENVS);
    // Twice: every reset starts from the same seeds.
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
            // A termination takes precedence.
            let truncated: Vec<_> = truncated.iter().zip(terminated).map(|(&cut, &over)| cut && !over).collect();
            assert_eq!((&batch.terminated, &batch.truncated), (terminated, &truncated), "step {t}");
        }
    }
    let count = |pick: fn(&PlainStep) -> &Vec<bool>| plain.iter().flat_map(pick).filter(|&&b| b).count();
    (count(|s| &s.2), count(|s| &s.3))
}

fn rows<'py>(py: Python<'py>, actions: &Actions) -> Vec<Bound<'py, PyAny>> {
    (0..actions.len())
        .map(|i| match actions.row(i) {
            Action::Discrete(a) => a.into_pyobject(py).unwrap().into_any(),
            Action::MultiDiscrete(a) => a.to_vec().into_pyobject(py).unwrap().into_any(),
            Action::Continuous(a) => a.to_vec().into_pyobject(py).unwrap().into_any(),
        })
        .collect()
}

#[test]
fn cartpole_equals_plain_loops() {
    let (terminated, truncated) = compare("CartPole-v1", "", 0, 300);
    assert!(terminated > 10 && truncated == 0);
}

#[test]
fn max_episode_steps_replaces_gymnasium_s_limit() {
    let (terminated, truncated) = compare("CartPole-v1", "max_episode_steps = 12", 12, 300);
    assert!(terminated > 3 && truncated > 10);
}

#[test]
fn pendulum_equals_plain_loops() {
    let (terminated, truncated) = compare("Pendulum-v1", "", 0, 420);
    assert_eq!((terminated, truncated), (0, 2 * ENVS));
}

#[test]
fn processes_equal_plain_loops() {
    let (terminated, _) = compare("CartPole-v1", "vectorization = 'async'", 0, 200);
    assert!(terminated > 10);
    compare("Pendulum-v1", "vectorization = 'async'", 0, 210);
}

#[test]
fn one_environment_equals_the_batch() {
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
        let actions = sample_actions(vec.spec(), 1, &mut random);
        vec.step(&actions, &mut batch).unwrap();
        let step = one.step(actions.row(0), obs.as_mut()).unwrap();
        assert_eq!((step.reward, step.terminated), (batch.reward[0], batch.terminated[0]));
        if step.done() {
            assert_eq!(obs, batch.final_obs);
            one.reset(None, obs.as_mut()).unwrap();
        }
    }
}

/// `tiny:Count-v0`, step by step against its definition: bytes, `start`, lives, names, keyword arguments, both limits.
#[test]
fn a_user_s_environment_equals_its_definition() {
    python();
    let source = GymSource::new("tiny:Count-v0");
    let settings = "kwargs = { scale = 2, names = ['A', 'B', 'FIRE', 'D'] }";
    for mode in ["sync", "async"] {
        let config = config(&source, "tiny:Count-v0", &format!("vectorization = '{mode}'\n{settings}"));
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
fn max_episode_steps_disables_gymnasium_s_limit() {
    python();
    let source = GymSource::new("tiny:Count-v0");
    let mut env = source.env(&config(&source, "tiny:Count-v0", "max_episode_steps = 100")).unwrap();
    let mut obs = Obs::zeros(Dtype::U8, 3);
    env.reset(None, obs.as_mut()).unwrap();
    let lasted = (1..).find(|_| env.step(Action::Discrete(0), obs.as_mut()).unwrap().done()).unwrap();
    assert_eq!((lasted, env.lives()), (15, 0));
}

/// The environment asserts that its space contains each action and returns it. Its float64 bounds (.1, 1/3) are not float32
/// numbers. The actions sent are a policy's, before they are scaled.
#[test]
fn no_action_leaves_its_space_in_any_dtype() {
    let ways = ["", "vectorization = 'async'", "frame_skip = 2", "frame_skip = 2\nvectorization = 'async'"];
    for (dtype, way) in ["float16", "float32", "float64"].into_iter().flat_map(|d| ways.map(|way| (d, way))) {
        let mut env = wrapped("tiny:Bounds-v0", &format!("kwargs = {{ dtype = '{dtype}' }}\n{way}"), 2);
        let mut batch = StepBatch::new(env.spec(), 2);
        env.reset(&mut batch).unwrap();
        for (chosen, expected) in [
            (-9.0, [-0.1, 1.0 / 3.0, -9.0]),
            (-1.0, [-0.1, 1.0 / 3.0, -1.0]),
            (0.5, [0.05, 0.75, 0.5]),
            (9.0, [0.1, 8.0 / 9.0, 9.0]),
        ] {
            env.step(&Actions::Continuous { values: vec![chosen; 6], dim: 3 }, &mut batch).unwrap();
            let Obs::F32(executed) = &batch.obs else { panic!("numbers") };
            for (executed, expected) in executed.iter().zip(expected.iter().cycle()) {
                assert!((executed - expected).abs() < 2e-3, "{dtype} {way}: {executed} is not {expected}");
            }
        }
    }
}

/// Without playfield's wrappers an action outside the space is refused.
#[test]
fn actions_outside_their_bounds_are_refused() {
    python();
    let source = GymSource::new("Pendulum-v1");
    let config = config(&source, "Pendulum-v1", "");
    let mut vec = source.batch(&config, &[1, 2]).unwrap().unwrap();
    vec.reset(&mut StepBatch::new(&vec.spec().clone(), 2)).unwrap();
    let message = vec.send(&Actions::Continuous { values: vec![2.0, 2.5], dim: 1 }).unwrap_err().to_string();
    assert!(message.contains("environment 1") && message.contains("-2 to 2"), "{message}");
    let mut env = source.env(&config).unwrap();
    let mut obs = Obs::zeros(Dtype::F32, 3);
    env.reset(None, obs.as_mut()).unwrap();
    assert!(env.step(Action::Continuous(&[-2.5]), obs.as_mut()).is_err());
}

/// Frames of a Gymnasium environment are resized and max-pooled by the wrappers.
#[test]
fn frames_are_resized() {
    let pixels = wrapped("tiny:Frames-v0", "resize = [12, 8]\nmax_pool = true\nframe_skip = 2", 2);
    assert_eq!((pixels.spec().shape.as_slice(), pixels.spec().dtype), ([12, 8].as_slice(), Dtype::U8));
}

/// An environment that is truncated and writes all its observations into one array: the last of the old episode and the
/// first of the new one are correct in all ways of stepping.
#[test]
fn an_environment_may_return_the_same_array_each_step() {
    for way in WAYS {
        let mut env = wrapped("tiny:Same-v0", way, 2);
        let mut batch = StepBatch::new(env.spec(), 2);
        env.reset(&mut batch).unwrap();
        assert_eq!(batch.obs, Obs::F32(vec![0.0; 4]), "{way}");
        for t in 1..=9 {
            env.step(&Actions::Discrete(vec![0, 1]), &mut batch).unwrap();
            let (now, truncated) = ((t % 3) as f32, t % 3 == 0);
            assert_eq!(batch.obs, Obs::F32(vec![now, 0.0, now, now]), "{way}, step {t}");
            assert_eq!(batch.truncated, [truncated; 2], "{way}, step {t}");
            if truncated {
                assert_eq!(batch.final_obs, Obs::F32(vec![3.0, 0.0, 3.0, 3.0]), "{way}, step {t}");
            }
        }
    }
}

/// `info` may hold anything; an integer `lives` is read.
#[test]
fn info_may_hold_anything() {
    for way in WAYS {
        for kind in ["none", "ragged", "dict", "huge", "mixed", "names", "lives", "nothing"] {
            let mut env =
                wrapped("tiny:Info-v0", &format!("episodic_life = true\nkwargs = {{ kind = '{kind}' }}\n{way}"), 3);
            let mut batch = StepBatch::new(env.spec(), 3);
            env.reset(&mut batch).unwrap();
            let (mut lost, mut ended) = (0, 0);
            for t in 1..=60 {
                env.step(&Actions::Discrete(vec![0; 3]), &mut batch).unwrap_or_else(|e| panic!("{way}, {kind}: {e}"));
                lost += batch.life_lost.iter().filter(|&&lost| lost).count();
                ended += batch.ended().iter().filter(|&&ended| ended).count();
                assert!(t % 5 != 0 || batch.final_obs == Obs::F32(vec![5.0; 3]), "{way}, {kind}");
            }
            assert_eq!((lost, ended), (if kind == "lives" { 4 * 36 } else { 0 }, 36), "{way}, {kind}");
        }
    }
}

/// Bytes with two or three axes are images, with channels last; other bytes are vectors, scaled to 0..1 by their bounds.
#[test]
fn bytes_are_images_or_vectors() {
    let (low, high) = ([0, 128, 255].as_slice(), [0, 1, 3].as_slice());
    for way in WAYS {
        for (shape, bound, values, expected_shape, expected) in [
            ("[3]", 255, low, vec![3], Obs::F32(vec![0.0, 128.0 / 255.0, 1.0])),
            ("[3]", 1, &[0, 1, 0], vec![3], Obs::F32(vec![0.0, 1.0, 0.0])),
            ("[3]", 3, high, vec![3], Obs::F32(vec![0.0, 1.0 / 3.0, 1.0])),
            ("[1, 3]", 255, low, vec![1, 3], Obs::U8(vec![0, 128, 255])),
            ("[1, 3]", 3, high, vec![1, 3], Obs::U8(vec![0, 85, 255])),
            ("[1, 3, 1]", 255, low, vec![1, 3, 1], Obs::U8(vec![0, 128, 255])),
        ] {
            let settings = format!("kwargs = {{ shape = {shape}, high = {bound}, values = {values:?} }}\n{way}");
            let mut env = wrapped("tiny:Bytes-v0", &settings, 2);
            let mut batch = StepBatch::new(env.spec(), 2);
            env.reset(&mut batch).unwrap();
            assert_eq!(env.spec().shape, expected_shape, "{settings}");
            let row = batch.obs_row(1).to_obs();
            assert_eq!(row, expected, "{settings}");
        }
        let values: Vec<u8> = (0..24).collect();
        let settings = format!("kwargs = {{ shape = [2, 3, 4], values = {values:?} }}\n{way}");
        let mut env = wrapped("tiny:Bytes-v0", &settings, 1);
        let mut batch = StepBatch::new(env.spec(), 1);
        env.reset(&mut batch).unwrap();
        assert_eq!(env.spec().shape, [3, 4, 2], "channels last");
        assert_eq!(batch.obs, Obs::U8((0..12).flat_map(|i| [i, i + 12]).collect()));
    }
}

/// Dict and Tuple become one vector: their parts in the order of the space, numbers one-hot. The same in all ways of stepping, and
/// for a registered vector environment.
#[test]
fn observations_with_parts_become_one_vector() {
    // bits, cell, digits (2 and 3 values), pair: a float, and two bytes divided by their bound of 5.
    let expected = |t: usize| {
        let one_hot = |n: usize, i: usize| (0..n).map(move |k| f32::from(u8::from(k == i)));
        let mut row = vec![(t % 2) as f32, 1.0];
        row.extend(one_hot(3, t % 3).chain(one_hot(2, t % 2)).chain(one_hot(3, t % 3)));
        row.extend([t as f32 / 4.0, (t % 3) as f32 / 5.0, 1.0]);
        row
    };
    for (id, way) in WAYS.iter().map(|way| ("tiny:Parts-v0", *way)).chain([("tiny:PartsVector-v0", "")]) {
        let mut env = wrapped(id, way, 2);
        assert_eq!((&env.spec().shape[..], env.spec().dtype), (&[13][..], Dtype::F32), "{id} {way}");
        let mut batch = StepBatch::new(env.spec(), 2);
        env.reset(&mut batch).unwrap();
        for t in 1..=7 {
            assert_eq!(batch.obs, Obs::F32([expected((t - 1) % 3), expected((t - 1) % 3)].concat()), "{id} {way} {t}");
            env.step(&Actions::Discrete(vec![0, 1]), &mut batch).unwrap();
            if t % 3 == 0 {
                assert_eq!(batch.final_obs, Obs::F32([expected(3), expected(3)].concat()), "{id} {way} {t}");
            }
        }
        for (wrong, message) in [
            (
                "cell",
                "part 'cell' of its observation: its observation holds 8, which is outside its space, Discrete(3, start=5)",
            ),
            ("bits", "part 'bits' of its observation: its observation holds 2"),
            ("digits", "part 'digits' of its observation: its observation is float64"),
            ("pair", "part 'pair' of its observation: its observation has 1 parts, where its space has 2"),
            ("missing", "its observation lacks the part 'cell'"),
        ] {
            // Gymnasium's own vector class refuses these, or converts them.
            if id.contains("Vector") {
                continue;
            }
            let mut env = wrapped(id, &format!("kwargs = {{ wrong = '{wrong}' }}\n{way}"), 2);
            let mut batch = StepBatch::new(env.spec(), 2);
            env.reset(&mut batch).unwrap();
            let actions = Actions::Discrete(vec![0; 2]);
            env.step(&actions, &mut batch).unwrap();
            let error = env.step(&actions, &mut batch).unwrap_err().to_string();
            assert!(error.contains(message), "{way}: {error}");
        }
    }
}

/// With a large image among them, parts are bytes: pixels, channels last, and four bytes for each other element. The same in all ways
/// of stepping, and for a registered vector environment.
#[test]
fn observations_with_an_image_and_other_parts_are_bytes() {
    let parts = vec![
        Part::image("camera", 36, 40, 3),
        Part::image("deep/icon", 2, 3, 1),
        Part::vector("deep/position", 2),
        Part::vector("kind", 3),
    ];
    let expected = |t: usize| {
        let pixel = |row: usize, column: usize, channel: usize| ((100 * channel + 7 * row + column + t) % 256) as u8;
        let positions = (0..36).flat_map(|row| (0..40).map(move |column| (row, column)));
        let camera: Vec<u8> =
            positions.flat_map(|(row, column)| (0..3).map(move |channel| pixel(row, column, channel))).collect();
        let icon: Vec<u8> = (0..6).map(|i| i + t as u8).collect();
        let kind: Vec<f32> = (0..3).map(|k| f32::from(u8::from(k == t % 3))).collect();
        let mut bytes = vec![0; 36 * 40 * 3 + 6 + 4 * 5];
        let parts = [ObsRef::U8(&camera), ObsRef::U8(&icon), ObsRef::F32(&[t as f32, -1.5]), ObsRef::F32(&kind)];
        ObsMut::U8(&mut bytes).write_parts(&parts);
        bytes
    };
    for (id, way) in WAYS.iter().map(|way| ("tiny:Cameras-v0", *way)).chain([("tiny:CamerasVector-v0", "")]) {
        let mut env = wrapped(id, way, 2);
        assert_eq!((&env.spec().parts, env.spec().dtype), (&parts, Dtype::U8), "{id} {way}");
        let mut batch = StepBatch::new(env.spec(), 2);
        env.reset(&mut batch).unwrap();
        for t in 1..=4 {
            assert!(batch.obs == Obs::U8([expected((t - 1) % 3), expected((t - 1) % 3)].concat()), "{id} {way} {t}");
            env.step(&Actions::Discrete(vec![0, 1]), &mut batch).unwrap();
            if t == 3 {
                assert!(batch.final_obs == Obs::U8([expected(3), expected(3)].concat()), "{id} {way} {t}");
            }
        }
    }
}

/// Gymnasium's text environments have one-hot observations.
#[test]
fn a_numbered_state_is_a_one_hot_vector() {
    for (id, width) in [("FrozenLake-v1", 16), ("Taxi-v4", 500), ("CliffWalking-v1", 48), ("Blackjack-v1", 32 + 11 + 2)]
    {
        let mut env = wrapped(id, "", 2);
        let mut batch = StepBatch::new(env.spec(), 2);
        env.reset(&mut batch).unwrap();
        assert_eq!(env.spec().shape, [width], "{id}");
        let Obs::F32(values) = batch.obs_row(0).to_obs() else { panic!("{id} observes bytes") };
        let ones = if id.starts_with("Blackjack") { 3.0 } else { 1.0 };
        assert_eq!(values.iter().sum::<f32>(), ones, "{id}");
        assert!(values.iter().all(|v| [0.0, 1.0].contains(v)), "{id}");
    }
}

/// The mask of `tiny:Masked-v0` after `t` steps.
fn mask_at(t: usize, sizes: &[usize]) -> Vec<bool> {
    sizes.iter().flat_map(|&size| (0..size).map(move |choice| choice != t % size)).collect()
}

/// Masks from `info` and from `action_masks` in all ways of stepping, at first, later and final observations; and actions of several
/// components, which the environment checks.
#[test]
fn action_masks_are_read_and_actions_of_several_components_are_sent() {
    for way in WAYS {
        for (source, actions, sizes) in [
            ("info", "discrete", vec![4]),
            ("info", "multi", vec![3, 4]),
            ("method", "multi", vec![3, 4]),
            ("method", "binary", vec![2, 2]),
            ("nowhere", "binary", vec![2, 2]),
        ] {
            let settings = format!("kwargs = {{ actions = '{actions}', source = '{source}' }}\n{way}");
            check_masks("tiny:Masked-v0", &settings, source != "nowhere", &sizes);
        }
    }
    check_masks("tiny:MaskedVector-v0", "kwargs = { actions = 'discrete', source = 'info' }", true, &[4]);
}

fn check_masks(id: &str, settings: &str, has_mask: bool, sizes: &[usize]) {
    let mut env = wrapped(id, settings, 2);
    let (dim, mut batch) = (sizes.len(), StepBatch::new(env.spec(), 2));
    assert_eq!((env.spec().actions.sizes(), env.spec().action_mask), (sizes, has_mask), "{settings}");
    assert_eq!(env.spec().mask_len(), if has_mask { sizes.iter().sum() } else { 0 });
    env.reset(&mut batch).unwrap();
    for t in 0..10 {
        let t = t % 4;
        if has_mask {
            assert_eq!(batch.action_mask, [mask_at(t, sizes), mask_at(t, sizes)].concat(), "{settings}, step {t}");
        }
        // Environment 0 has a valid action, environment 1 an invalid one.
        let valid: Vec<i64> = sizes.iter().map(|&size| ((t + 1) % size) as i64).collect();
        let invalid: Vec<i64> = sizes.iter().map(|&size| (t % size) as i64).collect();
        let indices = [valid.clone(), invalid].concat();
        let actions = if dim == 1 { Actions::Discrete(indices) } else { Actions::MultiDiscrete { indices, dim } };
        env.step(&actions, &mut batch).unwrap();
        let expected: i64 = valid.iter().zip([10, 1]).map(|(index, factor)| index * factor).sum();
        assert_eq!(batch.reward, [expected as f32, -100.0], "{settings}, step {t}");
        assert_eq!(batch.truncated, [t == 3; 2]);
        if has_mask && t == 3 {
            assert_eq!(batch.final_mask_row(1), mask_at(4, sizes), "{settings}");
        }
    }
}

#[test]
fn wrong_action_masks_are_refused() {
    for way in WAYS {
        for (wrong, message) in [
            ("none", "environment 0: its action mask allows none of 4 actions for component 1"),
            ("shape", "must have a 0 or a 1 for each of 7 choices"),
            ("values", "must have a 0 or a 1 for each of 7 choices"),
        ] {
            let kwargs = format!("kwargs = {{ actions = 'multi', source = 'info', wrong = '{wrong}' }}\n{way}");
            let mut env = wrapped("tiny:Masked-v0", &kwargs, 2);
            let mut batch = StepBatch::new(env.spec(), 2);
            env.reset(&mut batch).unwrap();
            let actions = Actions::zeros(&env.spec().actions, 2);
            env.step(&actions, &mut batch).unwrap();
            let error = env.step(&actions, &mut batch).unwrap_err().to_string();
            assert!(error.contains(message) && error.contains("environment 0"), "{way}: {error}");
        }
    }
}

/// Taxi's `info` states which actions change its state.
#[test]
fn taxi_has_action_masks() {
    let mut env = wrapped("Taxi-v4", "", 2);
    let mut batch = StepBatch::new(env.spec(), 2);
    env.reset(&mut batch).unwrap();
    assert!(env.spec().action_mask && batch.action_mask.len() == 12);
    assert!(batch.action_mask.contains(&false) && batch.action_mask.contains(&true));
}

/// Actions are NumPy scalars and arrays in all ways of stepping.
#[test]
fn actions_are_numpy_scalars() {
    for way in WAYS {
        let mut env = wrapped("tiny:Numpy-v0", way, 2);
        let mut batch = StepBatch::new(env.spec(), 2);
        env.reset(&mut batch).unwrap();
        env.step(&Actions::Discrete(vec![0, 1]), &mut batch).unwrap();
        assert_eq!(batch.reward, [5.0, 6.0], "counted from the space's `start`: {way}");
    }
    let source = Arc::new(GymSource::new("tiny:Numpy-v0"));
    let factory = Factory::new(source.clone(), config(&*source, "tiny:Numpy-v0", "")).unwrap();
    let mut rendered = factory.rendering(1, &toml::Table::new()).unwrap();
    let mut batch = StepBatch::new(rendered.spec(), 1);
    rendered.reset(&mut batch).unwrap();
    rendered.step(&Actions::Discrete(vec![0]), &mut batch).unwrap();
    let frame = rendered.render().unwrap().expect("it renders");
    assert_eq!((frame.width, frame.height, frame.rgb), (3, 2, vec![7; 18]));
}

/// `render_mode` is set only where `metadata` lists RGB frames: other environments may not accept it.
#[test]
fn an_environment_that_does_not_render_returns_none() {
    python();
    for (id, way) in ["tiny:Same-v0", "tiny:Function-v0"].into_iter().zip(["", "vectorization = 'async'"]) {
        let source = Arc::new(GymSource::new(id));
        let factory = Factory::new(source.clone(), config(&*source, id, way)).unwrap();
        let mut env = factory.rendering(1, &toml::Table::new()).unwrap();
        env.reset(&mut StepBatch::new(env.spec(), 1)).unwrap();
        assert_eq!(env.render().unwrap(), None);
    }
}

/// An episode that terminates and is truncated in one step is terminated, and a life lost in that step is not reported.
#[test]
fn an_ended_episode_has_one_flag() {
    for way in WAYS {
        for (flags, expected) in [("[true, true]", (true, false)), ("[false, true]", (false, true))] {
            let mut env =
                wrapped("tiny:Ends-v0", &format!("episodic_life = true\nkwargs = {{ flags = {flags} }}\n{way}"), 2);
            let mut batch = StepBatch::new(env.spec(), 2);
            env.reset(&mut batch).unwrap();
            env.step(&Actions::Discrete(vec![0; 2]), &mut batch).unwrap();
            assert_eq!((batch.terminated[1], batch.truncated[1], batch.life_lost[1]), (expected.0, expected.1, false));
        }
    }
}

/// A registered vector environment equals a batch of its environments. Processes and wrappers inside one environment are an
/// error that names the reason.
#[test]
fn a_registered_vector_environment_is_used() {
    let settings = "episodic_life = true\nkwargs = { scale = 3 }";
    let mut single = wrapped("tiny:Count-v0", settings, 2);
    let mut vector = wrapped("tiny:Vector-v0", settings, 2);
    assert_eq!(vector.spec(), &EnvSpec { id: "tiny:Vector-v0".into(), ..single.spec().clone() });
    let (mut a, mut b) = (StepBatch::new(single.spec(), 2), StepBatch::new(vector.spec(), 2));
    let mut lost = 0;
    for _ in 0..2 {
        single.reset(&mut a).unwrap();
        vector.reset(&mut b).unwrap();
        for t in 0..30 {
            assert_eq!(a, b, "step {t}");
            let actions = Actions::Discrete(vec![t % 4, 1]);
            single.step(&actions, &mut a).unwrap();
            vector.step(&actions, &mut b).unwrap();
            lost += usize::from(b.life_lost[1]);
        }
    }
    assert!(lost > 5);
    for way in ["vectorization = 'async'", "frame_skip = 2"] {
        let message = try_wrapped("tiny:Vector-v0", way, 2).err().expect(way).to_string();
        assert!(message.contains("only a vector environment is registered"), "{way}: {message}");
    }
}

/// Floats with the bounds of pixels and the size of an image are frames; other floats are vectors.
#[test]
fn float_images_are_frames() {
    for (kwargs, shape, row) in [
        ("{}", vec![36, 37, 3], [64, 128, 191]),
        ("{ high = 255.0, channels = 2 }", vec![36, 37, 2], [64, 128, 64]),
        ("{ first = true }", vec![36, 37, 3], [64, 128, 191]),
        ("{ channels = 0, side = 40 }", vec![40, 41], [64, 64, 64]),
    ] {
        for way in WAYS {
            let mut env = wrapped("tiny:Pixels-v0", &format!("kwargs = {kwargs}\n{way}"), 2);
            assert_eq!((env.spec().dtype, &env.spec().shape), (Dtype::U8, &shape), "{kwargs}");
            let mut batch = StepBatch::new(env.spec(), 2);
            env.reset(&mut batch).unwrap();
            assert_eq!(batch.obs_row(1).u8()[..3], row, "{kwargs}, {way}");
            // Twice as bright: a quarter becomes a half, three quarters exceed the bounds.
            let result = env.step(&Actions::Discrete(vec![1, 0]), &mut batch);
            match kwargs.contains("channels") {
                true => assert_eq!(batch.obs_row(0).u8()[0], 128, "{kwargs}, {way}"),
                false => {
                    let error = result.unwrap_err().to_string();
                    assert!(error.contains("environment 0: its observation holds 1.5, which is outside"), "{error}");
                }
            }
        }
    }
    for (kwargs, len) in [("{ side = 35 }", 35 * 36 * 3), ("{ high = 2.0 }", 36 * 37 * 3)] {
        let env = wrapped("tiny:Pixels-v0", &format!("kwargs = {kwargs}"), 1);
        assert_eq!((env.spec().dtype, env.spec().frame_len()), (Dtype::F32, len), "{kwargs}");
    }
}

#[test]
fn scalars_are_observations_and_actions() {
    for way in WAYS {
        let mut env = wrapped("tiny:Scalar-v0", way, 2);
        assert_eq!(env.spec().shape, [1]);
        let mut batch = StepBatch::new(env.spec(), 2);
        env.reset(&mut batch).unwrap();
        assert_eq!(batch.obs, Obs::F32(vec![3.0; 2]));
        env.step(&Actions::Continuous { values: vec![0.25, -0.5], dim: 1 }, &mut batch).unwrap();
        assert_eq!((batch.obs, batch.reward), (Obs::F32(vec![0.25, -0.5]), vec![0.25, -0.5]), "{way}");
    }
}

/// A vector environment without autoreset is reset row by row: it equals one with same-step autoreset.
#[test]
fn a_vector_environment_without_autoreset_is_reset() {
    let [mut manual, mut same] = ["tiny:ManualVector-v0", "tiny:Vector-v0"].map(|id| wrapped(id, "", ENVS));
    let mut batches = [StepBatch::new(same.spec(), ENVS), StepBatch::new(same.spec(), ENVS)];
    manual.reset(&mut batches[0]).unwrap();
    same.reset(&mut batches[1]).unwrap();
    let (mut random, mut ends) = (rng::stream(1, "actions"), 0);
    for step in 0..40 {
        let actions = sample_actions(same.spec(), ENVS, &mut random);
        manual.step(&actions, &mut batches[0]).unwrap();
        same.step(&actions, &mut batches[1]).unwrap();
        assert_eq!(batches[0], batches[1], "step {step}");
        ends += batches[0].ended().iter().filter(|ended| **ended).count();
    }
    assert!(ends >= 3 * ENVS, "{ends}");
}

/// A transition of one environment: observation and mask before it, the step, and observation and mask after it.
type Transition = (Obs, Vec<bool>, Step, Option<EpisodeEnd>, Obs, Vec<bool>);

/// The transitions of each environment of `tiny:Uneven-v0` with actions that depend on their number only, and the number of ignored
/// steps.
fn uneven_transitions(id: &str, settings: &str, n: usize) -> (Vec<Vec<Transition>>, usize) {
    let mut env = wrapped(id, &format!("episodic_life = true\n{settings}"), n);
    let mut batch = StepBatch::new(env.spec(), n);
    env.reset(&mut batch).unwrap();
    let (mut found, mut ignored) = (vec![Vec::new(); n], 0);
    for _ in 0..90 {
        let before = batch.clone();
        let actions = (0..n).map(|i| ((i + found[i].len() * 7 / 3) % 3) as i64).collect();
        env.step(&Actions::Discrete(actions), &mut batch).unwrap();
        ignored += n - batch.transitions();
        for i in (0..n).filter(|&i| !batch.ignored[i]) {
            let flags = (batch.terminated[i], batch.truncated[i], batch.life_lost[i]);
            let step = Step { reward: batch.reward[i], terminated: flags.0, truncated: flags.1, life_lost: flags.2 };
            let (obs, mask) = match batch.done(i) {
                true => (batch.final_obs_row(i), batch.final_mask_row(i)),
                false => (batch.obs_row(i), batch.mask_row(i)),
            };
            let first = (before.obs_row(i).to_obs(), before.mask_row(i).to_vec());
            found[i].push((first.0, first.1, step, batch.episode[i], obs.to_obs(), mask.to_vec()));
        }
    }
    (found, ignored)
}

/// In every autoreset mode a vector environment has the same transitions. With next-step autoreset some steps are ignored, and none
/// where all rows end together, which a single row always does.
#[test]
fn every_autoreset_mode_has_the_same_transitions() {
    for n in [1, ENVS] {
        let (expected, _) = uneven_transitions("tiny:Uneven-v0", "", n);
        let ends = |row: &[Transition]| row.iter().filter(|transition| transition.2.done()).count();
        assert!(expected.iter().all(|row| row.len() == 90 && ends(row) > 15 && row.iter().any(|t| t.2.truncated)));
        for mode in ["SAME_STEP", "NEXT_STEP", "DISABLED"] {
            let (found, ignored) =
                uneven_transitions("tiny:UnevenVector-v0", &format!("kwargs = {{ mode = '{mode}' }}"), n);
            assert_eq!(ignored > 0, mode == "NEXT_STEP" && n > 1, "{mode}, {n}");
            for (found, expected) in found.iter().zip(&expected) {
                assert!(found.len() > 50 && found[..] == expected[..found.len()], "{mode}, {n}");
            }
        }
    }
}

/// A vector environment that accepts one seed for all rows, with next-step autoreset, is used and reset to the same episodes.
#[test]
fn a_vector_environment_with_one_seed_is_used() {
    let mut env = wrapped("tiny:CartPoleVector-v0", "", ENVS);
    let mut runs = Vec::new();
    for _ in 0..2 {
        let (mut batch, mut random) = (StepBatch::new(env.spec(), ENVS), rng::stream(1, "actions"));
        env.reset(&mut batch).unwrap();
        let (mut ended, mut steps) = (vec![false; ENVS], Vec::new());
        for _ in 0..200 {
            let actions = sample_actions(env.spec(), ENVS, &mut random);
            env.step(&actions, &mut batch).unwrap();
            assert!(batch.ignored.iter().zip(&ended).all(|(ignored, ended)| !ignored || *ended));
            for i in (0..ENVS).filter(|&i| batch.ignored[i]) {
                assert!(batch.obs_row(i).f32().iter().all(|x| x.abs() <= 0.05), "the first observation of an episode");
            }
            ended = batch.ended();
            steps.push(batch.clone());
        }
        assert!(steps.iter().map(|batch| ENVS - batch.transitions()).sum::<usize>() > 10);
        runs.push(steps);
    }
    assert!(runs[0] == runs[1]);
}

/// `vectorization = "auto"` is resolved before environments are created, and the choice is reported. A vector environment runs in this
/// process.
#[test]
fn auto_selects_the_vectorization_by_the_duration_of_a_step() {
    python();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let slow = if cores > 1 { Vectorization::Async } else { Vectorization::Sync };
    for (id, expected) in
        [("CartPole-v1", Vectorization::Sync), ("tiny:Slow-v0", slow), ("tiny:CartPoleVector-v0", Vectorization::Sync)]
    {
        let source = Arc::new(GymSource::new(id));
        let factory = Factory::new(source.clone(), config(&*source, id, "vectorization = 'auto'")).unwrap();
        assert_eq!(factory.config().vectorization, expected, "{id}");
        let said = notices::take();
        let choice = if expected == Vectorization::Async { "async" } else { "sync" };
        let expected = format!("vectorization = \"auto\" selects \"{choice}\" for {id}");
        assert!(said.iter().any(|line| line.starts_with(&expected)), "{said:?}");
    }
}
