//! Sequence to sequence: exact relations between the options, and training.

use playfield_core::Snapshot;
use playfield_core::rng::{Rng, stream};
use playfield_nn::attention::AttentionKind;
use playfield_nn::optim::{Adam, Optimizer};
use playfield_nn::recurrent::CellKind;
use playfield_nn::skip::Connections;
use playfield_nn::stack::StackConfig;
use playfield_tricks::beam::BeamConfig;
use playfield_tricks::seq2seq::{END, Pairs, Reading, Seq2Seq, Seq2SeqConfig};
use rand::RngExt as _;
use tch::no_grad;

fn config() -> Seq2SeqConfig {
    let stack = StackConfig { width: 12, ..StackConfig::default() };
    Seq2SeqConfig { vocabulary: 7, embedding: 5, stack, ..Seq2SeqConfig::default() }
}

fn network(config: &Seq2SeqConfig) -> Seq2Seq {
    Seq2Seq::new(config, &mut stream(1, "init")).unwrap()
}

/// `n` sequences of 1 to `longest` words.
fn sources(rng: &mut Rng, n: usize, longest: usize) -> Vec<Vec<i64>> {
    (0..n).map(|_| (0..rng.random_range(1..=longest)).map(|_| rng.random_range(2..7)).collect()).collect()
}

fn value(network: &Seq2Seq, pairs: &Pairs, epsilon: f64, rng: Option<&mut Rng>) -> f64 {
    no_grad(|| network.loss(pairs, epsilon, rng).unwrap().double_value(&[]))
}

/// Trick 21: with ε = 1 scheduled sampling equals teacher forcing bit for bit. With ε = 0 the decoder's inputs are its own
/// predictions: for its greedy output as target the loss equals that of teacher forcing, for other targets it differs.
#[test]
fn epsilon_selects_true_or_predicted_tokens() {
    for attention in [None, Some(AttentionKind::Additive)] {
        let network = network(&Seq2SeqConfig { attention, ..config() });
        let from = sources(&mut stream(1, "sources"), 6, 5);
        let forced = |targets: &[Vec<i64>]| value(&network, &Pairs::new(&from, targets).unwrap(), 1.0, None);
        let sampled = |targets: &[Vec<i64>], epsilon: f64, seed: u64| {
            value(&network, &Pairs::new(&from, targets).unwrap(), epsilon, Some(&mut stream(seed, "coins")))
        };
        assert_eq!(sampled(&from, 1.0, 3), forced(&from));
        let own = network.greedy(&from, 4).unwrap();
        assert!((sampled(&own, 0.0, 3) - forced(&own)).abs() < 1e-5);
        assert!((sampled(&from, 0.0, 3) - forced(&from)).abs() > 1e-4);
        assert_eq!(sampled(&from, 0.5, 3), sampled(&from, 0.5, 3), "equal seeds give equal samples");
        assert_ne!(sampled(&from, 0.5, 3), sampled(&from, 0.5, 4));
    }
}

/// Tricks 16 and 19: a network that reverses its sources equals one that reads the reversed sources forwards, each reversed within
/// its own length; the target is unchanged.
#[test]
fn reversed_reads_from_the_end_of_each_source() {
    let forward = network(&config());
    let reversed = network(&Seq2SeqConfig { reading: Reading::Reversed, ..config() });
    let from = sources(&mut stream(2, "sources"), 5, 6);
    let back: Vec<Vec<i64>> = from.iter().map(|s| s.iter().rev().copied().collect()).collect();
    let loss = |network: &Seq2Seq, from: &[Vec<i64>]| value(network, &Pairs::new(from, &back).unwrap(), 1.0, None);
    assert_eq!(loss(&reversed, &from), loss(&forward, &back));
    assert_ne!(loss(&reversed, &from), loss(&forward, &from));
    assert_eq!(reversed.greedy(&from, 5).unwrap(), forward.greedy(&back, 5).unwrap());
}

/// Trick 20: with shared weights there is one embedding and one stack, which are counted once.
#[test]
fn shared_weights_are_counted_once() {
    let (separate, shared) = (network(&config()), network(&Seq2SeqConfig { shared: true, ..config() }));
    let part = 7 * 5 + 4 * 12 * (5 + 12 + 1);
    let output = 7 * (12 + 1);
    assert_eq!(shared.params.count(), part + output);
    assert_eq!(separate.params.count(), 2 * part + output);
}

