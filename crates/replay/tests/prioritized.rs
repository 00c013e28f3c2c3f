//! Prioritized sampling against the paper's formulas, computed over a plain list.

use playfield_core::Snapshot;
use playfield_core::rng::stream;
use playfield_core::snapshot::Array;
use playfield_replay::prioritized::{LargestOf, PriorityKind};
use playfield_replay::{Changes, Prioritized, PriorityConfig};
use proptest::prelude::*;

fn added(items: impl IntoIterator<Item = usize>) -> Changes {
    Changes { added: items.into_iter().collect(), removed: vec![], ..Changes::default() }
}

/// P(i) = (1 − u)·p^α/Σp^α + u/N, by hand for errors 1, 2, 4 with α = .5, ε = 0, u = .1: √p = 1, √2, 2.
#[test]
fn probabilities_by_hand() {
    let config = PriorityConfig { exponent: 0.5, epsilon: 0.0, uniform_share: 0.1, ..PriorityConfig::default() };
    let mut p = Prioritized::new(config, 8).unwrap();
    p.apply(&added([1, 3, 6]));
    p.update(&[1, 3, 6], &[1.0, -2.0, 4.0]).unwrap();
    let sum = 3.0 + 2_f64.sqrt();
    for (item, root) in [(1, 1.0), (3, 2_f64.sqrt()), (6, 2.0)] {
        assert!((p.probability(item) - (0.9 * root / sum + 0.1 / 3.0)).abs() < 1e-12);
    }
    assert_eq!(p.probability(0), 0.0);
}

/// A new transition gets the largest |δ| so far, initially 1. A removed one is never sampled.
#[test]
fn a_new_transition_gets_the_largest_priority() {
    let config = PriorityConfig { exponent: 1.0, epsilon: 0.0, uniform_share: 0.0, ..PriorityConfig::default() };
    let mut p = Prioritized::new(config, 8).unwrap();
    p.apply(&added([0, 1]));
    assert_eq!([0, 1].map(|i| p.probability(i)), [0.5, 0.5]);
    p.update(&[0], &[3.0]).unwrap();
    p.apply(&Changes { added: vec![5], removed: vec![1], ..Changes::default() });
    assert_eq!([0, 1, 5].map(|i| p.probability(i)), [0.5, 0.0, 0.5]);
    p.update(&[1], &[9.0]).unwrap();
    assert_eq!(p.probability(1), 0.0, "the error of a removed transition is ignored");
    assert_eq!(p.len(), 2);
}

/// w = (N·P)^−β divided by the largest in the batch: the largest is 1; at β = 1, w·P is constant.
#[test]
fn weights_correct_the_priorities() {
    for by in [PriorityKind::Error, PriorityKind::Rank] {
        check_weights(PriorityConfig { exponent: 0.7, by, ..PriorityConfig::default() });
    }
}

fn check_weights(config: PriorityConfig) {
    let mut p = Prioritized::new(config, 64).unwrap();
    p.apply(&added(0..50));
    let errors: Vec<f32> = (0..50).map(|i| i as f32 / 10.0).collect();
    p.update(&(0..50).collect::<Vec<_>>(), &errors).unwrap();
    let (mut indices, mut weights) = ([0; 200], [0.0; 200]);
    p.sample(&mut stream(1, "samples"), 1.0, &mut indices, &mut weights);
    assert_eq!(weights.iter().copied().fold(0.0, f32::max), 1.0);
    let products: Vec<f64> = indices.iter().zip(weights).map(|(&i, w)| p.probability(i) * f64::from(w)).collect();
    for product in &products {
        assert!((product / products[0] - 1.0).abs() < 1e-6);
    }
    p.sample(&mut stream(1, "samples"), 0.0, &mut indices, &mut weights);
    assert!(weights.iter().all(|&w| w == 1.0), "at β = 0 all weights are 1");
}

/// χ² of the sampled frequencies against P(i).
#[test]
fn samples_follow_the_probabilities() {
    for by in [PriorityKind::Error, PriorityKind::Rank] {
        let config = PriorityConfig { by, epsilon: 0.01, uniform_share: 0.05, ..PriorityConfig::default() };
        check_frequencies(config);
    }
}

