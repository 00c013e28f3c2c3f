//! The replay buffer against a list of everything that ever happened.

use playfield_core::normalize::Moments;
use playfield_core::rng::{Rng, stream};
use playfield_core::snapshot::Array;
use playfield_core::{ActionSpace, Actions, Dtype, EnvSpec, Normalizer, Obs, Snapshot, Step, StepBatch};
use playfield_replay::{ReplayBuffer, ReplayConfig, Segment, Segments, Transitions, uniform};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const FRAME: usize = 2;
const GAMMA: f32 = 0.5;

/// One slot of one environment, as it was written.
#[derive(Clone, Debug)]
struct Slot {
    frame: [u8; FRAME],
    episode: usize,
    /// Action, reward, and whether the discount is 0.
    action: Option<(i64, f32, bool)>,
    is_final: bool,
    ready: bool,
}

struct Oracle {
    rings: Vec<Vec<Slot>>,
    len: usize,
    frame_stack: usize,
    n_step: usize,
    episodes: usize,
}

impl Oracle {
    fn start(&mut self, env: usize, frame: [u8; FRAME]) {
        self.episodes += 1;
        self.rings[env].push(Slot { frame, episode: self.episodes, action: None, is_final: false, ready: false });
    }

    fn append(&mut self, env: usize, frame: [u8; FRAME], is_final: bool) {
        let episode = self.rings[env].last().unwrap().episode;
        self.rings[env].push(Slot { frame, episode, action: None, is_final, ready: false });
    }

    /// All transitions that can be sampled: index, environment and position.
    fn sampleable(&self) -> Vec<(usize, usize, usize)> {
        let mut all = Vec::new();
        for (env, slots) in self.rings.iter().enumerate() {
            let oldest = slots.len().saturating_sub(self.len);
            for (p, slot) in slots.iter().enumerate().skip(oldest) {
                if slot.ready && self.stack_start(env, p) >= oldest {
                    all.push((env * self.len + p % self.len, env, p));
                }
            }
        }
        all
    }

    fn stack_start(&self, env: usize, p: usize) -> usize {
        let slots = &self.rings[env];
        (p.saturating_sub(self.frame_stack - 1)..=p).find(|&q| slots[q].episode == slots[p].episode).unwrap()
    }

    fn stack(&self, env: usize, p: usize) -> Vec<u8> {
        let slots = &self.rings[env];
        let at = |back: usize, pixel: usize| match p.checked_sub(back) {
            Some(q) if slots[q].episode == slots[p].episode => slots[q].frame[pixel],
            _ => 0,
        };
        (0..FRAME).flat_map(|pixel| (0..self.frame_stack).rev().map(move |back| at(back, pixel))).collect()
    }

    /// r_t, discount_t, and the position of s_t.
    fn n_step(&self, env: usize, p: usize) -> (f32, f32, usize) {
        let slots = &self.rings[env];
        let (mut r, mut discount) = (0.0, 1.0);
        for k in 0..self.n_step {
            let (_, reward, terminal) = slots[p + k].action.unwrap();
            r += discount * reward;
            discount *= if terminal { 0.0 } else { GAMMA };
            let ended = slots[p + k + 1].is_final;
            if terminal || ended || k + 1 == self.n_step {
                return (r, discount, p + k + 1);
            }
        }
        unreachable!()
    }
}

fn spec(frame: usize, frame_stack: usize) -> EnvSpec {
    let actions = ActionSpace::Discrete { n: 9 };
    EnvSpec::new("t", &[frame], Dtype::U8, actions).with_frame_stack(frame_stack)
}

fn config(capacity: usize, n_step: usize, compress: bool) -> ReplayConfig {
    ReplayConfig { capacity, n_step, gamma: f64::from(GAMMA), compress }
}

/// `buffer` after saving and loading.
fn saved_and_restored(
    buffer: &ReplayBuffer,
    mut fresh: ReplayBuffer,
    segments: &mut Segments,
    dir: &Path,
) -> ReplayBuffer {
    let mut snapshot = Snapshot::default();
    segments.append(buffer).unwrap();
    buffer.save(&mut snapshot);
    segments.prune(buffer).unwrap();
    fresh.load(&snapshot).unwrap();
    let list = segments.list().to_vec();
    *segments = Segments::new(dir);
    segments.restore(&mut fresh, list).unwrap();
    fresh
}

