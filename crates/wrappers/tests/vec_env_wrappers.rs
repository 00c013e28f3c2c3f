//! The wrappers of a batch, against slow definitions.

mod common;

use common::{LIFE, PLAIN, Random, Script, TERMINATED, TRUNCATED, episode, spec};
use playfield_core::{
    ActionSpace, Actions, Dtype, Env, EnvSpec, EpisodeEnd, Error, Obs, ObsRef, Part, Result, Step, StepBatch, VecEnv,
};
use playfield_wrappers::{
    CheckFinite, EpisodicLife, FireOnLifeLoss, FrameSkip, Normalize, Pool, RecordEpisodeStatistics, Resize,
    ScaleActions, VecEnvWrapper, WrappedVecEnv,
};

const NAMES: [&str; 3] = ["NOOP", "FIRE", "LEFT"];

/// A batch of environments, each with its own script.
fn scripts(names: &'static [&'static str], episodes: Vec<Vec<Step>>) -> (Box<dyn VecEnv>, StepBatch, usize) {
    let n = episodes.len();
    let make = move |i: usize| -> Result<Box<dyn Env>> { Ok(Box::new(Script::game(names, episodes[i].clone()))) };
    let pool = Pool::new(&vec![0; n], 1, make).unwrap();
    let batch = StepBatch::new(pool.spec(), n);
    (Box::new(pool), batch, n)
}

#[test]
fn statistics_count_raw_rewards_over_lost_lives_and_truncations() {
    let long = episode(3, TERMINATED);
    let lives = vec![PLAIN, LIFE, Step { reward: -2.5, ..TRUNCATED }];
    let (pool, mut batch, n) = scripts(&NAMES, vec![long, lives]);
    let mut env = WrappedVecEnv::new(pool, RecordEpisodeStatistics::new(n));
    env.reset(&mut batch).unwrap();
    let actions = Actions::Discrete(vec![0; 2]);
    let mut ends = Vec::new();
    for _ in 0..6 {
        env.step(&actions, &mut batch).unwrap();
        ends.push(batch.episode.clone());
    }
    let long = Some(EpisodeEnd { episode_return: 4.0, length: 4 });
    let lives = Some(EpisodeEnd { episode_return: -0.5, length: 3 });
    let none = vec![None, None];
    assert_eq!(ends, [none.clone(), none.clone(), vec![None, lives], vec![long, None], none, vec![None, lives]]);
    env.reset(&mut batch).unwrap();
    (0..4).for_each(|_| env.step(&actions, &mut batch).unwrap());
    assert_eq!(batch.episode[0], long, "a reset discards the unfinished episode");
}

#[test]
fn statistics_are_more_precise_than_f32() {
    let mut steps = vec![Step { reward: 16_777_216.0, ..Step::default() }];
    steps.extend(episode(2, TERMINATED));
    let (pool, mut batch, n) = scripts(&NAMES, vec![steps]);
    let mut env = WrappedVecEnv::new(pool, RecordEpisodeStatistics::new(n));
    env.reset(&mut batch).unwrap();
    (0..4).for_each(|_| env.step(&Actions::Discrete(vec![0]), &mut batch).unwrap());
    assert_eq!(batch.episode[0].unwrap().episode_return, 16_777_219.0);
}

/// The actions recorded as forced over `n` steps.
fn forced(names: &'static [&'static str], steps: Vec<Step>, n: usize) -> Vec<Option<i64>> {
    let (pool, mut batch, _) = scripts(names, vec![steps]);
    let spec = pool.spec().clone();
    let mut env = WrappedVecEnv::new(pool, FireOnLifeLoss::new(&spec, 1));
    env.reset(&mut batch).unwrap();
    (0..n)
        .map(|_| {
            env.step(&Actions::Discrete(vec![1]), &mut batch).unwrap();
            batch.forced[0]
        })
        .collect()
}

#[test]
fn fire_follows_a_lost_life_and_is_recorded() {
    let steps = vec![PLAIN, LIFE, PLAIN, LIFE, LIFE, TERMINATED];
    let fire = Some(1);
    assert_eq!(forced(&NAMES, steps.clone(), 8), [None, None, fire, None, fire, fire, None, None]);
    assert_eq!(forced(&["NOOP", "LEFT"], steps, 8), [None; 8], "a game without FIRE");
}

