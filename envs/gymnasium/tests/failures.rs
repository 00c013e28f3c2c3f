//! Environments that hang, raise, exit or crash: a time limit ends the wait, a restart continues, and no process is left.
#![cfg(target_os = "linux")]

mod common;

use common::{WAYS, config, python};
use playfield_core::{Actions, EnvFactory, Error, Obs, Result, StepBatch, VecEnv, notices};
use playfield_gymnasium::GymSource;
use playfield_wrappers::Factory;
use pyo3::prelude::*;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn failing(settings: &str, n: u64) -> Result<Box<dyn VecEnv>> {
    python();
    let id = format!("{}/tests/python/failing.py:Fails", env!("CARGO_MANIFEST_DIR"));
    let source = Arc::new(GymSource::new(id.clone()));
    let config = config(&*source, &id, settings);
    Factory::new(source, config)?.vec(&(0..n).collect::<Vec<_>>())
}

/// The processes in `log` that still run.
fn running(log: &Path) -> Vec<String> {
    let ids = std::fs::read_to_string(log).unwrap();
    let own = std::process::id().to_string();
    let state = |id: &str| std::fs::read_to_string(format!("/proc/{id}/stat"));
    let runs = |id: &&str| **id != own && state(id).is_ok_and(|stat| !stat.contains(") Z "));
    ids.lines().filter(runs).map(str::to_string).collect()
}

/// In every way of stepping, a step or a reset over the limit is an error that names the environment, and nothing waits for it.
#[test]
fn a_step_over_the_limit_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for (number, way) in WAYS.iter().enumerate() {
        for (how, during) in [("sleep", "step"), ("loop", "step"), ("sleep", "reset")] {
            let log = folder.path().join(format!("{number}-{how}-{during}"));
            let kwargs = format!("kwargs = {{ how = '{how}', during = '{during}', log = '{}' }}", log.display());
            let mut env = failing(&format!("step_timeout_seconds = 0.5\n{kwargs}\n{way}"), 3).unwrap();
            let mut batch = StepBatch::new(env.spec(), 3);
            env.reset(&mut batch).unwrap();
            env.step(&Actions::Discrete(vec![0; 3]), &mut batch).unwrap();
            let start = Instant::now();
            let error = env.step(&Actions::Discrete(vec![0, 1, 0]), &mut batch).unwrap_err();
            let Error::Env { message, .. } = &error else { panic!("{error}") };
            let expected = "environment 1: its step or reset took longer than 0.5 s (env.step_timeout_seconds)";
            assert_eq!(message, expected, "{way}, {how}, {during}");
            // Later calls fail, and return at once.
            assert!(env.step(&Actions::Discrete(vec![0; 3]), &mut batch).is_err());
            drop(env);
            assert!(start.elapsed() < Duration::from_secs(9), "{way}, {how}, {during}: {:?}", start.elapsed());
            assert_eq!(running(&log), [""; 0], "{way}, {how}, {during}");
        }
    }
}

/// With a limit that no step reaches, results are those without one.
#[test]
fn a_limit_changes_nothing_else() {
    for way in WAYS {
        let [mut with, mut without] =
            ["step_timeout_seconds = 60.0", ""].map(|limit| failing(&format!("{limit}\n{way}"), 3).unwrap());
        let mut batches = [StepBatch::new(with.spec(), 3), StepBatch::new(with.spec(), 3)];
        with.reset(&mut batches[0]).unwrap();
        without.reset(&mut batches[1]).unwrap();
        for _ in 0..12 {
            with.step(&Actions::Discrete(vec![0; 3]), &mut batches[0]).unwrap();
            without.step(&Actions::Discrete(vec![0; 3]), &mut batches[1]).unwrap();
            assert_eq!(batches[0], batches[1], "{way}");
        }
    }
}

