//! The classifier: training, determinism, folding of batch norm, presets.

use playfield_core::rng::stream;
use playfield_nn::config::{Activation, InitKind, NormKind};
use playfield_nn::params::to_vec;
use playfield_tricks::classifier::{Classifier, Companion, Config, Start, train};
use playfield_tricks::data::{Dataset, digits};
use playfield_tricks::loader::Shuffle;

fn parts() -> (Dataset, Dataset) {
    digits().split(0.2, &mut stream(1, "split")).unwrap()
}

/// Several architectures reach an accuracy of .92 on the digits in 400 steps.
#[test]
fn a_classifier_learns_digits() {
    let (data, test) = parts();
    let relu = Config { activation: Activation::Relu, init: Start::Rule(InitKind::He), ..Config::default() };
    let conv = Config { channels: vec![4], local_response: true, distortion: 0.2, ..relu.clone() };
    let layer = Config { norm: NormKind::Layer, dropout: 0.1, ..relu.clone() };
    for config in [relu.clone(), conv, layer, relu.bn()] {
        let net = train(&config, &data, 1, |p| p.steps == 400).unwrap();
        let accuracy = net.accuracy(&test);
        assert!(accuracy > 0.92, "{config:?}: {accuracy}");
    }
}

#[test]
fn equal_seeds_give_equal_networks() {
    let (data, _) = parts();
    let config = Config { dropout: 0.3, distortion: 0.5, ..Config::default() }.bn_with(&[]);
    let params = |seed| {
        let net = train(&config, &data, seed, |p| p.steps == 20).unwrap();
        [to_vec(net.params.master()), to_vec(net.params.running_stats())]
    };
    assert_eq!(params(1), params(1));
    assert_ne!(params(1), params(2));
}

/// Folding batch norm changes the logits of test data by at most 1e-5.
#[test]
fn a_folded_classifier_computes_the_same() {
    let (data, test) = parts();
    let config = Config { channels: vec![3], hidden: vec![20, 20], ..Config::default() }.bn();
    let mut net = train(&config, &data, 1, |p| p.steps == 60).unwrap();
    let (x, _) = test.tensors();
    let before = net.logits(&x);
    net.fold();
    let off = (&before - net.logits(&x)).abs().max().double_value(&[]);
    assert!(off <= 1e-5 * before.abs().max().double_value(&[]).max(1.0), "{off}");
}

/// The `bn` preset makes all seven changes, and each companion one.
#[test]
fn the_preset_applies_the_seven_companions() {
    let plain = Config {
        local_response: true,
        dropout: 0.2,
        optimizer: Config::default().optimizer.with_weight_decay(1e-3),
        learning_rate: 0.1,
        learning_rate_decay: 0.99,
        shuffle: Shuffle::Never,
        distortion: 0.4,
        ..Config::default()
    };
    let bn = plain.bn();
    assert_eq!(bn.norm, NormKind::Batch);
    assert_eq!((bn.learning_rate, bn.dropout, bn.local_response, bn.shuffle), (0.5, 0.0, false, Shuffle::Thorough));
    assert_eq!((bn.optimizer.weight_decay(), bn.distortion), (2e-4, 0.2));
    assert!((bn.learning_rate_decay - 0.99_f64.powi(6)).abs() < 1e-15);
    let none = plain.bn_with(&[]);
    for companion in Companion::ALL {
        assert_ne!(plain.bn_with(&[companion]), none, "{companion:?}");
        let others: Vec<_> = Companion::ALL.into_iter().filter(|&c| c != companion).collect();
        assert_ne!(plain.bn_with(&others), bn, "{companion:?}");
    }
}

#[test]
fn invalid_settings_are_errors() {
    let wrong = |change: fn(&mut Config), features: usize| {
        let mut config = Config::default();
        change(&mut config);
        Classifier::new(&config, features, 10, 1).unwrap_err().to_string()
    };
    for (refusal, what, bound) in [
        (wrong(|c| c.hidden = vec![0], 64), "0", "at least 1"),
        (wrong(|c| c.dropout = 1.0, 64), "`dropout` = 1", "less than 1"),
        (wrong(|c| c.learning_rate = -1.0, 64), "learning_rate of -1", "negative"),
        (wrong(|c| c.learning_rate_decay = 0.0, 64), "decay of 0", "above 0"),
        (wrong(|c| c.channels = vec![4], 63), "63", "square"),
    ] {
        assert!(refusal.contains(what) && refusal.contains(bound), "{refusal}");
    }
}
