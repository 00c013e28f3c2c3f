//! What a replay buffer and a prioritized sampler restore from a snapshot with any state: an error, or something that can be sampled
//! from, and no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use playfield_core::normalize::Moments;
use playfield_core::rng::{Rng, stream};
use playfield_core::{ActionSpace, Actions, Array, Dtype, EnvSpec, Snapshot, StepBatch};
use playfield_replay::prioritized::PriorityKind;
use playfield_replay::{Prioritized, PriorityConfig, ReplayBuffer, ReplayConfig, Transitions};
use std::sync::LazyLock;

const CAPACITY: usize = 12;

fn spec() -> EnvSpec {
    EnvSpec::new("t", &[1], Dtype::U8, ActionSpace::Discrete { n: 3 }).with_frame_stack(2)
}

fn buffer() -> ReplayBuffer {
    let config = ReplayConfig { capacity: CAPACITY, n_step: 2, gamma: 0.9, compress: false };
    ReplayBuffer::new(&spec(), 1, config).unwrap()
}

fn sampler(by: PriorityKind) -> Prioritized {
    Prioritized::new(PriorityConfig { by, ..PriorityConfig::default() }, CAPACITY).unwrap()
}

/// A valid snapshot of a buffer and of a sampler by rank.
static SAVED: LazyLock<Snapshot> = LazyLock::new(|| {
    let (mut buffer, mut p, mut batch) = (buffer(), sampler(PriorityKind::Rank), StepBatch::new(&spec(), 1));
    p.apply(buffer.reset(&batch));
    for _ in 0..9 {
        batch.clear();
        p.apply(buffer.push(&Actions::Discrete(vec![1]), &batch));
    }
    let mut snapshot = Snapshot::default();
    buffer.save(&mut snapshot);
    p.save(&mut snapshot);
    snapshot
});

// The input: a byte that selects an array, bytes that replace those of its elements, a byte 0xFF, and the state as JSON.
fuzz_target!(|bytes: &[u8]| {
    let mut snapshot = SAVED.clone();
    let cut = bytes.iter().position(|&byte| byte == 0xFF).unwrap_or(bytes.len());
    let (elements, state) = (&bytes[..cut], bytes.get(cut + 1..).unwrap_or_default());
    if let Ok(serde_json::Value::Object(state)) = serde_json::from_slice(state) {
        snapshot.state.extend(state);
    }
    if let Some((&which, values)) = elements.split_first() {
        let key = snapshot.arrays.keys().nth(usize::from(which) % snapshot.arrays.len()).unwrap().clone();
        let n = [values.len()];
        let small: Vec<u64> = values.iter().map(|&byte| byte.into()).collect();
        let array = match key.as_str() {
            "replay.actions" => Array::new(&n, &values.iter().map(|&b| i32::from(b as i8)).collect::<Vec<_>>()),
            "replay.rewards" => Array::new(&n, &values.iter().map(|&b| f32::from(b as i8)).collect::<Vec<_>>()),
            "replay.flags" => Array::new(&n, values),
            "priorities.values" => Array::new(&n, &values.iter().map(|&b| f64::from(b as i8)).collect::<Vec<_>>()),
            _ => Array::new(&n, &small),
        };
        snapshot.arrays.insert(key, array);
    }
    let mut replay = buffer();
    if replay.load(&snapshot).is_ok() {
        let indices: Vec<usize> = (0..CAPACITY).filter(|&i| replay.contains(i)).collect();
        assert_eq!(indices.len(), replay.len());
        replay.gather(&indices, &mut Transitions::new(&spec(), indices.len()));
        replay.push(&Actions::Discrete(vec![0]), &StepBatch::new(&spec(), 1));
    }
    for by in [PriorityKind::Rank, PriorityKind::Error] {
        let mut p = sampler(by);
        if p.load(&snapshot).is_ok() && !p.is_empty() {
            let (mut indices, mut weights) = ([0; 8], [0.0; 8]);
            p.sample(&mut stream(1, "samples"), 0.5, &mut indices, &mut weights);
            assert!(indices.iter().all(|i| p.items().contains(i)), "{indices:?}");
            p.update(&indices, &[1.0; 8]).unwrap();
        }
    }
    let _ =
        (snapshot.get::<Rng>("rng").is_ok(), snapshot.get::<Moments>("moments").map(|m| m.is_like(&Moments::new(2))));
});
