//! Trick 15: eight layers, with residual connections, dense ones, and none.

use super::sequences::{Schedule, Target, Task, final_loss, train};
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::skip::Connections;
use playfield_nn::stack::StackConfig;
use playfield_tricks::scheduled_sampling::Decay;
use playfield_tricks::seq2seq::Seq2SeqConfig;

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 15,
    name: "depth",
    about: "eight layers with dense residual (ResD), residual or no skip connections; and two layers without",
    source: "Britz et al. 2017, section 4.3; He et al. 2016",
    data: "toy: reversing a sequence of 4 random words from a vocabulary of 10",
    verified_by: "crates/nn/tests/recurrent.rs: stack_gradients_equal_finite_differences",
    metric: "test loss after 250 updates, nats per token",
    better: Better::Lower,
    baseline: "none",
    with: &["residual", "dense"],
    timed: false,
    run,
};

fn run(trial: &mut Trial) -> Result<()> {
    let task = Task { words: 10, length: (4, 4), target: Target::Reversed };
    let schedule = Schedule { updates: 250, learning_rate: 3e-3, decay: Decay::TEACHER_FORCING };
    for (variant, connections, layers) in [
        ("none", Connections::Plain, 8),
        ("residual", Connections::Residual, 8),
        ("dense", Connections::Dense, 8),
        ("none, 2 layers", Connections::Plain, 2),
    ] {
        let stack = StackConfig { connections, layers, width: 32, ..StackConfig::default() };
        let network = train(trial, variant, &Seq2SeqConfig { stack, ..Seq2SeqConfig::default() }, &task, schedule)?;
        let loss = final_loss(trial, &network, &task)?;
        trial.record(variant, loss);
    }
    Ok(())
}
