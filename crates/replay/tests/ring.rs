//! The ring against the obvious memory: a list of everything that ever happened, whole observations and all.

use playfield_core::normalize::Moments;
use playfield_core::rng::{Rng, stream};
use playfield_core::{ActionSpace, Actions, Dtype, EnvSpec, Normalizer, Obs, Snapshot, Step, StepBatch};
use playfield_replay::{FrameRing, RingConfig, Segments, Transitions, uniform};
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
    /// Whether the episode went on to its end (rather than being cut by a reset).
    action: Option<(i64, f32, bool)>,
    is_final: bool,
    ready: bool,
}

struct Oracle {
    lanes: Vec<Vec<Slot>>,
    len: usize,
    history: usize,
    n_step: usize,
    episodes: usize,
}

impl Oracle {
    fn begin(&mut self, lane: usize, frame: [u8; FRAME]) {
        self.episodes += 1;
        self.lanes[lane].push(Slot { frame, episode: self.episodes, action: None, is_final: false, ready: false });
    }

    fn go_on(&mut self, lane: usize, frame: [u8; FRAME], is_final: bool) {
        let episode = self.lanes[lane].last().unwrap().episode;
        self.lanes[lane].push(Slot { frame, episode, action: None, is_final, ready: false });
    }

    /// Everything that can be sampled: index and position.
    fn sampleable(&self) -> Vec<(usize, usize, usize)> {
        let mut all = Vec::new();
        for (lane, slots) in self.lanes.iter().enumerate() {
            let oldest = slots.len().saturating_sub(self.len);
            for (p, slot) in slots.iter().enumerate().skip(oldest) {
                if slot.ready && self.stack_start(lane, p) >= oldest {
                    all.push((lane * self.len + p % self.len, lane, p));
                }
            }
        }
        all
    }

    fn stack_start(&self, lane: usize, p: usize) -> usize {
        let slots = &self.lanes[lane];
        (p.saturating_sub(self.history - 1)..=p).find(|&q| slots[q].episode == slots[p].episode).unwrap()
    }

    fn stack(&self, lane: usize, p: usize) -> Vec<u8> {
        let slots = &self.lanes[lane];
        let at = |back: usize, pixel: usize| match p.checked_sub(back) {
            Some(q) if slots[q].episode == slots[p].episode => slots[q].frame[pixel],
            _ => 0,
        };
        (0..FRAME).flat_map(|pixel| (0..self.history).rev().map(move |back| at(back, pixel))).collect()
    }

