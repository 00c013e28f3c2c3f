//! The replay buffer of a run: what is sampled from it, and how it is saved.

use playfield_collect::Experience;
use playfield_core::{ActionSpace, Actions, Array, Dtype, EnvSpec, Obs, Persist as _, Snapshot};
use playfield_dqn::learner::Learner;
use playfield_dqn::replay::Replay;
use playfield_dqn::{Config, Loss};
use playfield_nn::NetworkConfig;
use std::fs;
use std::path::Path;

fn spec() -> EnvSpec {
    EnvSpec::new("t", &[2], Dtype::F32, ActionSpace::Discrete { n: 3 })
}

fn config(prioritized: bool) -> Config {
    let network = NetworkConfig { hidden: vec![4], ..NetworkConfig::default() };
    let (buffer_size, batch_size) = (40, 8);
    Config {
        network,
        prioritized,
        buffer_size,
        batch_size,
        num_threads: 1,
        overlap: false,
        loss: Loss::Squared,
        device: "cpu".into(),
        ..Config::default()
    }
}

fn learner(config: &Config) -> Learner {
    Learner::new(config.clone(), &spec(), 1).unwrap()
}

/// Two environments and `steps` steps; rewards and observations differ from step to step.
fn push(replay: &mut Replay, from: usize, steps: usize) {
    let mut step = Experience::new(&spec(), 2);
    for t in from..from + steps {
        step.actions = Actions::Discrete(vec![(t % 3) as i64, ((t + 1) % 3) as i64]);
        step.batch.clear();
        step.batch.obs = Obs::F32((0..4).map(|i| ((3 * t + 5 * i) % 17) as f32 / 10.0).collect());
        step.batch.reward = vec![(t % 5) as f32 - 2.0, (t % 7) as f32 / 3.0];
        step.batch.terminated[0] = t % 9 == 8;
        step.batch.final_obs = step.batch.obs.clone();
        replay.push(&step);
    }
}

fn filled(config: &Config, dir: Option<&Path>) -> Replay {
    let mut replay = Replay::new(config, &spec(), 2, 3, dir).unwrap();
    assert!(replay.is_empty());
    replay.reset(&Experience::new(&spec(), 2).batch);
    push(&mut replay, 0, 15);
    assert!(!replay.is_empty());
    replay
}

/// Each of 30 transitions is sampled once the new ones have had the largest priority; the errors of a batch become its priorities, so
/// that the same samples have other weights later.
#[test]
fn a_batch_is_sampled_and_its_errors_become_priorities() {
    for prioritized in [false, true] {
        let config = config(prioritized);
        let (mut replay, mut learner) = (filled(&config, None), learner(&config));
        assert_eq!(replay.len(), 30);
        let losses: Vec<_> = (0..20).map(|_| replay.train(&mut learner, (0.5, 0.0), None).unwrap()).collect();
        assert!(losses.iter().all(|losses| losses.errors.len() == 8 && losses.is_finite()));
        assert!(losses.windows(2).all(|pair| pair[0] != pair[1]), "other samples each time");
        assert_eq!(learner.updates(), 20);
        let mean = |losses: &[playfield_dqn::learner::Losses]| {
            let errors = losses.iter().flat_map(|losses| &losses.errors);
            errors.map(|error| f64::from(error.abs())).sum::<f64>() / (8 * losses.len()) as f64
        };
        // Without learning, transitions with a large error are sampled more often than before only where they have priority.
        if prioritized {
            let later: Vec<_> = (0..100).map(|_| replay.train(&mut learner, (0.5, 0.0), None).unwrap()).collect();
            let mut uniform = filled(&Config { prioritized: false, ..config.clone() }, None);
            let even: Vec<_> = (0..100).map(|_| uniform.train(&mut learner, (0.5, 0.0), None).unwrap()).collect();
            assert!(mean(&later) > 1.1 * mean(&even), "{}, {}", mean(&later), mean(&even));
        }
    }
}

/// A restored buffer samples what the saved one would have, and continues to write its frames to the same folder.
#[test]
fn a_restored_buffer_continues_exactly() {
    for prioritized in [false, true] {
        let (config, dir) = (config(prioritized), tempfile::tempdir().unwrap());
        let (mut replay, mut first) = (filled(&config, Some(dir.path())), learner(&config));
        replay.train(&mut first, (0.5, 0.0), None).unwrap();
        let mut saved = Snapshot::default();
        replay.save(&mut saved).unwrap();
        replay.saved().unwrap();
        let continued = replay.train(&mut first, (0.5, 0.0), None).unwrap();

        let mut restored = Replay::new(&config, &spec(), 2, 99, Some(dir.path())).unwrap();
        assert!(restored.load(&saved).unwrap().is_empty());
        assert_eq!(restored.train(&mut first, (0.5, 0.0), None).unwrap(), continued);
        // Two more saves after the ring has been overwritten: frames that no checkpoint needs are removed.
        for k in 0..3 {
            push(&mut restored, 15 + 25 * k, 25);
            restored.save(&mut Snapshot::default()).unwrap();
            restored.saved().unwrap();
        }
        let files = fs::read_dir(dir.path().join("replay")).unwrap().count();
        assert!(files <= 3, "{files} files");

        // Without a folder nothing is saved.
        let mut nothing = Snapshot::default();
        filled(&config, None).save(&mut nothing).unwrap();
        assert!(nothing.state.is_empty() && nothing.arrays.is_empty());
    }
}

/// Priorities of transitions that the buffer lacks, or without one that it has.
#[test]
fn priorities_of_other_transitions_are_refused() {
    let (config, dir) = (config(true), tempfile::tempdir().unwrap());
    let mut saved = Snapshot::default();
    filled(&config, Some(dir.path())).save(&mut saved).unwrap();
    let load = |saved: &Snapshot| Replay::new(&config, &spec(), 2, 9, Some(dir.path())).unwrap().load(saved).map(drop);
    load(&saved).unwrap();
    let items = saved.array("priorities.items").unwrap().values::<u64>().unwrap();
    let values = saved.array("priorities.values").unwrap().values::<f64>().unwrap();
    let absent = (0..40).find(|item| !items.contains(item)).unwrap();
    let other: Vec<u64> = [absent].into_iter().chain(items[1..].iter().copied()).collect();
    for (items, values) in [(&items[1..], &values[1..]), (&other[..], &values[..])] {
        let mut damaged = saved.clone();
        damaged.arrays.insert("priorities.items".into(), Array::new(&[items.len()], items));
        damaged.arrays.insert("priorities.values".into(), Array::new(&[values.len()], values));
        let message = load(&damaged).unwrap_err().to_string();
        assert!(message.contains("of other transitions than the replay buffer's"), "{message}");
    }
}
