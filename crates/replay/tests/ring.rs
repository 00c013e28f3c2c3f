//! The ring against the obvious memory: a list of everything that ever happened, whole observations and all.

use playfield_core::rng::{Rng, stream};
use playfield_core::{ActionSpace, Actions, Dtype, EnvSpec, Obs, Step, StepBatch};
use playfield_replay::{FrameRing, Transitions, uniform};
use proptest::prelude::*;
use rand::RngExt as _;
use std::collections::BTreeSet;

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
            for p in oldest..slots.len() {
                if slots[p].ready && self.stack_start(lane, p) >= oldest {
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

/// Steps `envs` environments `steps` times at random and compares after every step.
fn compare(envs: usize, len: usize, history: usize, n_step: usize, steps: usize, rng: &mut Rng) {
    let actions = ActionSpace::Discrete { n: 9 };
    let spec = EnvSpec { id: "t".into(), shape: vec![FRAME], dtype: Dtype::U8, history, actions, action_names: vec![] };
    let mut ring = FrameRing::new(&spec, envs, envs * len, n_step, f64::from(GAMMA)).unwrap();
    let mut oracle = Oracle { lanes: vec![Vec::new(); envs], len, history, n_step, episodes: 0 };
    let mut batch = StepBatch::new(&spec, envs);
    let mut known = BTreeSet::new();
    let mut frame = |rng: &mut Rng| [rng.random_range(1..=255_u8), rng.random_range(1..=255_u8)];
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
                oracle.lanes[lane].last_mut().unwrap().action = Some((done, reward, terminated || life_lost));
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
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn equals_a_list_of_everything(envs in 1_usize..4, history in 1_usize..5, n_step in 1_usize..5, room in 0_usize..30, seed: u64) {
        compare(envs, history + n_step + 2 + room, history, n_step, 120, &mut stream(seed, "ring"));
    }
}

/// χ² of 40,000 draws from some 40 transitions: every one as likely as any other.
#[test]
fn uniform_draws_are_uniform() {
    let actions = ActionSpace::Discrete { n: 2 };
    let spec = EnvSpec { id: "t".into(), shape: vec![1], dtype: Dtype::U8, history: 2, actions, action_names: vec![] };
    let mut ring = FrameRing::new(&spec, 2, 60, 3, 0.9).unwrap();
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
fn a_memory_too_small_for_one_transition_is_refused() {
    let actions = ActionSpace::Discrete { n: 2 };
    let spec = EnvSpec { id: "t".into(), shape: vec![1], dtype: Dtype::U8, history: 4, actions, action_names: vec![] };
    let said = FrameRing::new(&spec, 8, 71, 3, 0.9).unwrap_err().to_string();
    assert!(said.contains("need 72 at least"), "{said}");
    assert!(FrameRing::new(&spec, 8, 72, 3, 0.9).is_ok());
    assert_eq!(FrameRing::bytes(&spec, 1_000_000), 10_000_000);
}
