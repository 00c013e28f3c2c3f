//! Prioritized sampling against the paper's formulas, computed over a plain list.

use playfield_core::Snapshot;
use playfield_core::rng::stream;
use playfield_replay::prioritized::{By, LargestOf};
use playfield_replay::{Changes, Prioritized, PriorityConfig};
use proptest::prelude::*;

fn entered(items: impl IntoIterator<Item = usize>) -> Changes {
    Changes { entered: items.into_iter().collect(), left: vec![] }
}

/// P(i) = (1 − u)·p^α/Σp^α + u/N, by hand for errors 1, 2, 4 with α = .5, ε = 0, u = .1: √p = 1, √2, 2.
#[test]
fn probabilities_by_hand() {
    let config = PriorityConfig { exponent: 0.5, epsilon: 0.0, uniform_share: 0.1, ..PriorityConfig::default() };
    let mut p = Prioritized::new(config, 8).unwrap();
    p.follow(&entered([1, 3, 6]));
    p.update(&[1, 3, 6], &[1.0, -2.0, 4.0]).unwrap();
    let sum = 3.0 + 2_f64.sqrt();
    for (item, root) in [(1, 1.0), (3, 2_f64.sqrt()), (6, 2.0)] {
        assert!((p.probability(item) - (0.9 * root / sum + 0.1 / 3.0)).abs() < 1e-12);
    }
    assert_eq!(p.probability(0), 0.0);
}

/// A new transition gets the largest |δ| so far, 1 at first; what left is never drawn.
#[test]
fn what_enters_gets_the_largest_error_and_what_left_is_gone() {
    let config = PriorityConfig { exponent: 1.0, epsilon: 0.0, uniform_share: 0.0, ..PriorityConfig::default() };
    let mut p = Prioritized::new(config, 8).unwrap();
    p.follow(&entered([0, 1]));
    assert_eq!([0, 1].map(|i| p.probability(i)), [0.5, 0.5]);
    p.update(&[0], &[3.0]).unwrap();
    p.follow(&Changes { entered: vec![5], left: vec![1] });
    assert_eq!([0, 1, 5].map(|i| p.probability(i)), [0.5, 0.0, 0.5]);
    p.update(&[1], &[9.0]).unwrap();
    assert_eq!(p.probability(1), 0.0, "an error that came too late changes nothing");
    assert_eq!(p.len(), 2);
}

/// w = (N·P)^−β over the batch's largest: the rarest drawn weighs 1, none weighs more; at β = 1, w·P is constant.
#[test]
fn weights_undo_the_priorities() {
    for by in [By::Error, By::Rank] {
        weights_undo(PriorityConfig { exponent: 0.7, by, ..PriorityConfig::default() });
    }
}

fn weights_undo(config: PriorityConfig) {
    let mut p = Prioritized::new(config, 64).unwrap();
    p.follow(&entered(0..50));
    let errors: Vec<f32> = (0..50).map(|i| i as f32 / 10.0).collect();
    p.update(&(0..50).collect::<Vec<_>>(), &errors).unwrap();
    let (mut indices, mut weights) = ([0; 200], [0.0; 200]);
    p.sample(&mut stream(1, "draws"), 1.0, &mut indices, &mut weights);
    assert_eq!(weights.iter().copied().fold(0.0, f32::max), 1.0);
    let products: Vec<f64> = indices.iter().zip(weights).map(|(&i, w)| p.probability(i) * f64::from(w)).collect();
    for product in &products {
        assert!((product / products[0] - 1.0).abs() < 1e-6);
    }
    p.sample(&mut stream(1, "draws"), 0.0, &mut indices, &mut weights);
    assert!(weights.iter().all(|&w| w == 1.0), "β = 0 weighs nothing");
}

/// χ² of the drawn frequencies against P(i).
#[test]
fn draws_follow_the_probabilities() {
    for by in [By::Error, By::Rank] {
        let config = PriorityConfig { by, epsilon: 0.01, uniform_share: 0.05, ..PriorityConfig::default() };
        draws_follow(config);
    }
}

fn draws_follow(config: PriorityConfig) {
    let mut p = Prioritized::new(config, 40).unwrap();
    p.follow(&entered(0..31));
    let errors: Vec<f32> = (0..31).map(|i| ((i * 7) % 11) as f32).collect();
    p.update(&(0..31).collect::<Vec<_>>(), &errors).unwrap();
    let n = 200_000;
    let (mut indices, mut weights) = (vec![0; n], vec![0.0; n]);
    p.sample(&mut stream(2, "draws"), 0.4, &mut indices, &mut weights);
    let mut counts = [0.0_f64; 31];
    indices.iter().for_each(|&i| counts[i] += 1.0);
    let expected = |i: usize| p.probability(i) * n as f64;
    let chi: f64 = counts.iter().enumerate().map(|(i, c)| (c - expected(i)).powi(2) / expected(i)).sum();
    assert!(chi < 59.7, "χ² = {chi}, over the 0.1 % bound at 30 degrees of freedom");
}

