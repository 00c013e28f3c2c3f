//! The replay buffer of a run: what is sampled from it, and how it is saved.

use playfield_collect::Experience;
use playfield_core::{ActionSpace, Actions, Array, Dtype, EnvSpec, Obs, Persist as _, Snapshot};
use playfield_dqn::learner::Learner;
use playfield_dqn::replay::Replay;
use playfield_dqn::{Config, Loss};
use playfield_nn::config::{Kernels, Precision, TorsoKind};
use playfield_nn::{DeviceFrames, NetworkConfig};
use playfield_replay::{ReplayBuffer, ReplayConfig, Transitions};
use std::fs;
use std::path::Path;
use tch::Device;

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

/// Frames of 36 × 36, with random bytes: most steps continue an episode, some end or truncate it, or lose a life.
fn frames_step(spec: &EnvSpec, n: usize, t: usize) -> Experience {
    let mut step = Experience::new(spec, n);
    let byte = |i: usize| (t * 31 + i * 17 + (i * t) % 13) as u8;
    step.batch.clear();
    step.batch.obs = Obs::U8((0..n * spec.frame_len()).map(byte).collect());
    step.batch.final_obs = Obs::U8((0..n * spec.frame_len()).map(|i| byte(i + 5)).collect());
    step.actions = Actions::Discrete((0..n).map(|env| ((t + env) % 3) as i64).collect());
    for env in 0..n {
        step.batch.reward[env] = ((t + env) % 5) as f32 - 2.0;
        step.batch.terminated[env] = (t + 3 * env) % 11 == 10;
        step.batch.truncated[env] = (t + 3 * env) % 17 == 16;
        step.batch.life_lost[env] = (t + env) % 7 == 6;
    }
    step
}

fn frames_spec() -> EnvSpec {
    EnvSpec { frame_stack: 4, ..EnvSpec::new("t", &[36, 36], Dtype::U8, ActionSpace::Discrete { n: 3 }) }
}

/// Every transition of a ring that has wrapped around, plain and compressed, one step and three.
#[test]
fn a_copy_of_the_frames_gives_the_same_samples() {
    let (spec, envs) = (frames_spec(), 2);
    for (compress, n_step) in [(false, 1), (true, 3)] {
        let config = ReplayConfig { capacity: 60, n_step, gamma: 0.9, compress };
        let mut buffer = ReplayBuffer::new(&spec, envs, config).unwrap();
        let mut copy = DeviceFrames::new(&spec, buffer.capacity(), Device::Cpu).unwrap().unwrap();
        let mut send = |buffer: &ReplayBuffer| {
            let (slots, mut bytes) = (&buffer.changes().written, Vec::new());
            slots.iter().for_each(|&slot| buffer.copy_frame(slot, &mut bytes));
            copy.write(slots, &bytes);
        };
        buffer.reset(&frames_step(&spec, envs, 0).batch);
        send(&buffer);
        for t in 0..80 {
            let step = frames_step(&spec, envs, t);
            buffer.push(&step.actions, &step.batch);
            send(&buffer);
        }
        let indices: Vec<_> = (0..buffer.capacity()).filter(|&index| buffer.contains(index)).collect();
        assert!(indices.len() > 40);
        let [mut whole, mut steps] = [(); 2].map(|()| Transitions::new(&spec, indices.len()));
        buffer.gather(&indices, &mut whole);
        buffer.gather_steps(&indices, None, &mut steps);
        let stacked = buffer.frame_slots(&indices).map(|slots| copy.stacked(&slots, spec.frame_stack));
        for (stacked, expected) in stacked.iter().zip([&whole.s_tm1, &whole.s_t]) {
            assert_eq!(stacked.size(), [indices.len() as i64, 36, 36, 4]);
            assert_eq!(Vec::<u8>::try_from(stacked.flatten(0, -1)).unwrap(), expected.as_ref().u8());
        }
        assert_eq!(Transitions { s_tm1: whole.s_tm1.clone(), s_t: whole.s_t.clone(), ..steps }, whole);
    }
    assert!(DeviceFrames::new(&self::spec(), 10, Device::Cpu).unwrap().is_none(), "vectors are no frames");
}

/// Updates from a copy of the frames are those from the buffer, bit for bit, after a resume, too.
#[test]
fn updates_from_a_copy_are_those_from_the_buffer() {
    let (spec, dir) = (frames_spec(), tempfile::tempdir().unwrap());
    let network = NetworkConfig {
        torso: TorsoKind::Small,
        precision: Precision::Fp32,
        kernels: Kernels::Libtorch,
        ..NetworkConfig::default()
    };
    let config = Config { network, buffer_size: 300, ..config(true) };
    let new = |copied: bool, seed| {
        let mut replay = Replay::new(&config, &spec, 2, seed, Some(dir.path())).unwrap();
        if copied {
            replay.copy_frames_to(&spec, Device::Cpu).unwrap();
        }
        replay
    };
    let learner = || Learner::new(config.clone(), &spec, 1).unwrap();
    let train = |replay: &mut Replay, learner: &mut Learner, from: usize| -> Vec<_> {
        let push_and_train = |t: usize| {
            replay.push(&frames_step(&spec, 2, t));
            (t % 4 == 3).then(|| replay.train(learner, (0.5, 1e-3), None).unwrap())
        };
        (from..from + 200).filter_map(push_and_train).collect()
    };
    let mut results = Vec::new();
    for copied in [false, true] {
        let (mut replay, mut learner) = (new(copied, 3), learner());
        replay.reset(&frames_step(&spec, 2, 0).batch);
        let mut losses = train(&mut replay, &mut learner, 0);
        let mut saved = Snapshot::default();
        replay.save(&mut saved).unwrap();
        let mut resumed = new(copied, 4);
        assert!(resumed.load(&saved).unwrap().is_empty());
        losses.extend(train(&mut resumed, &mut learner, 200));
        results.push(losses);
        fs::remove_dir_all(dir.path().join("replay")).unwrap();
    }
    assert!(results[0].len() == 100 && results[0].windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(results[0], results[1]);
}
