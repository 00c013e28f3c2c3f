//! Trick 13: the embedding dimension.

use super::sequences::{Schedule, Target, Task, final_loss, train};
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::stack::StackConfig;
use playfield_tricks::scheduled_sampling::Decay;
use playfield_tricks::seq2seq::{Reading, Seq2SeqConfig};

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 13,
    name: "embedding-size",
    about: "embeddings of 4, 16, 64 and 256 dimensions for 26 words",
    source: "Britz, Goldie, Luong and Le 2017, Massive Exploration of Neural Machine Translation Architectures",
    data: "toy: copying a sequence of 5 random words from a vocabulary of 26",
    verified_by: "crates/tricks/tests/seq2seq.rs: all_configurations_work",
    metric: "test loss after 600 updates, nats per token",
    better: Better::Lower,
    baseline: "4",
    with: &["16", "64", "256"],
    timed: false,
    run,
};

fn run(trial: &mut Trial) -> Result<()> {
    let task = Task { words: 26, length: (5, 5), target: Target::Copy };
    let schedule = Schedule { updates: 600, learning_rate: 3e-3, decay: Decay::TEACHER_FORCING };
    for (variant, embedding) in [("4", 4), ("16", 16), ("64", 64), ("256", 256)] {
        let stack = StackConfig { width: 64, ..StackConfig::default() };
        let config = Seq2SeqConfig { embedding, stack, reading: Reading::Reversed, ..Seq2SeqConfig::default() };
        let network = train(trial, variant, &config, &task, schedule)?;
        let loss = final_loss(trial, &network, &task)?;
        trial.record(variant, loss);
    }
    Ok(())
}