#[test]
fn the_environment_executes_fire() {
    // The first byte of `Random`'s observation is the action.
    let make = |_| -> Result<Box<dyn Env>> { Ok(Box::new(Random::new(Dtype::U8))) };
    let pool = Pool::new(&[1, 2, 3], 1, make).unwrap();
    let spec = pool.spec().clone();
    let mut env = WrappedVecEnv::new(Box::new(pool), FireOnLifeLoss::new(&spec, 3));
    let mut batch = StepBatch::new(&spec, 3);
    env.reset(&mut batch).unwrap();
    let mut due = [false; 3];
    let mut fires = 0;
    for _ in 0..300 {
        env.step(&Actions::Discrete(vec![2, 0, 2]), &mut batch).unwrap();
        for (i, due) in due.iter_mut().enumerate() {
            let expected = if *due { 1 } else { [2, 0, 2][i] };
            let seen = if batch.done(i) { batch.final_obs_row(i) } else { batch.obs_row(i) };
            let ObsRef::U8(seen) = seen else { panic!("bytes") };
            assert_eq!((seen[0], batch.forced[i]), (expected, due.then_some(1)));
            fires += usize::from(*due);
            *due = batch.life_lost[i];
        }
    }
    assert!(fires > 20);
    assert!(env.send(&Actions::Discrete(vec![0, 3, 0])).is_err(), "invalid actions are still refused");
    assert!(env.send(&Actions::Discrete(vec![0])).is_err());
}

#[test]
fn no_fire_follows_a_life_lost_at_the_end_of_an_episode() {
    let spec = spec(&[1], Dtype::U8, &NAMES);
    for end in [TERMINATED, TRUNCATED] {
        let mut wrapper = FireOnLifeLoss::new(&spec, 1);
        let mut batch = StepBatch::new(&spec, 1);
        batch.set(0, Step { life_lost: true, ..end });
        wrapper.recv(&mut batch).unwrap();
        assert_eq!(wrapper.send(&Actions::Discrete(vec![0])), None);
    }
}

/// A Gaussian policy's actions, and the actions that the environment executes.
#[test]
fn continuous_actions_are_mapped_onto_their_range() {
    let inf = f32::INFINITY;
    let space = ActionSpace::Box { low: vec![5.0, 0.0, -inf], high: vec![35.0, inf, inf] };
    let mut wrapper = ScaleActions::new(&space, 2);
    let sent = Actions::Continuous { values: vec![0.5, -2.0, -2.0, 3.0, 3.0, 3.0], dim: 3 };
    let executed = Actions::Continuous { values: vec![27.5, 0.0, -2.0, 35.0, 3.0, 3.0], dim: 3 };
    assert_eq!(wrapper.send(&sent), Some(&executed));
    assert_eq!(wrapper.send(&Actions::Discrete(vec![0, 1])), None);
    let short = Actions::Continuous { values: vec![f32::NAN], dim: 1 };
    assert!(wrapper.send(&short).unwrap().check(&space, 2).is_err(), "an invalid action is refused, not repaired");
}

/// One environment of a batch of three returns a value that is not finite: the error names both.
#[test]
fn values_that_are_not_finite_are_refused() {
    let spec = spec(&[2], Dtype::F32, &[]);
    let inf = f32::INFINITY;
    let message = |result: Result<()>| result.err().map(|e| e.to_string());
    for wrong in [f32::NAN, inf, -inf] {
        for clips in [false, true] {
            let mut wrapper = CheckFinite::new(&spec, clips);
            let mut batch = StepBatch::new(&spec, 3);
            batch.reward = vec![0.0, f32::MAX, wrong];
            let allowed = clips && !wrong.is_nan();
            let expected = format!("Script: environment 2: its reward is {wrong}, and must be finite");
            let found = message(wrapper.recv(&mut batch));
            assert_eq!(found.is_none(), allowed, "{wrong}, {clips}");
            assert!(found.is_none_or(|found| found.starts_with(&expected)), "{wrong}");
            batch.reward[2] = 0.0;

            // Finite values whose sum overflows are accepted.
            batch.obs = Obs::F32(vec![f32::MAX, f32::MAX, 0.0, wrong, 0.0, 0.0]);
            let expected =
                format!("Script: environment 1: element 1 of its observation is {wrong}, and must be finite");
            assert_eq!(message(wrapper.recv(&mut batch)).as_ref(), Some(&expected));
            assert_eq!(message(wrapper.reset(&mut batch)).as_ref(), Some(&expected));
            batch.obs = Obs::F32(vec![0.0; 6]);

            batch.final_obs = Obs::F32(vec![0.0, 0.0, 0.0, wrong, 0.0, 0.0]);
            assert_eq!(message(wrapper.recv(&mut batch)), None, "no episode ended");
            batch.truncated[1] = true;
            assert_eq!(message(wrapper.recv(&mut batch)).as_ref(), Some(&expected));
        }
    }
}

