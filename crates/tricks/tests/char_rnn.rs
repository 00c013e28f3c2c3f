//! Trick 22: a character model learns a text, its features are deterministic, and a probe is linear.

use playfield_core::rng::stream;
use playfield_nn::optim::{Adam, Optimizer};
use playfield_nn::params::to_vec;
use playfield_nn::recurrent::CellKind;
use playfield_nn::stack::StackConfig;
use playfield_tricks::char_rnn::{CharRnn, CharRnnConfig, Streams};
use playfield_tricks::probe::Probe;
use tch::{Kind, Tensor};

fn network(cell: CellKind) -> CharRnn {
    let stack = StackConfig { cell, width: 32, ..StackConfig::default() };
    CharRnn::new(&CharRnnConfig { embedding: 8, stack }, &mut stream(1, "init")).unwrap()
}

fn adam(network: &CharRnn) -> Optimizer {
    Optimizer::new(Adam::default(), &network.params)
}

/// A text of words in pseudorandom order: characters inside a word are predictable, the next word is not.
fn text() -> Vec<u8> {
    let words = ["red ", "green ", "blue ", "yellow "];
    (0..2000_u32).map(|i| words[(i.wrapping_mul(2_654_435_761) >> 13) as usize % 4]).collect::<String>().into_bytes()
}

#[test]
fn the_loss_decreases_and_features_are_deterministic() {
    let text = text();
    let (train, valid) = text.split_at(text.len() * 9 / 10);
    let mut network = network(CellKind::Lstm);
    let before = network.evaluate(valid, 2).unwrap();
    assert!((before - 256_f64.ln()).abs() < 0.5, "uniform predictions before training: {before}");
    let (mut streams, mut optimizer) = (Streams::new(train, 16, 20).unwrap(), adam(&network));
    let mut rng = stream(2, "dropout");
    for _ in 0..150 {
        network.train(&mut streams, &mut optimizer, 1e-2, 1.0, &mut rng).unwrap();
    }
    let after = network.evaluate(valid, 2).unwrap();
    assert!(after < 0.6, "{before} fell to {after}");

    let texts: [&[u8]; 3] = [b"red green", b"blue", b"yellow yellow r"];
    let parameters = to_vec(network.params.master());
    let features = network.features(&texts).unwrap();
    assert_eq!(features.size(), [3, 32]);
    assert!(features.abs().max().double_value(&[]) <= 1.0);
    assert!(!features.requires_grad(), "features have no gradient");
    let probe = Probe::fit(&features, &[0, 1, 0], 2, 0.1, 50).unwrap();
    assert_eq!(probe.predict(&features), [0, 1, 0]);
    assert_eq!(to_vec(network.params.master()), parameters, "fitting a probe does not change the network");
    assert_eq!(network.features(&texts).unwrap(), features);
    for (i, text) in texts.iter().enumerate() {
        let alone = network.features(&[*text]).unwrap().get(0);
        let off = (alone - features.get(i as i64)).abs().max().double_value(&[]);
        assert!(off < 1e-5, "independent of the other texts: off by {off}");
    }
}

/// The recurrent state is carried over: with a learning rate of 0 the mean loss does not depend on the size of the windows.
#[test]
fn the_recurrent_state_is_carried_between_windows() {
    let train = |steps: usize, updates: usize| {
        let mut network = network(CellKind::Gru);
        let (mut streams, mut optimizer) = (Streams::new(b"abcdefgh", 1, steps).unwrap(), adam(&network));
        let mut rng = stream(2, "dropout");
        let losses = (0..updates).map(|_| network.train(&mut streams, &mut optimizer, 0.0, 1.0, &mut rng).unwrap());
        losses.sum::<f64>() / updates as f64
    };
    assert!((train(1, 6) - train(6, 1)).abs() < 1e-5);
    assert!((train(2, 3) - train(3, 2)).abs() < 1e-5);
}

/// Linearly separable classes with features of different scales; a constant feature changes nothing.
#[test]
fn a_probe_separates_linearly_separable_classes() {
    let points: Vec<f32> = (0..200).flat_map(|i| [(i % 17) as f32 - 8.0, (i % 13) as f32 * 100.0]).collect();
    let labels: Vec<i64> = points.chunks(2).map(|p| i64::from(p[0] + p[1] / 100.0 > 5.0)).collect();
    let features = Tensor::from_slice(&points).view([200, 2]);
    let probe = Probe::fit(&features, &labels, 2, 1e-4, 500).unwrap();
    assert!(probe.accuracy(&features, &labels) > 0.98, "{}", probe.accuracy(&features, &labels));
    let constant = Tensor::cat(&[features.shallow_clone(), features.ones_like()], 1);
    let same = Probe::fit(&constant, &labels, 2, 1e-4, 500).unwrap();
    assert_eq!(same.predict(&constant), probe.predict(&features), "a constant feature has no effect");
}

#[test]
fn invalid_settings_are_errors() {
    let stack = StackConfig { bidirectional: true, ..StackConfig::default() };
    let error = CharRnn::new(&CharRnnConfig { embedding: 8, stack }, &mut stream(1, "init")).unwrap_err().to_string();
    assert!(error.contains("reads the character that it predicts"), "{error}");
    let error = Streams::new(b"too short", 4, 3).unwrap_err().to_string();
    assert!(error.contains("a text of 9 characters") && error.contains("at least 16"), "{error}");
    assert!(Streams::new(b"text", 0, 3).unwrap_err().to_string().contains("`streams` = 0"));
    let error = network(CellKind::Lstm).features(&[b"a", b""]).unwrap_err().to_string();
    assert!(error.contains("sequence 1 is empty"), "{error}");
    let features = Tensor::zeros([2, 3], (Kind::Float, tch::Device::Cpu));
    let error = |labels: &[i64], l2| Probe::fit(&features, labels, 2, l2, 1).unwrap_err().to_string();
    assert!(error(&[0], 0.0).contains("2 features and 1 labels"));
    assert!(error(&[0, 2], 0.0).contains("label 2 must be at least 0 and less than 2"));
    assert!(error(&[0, 1], -1.0).contains("`l2` = -1 must be at least 0"));
}