fn check_frequencies(config: PriorityConfig) {
    let mut p = Prioritized::new(config, 40).unwrap();
    p.apply(&added(0..31));
    let errors: Vec<f32> = (0..31).map(|i| ((i * 7) % 11) as f32).collect();
    p.update(&(0..31).collect::<Vec<_>>(), &errors).unwrap();
    let n = 200_000;
    let (mut indices, mut weights) = (vec![0; n], vec![0.0; n]);
    p.sample(&mut stream(2, "samples"), 0.4, &mut indices, &mut weights);
    let mut counts = [0.0_f64; 31];
    indices.iter().for_each(|&i| counts[i] += 1.0);
    let expected = |i: usize| p.probability(i) * n as f64;
    let chi: f64 = counts.iter().enumerate().map(|(i, c)| (c - expected(i)).powi(2) / expected(i)).sum();
    assert!(chi < 59.7, "χ² = {chi}, over the 0.1 % bound at 30 degrees of freedom");
}

#[test]
fn an_error_that_is_not_finite_is_refused_and_changes_nothing() {
    let mut p = Prioritized::new(PriorityConfig::default(), 4).unwrap();
    p.apply(&added([0, 1]));
    for bad in [f32::NAN, f32::INFINITY] {
        let message = p.update(&[0, 1], &[5.0, bad]).unwrap_err().to_string();
        assert!(message.contains("temporal-difference error"), "{message}");
    }
    assert_eq!(p.probability(0), p.probability(1));
    let config = PriorityConfig { exponent: -1.0, ..PriorityConfig::default() };
    assert!(Prioritized::new(config, 4).unwrap_err().to_string().contains("exponent"));
}

/// Weights scaled by the largest in the buffer do not depend on the batch: w = (P_min/P)^β.
#[test]
fn the_largest_weight_of_the_buffer_is_one() {
    for by in [PriorityKind::Error, PriorityKind::Rank] {
        let config = PriorityConfig { by, largest_weight_of: LargestOf::Buffer, ..PriorityConfig::default() };
        let mut p = Prioritized::new(config, 16).unwrap();
        p.apply(&added(0..10));
        p.update(&(0..10).collect::<Vec<_>>(), &[9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 0.5]).unwrap();
        let (mut indices, mut weights) = ([0; 50], [0.0; 50]);
        p.sample(&mut stream(3, "samples"), 0.5, &mut indices, &mut weights);
        let least = (0..10).map(|i| p.probability(i)).fold(1.0, f64::min);
        for (&i, w) in indices.iter().zip(weights) {
            assert!((f64::from(w) - (least / p.probability(i)).sqrt()).abs() < 1e-6);
        }
    }
}

proptest! {
    /// The probabilities of the transitions in the buffer sum to 1, after any changes, and all others are 0. A restored sampler
    /// continues exactly.
    #[test]
    fn probabilities_always_sum_to_one_and_are_saved_exactly(
        moves in prop::collection::vec((0_usize..20, 0.0_f32..9.0), 1..80),
        by in prop_oneof![Just(PriorityKind::Error), Just(PriorityKind::Rank)],
    ) {
        let new = || Prioritized::new(PriorityConfig { by, uniform_share: 0.1, ..PriorityConfig::default() }, 20).unwrap();
        let mut p = new();
        let mut present = [false; 20];
        for (item, error) in moves {
            let changes = match present[item] {
                true => Changes { added: vec![], removed: vec![item], ..Changes::default() },
                false => added([item]),
            };
            present[item] = !present[item];
            p.apply(&changes);
            p.update(&[(item + 3) % 20], &[error]).unwrap();
            let sum: f64 = (0..20).map(|i| p.probability(i)).sum();
            prop_assert!(p.is_empty() || (sum - 1.0).abs() < 1e-9);
            prop_assert!((0..20).all(|i| (p.probability(i) > 0.0) == present[i]));
            if item == 7 {
                let (mut snapshot, mut restored) = (Snapshot::default(), new());
                p.save(&mut snapshot);
                restored.load(&snapshot).unwrap();
                if !p.is_empty() {
                    let [a, b] = [&p, &restored].map(|p| {
                        let (mut indices, mut weights) = ([0; 30], [0.0; 30]);
                        p.sample(&mut stream(4, "samples"), 0.4, &mut indices, &mut weights);
                        (indices, weights)
                    });
                    prop_assert_eq!(a, b);
                }
                p = restored;
            }
        }
    }
}

