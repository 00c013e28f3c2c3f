//! Trick 20: separate weights for encoder and decoder.

use super::sequences::{Schedule, Target, Task, final_loss, train};
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::stack::StackConfig;
use playfield_tricks::scheduled_sampling::Decay;
use playfield_tricks::seq2seq::{Reading, Seq2SeqConfig};

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 20,
    name: "separate-weights",
    about: "separate weights for encoder and decoder, compared with shared weights (and a wider shared network with as many parameters)",
    source: "Sutskever, Vinyals and Le 2014, section 2",
    data: "toy: copying a sequence of 6 random words from a vocabulary of 10",
    verified_by: "crates/tricks/tests/seq2seq.rs: shared_weights_are_counted_once",
    metric: "test loss after 600 updates, nats per token",
    better: Better::Lower,
    baseline: "shared",
    with: &["separate"],
    timed: false,
    run,
};

fn run(trial: &mut Trial) -> Result<()> {
    let task = Task { words: 10, length: (6, 6), target: Target::Copy };
    let schedule = Schedule { updates: 600, learning_rate: 3e-3, decay: Decay::TEACHER_FORCING };
    for (variant, shared, width) in [("shared", true, 64), ("separate", false, 64), ("shared, width 96", true, 96)] {
        let stack = StackConfig { width, ..StackConfig::default() };
        let config = Seq2SeqConfig { shared, reading: Reading::Reversed, stack, ..Seq2SeqConfig::default() };
        let network = train(trial, variant, &config, &task, schedule)?;
        let loss = final_loss(trial, &network, &task)?;
        trial.record(variant, loss);
    }
    Ok(())
}