    /// r, discount, and the position of s_t.
    fn n_step(&self, lane: usize, p: usize) -> (f32, f32, usize) {
        let slots = &self.lanes[lane];
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

fn spec(frame: usize, history: usize) -> EnvSpec {
    let actions = ActionSpace::Discrete { n: 9 };
    EnvSpec {
        id: "t".into(),
        shape: vec![frame],
        dtype: Dtype::U8,
        frame_stack: history,
        actions,
        action_names: vec![],
    }
}

fn config(capacity: usize, n_step: usize, compress: bool) -> RingConfig {
    RingConfig { capacity, n_step, gamma: f64::from(GAMMA), compress }
}

/// What a run that was stopped and resumed has in place of `ring`.
fn saved_and_restored(ring: &FrameRing, mut fresh: FrameRing, segments: &mut Segments, dir: &Path) -> FrameRing {
    let mut snapshot = Snapshot::default();
    segments.append(ring).unwrap();
    ring.save(&mut snapshot);
    segments.prune(ring).unwrap();
    fresh.load(&snapshot).unwrap();
    let list = segments.list().to_vec();
    *segments = Segments::new(dir);
    segments.restore(&mut fresh, list).unwrap();
    fresh
}

/// Steps `envs` environments `steps` times at random, stops and resumes now and then, and compares after every step.
fn compare(envs: usize, len: usize, history: usize, n_step: usize, steps: usize, rng: &mut Rng) {
    let (spec, config) = (spec(FRAME, history), config(envs * len, n_step, rng.random()));
    let mut ring = FrameRing::new(&spec, envs, config).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut segments = Segments::new(dir.path());
    let mut oracle = Oracle { lanes: vec![Vec::new(); envs], len, history, n_step, episodes: 0 };
    let mut batch = StepBatch::new(&spec, envs);
    let mut known = BTreeSet::new();
    let frame = |rng: &mut Rng| [rng.random_range(1..=255_u8), rng.random_range(1..=255_u8)];
    for t in 0..steps {
        batch.clear();
        let changes = if t == 0 || rng.random_range(0..60) == 0 {
            for lane in 0..envs {
                let f = frame(rng);
                batch.obs_row_mut(lane).u8().copy_from_slice(&f);
                oracle.begin(lane, f);
            }
            ring.reset(&batch)
        } else {
            let mut sent = Vec::new();
            for lane in 0..envs {
                let (action, reward) = (rng.random_range(0..9), rng.random_range(-3..=3) as f32);
                let (terminated, truncated) = (rng.random_range(0..9) == 0, rng.random_range(0..9) == 0);
                let life_lost = rng.random_range(0..9) == 0;
                batch.set(lane, Step { reward, terminated, truncated, life_lost });
                batch.forced[lane] = (rng.random_range(0..9) == 0).then_some(7);
                sent.push(action);
                let done = batch.forced[lane].unwrap_or(action);
                // A life that is lost where the episode is truncated is not lost: the final observation is bootstrapped from.
                let ends = terminated || (life_lost && !truncated);
                oracle.lanes[lane].last_mut().unwrap().action = Some((done, reward, ends));
                if terminated || truncated {
                    let f = frame(rng);
                    batch.final_obs_row_mut(lane).u8().copy_from_slice(&f);
                    oracle.go_on(lane, f, true);
                    let episode = oracle.lanes[lane].last().unwrap().episode;
                    let slots = oracle.lanes[lane].iter_mut();
                    slots.filter(|s| s.episode == episode && !s.is_final).for_each(|s| s.ready = true);
                    let f = frame(rng);
                    batch.obs_row_mut(lane).u8().copy_from_slice(&f);
                    oracle.begin(lane, f);
                } else {
                    let f = frame(rng);
                    batch.obs_row_mut(lane).u8().copy_from_slice(&f);
                    oracle.go_on(lane, f, false);
                    let newest = oracle.lanes[lane].len() - 1;
                    let episode = oracle.lanes[lane][newest].episode;
                    if let Some(p) = newest.checked_sub(n_step).filter(|&p| oracle.lanes[lane][p].episode == episode) {
                        oracle.lanes[lane][p].ready = true;
                    }
                }
            }
            ring.push(&Actions::Discrete(sent), &batch)
        };
        for left in &changes.left {
            assert!(known.remove(left), "{left} left without having entered");
        }
        for entered in &changes.entered {
            assert!(known.insert(*entered), "{entered} entered twice");
        }
        if rng.random_range(0..15) == 0 {
            let fresh = FrameRing::new(&spec, envs, config).unwrap();
            ring = saved_and_restored(&ring, fresh, &mut segments, dir.path());
        }
        let expected = oracle.sampleable();
        assert_eq!(known, expected.iter().map(|(index, ..)| *index).collect(), "step {t}");
        assert_eq!(ring.len(), expected.len());
        assert_eq!((0..ring.capacity()).filter(|&i| ring.contains(i)).count(), expected.len());
        let indices: Vec<usize> = expected.iter().map(|(index, ..)| *index).collect();
        let mut drawn = Transitions::new(&spec, indices.len());
        ring.gather(&indices, &mut drawn);
        let (mut s_tm1, mut s_t) = (Vec::new(), Vec::new());
        for (row, &(_, lane, p)) in expected.iter().enumerate() {
            let (r, discount, after) = oracle.n_step(lane, p);
            assert_eq!((drawn.r_t[row], drawn.discount_t[row]), (r, discount), "step {t}, position {p}");
            assert_eq!(drawn.a_tm1[row], oracle.lanes[lane][p].action.unwrap().0);
            s_tm1.extend(oracle.stack(lane, p));
            s_t.extend(oracle.stack(lane, after));
        }
        assert_eq!((drawn.s_tm1, drawn.s_t), (Obs::U8(s_tm1), Obs::U8(s_t)), "step {t}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn equals_a_list_of_everything(envs in 1_usize..4, history in 1_usize..5, n_step in 1_usize..5, room in 0_usize..30, seed: u64) {
        compare(envs, history + n_step + 2 + room, history, n_step, 120, &mut stream(seed, "ring"));
    }
}

/// χ² of 40,000 draws from some 40 transitions: every one as likely as any other.
#[test]
fn uniform_draws_are_uniform() {
    let spec = spec(1, 2);
    let mut ring = FrameRing::new(&spec, 2, config(60, 3, false)).unwrap();
    let mut batch = StepBatch::new(&spec, 2);
    ring.reset(&batch);
    for t in 0..100 {
        batch.clear();
        batch.set(t % 2, Step { terminated: t % 7 == 0, ..Step::default() });
        ring.push(&Actions::Discrete(vec![0, 1]), &batch);
    }
    let (mut rng, mut counts) = (stream(1, "draws"), vec![0_u32; ring.capacity()]);
    let draws = 1000 * ring.len();
    let mut indices = vec![0; draws];
    uniform::sample(&ring, &mut rng, &mut indices);
    indices.iter().for_each(|&i| counts[i] += 1);
    let chi: f64 = (0..ring.capacity())
        .filter(|&i| ring.contains(i))
        .map(|i| (f64::from(counts[i]) - 1000.0).powi(2) / 1000.0)
        .sum();
    let (freedom, drawn) = (ring.len() as f64 - 1.0, counts.iter().filter(|&&c| c > 0).count());
    assert_eq!(drawn, ring.len(), "only what can be sampled is drawn");
    // Wilson and Hilferty's approximation of the 0.1 % bound.
    let bound = freedom * (1.0 - 2.0 / (9.0 * freedom) + 3.09 * (2.0 / (9.0 * freedom)).sqrt()).powi(3);
    assert!(chi < bound, "χ² = {chi} over {bound} at {freedom} degrees of freedom");
}

#[test]
fn a_memory_too_small_for_one_transition_or_too_large_for_the_machine_is_refused() {
    let (spec, frames) = (spec(1, 4), spec(84 * 84, 4));
    let said = FrameRing::new(&spec, 8, config(71, 3, false)).unwrap_err().to_string();
    assert!(said.contains("need 72 at least"), "{said}");
    assert!(FrameRing::new(&spec, 8, config(72, 3, false)).is_ok());
    assert_eq!(FrameRing::bytes(&frames, config(1_000_000, 1, false)), 7_065_000_000);
    let said = FrameRing::new(&frames, 1, config(1 << 40, 1, false)).unwrap_err().to_string();
    assert!(said.contains("lower `buffer_size`, or set `buffer_compression` = true"), "{said}");
    let vectors = EnvSpec { dtype: Dtype::F32, ..spec };
    let said = FrameRing::new(&vectors, 1, config(100, 1, true)).unwrap_err().to_string();
    assert!(said.contains("vectors cannot be compressed"), "{said}");
}

/// Vectors come back as they were, too.
#[test]
fn vectors_are_saved_bit_for_bit() {
    let spec = EnvSpec { dtype: Dtype::F32, ..spec(3, 1) };
    let fresh = || FrameRing::new(&spec, 1, config(20, 1, false)).unwrap();
    let (mut ring, mut batch) = (fresh(), StepBatch::new(&spec, 1));
    ring.reset(&batch);
    for t in 0..33 {
        batch.obs = Obs::F32(vec![t as f32, f32::MIN_POSITIVE / 2.0, -0.1]);
        ring.push(&Actions::Discrete(vec![1]), &batch);
    }
    let dir = tempfile::tempdir().unwrap();
    let restored = saved_and_restored(&ring, fresh(), &mut Segments::new(dir.path()), dir.path());
    let indices: Vec<_> = (0..20).filter(|&i| ring.contains(i)).collect();
    let [mut a, mut b] = [&ring, &restored].map(|_| Transitions::new(&spec, indices.len()));
    ring.gather(&indices, &mut a);
    restored.gather(&indices, &mut b);
    assert_eq!(a, b);
}

/// Cut at any byte, changed, of another memory, or gone: an error that names the file.
#[test]
fn damaged_segments_are_refused() {
    let spec = spec(50, 1);
    let fresh = |envs| FrameRing::new(&spec, envs, config(40, 1, false)).unwrap();
    let (mut ring, mut batch, mut rng) = (fresh(1), StepBatch::new(&spec, 1), stream(1, "frames"));
    let dir = tempfile::tempdir().unwrap();
    let mut segments = Segments::new(dir.path());
    ring.reset(&batch);
    for t in 0..30 {
        batch.obs = Obs::U8((0..50).map(|_| rng.random()).collect());
        ring.push(&Actions::Discrete(vec![1]), &batch);
        if t == 10 || t == 29 {
            segments.append(&ring).unwrap();
        }
    }
    let mut snapshot = Snapshot::default();
    ring.save(&mut snapshot);
    let list = segments.list().to_vec();
    let restore = || {
        let mut ring = fresh(1);
        ring.load(&snapshot).unwrap();
        Segments::new(dir.path()).restore(&mut ring, list.clone()).map_err(|e| e.to_string())
    };
    assert_eq!((list.len(), restore()), (2, Ok(())));
    let path = dir.path().join(&list[1].file);
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&whole[..whole.len() - 1], &whole[..whole.len() / 2], &whole[..3], &[], &flipped] {
        fs::write(&path, damaged).unwrap();
        let said = restore().unwrap_err();
        assert!(said.contains(&list[1].file) && said.contains("not what was written"), "{said}");
    }
    fs::remove_file(&path).unwrap();
    assert!(restore().unwrap_err().contains(&list[1].file));
    let said = fresh(2).load(&snapshot).unwrap_err().to_string();
    assert!(said.contains("of another size or environment"), "{said}");
}

/// What is stored is what was observed: each draw is normalized by the statistics of its own time, reward by reward, before the
/// n-step return is summed and clipped rewards add up.
#[test]
fn transitions_are_normalized_when_they_are_drawn() {
    let actions = ActionSpace::Discrete { n: 2 };
    let spec =
        EnvSpec { id: "t".into(), shape: vec![2], dtype: Dtype::F32, frame_stack: 2, actions, action_names: vec![] };
    let config = RingConfig { capacity: 20, n_step: 2, gamma: 0.5, compress: false };
    let mut ring = FrameRing::new(&spec, 1, config).unwrap();
    let mut batch = StepBatch::new(&spec, 1);
    batch.obs = Obs::F32(vec![1.0, 10.0]);
    ring.reset(&batch);
    for (frame, reward) in [([2.0, 20.0], 4.0), ([3.0, 30.0], 1000.0)] {
        batch.obs = Obs::F32(frame.to_vec());
        batch.reward = vec![reward];
        ring.push(&Actions::Discrete(vec![1]), &batch);
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
        let mut drawn = Transitions::new(&spec, 1);
        ring.gather_normalized(&[0], Some(&normalizer), &mut drawn);
        let expected = normalizer.reward(4.0) + 0.5 * normalizer.reward(1000.0);
        assert!((drawn.r_t[0] - expected).abs() < 1e-6);
        // Frames lie side by side, oldest first; zeros stand before an episode's first frame.
        let normalized = |mut values: Vec<f32>| {
            normalizer.observations(&mut values, 2);
            Obs::F32(values)
        };
        assert_eq!(drawn.s_tm1, normalized(vec![0.0, 1.0, 0.0, 10.0]));
        assert_eq!(drawn.s_t, normalized(vec![2.0, 3.0, 20.0, 30.0]));
    }
    let mut raw = Transitions::new(&spec, 1);
    ring.gather(&[0], &mut raw);
    assert_eq!((raw.r_t[0], raw.s_tm1), (504.0, Obs::F32(vec![0.0, 1.0, 0.0, 10.0])));
}