/// Stratified sampling: the k-th of n samples is from the k-th segment of the probability. With 8 equal priorities and 8 samples
/// each item is sampled once; of 4 items with priorities 1 to 4, 10 samples contain 1, 2, 3 and 4 of each.
#[test]
fn stratified_samples_are_one_from_each_segment() {
    for by in [PriorityKind::Error, PriorityKind::Rank] {
        let exponent = if by == PriorityKind::Rank { 0.0 } else { 1.0 };
        let config = PriorityConfig {
            by,
            exponent,
            epsilon: 0.0,
            uniform_share: 0.0,
            stratified: true,
            ..PriorityConfig::default()
        };
        let mut p = Prioritized::new(config, 8).unwrap();
        p.apply(&added(0..8));
        for seed in 0..20 {
            let (mut indices, mut weights) = ([0; 8], [0.0; 8]);
            p.sample(&mut stream(seed, "samples"), 1.0, &mut indices, &mut weights);
            indices.sort_unstable();
            assert_eq!(indices, [0, 1, 2, 3, 4, 5, 6, 7], "{by:?}");
        }
    }
    let config = PriorityConfig {
        exponent: 1.0,
        epsilon: 0.0,
        uniform_share: 0.0,
        stratified: true,
        ..PriorityConfig::default()
    };
    let mut p = Prioritized::new(config, 4).unwrap();
    p.apply(&added(0..4));
    p.update(&[0, 1, 2, 3], &[1.0, 2.0, 3.0, 4.0]).unwrap();
    let (mut indices, mut weights) = ([0; 10], [0.0; 10]);
    p.sample(&mut stream(1, "samples"), 1.0, &mut indices, &mut weights);
    assert_eq!([0, 1, 2, 3].map(|item| indices.iter().filter(|i| **i == item).count()), [1, 2, 3, 4]);
}

/// All priorities are 0 (ε = 0): every transition is as likely as another.
#[test]
fn priorities_of_zero_are_sampled_uniformly() {
    let config = PriorityConfig { epsilon: 0.0, uniform_share: 0.0, ..PriorityConfig::default() };
    let mut p = Prioritized::new(config, 8).unwrap();
    p.apply(&added([2, 5]));
    p.update(&[2, 5], &[0.0, 0.0]).unwrap();
    assert_eq!([2, 5, 0].map(|i| p.probability(i)), [0.5, 0.5, 0.0]);
    let (mut indices, mut weights) = ([0; 200], [0.0; 200]);
    p.sample(&mut stream(1, "samples"), 1.0, &mut indices, &mut weights);
    let count = |item| indices.iter().filter(|&&i| i == item).count();
    assert!((60..=140).contains(&count(2)) && count(2) + count(5) == 200, "{indices:?}");
    assert!(weights.iter().all(|w| *w == 1.0));
    p.apply(&Changes { added: vec![], removed: vec![2], ..Changes::default() });
    assert_eq!(p.items(), [5]);
}

/// Each part of a saved sampler, damaged: an error, and no panic.
#[test]
fn damaged_priorities_are_refused() {
    for by in [PriorityKind::Error, PriorityKind::Rank] {
        let new = || Prioritized::new(PriorityConfig { by, ..PriorityConfig::default() }, 8).unwrap();
        let (mut p, mut saved) = (new(), Snapshot::default());
        p.apply(&added([1, 3, 6]));
        p.update(&[1, 3], &[2.0, 0.0]).unwrap();
        p.save(&mut saved);
        new().load(&saved).unwrap();
        let refused = |expected: &str, damage: &dyn Fn(&mut Snapshot)| {
            let mut damaged = saved.clone();
            damage(&mut damaged);
            let message = new().load(&damaged).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        let items = |key: &'static str, items: &[u64]| {
            let array = Array::new(&[items.len()], items);
            move |s: &mut Snapshot| _ = s.arrays.insert(key.into(), array.clone())
        };
        let values = |values: &[f64]| {
            let array = Array::new(&[values.len()], values);
            move |s: &mut Snapshot| _ = s.arrays.insert("priorities.values".into(), array.clone())
        };
        refused("of another replay buffer", &items("priorities.items", &[1, 3, 8]));
        refused("of another replay buffer", &items("priorities.items", &[1, 3, 3]));
        refused("an invalid priority", &items("priorities.items", &[1, 3]));
        refused("an invalid largest error", &|s| s.put("priorities.largest", &-1.0));
        for wrong in [[1.0, -1.0, 1.0], [1.0, f64::INFINITY, 1.0], [1.0, f64::NAN, 1.0], [f64::MAX; 3]] {
            refused("an invalid priority", &values(&wrong));
        }
        refused("an invalid priority", &values(&[1.0, 1.0]));
        if by == PriorityKind::Rank {
            refused("of another replay buffer", &items("priorities.heap", &[1, 3]));
            refused("of another replay buffer", &items("priorities.heap", &[1, 3, 9]));
        }
    }
}
