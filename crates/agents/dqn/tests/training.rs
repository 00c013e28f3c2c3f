//! Training on CartPole, acting and learning in turn, on two threads, and at the same time.

use playfield_core::group::{self, Group, SingleProcess};
use playfield_core::metrics::Row;
use playfield_core::run::Intervals;
use playfield_core::{Algorithm as _, Checkpoints, EnvConfig, EnvFactory as _, Result, Run, Schedule, Sink, Snapshot};
use playfield_dqn::learner::Learner;
use playfield_dqn::replay::Replay;
use playfield_dqn::worker::{LearnerHandle, Worker};
use playfield_dqn::{Config, Dqn};
use playfield_nn::NetworkConfig;
use playfield_wrappers::Factory;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};

fn factory() -> Factory {
    let (_, _, source) = playfield_classic::sources().into_iter().find(|(id, ..)| *id == "CartPole").unwrap();
    let table = toml::toml! {
        id = "CartPole"
        num_envs = 2
    };
    Factory::new(source.clone(), EnvConfig::resolve(&table, source.defaults()).unwrap()).unwrap()
}

/// Two updates after every 4 steps from step 20 on.
fn config(num_threads: usize, overlap: bool) -> Config {
    Config {
        network: NetworkConfig { hidden: vec![16], ..NetworkConfig::default() },
        learning_rate: Schedule::constant(1e-3),
        exploration_epsilon: Schedule::constant(0.3),
        buffer_size: 1_000,
        batch_size: 32,
        learning_starts: 20,
        train_interval: 4,
        gradient_steps: 2,
        target_update_interval: 8,
        prioritized: true,
        beta: Schedule::constant(0.5),
        num_threads,
        overlap,
        device: "cpu".into(),
        ..Config::default()
    }
}

/// Messages and rows of a run.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<(Vec<String>, Vec<Row>)>>);

impl Sink for Recorder {
    fn scalars(&mut self, row: &Row) -> Result<()> {
        self.0.lock().unwrap().1.push(row.clone());
        Ok(())
    }
    fn notify(&mut self, message: &str) {
        self.0.lock().unwrap().0.push(message.into());
    }
}

/// Trains to `steps` in `dir`, from the latest checkpoint if there is one, with a row every 20 steps.
fn train(config: &Config, dir: &Path, steps: u64) -> (Snapshot, Vec<String>, Vec<Row>) {
    let (checkpoints, recorder) = (Checkpoints::new(dir, 1), Recorder::default());
    let resumed = checkpoints.latest().ok().map(|loaded| loaded.snapshot);
    let intervals = Intervals { log_seconds: f64::INFINITY, log_steps: 20, ..Intervals::default() };
    let mut run = Run::new(3, steps).with_checkpoints(checkpoints, intervals).with_sink(recorder.clone());
    if let Some(snapshot) = resumed {
        run = run.with_resume(snapshot).unwrap();
    }
    Dqn::train(config, &factory(), &mut run).unwrap();
    let (messages, rows) = recorder.0.lock().unwrap().clone();
    (Checkpoints::new(dir, 1).latest().unwrap().snapshot, messages, rows)
}

fn updates(snapshot: &Snapshot) -> u64 {
    snapshot.get("optimizer.updates").unwrap()
}

/// Steps 20, 24, …, 100 are 21 times two updates, however many threads there are. While updates are made at the same time as steps, the
/// acting weights lack the two in progress.
#[test]
fn the_updates_that_are_due_are_made() {
    for (threads, overlap) in [(1, false), (2, false), (1, true), (2, true)] {
        let dir = tempfile::tempdir().unwrap();
        let (snapshot, messages, rows) = train(&config(threads, overlap), dir.path(), 100);
        assert_eq!((snapshot.step, updates(&snapshot)), (100, 42), "{threads} {overlap}");
        assert_eq!(messages[0], "replay buffer: 1,000 steps, 0.0 MB when full");
        assert!(messages.iter().all(|message| !message.contains("warning")), "{messages:?}");
        let last = rows.last().unwrap();
        let get = |tag: &str| last.get(tag).unwrap_or_else(|| panic!("no {tag}"));
        let (lag, behind) = (get("async/policy_lag"), 42.0 - get("train/n_updates"));
        assert_eq!((lag, behind), if overlap { (2.0, 2.0) } else { (0.0, 0.0) }, "{threads} {overlap}");
        assert_eq!((get("rollout/exploration_rate"), get("train/per_beta")), (0.3, 0.5));
        assert!(get("train/loss").is_finite() && get("train/q_mean").is_finite() && get("train/grad_norm") > 0.0);
        // Transitions of the last rounds have no step after them yet.
        assert!((90.0..=100.0).contains(&get("train/replay_size")), "{}", get("train/replay_size"));
        let first = rows.iter().find(|row| row.step < 20);
        assert!(first.is_none_or(|row| row.get("train/loss").is_none()), "no update before step 20");
    }
}