/// Tricks 13 to 17: every cell, depth, connection, reading and attention has a plausible loss, gradients for all parameters, and
/// outputs of at most the maximum length that are independent of the other sequences of the batch.
#[test]
fn all_configurations_work() {
    let mut rng = stream(3, "choices");
    for reading in [Reading::Forward, Reading::Reversed, Reading::Bidirectional] {
        for attention in [None, Some(AttentionKind::Additive), Some(AttentionKind::Multiplicative)] {
            for (cell, layers, connections, embedding) in [
                (CellKind::Rnn, 1, Connections::Plain, 1),
                (CellKind::Gru, 2, Connections::Residual, 5),
                (CellKind::Lstm, 3, Connections::Dense, 12),
                (CellKind::Lstm, 2, Connections::InputOutput, 9),
            ] {
                let stack = StackConfig { cell, layers, connections, width: 12, ..StackConfig::default() };
                let config = Seq2SeqConfig { reading, attention, embedding, stack, ..config() };
                let mut network = network(&config);
                let from = sources(&mut rng, 4, 6);
                let loss = network.loss(&Pairs::new(&from, &from).unwrap(), 1.0, None).unwrap();
                assert!((loss.double_value(&[]) - 7.0_f64.ln()).abs() < 3.0, "{config:?}");
                network.params.zero_gradient();
                loss.backward();
                for (name, gradient) in network.params.named(&network.params.gradient()) {
                    let has_gradient = gradient.values::<f32>().unwrap().iter().any(|&g| g != 0.0);
                    assert!(has_gradient, "{config:?}: no gradient in {name}");
                }
                let answers = network.greedy(&from, 5).unwrap();
                assert!(answers.iter().all(|a| a.len() <= 5 && !a.contains(&END)));
                for (source, answer) in from.iter().zip(&answers) {
                    assert_eq!(&network.greedy(std::slice::from_ref(source), 5).unwrap()[0], answer, "{config:?}");
                }
            }
        }
    }
}

/// Trick 18: the log-probabilities of beam search equal those of the network, and the exhaustive beam scores at least as high as
/// greedy decoding.
#[test]
fn beam_search_scores_equal_those_of_the_network() {
    for attention in [None, Some(AttentionKind::Multiplicative)] {
        let network = network(&Seq2SeqConfig { vocabulary: 4, attention, ..config() });
        for source in [vec![2, 3, 3], vec![3]] {
            let beam = |width, length_penalty| {
                network.beam(&source, &BeamConfig { width, length_penalty, max_steps: 4 }).unwrap()
            };
            let best = &beam(64, 0.0)[0];
            let words = &best.tokens[..best.tokens.len() - 1];
            let pairs = Pairs::new(std::slice::from_ref(&source), &[words.to_vec()]).unwrap();
            let log_prob = -value(&network, &pairs, 1.0, None) * best.tokens.len() as f64;
            assert!((best.log_prob - log_prob).abs() < 1e-4, "{} {log_prob}", best.log_prob);
            assert!(beam(1, 0.0)[0].score <= best.score);
            assert_eq!(beam(3, 1.0).len(), 3);
        }
    }
}

/// The network learns to copy sequences of one to four words.
#[test]
fn a_network_learns_to_copy() {
    let stack = StackConfig { width: 48, ..StackConfig::default() };
    let config = Seq2SeqConfig { stack, embedding: 16, attention: Some(AttentionKind::Additive), ..config() };
    let mut network = network(&config);
    let mut optimizer = Optimizer::new(Adam::default(), &network.params);
    let mut rng = stream(4, "sources");
    let test = sources(&mut stream(5, "test"), 100, 4);
    let before = network.accuracy(&test, &test).unwrap().0;
    for _ in 0..250 {
        let batch = sources(&mut rng, 32, 4);
        let loss = network.loss(&Pairs::new(&batch, &batch).unwrap(), 1.0, Some(&mut rng)).unwrap();
        network.params.zero_gradient();
        loss.backward();
        optimizer.step(&mut network.params, 5e-3, 1.0);
    }
    let after = network.accuracy(&test, &test).unwrap();
    assert!(before < 0.1 && after.0 > 0.9 && after.1 >= after.0, "{before}, then {after:?}");
}

/// Names in a checkpoint start with the part: encoder, decoder, attention or output.
#[test]
fn parameter_names_follow_the_parts() {
    let network = network(&Seq2SeqConfig { attention: Some(AttentionKind::Additive), ..config() });
    let mut snapshot = Snapshot::default();
    network.params.save(&mut snapshot);
    let names: Vec<&str> = snapshot.params.keys().map(String::as_str).collect();
    for name in ["encoder.embed.weight", "decoder.stack.layer0.weight_hh", "attention.weight_score", "output.bias"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
}

#[test]
fn invalid_settings_are_errors() {
    let error =
        |config: Seq2SeqConfig| Seq2Seq::new(&config, &mut stream(1, "init")).map(|_| ()).unwrap_err().to_string();
    let (bidirectional, shared) = (Reading::Bidirectional, true);
    let stack = StackConfig { bidirectional: true, ..StackConfig::default() };
    for (config, expected) in [
        (Seq2SeqConfig { vocabulary: 2, ..config() }, "`vocabulary` = 2 must be at least 3"),
        (Seq2SeqConfig { embedding: 0, ..config() }, "`embedding` = 0 must be at least 1"),
        (Seq2SeqConfig { shared, reading: bidirectional, ..config() }, "`shared` = true needs reading"),
        (Seq2SeqConfig { stack, ..config() }, "set reading = \"bidirectional\""),
    ] {
        let error = error(config);
        assert!(error.contains(expected), "{error}");
    }
    let network = network(&config());
    let wrong = |from: &[Vec<i64>]| network.greedy(from, 3).unwrap_err().to_string();
    assert!(wrong(&[vec![2], vec![]]).contains("sequence 1 is empty"));
    assert!(wrong(&[vec![2, 7]]).contains("token 7 must be at least 0 and less than 7"));
    assert!(Pairs::new(&[vec![2]], &[]).unwrap_err().to_string().contains("1 sources and 0 targets"));
}
