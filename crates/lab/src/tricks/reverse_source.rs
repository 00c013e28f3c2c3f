//! Trick 19: a reversed source with an unchanged target; as a control, a reversed target.

use super::sequences::{Schedule, Target, Task, final_loss, train};
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::stack::StackConfig;
use playfield_tricks::scheduled_sampling::Decay;
use playfield_tricks::seq2seq::{Reading, Seq2SeqConfig};

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 19,
    name: "reverse-source",
    about: "the source is reversed; with a reversed target, this should hurt",
    source: "Sutskever, Vinyals and Le 2014, Sequence to Sequence Learning with Neural Networks",
    data: "toy: copying a sequence of 8 random words from a vocabulary of 10, without attention; control: reversing it",
    verified_by: "crates/tricks/tests/seq2seq.rs: reversed_reads_from_the_end_of_each_source",
    metric: "test loss after 600 updates, nats per token",
    better: Better::Lower,
    baseline: "forward",
    with: &["reversed"],
    timed: false,
    run,
};

fn run(trial: &mut Trial) -> Result<()> {
    let schedule = Schedule { updates: 600, learning_rate: 3e-3, decay: Decay::TEACHER_FORCING };
    for (variant, reading, target) in [
        ("forward", Reading::Forward, Target::Copy),
        ("reversed", Reading::Reversed, Target::Copy),
        ("control: forward, reversed target", Reading::Forward, Target::Reversed),
        ("control: reversed, reversed target", Reading::Reversed, Target::Reversed),
    ] {
        let task = Task { words: 10, length: (8, 8), target };
        let stack = StackConfig { width: 64, ..StackConfig::default() };
        let config = Seq2SeqConfig { reading, stack, ..Seq2SeqConfig::default() };
        let network = train(trial, variant, &config, &task, schedule)?;
        let loss = final_loss(trial, &network, &task)?;
        trial.record(variant, loss);
    }
    Ok(())
}
