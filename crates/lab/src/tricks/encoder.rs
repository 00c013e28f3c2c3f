//! Trick 16: the direction of the encoder.

use super::sequences::{Schedule, Target, Task, final_loss, train};
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::stack::StackConfig;
use playfield_tricks::scheduled_sampling::Decay;
use playfield_tricks::seq2seq::{Reading, Seq2SeqConfig};

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 16,
    name: "encoder",
    about: "a bidirectional, a reversed, or a forward encoder",
    source: "Britz et al. 2017, section 4.4; Schuster and Paliwal 1997",
    data: "toy: copying a sequence of 4 to 8 random words from a vocabulary of 10, without attention",
    verified_by: "crates/nn/tests/recurrent.rs: cells_and_their_gradients_equal_pytorch",
    metric: "test loss after 600 updates, nats per token",
    better: Better::Lower,
    baseline: "forward",
    with: &["reversed", "bidirectional"],
    timed: false,
    run,
};

fn run(trial: &mut Trial) -> Result<()> {
    let task = Task { words: 10, length: (4, 8), target: Target::Copy };
    let schedule = Schedule { updates: 600, learning_rate: 3e-3, decay: Decay::TEACHER_FORCING };
    for (variant, reading) in
        [("forward", Reading::Forward), ("reversed", Reading::Reversed), ("bidirectional", Reading::Bidirectional)]
    {
        let stack = StackConfig { width: 64, ..StackConfig::default() };
        let config = Seq2SeqConfig { reading, stack, ..Seq2SeqConfig::default() };
        let network = train(trial, variant, &config, &task, schedule)?;
        let loss = final_loss(trial, &network, &task)?;
        trial.record(variant, loss);
    }
    Ok(())
}
