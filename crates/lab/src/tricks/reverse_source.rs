//! Row 19: the source back to front, the target as it is; and, as a control, a target that runs the other way.

use super::sequences::{Schedule, Target, Task, final_loss, train};
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::stack::StackConfig;
use playfield_tricks::scheduled_sampling::Decay;
use playfield_tricks::seq2seq::{Reading, Seq2SeqConfig};

/// The experiment.
pub const TRICK: Trick = Trick {
    number: 19,
    name: "reverse-source",
    about: "the source is read from its end; where the target runs backwards, that should hurt instead",
    source: "Sutskever, Vinyals and Le 2014, Sequence to Sequence Learning with Neural Networks",
    data: "toy: copying 8 random words of 10 after having read them, without attention; control: saying them backwards",
    held_by: "crates/tricks/tests/seq2seq.rs: reversed_reads_from_the_end_of_each_source",
    metric: "test loss after 600 updates, nats a token",
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
        ("control: forward, target backwards", Reading::Forward, Target::Reversed),
        ("control: reversed, target backwards", Reading::Reversed, Target::Reversed),
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
