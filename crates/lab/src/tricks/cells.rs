//! Trick 14: the three recurrent cells at the same width.

use super::sequences::{Schedule, Target, Task, final_loss, train};
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::recurrent::CellKind;
use playfield_nn::stack::StackConfig;
use playfield_tricks::scheduled_sampling::Decay;
use playfield_tricks::seq2seq::Seq2SeqConfig;

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 14,
    name: "cells",
    about: "LSTM and GRU compared with a plain recurrent network of the same width",
    source: "Britz et al. 2017; Hochreiter and Schmidhuber 1997; Cho et al. 2014",
    data: "toy: reversing a sequence of 6 random words from a vocabulary of 10",
    verified_by: "crates/nn/tests/recurrent.rs: cells_and_their_gradients_equal_pytorch",
    metric: "test loss after 600 updates, nats per token",
    better: Better::Lower,
    baseline: "rnn",
    with: &["gru", "lstm"],
    timed: false,
    run,
};

fn run(trial: &mut Trial) -> Result<()> {
    let task = Task { words: 10, length: (6, 6), target: Target::Reversed };
    let schedule = Schedule { updates: 600, learning_rate: 3e-3, decay: Decay::TEACHER_FORCING };
    for (variant, cell) in [("rnn", CellKind::Rnn), ("gru", CellKind::Gru), ("lstm", CellKind::Lstm)] {
        let stack = StackConfig { cell, width: 64, ..StackConfig::default() };
        let network = train(trial, variant, &Seq2SeqConfig { stack, ..Seq2SeqConfig::default() }, &task, schedule)?;
        let loss = final_loss(trial, &network, &task)?;
        trial.record(variant, loss);
    }
    Ok(())
}