/// A failed environment is replaced: its episode is truncated at the last observation before, with a warning for each failure,
/// and the others are not affected.
#[test]
fn a_failed_process_restarts() {
    python();
    Python::attach(|py| {
        let module = playfield_gymnasium::GymSource::new("CartPole-v1");
        // Loads the module, whose pauses are shortened.
        let _ = playfield_core::EnvSource::env(&module, &config(&module, "CartPole-v1", "")).unwrap();
        py.import("playfield_environments").unwrap().setattr("LONGEST_PAUSE", 0.01).unwrap();
    });
    let folder = tempfile::tempdir().unwrap();
    for way in [WAYS[1], WAYS[3]] {
        for (how, during, expected) in [
            ("raise", "step", "ValueError: the simulator is gone"),
            ("exit", "step", "its process died (exit code 3)"),
            ("crash", "step", "its process died (SIGSEGV)"),
            ("sleep", "step", "its step or reset took longer than 0.5 s"),
            ("raise", "reset", "ValueError: the simulator is gone"),
        ] {
            let name = format!("{way}, {how}, {during}");
            let log = folder.path().join(name.replace([' ', '\n', '\''], "-"));
            let kwargs = format!("kwargs = {{ how = '{how}', during = '{during}', log = '{}' }}", log.display());
            let settings = format!("step_timeout_seconds = 0.5\non_failure = 'restart'\n{kwargs}\n{way}");
            let mut env = failing(&settings, 3).unwrap();
            let mut batch = StepBatch::new(env.spec(), 3);
            env.reset(&mut batch).unwrap();
            for _ in 0..2 {
                env.step(&Actions::Discrete(vec![0; 3]), &mut batch).unwrap();
            }
            assert_eq!(notices::take(), [""; 0]);
            env.step(&Actions::Discrete(vec![0, 1, 0]), &mut batch).unwrap();
            let said = notices::take();
            assert_eq!(said.len(), 1, "{name}: {said:?}");
            assert!(said[0].starts_with("warning: ") && said[0].contains(expected), "{name}: {said:?}");
            assert!(said[0].contains("restart 1 of at most 10, its episode is truncated"), "{name}: {said:?}");
            assert_eq!(batch.obs, Obs::F32(vec![3.0, 0.0, 3.0]), "{name}");
            if during == "step" {
                assert_eq!(
                    (batch.truncated.clone(), batch.ended()),
                    (vec![false, true, false], vec![false, true, false])
                );
                assert_eq!(batch.final_obs_row(1).f32(), [2.0], "{name}");
                assert_eq!(batch.reward, [1.0, 0.0, 1.0], "{name}");
                let end = batch.episode[1].unwrap();
                assert_eq!((end.episode_return, end.length), (2.0, 3), "{name}");
            }
            for _ in 0..4 {
                env.step(&Actions::Discrete(vec![0; 3]), &mut batch).unwrap();
            }
            // The episode of five steps that began after the restart has had four, the others have begun another.
            assert_eq!(batch.obs, Obs::F32(vec![2.0, 4.0, 2.0]), "{name}");
            drop(env);
            assert_eq!(running(&log), [""; 0], "{name}");
        }
    }
    // The number of restarts of an environment is bounded.
    let mut env = failing("on_failure = 'restart'\nvectorization = 'async'", 2).unwrap();
    let mut batch = StepBatch::new(env.spec(), 2);
    env.reset(&mut batch).unwrap();
    for restarts in 1..=10 {
        env.step(&Actions::Discrete(vec![0, 1]), &mut batch).unwrap();
        let said = notices::take().join("\n");
        assert!(said.contains("environment 1 failed") && said.contains(&format!("restart {restarts} of")), "{said}");
    }
    let error = env.step(&Actions::Discrete(vec![0, 1]), &mut batch).unwrap_err().to_string();
    assert!(error.contains("environment 1: ValueError: the simulator is gone"), "{error}");
}

/// A restart needs a process to replace.
#[test]
fn only_a_process_can_restart() {
    python();
    let table: toml::Table = "id = 'CartPole-v1'\non_failure = 'restart'".parse().unwrap();
    let error = playfield_core::EnvConfig::resolve(&table, toml::Table::new()).unwrap_err().to_string();
    assert!(error.contains("`on_failure` = \"restart\" needs `vectorization` = \"async\""), "{error}");
}
