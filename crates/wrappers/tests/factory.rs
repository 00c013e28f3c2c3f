//! All wrappers together, as created from `[env]`.

mod common;

use common::{LIFE, PLAIN, Random, Script, TERMINATED};
use playfield_core::config::ClipReward as Clip;
use playfield_core::{
    Action, ActionSpace, Actions, Dtype, Env, EnvConfig, EnvFactory, EnvSource, EnvSpec, Error, ObsMut, Result, State,
    Step, StepBatch, VecEnv,
};
use playfield_wrappers::Factory;
use std::sync::Arc;

/// Every setting of frames.
fn everything() -> EnvConfig {
    EnvConfig {
        id: "Random".into(),
        num_envs: 3,
        num_threads: 2,
        frame_stack: 4,
        frame_skip: 2,
        max_pool: true,
        resize: vec![3, 3],
        noop_max: 3,
        fire_reset: true,
        fire_on_life_loss: true,
        episodic_life: true,
        repeat_action_probability: 0.25,
        max_episode_steps: 9,
        clip_reward: Clip::Sign,
        normalize_reward: true,
        ..EnvConfig::default()
    }
}

fn random(dtype: Dtype) -> Arc<dyn EnvSource> {
    Arc::new(playfield_core::env::source(move |_| Ok(Random::new(dtype))))
}

fn actions(n: usize, t: usize) -> Actions {
    Actions::Discrete((0..n).map(|i| ((i * 5 + t * 7) / 2 % 3) as i64).collect())
}

/// Steps through fixed actions and records each batch.
fn record(env: &mut dyn VecEnv, batch: &mut StepBatch, from: usize, to: usize) -> Vec<StepBatch> {
    (from..to)
        .map(|t| {
            env.step(&actions(3, t), batch).unwrap();
            batch.clone()
        })
        .collect()
}

#[test]
fn the_spec_is_that_of_the_wrapped_environment() {
    let factory = Factory::new(random(Dtype::U8), everything()).unwrap();
    let spec = factory.spec();
    assert_eq!((spec.id.as_str(), spec.shape.as_slice(), spec.frame_stack), ("Random", &[3, 3][..], 4));
    assert_eq!(factory.vec(&[1, 2]).unwrap().spec(), spec);
    assert_eq!(factory.vec(&[1, 2]).unwrap().num_envs(), 2);
}

