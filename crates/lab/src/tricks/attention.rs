//! Trick 17: additive, multiplicative, and no attention.

use super::sequences::{Schedule, Target, Task, final_loss, train};
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::attention::AttentionKind;
use playfield_nn::stack::StackConfig;
use playfield_tricks::scheduled_sampling::Decay;
use playfield_tricks::seq2seq::{Reading, Seq2SeqConfig};

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 17,
    name: "attention",
    about: "a decoder that attends to the source, with an additive or a multiplicative score",
    source: "Bahdanau, Cho and Bengio 2015; Luong, Pham and Manning 2015; Britz et al. 2017, section 4.5",
    data: "toy: copying a sequence of 20 random words from a vocabulary of 10",
    verified_by: "crates/nn/tests/attention.rs: both_scores_equal_plain_loops",
    metric: "test loss after 500 updates, nats per token",
    better: Better::Lower,
    baseline: "none",
    with: &["multiplicative", "additive"],
    timed: false,
    run,
};

fn run(trial: &mut Trial) -> Result<()> {
    let task = Task { words: 10, length: (20, 20), target: Target::Copy };
    let schedule = Schedule { updates: 500, learning_rate: 3e-3, decay: Decay::TEACHER_FORCING };
    for (variant, attention) in [
        ("none", None),
        ("multiplicative", Some(AttentionKind::Multiplicative)),
        ("additive", Some(AttentionKind::Additive)),
    ] {
        let stack = StackConfig { width: 32, ..StackConfig::default() };
        let reading = Reading::Bidirectional;
        let config = Seq2SeqConfig { reading, attention, stack, ..Seq2SeqConfig::default() };
        let network = train(trial, variant, &config, &task, schedule)?;
        let loss = final_loss(trial, &network, &task)?;
        trial.record(variant, loss);
    }
    Ok(())
}
