//! Every key of `[env]` with every kind of environment: the setting changes the environment, or creating it is an error that
//! names the key. No setting is silently ignored.
#![cfg(target_os = "linux")]

mod common;

use common::{python, sample_actions};
use playfield_core::{
    Action, ActionSpace, Dtype, Env, EnvConfig, EnvFactory, EnvSource, EnvSpec, ObsMut, Result, Step, StepBatch, rng,
};
use playfield_gymnasium::{AtariSource, GymSource};
use playfield_wrappers::Factory;
use std::collections::HashMap;
use std::sync::Arc;

/// A user's environment in Rust: `u8[2, 2]` frames that count steps, with the action NOOP, and a constructor without settings.
struct Custom(EnvSpec, u8);

impl Custom {
    fn new(config: &EnvConfig) -> Result<Self> {
        config.refuse_kwargs()?;
        let spec = EnvSpec::new("Custom", &[2, 2], Dtype::U8, ActionSpace::Discrete { n: 2 });
        Ok(Self(spec.with_action_names(["NOOP", "UP"]), 0))
    }
}

impl Env for Custom {
    fn spec(&self) -> &EnvSpec {
        &self.0
    }
    fn reset(&mut self, _seed: Option<u64>, mut obs: ObsMut<'_>) -> Result<Step> {
        self.1 = 0;
        obs.u8().fill(0);
        Ok(Step::default())
    }
    fn step(&mut self, action: Action<'_>, mut obs: ObsMut<'_>) -> Result<Step> {
        self.1 = self.1.wrapping_add(1);
        // Odd steps are brighter, so that the maximum of two frames differs from the last.
        let pixel = if self.1 % 2 == 1 { 200 } else { self.1 };
        obs.u8().copy_from_slice(&[pixel, self.1, u8::from(action == Action::Discrete(1)), 0]);
        Ok(Step { reward: 2.0, life_lost: self.1.is_multiple_of(5), ..Step::default() })
    }
}

/// The kinds of environments, with settings that select the implementation.
const KINDS: [&str; 7] = [
    "classic vectors",
    "classic frames",
    "custom",
    "gymnasium batch",
    "gymnasium wrapped",
    "atari batch",
    "atari wrapped",
];

fn kind(name: &str) -> (Arc<dyn EnvSource>, &'static str, &'static str) {
    let classic = |id| playfield_classic::sources().into_iter().find(|source| source.0 == id).unwrap().2;
    match name {
        "classic vectors" => (classic("CartPole"), "CartPole", ""),
        "classic frames" => (classic("Catch"), "Catch", ""),
        "custom" => (Arc::new(playfield_core::env::source(Custom::new)), "Custom", ""),
        "gymnasium batch" => (Arc::new(GymSource::new("tiny:Flicker-v0")), "tiny:Flicker-v0", ""),
        "gymnasium wrapped" => (Arc::new(GymSource::new("tiny:Flicker-v0")), "tiny:Flicker-v0", "frame_skip = 2"),
        "atari batch" => (Arc::new(AtariSource::new("ALE/Breakout-v5")), "ALE/Breakout-v5", ""),
        "atari wrapped" => (Arc::new(AtariSource::new("ALE/Breakout-v5")), "ALE/Breakout-v5", "kwargs = { mode = 0 }"),
        _ => unreachable!(),
    }
}