/// A run of 60 steps and 40 more equals one of 100: parameters, target network, priorities and random streams.
#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    for (threads, overlap) in [(1, false), (2, false)] {
        let dir = tempfile::tempdir().unwrap();
        let [whole, parts] = ["whole", "parts"].map(|name| dir.path().join(name));
        let (config, whole) = (config(threads, overlap), train(&config(threads, overlap), &whole, 100).0);
        train(&config, &parts, 60);
        let (resumed, _, rows) = train(&config, &parts, 100);
        assert_eq!(resumed.params, whole.params);
        for key in ["dqn.actor.rng", "replay.rng", "env.state", "priorities.largest"] {
            assert_eq!(resumed.state[key], whole.state[key], "{key}");
        }
        for (key, array) in &whole.arrays {
            assert_eq!(&resumed.arrays[key], array, "{key}");
        }
        assert!(rows.iter().all(|row| row.step > 60));
    }
}

/// A run that ends before learning starts says so, and makes no update.
#[test]
fn a_run_without_updates_is_announced() {
    for (learning_starts, expected) in [(99, 2), (100, 2), (101, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { learning_starts, ..config(1, false) };
        let (snapshot, messages, _) = train(&config, dir.path(), 100);
        assert_eq!(updates(&snapshot), expected, "{learning_starts}");
        let warned = messages.iter().any(|message| message.contains("no update is made: the first is due after"));
        assert_eq!(warned, expected == 0, "{messages:?}");
    }
}

/// Updates that are due before a transition can be sampled are skipped, by every thread: with returns of 5 steps, a transition of two
/// environments is complete after round 6.
#[test]
fn updates_without_a_transition_are_skipped() {
    for (threads, overlap) in [(1, false), (2, false), (1, true), (2, true)] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { learning_starts: 0, n_step: 5, ..config(threads, overlap) };
        let (snapshot, _, rows) = train(&config, dir.path(), 100);
        assert_eq!(updates(&snapshot), 46, "{threads} {overlap}");
        assert!(rows.last().unwrap().get("time/phase_learn_ms").is_some_and(|time| time > 0.0));
    }
}

/// Each save writes the frames since the last one, and removes files whose frames have all been overwritten.
#[test]
fn files_of_overwritten_frames_are_removed() {
    for overlap in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { buffer_size: 64, ..config(1, overlap) };
        for steps in [100, 200, 300, 400, 500] {
            train(&config, dir.path(), steps);
        }
        let files = std::fs::read_dir(dir.path().join("replay")).unwrap().count();
        assert!((1..=3).contains(&files), "{files} files");
    }
}

/// A panic in the worker's thread reaches the actor's as it is, and the thread has ended once its handle is dropped.
#[test]
fn the_thread_of_the_worker_ends_with_its_handle() {
    let spec = factory().spec().clone();
    let config = Dqn::resolve(&config(1, false), 100, &factory()).unwrap();
    let group: Arc<dyn Group> = Arc::new(SingleProcess);
    let start = || {
        let mut learner = Learner::new(config.clone(), &spec, 1).unwrap();
        learner.join(&group, group::Config::default()).unwrap();
        let worker = Worker::new(learner, Replay::new(&config, &spec, 2, 1, None).unwrap());
        let spare = worker.chunk(&spec, 2, 1);
        LearnerHandle::thread(worker, spare)
    };
    let mut handle = start();
    assert_eq!(handle.with(|worker| worker.learner.updates()).unwrap(), 0);
    assert!(Arc::strong_count(&group) > 1, "the worker has it");
    drop(handle);
    assert_eq!(Arc::strong_count(&group), 1);

    let mut handle = start();
    let panic = catch_unwind(AssertUnwindSafe(|| handle.with::<()>(|_| panic!("on purpose")))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
}