/// The valid actions at a frame: those of the set bits of its first byte.
fn mask_of(frame: &[u8]) -> [bool; 9] {
    std::array::from_fn(|action| frame[0] >> (action % 8) & 1 == 1)
}

/// Writes the masks of the frames in `batch`.
fn write_masks(batch: &mut StepBatch) {
    for env in 0..batch.num_envs() {
        let masks = [batch.obs_row(env), batch.final_obs_row(env)].map(|frame| mask_of(frame.u8()));
        batch.mask_row_mut(env).copy_from_slice(&masks[0]);
        batch.final_mask_row_mut(env).copy_from_slice(&masks[1]);
    }
}

/// Executes `steps` random steps in `envs` environments, saves and loads at random, and compares after every step.
fn compare(envs: usize, len: usize, frame_stack: usize, n_step: usize, steps: usize, rng: &mut Rng) {
    let (spec, config) = (spec(FRAME, frame_stack).with_action_mask(), config(envs * len, n_step, rng.random()));
    let mut buffer = ReplayBuffer::new(&spec, envs, config).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut segments = Segments::new(dir.path());
    let mut oracle = Oracle { rings: vec![Vec::new(); envs], len, frame_stack, n_step, episodes: 0 };
    let mut batch = StepBatch::new(&spec, envs);
    let mut known = BTreeSet::new();
    // With next-step autoreset: the environments that ignore their next action.
    let mut ignores = vec![false; envs];
    let frame = |rng: &mut Rng| [rng.random_range(1..=255_u8), rng.random_range(1..=255_u8)];
    for t in 0..steps {
        batch.clear();
        let changes = if t == 0 || rng.random_range(0..60) == 0 {
            ignores.fill(false);
            for env in 0..envs {
                let f = frame(rng);
                batch.obs_row_mut(env).u8().copy_from_slice(&f);
                oracle.start(env, f);
            }
            write_masks(&mut batch);
            buffer.reset(&batch)
        } else {
            let mut sent = Vec::new();
            for (env, ignores) in ignores.iter_mut().enumerate() {
                if std::mem::take(ignores) {
                    let f = frame(rng);
                    batch.set_ignored(env);
                    batch.obs_row_mut(env).u8().copy_from_slice(&f);
                    oracle.start(env, f);
                    sent.push(0);
                    continue;
                }
                let (action, reward) = (rng.random_range(0..9), rng.random_range(-3..=3) as f32);
                let (terminated, truncated) = (rng.random_range(0..9) == 0, rng.random_range(0..9) == 0);
                let life_lost = rng.random_range(0..9) == 0;
                batch.set(env, Step { reward, terminated, truncated, life_lost });
                batch.forced[env] = (rng.random_range(0..9) == 0).then_some(7);
                sent.push(action);
                let done = batch.forced[env].unwrap_or(action);
                // A lost life in the step of a truncation is not reported: the value bootstraps from the final observation.
                let ends = terminated || (life_lost && !truncated);
                oracle.rings[env].last_mut().unwrap().action = Some((done, reward, ends));
                if terminated || truncated {
                    let f = frame(rng);
                    batch.final_obs_row_mut(env).u8().copy_from_slice(&f);
                    oracle.append(env, f, true);
                    let episode = oracle.rings[env].last().unwrap().episode;
                    let slots = oracle.rings[env].iter_mut();
                    slots.filter(|s| s.episode == episode && !s.is_final).for_each(|s| s.ready = true);
                    *ignores = rng.random_range(0..3) == 0;
                    let f = if *ignores { f } else { frame(rng) };
                    batch.obs_row_mut(env).u8().copy_from_slice(&f);
                    oracle.start(env, f);
                } else {
                    let f = frame(rng);
                    batch.obs_row_mut(env).u8().copy_from_slice(&f);
                    oracle.append(env, f, false);
                    let newest = oracle.rings[env].len() - 1;
                    let episode = oracle.rings[env][newest].episode;
                    if let Some(p) = newest.checked_sub(n_step).filter(|&p| oracle.rings[env][p].episode == episode) {
                        oracle.rings[env][p].ready = true;
                    }
                }
            }
            write_masks(&mut batch);
            buffer.push(&Actions::Discrete(sent), &batch)
        };
        for removed in &changes.removed {
            assert!(known.remove(removed), "{removed} was removed without being added");
        }
        for added in &changes.added {
            assert!(known.insert(*added), "{added} was added twice");
        }
        if rng.random_range(0..15) == 0 {
            let fresh = ReplayBuffer::new(&spec, envs, config).unwrap();
            buffer = saved_and_restored(&buffer, fresh, &mut segments, dir.path());
        }
        let expected = oracle.sampleable();
        assert_eq!(known, expected.iter().map(|(index, ..)| *index).collect(), "step {t}");
        assert_eq!(buffer.len(), expected.len());
        assert_eq!((0..buffer.capacity()).filter(|&i| buffer.contains(i)).count(), expected.len());
        let indices: Vec<usize> = expected.iter().map(|(index, ..)| *index).collect();
        let mut sampled = Transitions::new(&spec, indices.len());
        buffer.gather(&indices, &mut sampled);
        let (mut s_tm1, mut s_t) = (Vec::new(), Vec::new());
        for (row, &(_, env, p)) in expected.iter().enumerate() {
            let (r, discount, after) = oracle.n_step(env, p);
            assert_eq!((sampled.r_t[row], sampled.discount_t[row]), (r, discount), "step {t}, position {p}");
            assert_eq!(sampled.a_tm1[row], oracle.rings[env][p].action.unwrap().0);
            s_tm1.extend(oracle.stack(env, p));
            s_t.extend(oracle.stack(env, after));
            assert_eq!(sampled.mask_t[row * 9..(row + 1) * 9], mask_of(&oracle.rings[env][after].frame), "step {t}");
        }
        assert_eq!((sampled.s_tm1, sampled.s_t), (Obs::U8(s_tm1), Obs::U8(s_t)), "step {t}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn equals_a_list_of_everything(envs in 1_usize..4, frame_stack in 1_usize..5, n_step in 1_usize..5, room in 0_usize..30, seed: u64) {
        compare(envs, frame_stack + n_step + 2 + room, frame_stack, n_step, 120, &mut stream(seed, "ring"));
    }
}

/// χ² of 1000 samples per transition: all transitions are equally likely.
#[test]
fn uniform_samples_are_uniform() {
    let spec = spec(1, 2);
    let mut buffer = ReplayBuffer::new(&spec, 2, config(60, 3, false)).unwrap();
    let mut batch = StepBatch::new(&spec, 2);
    buffer.reset(&batch);
    for t in 0..100 {
        batch.clear();
        batch.set(t % 2, Step { terminated: t % 7 == 0, ..Step::default() });
        buffer.push(&Actions::Discrete(vec![0, 1]), &batch);
    }
    let (mut rng, mut counts) = (stream(1, "samples"), vec![0_u32; buffer.capacity()]);
    let samples = 1000 * buffer.len();
    let mut indices = vec![0; samples];
    uniform::sample(&buffer, &mut rng, &mut indices);
    indices.iter().for_each(|&i| counts[i] += 1);
    let chi: f64 = (0..buffer.capacity())
        .filter(|&i| buffer.contains(i))
        .map(|i| (f64::from(counts[i]) - 1000.0).powi(2) / 1000.0)
        .sum();
    let (freedom, sampled) = (buffer.len() as f64 - 1.0, counts.iter().filter(|&&c| c > 0).count());
    assert_eq!(sampled, buffer.len(), "every transition is sampled, and nothing else");
    // Wilson and Hilferty's approximation of the 0.1 % bound.
    let bound = freedom * (1.0 - 2.0 / (9.0 * freedom) + 3.09 * (2.0 / (9.0 * freedom)).sqrt()).powi(3);
    assert!(chi < bound, "χ² = {chi} over {bound} at {freedom} degrees of freedom");
}

#[test]
fn a_buffer_that_is_too_small_or_too_large_is_refused() {
    let (spec, frames) = (spec(1, 4), spec(84 * 84, 4));
    let message = ReplayBuffer::new(&spec, 8, config(71, 3, false)).unwrap_err().to_string();
    assert!(message.contains("need at least 72"), "{message}");
    assert!(ReplayBuffer::new(&spec, 8, config(72, 3, false)).is_ok());
    assert_eq!(ReplayBuffer::bytes(&frames, config(1_000_000, 1, false)), 7_065_000_000);
    let message = ReplayBuffer::new(&frames, 1, config(1 << 40, 1, false)).unwrap_err().to_string();
    assert!(message.contains("lower `buffer_size`, or set `buffer_compression` = true"), "{message}");
    let vectors = EnvSpec { dtype: Dtype::F32, ..spec };
    let message = ReplayBuffer::new(&vectors, 1, config(100, 1, true)).unwrap_err().to_string();
    assert!(message.contains("vectors cannot be compressed"), "{message}");
}

/// Vectors are restored exactly.
#[test]
fn vectors_are_saved_bit_for_bit() {
    let spec = EnvSpec { dtype: Dtype::F32, ..spec(3, 1) };
    let fresh = || ReplayBuffer::new(&spec, 1, config(20, 1, false)).unwrap();
    let (mut buffer, mut batch) = (fresh(), StepBatch::new(&spec, 1));
    buffer.reset(&batch);
    for t in 0..33 {
        batch.obs = Obs::F32(vec![t as f32, f32::MIN_POSITIVE / 2.0, -0.1]);
        buffer.push(&Actions::Discrete(vec![1]), &batch);
    }
    let dir = tempfile::tempdir().unwrap();
    let restored = saved_and_restored(&buffer, fresh(), &mut Segments::new(dir.path()), dir.path());
    let indices: Vec<_> = (0..20).filter(|&i| buffer.contains(i)).collect();
    let [mut a, mut b] = [&buffer, &restored].map(|_| Transitions::new(&spec, indices.len()));
    buffer.gather(&indices, &mut a);
    restored.gather(&indices, &mut b);
    assert_eq!(a, b);
}

/// Truncated, changed or missing: the file is named, and exactly the transitions whose observations contain one of its frames are
/// dropped; the others are as they were.
#[test]
fn transitions_of_damaged_segments_are_dropped() {
    for (frame_stack, n_step) in [(1, 1), (3, 2), (4, 1)] {
        let spec = spec(50, frame_stack);
        let fresh = |envs| ReplayBuffer::new(&spec, envs, config(40, n_step, false)).unwrap();
        let (mut buffer, mut batch, mut rng) = (fresh(1), StepBatch::new(&spec, 1), stream(1, "frames"));
        let dir = tempfile::tempdir().unwrap();
        let mut segments = Segments::new(dir.path());
        buffer.reset(&batch);
        for t in 0..30 {
            batch.obs = Obs::U8((0..50).map(|_| rng.random()).collect());
            buffer.push(&Actions::Discrete(vec![1]), &batch);
            if [10, 20, 29].contains(&t) {
                segments.append(&buffer).unwrap();
            }
        }
        let mut snapshot = Snapshot::default();
        buffer.save(&mut snapshot);
        let list = segments.list().to_vec();
        let restore = || {
            let mut buffer = fresh(1);
            buffer.load(&snapshot).unwrap();
            let lost = Segments::new(dir.path()).restore(&mut buffer, list.clone()).unwrap();
            (buffer, lost)
        };
        let sampled = |buffer: &ReplayBuffer| {
            let indices: Vec<usize> = (0..40).filter(|&i| buffer.contains(i)).collect();
            let mut transitions = Transitions::new(&spec, indices.len());
            buffer.gather(&indices, &mut transitions);
            (indices, transitions.s_tm1, transitions.s_t)
        };
        let intact = sampled(&buffer);
        assert_eq!((list.len(), restore().1, sampled(&restore().0)), (3, vec![], intact.clone()));
        for (damaged_one, segment) in list.iter().enumerate() {
            let path = dir.path().join(&segment.file);
            let whole = fs::read(&path).unwrap();
            let mut flipped = whole.clone();
            flipped[whole.len() / 2] ^= 1;
            let frames = segment.from[0] as usize..segment.to[0] as usize;
            // The transition at p stacks the frames from p − frame_stack + 1 to p + n_step.
            let needs = |p: usize| (p + 1).saturating_sub(frame_stack)..p + n_step + 1;
            let expected: Vec<usize> =
                intact.0.iter().copied().filter(|&p| !needs(p).any(|frame| frames.contains(&frame))).collect();
            let contents = [&whole[..whole.len() - 1], &whole[..whole.len() / 2], &whole[..3], &[], &flipped[..]];
            for damaged in contents.map(Some).into_iter().chain([None]) {
                match damaged {
                    Some(bytes) => fs::write(&path, bytes).unwrap(),
                    None => fs::remove_file(&path).unwrap(),
                }
                let (mut restored, lost) = restore();
                assert_eq!((lost.len(), lost[0].has_newest), (1, damaged_one == 2 && frame_stack > 1));
                assert!(lost[0].message.contains(&segment.file) && lost[0].message.contains("is damaged"));
                let mut removed = restored.changes().removed.clone();
                removed.extend(&expected);
                removed.sort_unstable();
                assert_eq!(removed, intact.0, "segment {damaged_one}");
                let (indices, s_tm1, s_t) = sampled(&restored);
                assert_eq!(indices, expected, "segment {damaged_one}");
                let row = |obs: &Obs, row: usize| obs.slice(row * spec.obs_len(), spec.obs_len()).to_obs();
                for (i, p) in indices.iter().enumerate() {
                    let before = intact.0.iter().position(|q| q == p).unwrap();
                    assert_eq!((row(&s_tm1, i), row(&s_t, i)), (row(&intact.1, before), row(&intact.2, before)));
                }
                // New episodes can be stored and sampled.
                restored.reset(&batch);
                for _ in 0..9 {
                    restored.push(&Actions::Discrete(vec![1]), &batch);
                }
                assert!(restored.len() > expected.len().saturating_sub(9));
            }
            fs::write(&path, &whole).unwrap();
        }
        let message = fresh(2).load(&snapshot).unwrap_err().to_string();
        assert!(message.contains("of another buffer size or environment"), "{message}");
    }
}

/// The buffer stores raw values. Each sample is normalized by the current statistics: every reward is normalized and clipped
/// before the n-step return is summed.
#[test]
fn transitions_are_normalized_when_they_are_sampled() {
    let actions = ActionSpace::Discrete { n: 2 };
    let spec = EnvSpec::new("t", &[2], Dtype::F32, actions).with_frame_stack(2);
    let config = ReplayConfig { capacity: 20, n_step: 2, gamma: 0.5, compress: false };
    let mut buffer = ReplayBuffer::new(&spec, 1, config).unwrap();
    let mut batch = StepBatch::new(&spec, 1);
    batch.obs = Obs::F32(vec![1.0, 10.0]);
    buffer.reset(&batch);
    for (frame, reward) in [([2.0, 20.0], 4.0), ([3.0, 30.0], 1000.0)] {
        batch.obs = Obs::F32(frame.to_vec());
        batch.reward = vec![reward];
        buffer.push(&Actions::Discrete(vec![1]), &batch);
    }
    let moments = |rows: &[f64], len| {
        let mut moments = Moments::new(len);
        moments.update(rows);
        moments
    };
    for (returns, observations) in
        [(vec![-2.0, 2.0], vec![1.0, 10.0, 3.0, 30.0]), (vec![-50.0, 50.0], vec![0.0, 0.0, 8.0, 2.0])]
    {
        let normalizer =
            Normalizer { observations: Some(moments(&observations, 2)), returns: Some(moments(&returns, 1)) };
        let mut sampled = Transitions::new(&spec, 1);
        buffer.gather_normalized(&[0], Some(&normalizer), &mut sampled);
        let expected = normalizer.reward(4.0) + 0.5 * normalizer.reward(1000.0);
        assert!((sampled.r_t[0] - expected).abs() < 1e-6);
        // Frames are stacked along the last axis, oldest first; zeros precede the first frame of an episode.
        let normalized = |mut values: Vec<f32>| {
            normalizer.observations(&mut values, 2);
            Obs::F32(values)
        };
        assert_eq!(sampled.s_tm1, normalized(vec![0.0, 1.0, 0.0, 10.0]));
        assert_eq!(sampled.s_t, normalized(vec![2.0, 3.0, 20.0, 30.0]));
    }
    let mut raw = Transitions::new(&spec, 1);
    buffer.gather(&[0], &mut raw);
    assert_eq!((raw.r_t[0], raw.s_tm1), (504.0, Obs::F32(vec![0.0, 1.0, 0.0, 10.0])));
}

/// A frame of 2 bytes, an action of 4, a reward of 4, a byte of flags, and a mask of 9 actions, in 20 slots.
#[test]
fn the_memory_of_a_buffer_by_hand() {
    let masked = spec(FRAME, 1).with_action_mask();
    let plain = ReplayBuffer::new(&masked, 2, config(20, 1, false)).unwrap();
    assert_eq!((plain.resident_bytes(), ReplayBuffer::bytes(&masked, config(20, 1, false))), (400, 400));
    let vectors = EnvSpec { dtype: Dtype::F32, ..spec(3, 1) };
    assert_eq!(ReplayBuffer::bytes(&vectors, config(20, 1, false)), 20 * (3 * 4 + 9));
    // Compressed: a sixth of 60 bytes is assumed. An empty block is a pointer and a length; those of the frames come on top.
    let spec = spec(60, 1);
    assert_eq!(ReplayBuffer::bytes(&spec, config(20, 1, true)), 20 * (10 + 9));
    let mut compressed = ReplayBuffer::new(&spec, 1, config(20, 1, true)).unwrap();
    assert_eq!(compressed.resident_bytes(), 20 * (16 + 9));
    compressed.reset(&StepBatch::new(&spec, 1));
    assert!(
        (20 * (16 + 9) + 1..20 * (16 + 9) + 60).contains(&compressed.resident_bytes()),
        "60 zeros need fewer bytes"
    );
}

#[test]
fn a_buffer_is_empty_until_a_transition_can_be_sampled() {
    let spec = spec(1, 1);
    let (mut buffer, mut batch) =
        (ReplayBuffer::new(&spec, 1, config(20, 2, false)).unwrap(), StepBatch::new(&spec, 1));
    buffer.reset(&batch);
    let mut empty = Vec::new();
    for _ in 0..3 {
        empty.push((buffer.is_empty(), buffer.len()));
        batch.clear();
        buffer.push(&Actions::Discrete(vec![0]), &batch);
    }
    assert_eq!(empty, [(true, 0), (true, 0), (false, 1)]);
    assert!(Transitions::new(&spec, 0).is_empty() && !Transitions::new(&spec, 1).is_empty());
}

/// A saved buffer with a transition marked that lacks frames or steps, or with impossible positions, is refused.
#[test]
fn a_buffer_with_impossible_transitions_is_refused() {
    let spec = spec(1, 3);
    let fresh = || ReplayBuffer::new(&spec, 1, config(10, 2, false)).unwrap();
    let saved = |steps: usize| {
        let (mut buffer, mut batch, mut snapshot) = (fresh(), StepBatch::new(&spec, 1), Snapshot::default());
        buffer.reset(&batch);
        for _ in 0..steps {
            batch.clear();
            buffer.push(&Actions::Discrete(vec![0]), &batch);
        }
        let sampleable: Vec<usize> = (0..10).filter(|&i| buffer.contains(i)).collect();
        buffer.save(&mut snapshot);
        (snapshot, sampleable)
    };
    let load = |snapshot: &Snapshot| fresh().load(snapshot);
    let flags = |snapshot: &Snapshot| snapshot.array("replay.flags").unwrap().values::<u8>().unwrap();
    let with_flags = |snapshot: &Snapshot, slot: usize, flag: u8| {
        let (mut changed, mut all) = (snapshot.clone(), flags(snapshot));
        all[slot] = flag;
        changed.arrays.insert("replay.flags".into(), Array::new(&[10], &all));
        changed
    };
    let with_ring = |snapshot: &Snapshot, written: u64, marked: u64| {
        let mut changed = snapshot.clone();
        changed.put("replay.rings", &[serde_json::json!({ "written": written, "considered": marked })]);
        changed
    };
    // Positions 0 to 6: those before 5 have two steps after them.
    let (partly, sampleable) = saved(6);
    assert_eq!(sampleable, [0, 1, 2, 3, 4]);
    load(&partly).unwrap();
    let ready = flags(&partly)[4];
    load(&with_ring(&partly, 7, 7)).unwrap();
    for (written, marked) in [(7, 8), (7, 4), (0, 0), (1 << 62, 5)] {
        assert!(load(&with_ring(&partly, written, marked)).is_err(), "{written}, {marked}");
    }
    for slot in [5, 6, 7, 9] {
        assert!(load(&with_flags(&with_ring(&partly, 7, 7), slot, ready)).is_err(), "slot {slot}");
    }
    // Positions 15 to 24: the oldest two lack a frame of their stacks, unless an episode begins with them.
    let (full, sampleable) = saved(24);
    assert_eq!(sampleable, [0, 1, 2, 7, 8, 9]);
    load(&full).unwrap();
    for slot in [5, 6] {
        assert!(load(&with_flags(&full, slot, ready)).is_err(), "slot {slot}");
    }
    let first = flags(&partly)[0];
    load(&with_flags(&full, 5, first)).unwrap();
}

/// Positions of segments that a checkpoint with valid checksums may claim. A segment whose frames are all overwritten is not read.
#[test]
fn segments_of_other_buffers_are_refused() {
    let (spec, dir) = (spec(1, 1), tempfile::tempdir().unwrap());
    let fresh = || ReplayBuffer::new(&spec, 2, config(20, 1, false)).unwrap();
    let (mut buffer, mut batch, mut segments) = (fresh(), StepBatch::new(&spec, 2), Segments::new(dir.path()));
    buffer.reset(&batch);
    let push = |buffer: &mut ReplayBuffer, batch: &mut StepBatch, steps: usize| {
        for _ in 0..steps {
            batch.clear();
            buffer.push(&Actions::Discrete(vec![0, 1]), batch);
        }
    };
    push(&mut buffer, &mut batch, 4);
    segments.append(&buffer).unwrap();
    // Positions 0 to 4 are in the first segment; 15 have been written after 10 more steps, so that 5 is the oldest.
    push(&mut buffer, &mut batch, 10);
    segments.append(&buffer).unwrap();
    let mut snapshot = Snapshot::default();
    buffer.save(&mut snapshot);
    let list = segments.list().to_vec();
    assert_eq!((&list[0].to, &list[1].from, &list[1].to), (&vec![5, 5], &vec![5, 5], &vec![15, 15]));
    fs::remove_file(dir.path().join(&list[0].file)).unwrap();
    let restore = |change: &dyn Fn(&mut Vec<Segment>)| {
        let (mut restored, mut list) = (fresh(), list.clone());
        change(&mut list);
        restored.load(&snapshot).unwrap();
        Segments::new(dir.path()).restore(&mut restored, list).map_err(|error| error.to_string())
    };
    assert_eq!(restore(&|_| ()), Ok(Vec::new()));
    assert_eq!(restore(&|list| drop(list.remove(0))), Ok(Vec::new()));
    for (change, expected) in [
        (
            &(|list: &mut Vec<Segment>| list[1].to.push(1)) as &dyn Fn(&mut Vec<Segment>),
            "another number of environments",
        ),
        (&|list: &mut Vec<Segment>| list[1].from.push(1), "another number of environments"),
        (&|list: &mut Vec<Segment>| list[1].to[0] = 16, "does not follow"),
        (&|list: &mut Vec<Segment>| list[1].from[1] = 6, "does not follow"),
        (&|list: &mut Vec<Segment>| list[1].to[0] = 14, "the newest frames"),
        (&|list: &mut Vec<Segment>| list[1].file = "../x.lz4".into(), "not the name of a file in this folder"),
    ] {
        let message = restore(change).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
    // After the second save without a use for it, the file of a segment is removed, and files of others are kept.
    fs::write(dir.path().join("note.txt"), "").unwrap();
    segments.prune(&buffer).unwrap();
    push(&mut buffer, &mut batch, 10);
    segments.append(&buffer).unwrap();
    segments.prune(&buffer).unwrap();
    segments.prune(&buffer).unwrap();
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, [segments.list()[0].file.as_str(), "note.txt"]);
}