/// Each key with a value (`false` where the source's default is `true`), and the expectation for each of [`KINDS`]: `+` the
/// setting changes the environment, `!` it is an error that names the key, `=` it has no effect, for the reason given.
const KEYS: [(&str, &str, &str, &str); 22] = [
    ("id", "", "=======", "selects the source"),
    ("num_envs", "", "=======", "the number of seeds: the caller's"),
    ("num_threads", "2", "=======", "the largest number of threads; results do not depend on it"),
    ("vectorization", "'async'", "!!!++!!", ""),
    (
        "step_timeout_seconds",
        "100.0",
        "=====+=",
        "no step takes that long; without ALE's own batch, Atari games draw other no-ops",
    ),
    ("on_failure", "'restart'\nvectorization = 'async'", "!!!==!!", "nothing fails"),
    ("frame_stack", "3", "+++++++", ""),
    ("frame_skip", "3", "+++++++", ""),
    // With a frame skip: the maximum of a single frame is that frame.
    ("max_pool", "true\nframe_skip = 2", "!++++++", ""),
    ("resize", "[1, 2]", "!++++++", ""),
    ("noop_max", "9", "!++!!++", ""),
    ("fire_reset", "true", "!!!!!++", ""),
    ("fire_on_life_loss", "true", "!!!!!++", ""),
    ("episodic_life", "true", "==+++++", "no lives in CartPole and Catch"),
    ("repeat_action_probability", "0.5", "+++++++", ""),
    ("full_action_space", "true", "!!!!!++", ""),
    ("max_episode_steps", "5", "+++++++", ""),
    ("clip_reward", "'sign'", "==+++==", "rewards of CartPole, Catch and Breakout's lowest bricks are −1, 0 and 1"),
    ("normalize_obs", "true", "+!!!!!!", ""),
    ("normalize_reward", "true", "+++++++", ""),
    (
        "normalize_gamma",
        "0.5\nnormalize_reward = true",
        "+=+++++",
        "only the last reward of an episode of Catch is not 0",
    ),
    ("kwargs", "{ unknown = 1 }", "!!!!!!!", ""),
];

/// Everything observable of an environment: its spec, the results of some steps, and its child processes; or the error.
fn observe(kind_name: &str, settings: &str) -> std::result::Result<(EnvSpec, Vec<StepBatch>, usize), String> {
    let (source, id, base) = kind(kind_name);
    let mut table = toml::Table::new();
    // Settings of a later line replace those of an earlier one.
    for line in base.lines().chain(settings.lines()) {
        table.extend(line.parse::<toml::Table>().unwrap());
    }
    table.insert("id".into(), id.into());
    let config = EnvConfig::resolve(&table, source.defaults()).map_err(|e| e.to_string())?;
    let factory = Factory::new(source, config).map_err(|e| e.to_string())?;
    let mut env = factory.vec(&[1, 2]).map_err(|e| e.to_string())?;
    let mut batch = StepBatch::new(env.spec(), 2);
    env.reset(&mut batch).map_err(|e| e.to_string())?;
    let mut batches = vec![batch.clone()];
    let mut random = rng::stream(1, "actions");
    for _ in 0..if id.starts_with("ALE/") { 250 } else { 60 } {
        env.step(&sample_actions(env.spec(), 2, &mut random), &mut batch).map_err(|e| e.to_string())?;
        batches.push(batch.clone());
    }
    Ok((env.spec().clone(), batches, children()))
}

/// The number of child processes of environments: those below Python's fork server.
fn children() -> usize {
    let parent_of = |id: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        (fields[0] != "Z").then(|| fields[1].parse().ok())?
    };
    let ids = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|&id| parent_of(id).and_then(parent_of) == Some(std::process::id())).count()
}

#[test]
fn every_setting_is_implemented_or_refused() {
    python();
    let keys = toml::Table::try_from(EnvConfig::default()).unwrap();
    let listed: Vec<_> = KEYS.iter().map(|(key, ..)| *key).collect();
    assert!(keys.keys().all(|key| listed.contains(&key.as_str())), "a key of [env] is not listed: {keys}");
    assert_eq!(keys.len(), listed.len());

    let mut wrong = Vec::new();
    for (column, name) in KINDS.into_iter().enumerate() {
        let mut baselines = HashMap::new();
        for (key, value, expected, reason) in KEYS.into_iter().filter(|(_, value, ..)| !value.is_empty()) {
            // Other keys of the value are part of the baseline.
            let (mut first, rest) = value.split_once('\n').unwrap_or((value, ""));
            if first == "true" && kind(name).0.defaults().get(key) == Some(&true.into()) {
                first = "false";
            }
            let baseline = baselines.entry(rest).or_insert_with(|| observe(name, rest));
            let with_key = observe(name, &format!("{rest}\n{key} = {first}"));
            let found = match &with_key {
                Ok(with_key) if baseline.as_ref() == Ok(with_key) => '=',
                Ok(_) => '+',
                Err(message)
                    if message.contains(&format!("`{key}`")) || key == "kwargs" && message.contains("unknown") =>
                {
                    '!'
                }
                Err(_) => '?',
            };
            let expected = expected.as_bytes()[column] as char;
            assert!(expected != '=' || !reason.is_empty(), "{key}: no effect without a reason");
            if found != expected {
                wrong.push(format!("{name}: {key}: found {found}, not {expected}: {:?}", with_key.err()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