#[test]
fn all_wrappers_resume_from_a_saved_state_bit_for_bit() {
    let mut config = everything();
    for dtype in [Dtype::U8, Dtype::F32] {
        if dtype == Dtype::F32 {
            config = EnvConfig { max_pool: false, resize: vec![], normalize_obs: true, ..config };
        }
        let factory = Factory::new(random(dtype), config.clone()).unwrap();
        for before in [0, 1, 7, 50] {
            let mut env = factory.vec(&[1, 2, 3]).unwrap();
            let mut batch = StepBatch::new(factory.spec(), 3);
            env.reset(&mut batch).unwrap();
            record(env.as_mut(), &mut batch, 0, before);
            let text = env.save_state().unwrap().expect("every part saves its state").to_string();
            let mut copy = batch.clone();
            let expected = record(env.as_mut(), &mut batch, before, before + 100);
            assert!(expected.iter().any(|b| b.truncated.contains(&true)), "there are time limits");
            assert!(expected.iter().any(|b| b.forced.iter().any(Option::is_some)), "there are lost lives");

            let mut other = factory.vec(&[7, 8, 9]).unwrap();
            other.load_state(&serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(record(other.as_mut(), &mut copy, before, before + 100), expected, "{dtype:?}, {before}");
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let stream = |threads| {
        let factory = Factory::new(random(Dtype::U8), EnvConfig { num_threads: threads, ..everything() }).unwrap();
        let mut env = factory.vec(&[1, 2, 3]).unwrap();
        let mut batch = StepBatch::new(factory.spec(), 3);
        env.reset(&mut batch).unwrap();
        record(env.as_mut(), &mut batch, 0, 100)
    };
    assert_eq!(stream(1), stream(3));
}

/// Frames that count emulator frames, with the results of each.
fn script(names: &'static [&'static str], steps: Vec<Step>) -> Arc<dyn EnvSource> {
    Arc::new(playfield_core::env::source(move |_| Ok(Script::game(names, steps.clone()))))
}

#[test]
fn the_order_inside_is_fire_then_skip_then_limit() {
    let config = EnvConfig {
        id: "Script".into(),
        num_envs: 1,
        frame_skip: 4,
        fire_reset: true,
        noop_max: 1,
        max_episode_steps: 3,
        ..EnvConfig::default()
    };
    let factory = Factory::new(script(&["NOOP", "FIRE"], vec![]), config).unwrap();
    let mut env = factory.vec(&[0]).unwrap();
    let mut batch = StepBatch::new(factory.spec(), 1);
    env.reset(&mut batch).unwrap();
    let mut stream = vec![batch.obs.clone()];
    let mut ends = Vec::new();
    for _ in 0..4 {
        env.step(&Actions::Discrete(vec![0]), &mut batch).unwrap();
        stream.push(if batch.truncated[0] { batch.final_obs.clone() } else { batch.obs.clone() });
        ends.push((batch.truncated[0], batch.episode[0].map(|e| e.length)));
    }
    // FIRE is one frame, not one skip. The limit counts agent steps, and the final observation is the true last frame.
    assert_eq!(stream, [1, 5, 9, 13, 5].map(|t| playfield_core::Obs::U8(vec![t])));
    assert_eq!(ends, [(false, None), (false, None), (true, Some(3)), (false, None)]);
}

#[test]
fn the_order_outside_is_statistics_then_fire_then_lives_then_clipping() {
    let big = |step: Step| Step { reward: 5.0, ..step };
    let config = EnvConfig {
        id: "Script".into(),
        num_envs: 1,
        fire_on_life_loss: true,
        episodic_life: false,
        clip_reward: Clip::Sign,
        ..EnvConfig::default()
    };
    let steps = vec![big(LIFE), big(PLAIN), big(TERMINATED)];
    let factory = Factory::new(script(&["NOOP", "FIRE"], steps), config).unwrap();
    let mut env = factory.vec(&[0]).unwrap();
    let mut batch = StepBatch::new(factory.spec(), 1);
    env.reset(&mut batch).unwrap();
    for expected in [(false, None, None), (false, Some(1), None), (false, None, Some(15.0))] {
        env.step(&Actions::Discrete(vec![0]), &mut batch).unwrap();
        let seen = (batch.life_lost[0], batch.forced[0], batch.episode[0].map(|e| e.episode_return));
        assert_eq!((seen, batch.reward[0]), (expected, 1.0));
    }
}

#[test]
fn settings_that_do_not_fit_the_environment_are_refused_at_once() {
    let wrong = |dtype, config: EnvConfig| match Factory::new(random(dtype), config) {
        Err(Error::Config(message)) => message,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    };
    let plain = || EnvConfig { id: "Random".into(), ..EnvConfig::default() };
    assert!(wrong(Dtype::U8, EnvConfig { normalize_obs: true, ..plain() }).contains("normalize_obs"));
    assert!(wrong(Dtype::F32, EnvConfig { max_pool: true, ..plain() }).contains("max_pool"));
    assert!(wrong(Dtype::F32, EnvConfig { resize: vec![2, 2], ..plain() }).contains("resize"));
    assert!(wrong(Dtype::U8, EnvConfig { resize: vec![84, 84], ..plain() }).contains("84 × 84"));
}

#[test]
fn running_statistics_are_restored_through_all_wrappers() {
    let config = EnvConfig { normalize_obs: true, normalize_reward: true, clip_reward: Clip::Clamp, ..everything() };
    let config = EnvConfig { max_pool: false, resize: vec![], ..config };
    let factory = Factory::new(random(Dtype::F32), config).unwrap();
    let mut env = factory.vec(&[1, 2, 3]).unwrap();
    let mut batch = StepBatch::new(factory.spec(), 3);
    env.reset(&mut batch).unwrap();
    record(env.as_mut(), &mut batch, 0, 50);
    let statistics = env.save_statistics().expect("normalization has statistics");

    let mut evaluation = factory.vec(&[4, 5, 6]).unwrap();
    evaluation.load_statistics(&statistics, true).unwrap();
    evaluation.reset(&mut batch).unwrap();
    record(evaluation.as_mut(), &mut batch, 0, 50);
    assert_eq!(evaluation.save_statistics(), Some(statistics.clone()), "frozen");
    evaluation.load_statistics(&statistics, false).unwrap();
    record(evaluation.as_mut(), &mut batch, 50, 51);
    assert_ne!(evaluation.save_statistics(), Some(statistics), "not frozen");
    assert!(evaluation.load_statistics(&serde_json::json!({"own": 1}), true).is_err());

    let plain = Factory::new(random(Dtype::F32), EnvConfig { id: "Random".into(), ..EnvConfig::default() }).unwrap();
    assert_eq!(plain.vec(&[1]).unwrap().save_statistics(), None, "no wrapper has statistics");
}

#[test]
fn a_state_of_other_settings_is_refused() {
    let factory = |config| Factory::new(random(Dtype::U8), config).unwrap();
    let mut env = factory(everything()).vec(&[1, 2, 3]).unwrap();
    env.reset(&mut StepBatch::new(&env.spec().clone(), 3)).unwrap();
    let state = env.save_state().unwrap().unwrap();
    for other in [
        EnvConfig { repeat_action_probability: 0.0, ..everything() },
        EnvConfig { fire_on_life_loss: false, ..everything() },
        EnvConfig { max_pool: false, ..everything() },
        EnvConfig { normalize_reward: false, ..everything() },
    ] {
        let what = format!("{other:?}");
        let mut other = factory(other).vec(&[1, 2, 3]).unwrap();
        assert!(matches!(other.load_state(&state), Err(Error::Env { .. })), "{what}");
    }
    assert!(factory(everything()).vec(&[1, 2]).unwrap().load_state(&state).is_err(), "another number");
}

/// Observes its action, after refusing one outside its Box, and returns a fixed reward.
struct Strict(EnvSpec, f32);

impl Env for Strict {
    fn spec(&self) -> &EnvSpec {
        &self.0
    }
    fn reset(&mut self, _seed: Option<u64>, mut obs: ObsMut<'_>) -> Result<Step> {
        obs.f32().fill(0.0);
        Ok(Step::default())
    }
    fn step(&mut self, action: Action<'_>, mut obs: ObsMut<'_>) -> Result<Step> {
        action.check(&self.0.actions)?;
        let Action::Continuous(values) = action else { panic!("checked") };
        obs.f32().copy_from_slice(values);
        Ok(Step { reward: self.1, ..Step::default() })
    }
}

/// `Strict` environments with a Box of 5 to 35 and this reward.
fn strict(reward: f32, config: EnvConfig) -> Result<Factory> {
    let actions = ActionSpace::Box { low: vec![5.0], high: vec![35.0] };
    let spec = EnvSpec::new("Strict", &[1], Dtype::F32, actions);
    Factory::new(Arc::new(playfield_core::env::source(move |_| Ok(Strict(spec.clone(), reward)))), config)
}

#[test]
fn an_environment_in_rust_receives_actions_inside_its_box() {
    for config in [
        EnvConfig::default(),
        EnvConfig { num_threads: 2, repeat_action_probability: 0.5, frame_skip: 2, ..EnvConfig::default() },
    ] {
        let sticky = config.repeat_action_probability > 0.0;
        let mut env = strict(0.0, config).unwrap().vec(&[1, 2]).unwrap();
        let mut batch = StepBatch::new(env.spec(), 2);
        env.reset(&mut batch).unwrap();
        for (chosen, executed) in [(-4.81, 5.0), (0.5, 27.5), (4.81, 35.0)] {
            env.step(&Actions::Continuous { values: vec![chosen; 2], dim: 1 }, &mut batch).unwrap();
            let seen = batch.obs.as_ref().f32();
            assert!(seen.iter().all(|s| *s == executed || sticky), "{seen:?}");
        }
        assert!(env.send(&Actions::Continuous { values: vec![0.0, f32::NAN], dim: 1 }).is_err());
        assert!(env.send(&Actions::Continuous { values: vec![0.0], dim: 1 }).is_err());
    }
}

#[test]
fn an_environment_in_rust_must_return_finite_values() {
    let reward = |reward, config| {
        let mut env = strict(reward, config).unwrap().vec(&[1, 2]).unwrap();
        let mut batch = StepBatch::new(env.spec(), 2);
        env.reset(&mut batch).unwrap();
        env.step(&Actions::Continuous { values: vec![0.0; 2], dim: 1 }, &mut batch).map(|()| batch.reward[0])
    };
    let plain = EnvConfig::default;
    let clipped = || EnvConfig { clip_reward: Clip::Clamp, ..plain() };
    let message = reward(f32::NAN, plain()).unwrap_err().to_string();
    assert!(message.starts_with("Strict: environment 0: its reward is NaN"), "{message}");
    assert!(reward(f32::NEG_INFINITY, plain()).is_err());
    assert_eq!(reward(f32::NEG_INFINITY, clipped()).unwrap(), -1.0);
    assert!(reward(f32::INFINITY, EnvConfig { normalize_reward: true, ..clipped() }).is_err());
}

#[test]
fn an_observation_without_elements_is_refused() {
    let make = |_: &EnvConfig| Ok(Script::frames(&[0], vec![vec![]]));
    let message = Factory::new(Arc::new(playfield_core::env::source(make)), EnvConfig::default()).err().unwrap();
    assert!(message.to_string().contains("have no elements"), "{message}");
}

/// A source's own batch.
struct Native(EnvSpec, usize);

impl VecEnv for Native {
    fn spec(&self) -> &EnvSpec {
        &self.0
    }
    fn num_envs(&self) -> usize {
        self.1
    }
    fn reset(&mut self, batch: &mut StepBatch) -> Result<()> {
        batch.clear();
        Ok(())
    }
    fn send(&mut self, _actions: &Actions) -> Result<()> {
        Ok(())
    }
    fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
        (0..self.1).for_each(|i| batch.set(i, Step { reward: 7.0, life_lost: true, ..Step::default() }));
        Ok(())
    }
    fn load_state(&mut self, _state: &State) -> Result<()> {
        Ok(())
    }
}

/// Has a batch that implements these settings.
struct NativeSource(&'static [&'static str]);

