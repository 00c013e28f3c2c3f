//! Tricks 6 and 7: dropout that does not erase the recurrent state: between layers, or of an LSTM's candidate values.

use super::sequences::adam;
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::stack::StackConfig;
use playfield_tricks::char_rnn::{CharRnn, CharRnnConfig, Streams};
use playfield_tricks::data::reviews;

const NONE: &str = "none";
const UP: &str = "between layers";
const CANDIDATE: &str = "candidate values";

const DATA: &str =
    "8,000 characters of product reviews for training, 8,000 others for validation; two LSTM layers of 128";
const METRIC: &str = "lowest validation loss within 400 updates, nats per character";

/// Trick 6.
pub const UPWARDS: Trick = Trick {
    number: 6,
    name: "dropout",
    about: "dropout between the layers of a recurrent network, not on the recurrent connections",
    source: "Zaremba, Sutskever and Vinyals 2014",
    data: DATA,
    verified_by: "crates/nn/tests/recurrent.rs: dropout_does_not_affect_recurrent_connections",
    metric: METRIC,
    better: Better::Lower,
    baseline: NONE,
    with: &[UP],
    timed: false,
    run: |trial| measure(trial, &[(NONE, 0.0, 0.0), (UP, 0.3, 0.0), ("between layers, half the rate", 0.5, 0.0)]),
};

/// Trick 7.
pub const RECURRENT: Trick = Trick {
    number: 7,
    name: "recurrent-dropout",
    about: "dropout of an LSTM's candidate values, which leaves the cell state intact",
    source: "Semeniuta, Severyn and Barth 2016",
    data: DATA,
    verified_by: "crates/nn/tests/recurrent.rs: recurrent_dropout_preserves_the_cell_state",
    metric: METRIC,
    better: Better::Lower,
    baseline: UP,
    with: &[CANDIDATE, "both"],
    timed: false,
    run: |trial| measure(trial, &[(UP, 0.3, 0.0), (CANDIDATE, 0.0, 0.3), ("both", 0.3, 0.3), (NONE, 0.0, 0.0)]),
};

/// Trains with each of `(variant, dropout, recurrent dropout)`.
fn measure(trial: &mut Trial, variants: &[(&str, f64, f64)]) -> Result<()> {
    let all: String = reviews().iter().map(|(_, text)| format!("{text}\n")).collect();
    let (train, rest) = all.as_bytes().split_at(8_000);
    let validation = &rest[..8_000];
    trial.axes("updates", "validation loss, nats per character");
    for &(variant, dropout, recurrent_dropout) in variants {
        let stack = StackConfig { layers: 2, dropout, recurrent_dropout, ..StackConfig::default() };
        let mut network = CharRnn::new(&CharRnnConfig { stack, ..CharRnnConfig::default() }, &mut trial.rng("init"))?;
        let (mut optimizer, mut streams) = (adam(&network.params), Streams::new(train, 8, 40)?);
        let (mut rng, mut lowest) = (trial.rng("dropout"), f64::INFINITY);
        for update in 1..=400 {
            network.train(&mut streams, &mut optimizer, 5e-3, 1.0, &mut rng)?;
            if update % 20 == 0 {
                let loss = network.evaluate(validation, 8)?;
                trial.point(variant, f64::from(update), loss);
                lowest = lowest.min(loss);
            }
        }
        trial.record(variant, lowest);
    }
    Ok(())
}