#[test]
fn an_error_that_is_no_number_is_refused_and_changes_nothing() {
    let mut p = Prioritized::new(PriorityConfig::default(), 4).unwrap();
    p.follow(&entered([0, 1]));
    for bad in [f32::NAN, f32::INFINITY] {
        let said = p.update(&[0, 1], &[5.0, bad]).unwrap_err().to_string();
        assert!(said.contains("temporal-difference error"), "{said}");
    }
    assert_eq!(p.probability(0), p.probability(1));
    let config = PriorityConfig { exponent: -1.0, ..PriorityConfig::default() };
    assert!(Prioritized::new(config, 4).unwrap_err().to_string().contains("exponent"));
}

/// Scaled by the memory's largest weight, whichever batch was drawn: w = (P_min/P)^β.
#[test]
fn the_memorys_largest_weight_is_one() {
    for by in [By::Error, By::Rank] {
        let config = PriorityConfig { by, largest_weight_of: LargestOf::Memory, ..PriorityConfig::default() };
        let mut p = Prioritized::new(config, 16).unwrap();
        p.follow(&entered(0..10));
        p.update(&(0..10).collect::<Vec<_>>(), &[9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 0.5]).unwrap();
        let (mut indices, mut weights) = ([0; 50], [0.0; 50]);
        p.sample(&mut stream(3, "draws"), 0.5, &mut indices, &mut weights);
        let least = (0..10).map(|i| p.probability(i)).fold(1.0, f64::min);
        for (&i, w) in indices.iter().zip(weights) {
            assert!((f64::from(w) - (least / p.probability(i)).sqrt()).abs() < 1e-6);
        }
    }
}

proptest! {
    /// Whatever enters and leaves, the probabilities of what is there sum to 1 and all else has none; and what was saved
    /// goes on as if nothing had been.
    #[test]
    fn probabilities_always_sum_to_one_and_are_saved_exactly(
        moves in prop::collection::vec((0_usize..20, 0.0_f32..9.0), 1..80),
        by in prop_oneof![Just(By::Error), Just(By::Rank)],
    ) {
        let new = || Prioritized::new(PriorityConfig { by, uniform_share: 0.1, ..PriorityConfig::default() }, 20).unwrap();
        let mut p = new();
        let mut there = [false; 20];
        for (item, error) in moves {
            let changes = match there[item] {
                true => Changes { entered: vec![], left: vec![item] },
                false => entered([item]),
            };
            there[item] = !there[item];
            p.follow(&changes);
            p.update(&[(item + 3) % 20], &[error]).unwrap();
            let sum: f64 = (0..20).map(|i| p.probability(i)).sum();
            prop_assert!(p.is_empty() || (sum - 1.0).abs() < 1e-9);
            prop_assert!((0..20).all(|i| (p.probability(i) > 0.0) == there[i]));
            if item == 7 {
                let (mut snapshot, mut restored) = (Snapshot::default(), new());
                p.save(&mut snapshot);
                restored.load(&snapshot).unwrap();
                if !p.is_empty() {
                    let [a, b] = [&p, &restored].map(|p| {
                        let (mut indices, mut weights) = ([0; 30], [0.0; 30]);
                        p.sample(&mut stream(4, "draws"), 0.4, &mut indices, &mut weights);
                        (indices, weights)
                    });
                    prop_assert_eq!(a, b);
                }
                p = restored;
            }
        }
    }
}

/// Stratified draws: the k-th of n falls into the k-th share of the probability. With 8 equal priorities and 8 draws each item is
/// drawn once; of 4 with priorities 1 to 4 (mass 10), 10 draws are 1, 2, 3 and 4 of each.
#[test]
fn stratified_draws_take_one_from_each_share() {
    for by in [By::Error, By::Rank] {
        let exponent = if by == By::Rank { 0.0 } else { 1.0 };
        let config = PriorityConfig {
            by,
            exponent,
            epsilon: 0.0,
            uniform_share: 0.0,
            stratified: true,
            ..PriorityConfig::default()
        };
        let mut p = Prioritized::new(config, 8).unwrap();
        p.follow(&entered(0..8));
        for seed in 0..20 {
            let (mut indices, mut weights) = ([0; 8], [0.0; 8]);
            p.sample(&mut stream(seed, "draws"), 1.0, &mut indices, &mut weights);
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
    p.follow(&entered(0..4));
    p.update(&[0, 1, 2, 3], &[1.0, 2.0, 3.0, 4.0]).unwrap();
    let (mut indices, mut weights) = ([0; 10], [0.0; 10]);
    p.sample(&mut stream(1, "draws"), 1.0, &mut indices, &mut weights);
    assert_eq!([0, 1, 2, 3].map(|item| indices.iter().filter(|i| **i == item).count()), [1, 2, 3, 4]);
}