impl EnvSource for NativeSource {
    fn env(&self, _config: &EnvConfig) -> Result<Box<dyn Env>> {
        Ok(Box::new(Random::new(Dtype::U8)))
    }
    fn batch_settings(&self) -> &'static [&'static str] {
        self.0
    }
    fn batch(&self, _config: &EnvConfig, seeds: &[u64]) -> Result<Option<Box<dyn VecEnv>>> {
        Ok(Some(Box::new(Native(Random::new(Dtype::U8).spec().clone(), seeds.len()))))
    }
}

const FRAME_SETTINGS: [&str; 7] =
    ["frame_skip", "max_pool", "resize", "noop_max", "fire_reset", "repeat_action_probability", "max_episode_steps"];

#[test]
fn a_source_s_own_batch_is_used_where_it_implements_every_setting() {
    let config = EnvConfig { normalize_reward: false, ..everything() };
    for missing in FRAME_SETTINGS {
        let settings: Vec<_> = FRAME_SETTINGS.into_iter().filter(|key| *key != missing).collect();
        let factory = Factory::new(Arc::new(NativeSource(settings.leak())), config.clone()).unwrap();
        assert_eq!(factory.spec().shape, [3, 3], "without {missing} wrappers resize");
    }
    let factory = Factory::new(Arc::new(NativeSource(&FRAME_SETTINGS)), config).unwrap();
    assert_eq!((factory.spec().shape.as_slice(), factory.spec().frame_stack), (&[6, 4][..], 4));
    let mut env = factory.vec(&[1, 2]).unwrap();
    let mut batch = StepBatch::new(factory.spec(), 2);
    env.reset(&mut batch).unwrap();
    for forced in [None, Some(1)] {
        env.step(&Actions::Discrete(vec![0, 2]), &mut batch).unwrap();
        assert_eq!((&batch.reward, &batch.forced), (&vec![1.0; 2], &vec![forced; 2]));
        assert_eq!(batch.life_lost, [true; 2]);
    }
    assert_eq!(env.save_state().unwrap(), None, "its state cannot be saved");
}