/// The vectors among the parts of an observation are checked, too; settings for one image or one vector are refused.
#[test]
fn observations_with_parts_are_checked() {
    let parts = vec![Part::image("camera", 3, 3, 1), Part::vector("speed", 2)];
    let spec = EnvSpec::of_parts("Script", parts, ActionSpace::Discrete { n: 2 });
    let mut wrapper = CheckFinite::new(&spec, false);
    let mut batch = StepBatch::new(&spec, 2);
    let write = |batch: &mut StepBatch, speed: [f32; 2]| {
        batch.obs.slice_mut(17, 17).write_parts(&[ObsRef::U8(&[255; 9]), ObsRef::F32(&speed)]);
    };
    write(&mut batch, [f32::MAX, f32::MAX]);
    wrapper.recv(&mut batch).unwrap();
    write(&mut batch, [0.0, f32::NAN]);
    let message = wrapper.recv(&mut batch).unwrap_err().to_string();
    let expected = "Script: environment 1: element 1 of part 'speed' of its observation is NaN, and must be finite";
    assert_eq!(message, expected);
    for message in [
        Normalize::new(&spec, 2, true, false, 0.99).err().unwrap().to_string(),
        FrameSkip::new(&spec, 2, true).err().unwrap().to_string(),
        Resize::new(&spec, 2, 2).err().unwrap().to_string(),
    ] {
        assert!(message.contains("Script observes camera u8[3, 3] + speed f32[2]"), "{message}");
    }
}

#[test]
fn lost_lives_are_reported_with_episodic_life() {
    for episodic in [false, true] {
        let (pool, mut batch, _) = scripts(&NAMES, vec![vec![LIFE, PLAIN]]);
        let mut env = WrappedVecEnv::new(pool, EpisodicLife { enabled: episodic });
        env.reset(&mut batch).unwrap();
        env.step(&Actions::Discrete(vec![0]), &mut batch).unwrap();
        assert_eq!(batch.life_lost, [episodic]);
    }
}

/// Mean and variance over all rows so far, by definition, with a prior of mean 0, variance 1 and weight 1e-4.
fn moments(rows: &[f64]) -> (f64, f64) {
    let weight = 1e-4 + rows.len() as f64;
    let mean = rows.iter().sum::<f64>() / weight;
    let squares = 1e-4 * (1.0 + mean * mean) + rows.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    (mean, squares / weight)
}

fn near(ours: f32, theirs: f64) -> bool {
    (f64::from(ours) - theirs).abs() < 1e-5
}

fn numbers(obs: ObsRef<'_>) -> Vec<f64> {
    let ObsRef::F32(numbers) = obs else { panic!("numbers") };
    numbers.iter().map(|&x| f64::from(x)).collect()
}

