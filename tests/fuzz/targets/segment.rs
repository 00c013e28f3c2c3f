//! The frames of a replay buffer from a segment of any bytes, at any positions: the frames, a warning or an error, and no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use playfield_core::{ActionSpace, Actions, Dtype, EnvSpec, Snapshot, StepBatch};
use playfield_replay::{ReplayBuffer, ReplayConfig, Segments, Transitions};
use std::fs;
use std::sync::LazyLock;

fn spec() -> EnvSpec {
    EnvSpec::new("t", &[2], Dtype::U8, ActionSpace::Discrete { n: 3 }).with_frame_stack(2)
}

fn buffer() -> ReplayBuffer {
    ReplayBuffer::new(&spec(), 2, ReplayConfig { capacity: 24, n_step: 1, gamma: 0.9, compress: false }).unwrap()
}

/// A folder with the segment of a buffer, its snapshot, and the segments' list.
static SAVED: LazyLock<(tempfile::TempDir, Snapshot, Segments)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let (mut buffer, mut batch) = (buffer(), StepBatch::new(&spec(), 2));
    buffer.reset(&batch);
    for _ in 0..20 {
        batch.clear();
        buffer.push(&Actions::Discrete(vec![1, 2]), &batch);
    }
    let (mut segments, mut snapshot) = (Segments::new(dir.path()), Snapshot::default());
    segments.append(&buffer).unwrap();
    buffer.save(&mut snapshot);
    (dir, snapshot, segments)
});

// The input: four signed bytes that move the positions of the segment, and its bytes.
fuzz_target!(|bytes: &[u8]| {
    let Some((moves, content)) = bytes.split_first_chunk::<4>() else { return };
    let (dir, snapshot, segments) = &*SAVED;
    let mut list = segments.list().to_vec();
    let segment = list.last_mut().unwrap();
    fs::write(dir.path().join(&segment.file), content).unwrap();
    let all = segment.from.iter_mut().chain(&mut segment.to);
    all.zip(moves).for_each(|(position, &by)| *position = position.wrapping_add_signed((by as i8).into()));
    let mut restored = buffer();
    restored.load(snapshot).unwrap();
    if Segments::new(dir.path()).restore(&mut restored, list).is_ok() {
        let indices: Vec<usize> = (0..24).filter(|&i| restored.contains(i)).collect();
        assert_eq!(indices.len(), restored.len());
        restored.gather(&indices, &mut Transitions::new(&spec(), indices.len()));
    }
});