#[test]
fn normalized_values_follow_their_definition() {
    let n = 3;
    let make = |_| -> Result<Box<dyn Env>> { Ok(Box::new(Random::new(Dtype::F32))) };
    let pool = || Box::new(Pool::new(&[5, 6, 7], 1, make).unwrap());
    let (mut raw, spec) = (pool(), pool().spec().clone());
    let mut env = WrappedVecEnv::new(pool(), Normalize::new(&spec, n, true, true, 0.9).unwrap());
    let (mut batch, mut raw_batch) = (StepBatch::new(&spec, n), StepBatch::new(&spec, n));
    env.reset(&mut batch).unwrap();
    raw.reset(&mut raw_batch).unwrap();

    let mut seen: Vec<Vec<f64>> = vec![numbers(raw_batch.obs.as_ref())];
    let (mut returns, mut all_returns) = (vec![0.0; n], Vec::new());
    let mut ends = 0;
    for t in 0..200 {
        let actions = Actions::Discrete(vec![t % 3, 1, 2]);
        env.step(&actions, &mut batch).unwrap();
        raw.step(&actions, &mut raw_batch).unwrap();
        seen.push(numbers(raw_batch.obs.as_ref()));
        for (sum, reward) in returns.iter_mut().zip(&raw_batch.reward) {
            *sum = *sum * 0.9 + f64::from(*reward);
        }
        all_returns.extend_from_slice(&returns);
        let scale = (moments(&all_returns).1 + 1e-8).sqrt();
        for j in 0..24 {
            let column: Vec<f64> = seen.iter().flat_map(|rows| rows[j..].iter().step_by(24).copied()).collect();
            let (mean, variance) = moments(&column);
            let normal = |x: f64| ((x - mean) / (variance + 1e-8).sqrt()).clamp(-10.0, 10.0);
            for i in 0..n {
                let (Obs::F32(ours), Obs::F32(last)) = (&batch.obs, &batch.final_obs) else { panic!("numbers") };
                assert!(near(ours[i * 24 + j], normal(numbers(raw_batch.obs_row(i))[j])));
                if batch.done(i) {
                    assert!(near(last[i * 24 + j], normal(numbers(raw_batch.final_obs_row(i))[j])));
                }
            }
        }
        for (i, sum) in returns.iter_mut().enumerate() {
            assert!(near(batch.reward[i], (f64::from(raw_batch.reward[i]) / scale).clamp(-10.0, 10.0)));
            if batch.done(i) {
                *sum = 0.0;
                ends += 1;
            }
        }
    }
    assert!(ends > 10);
}

/// A batch with a given observation and reward, for a wrapper alone.
fn given(spec: &EnvSpec, obs: f32, reward: f32) -> StepBatch {
    let mut batch = StepBatch::new(spec, 1);
    batch.obs = Obs::F32(vec![obs]);
    batch.reward = vec![reward];
    batch
}

#[test]
fn normalized_values_are_clipped_and_frozen_statistics_are_not_updated() {
    let spec = spec(&[1], Dtype::F32, &[]);
    let mut wrapper = Normalize::new(&spec, 1, true, true, 0.0).unwrap();
    for t in 0..1000 {
        let sign = if t % 2 == 0 { 1.0 } else { -1.0 };
        wrapper.recv(&mut given(&spec, 3.0 + sign, sign)).unwrap();
    }
    let mut frozen = Normalize::new(&spec, 1, true, true, 0.0).unwrap();
    frozen.load_statistics(&wrapper.save_statistics().unwrap(), true).unwrap();
    let before = frozen.save_statistics();
    for (obs, reward, expected) in [(5.0, 2.0, [2.0, 2.0]), (1e6, 1e6, [10.0, 10.0]), (-1e6, -1e6, [-10.0, -10.0])] {
        let mut batch = given(&spec, obs, reward);
        frozen.recv(&mut batch).unwrap();
        let Obs::F32(obs) = &batch.obs else { panic!("numbers") };
        assert!((obs[0] - expected[0]).abs() < 1e-3 && (batch.reward[0] - expected[1]).abs() < 1e-3, "{batch:?}");
    }
    assert_eq!(frozen.save_statistics(), before);
    wrapper.recv(&mut given(&spec, 5.0, 1.0)).unwrap();
    assert_ne!(wrapper.save_statistics(), before);
}

#[test]
fn statistics_of_other_settings_are_refused() {
    let (two, one) = (spec(&[2], Dtype::F32, &[]), spec(&[1], Dtype::F32, &[]));
    let wrapper = |spec, reward| Normalize::new(spec, 1, true, reward, 0.9).unwrap();
    let learned = wrapper(&one, true).save_statistics().unwrap();
    assert_eq!(wrapper(&one, true).load_statistics(&learned, true), Some(()));
    assert_eq!(wrapper(&two, true).load_statistics(&learned, true), None);
    assert_eq!(wrapper(&one, false).load_statistics(&learned, true), None);
    assert_eq!(wrapper(&one, true).load_statistics(&serde_json::json!(3), true), None);
}

#[test]
fn frames_are_not_normalized() {
    let frames = spec(&[1], Dtype::U8, &[]);
    assert!(matches!(Normalize::new(&frames, 1, true, false, 0.9), Err(Error::Config(_))));
    assert!(Normalize::new(&frames, 1, false, true, 0.9).is_ok(), "their rewards are");
}
