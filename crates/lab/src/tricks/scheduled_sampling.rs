//! Trick 21: the decoder's input tokens in training: the target's or its own.

use super::sequences::{Schedule, Target, Task, accuracy, train};
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::stack::StackConfig;
use playfield_tricks::scheduled_sampling::Decay;
use playfield_tricks::seq2seq::{Reading, Seq2SeqConfig};

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 21,
    name: "scheduled-sampling",
    about: "teacher forcing compared with feeding the decoder its own tokens increasingly often, by three schedules; and always",
    source: "Bengio, Vinyals, Jaitly and Shazeer 2015, Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks",
    data: "toy: copying a sequence of 8 random words from a vocabulary of 10, without attention",
    verified_by: "crates/tricks/tests/seq2seq.rs: epsilon_selects_true_or_predicted_tokens",
    metric: "share of correct words in free-running decoding after 600 updates",
    better: Better::Higher,
    baseline: "teacher forcing",
    with: &["linear", "exponential", "inverse sigmoid"],
    timed: false,
    run,
};

fn run(trial: &mut Trial) -> Result<()> {
    let task = Task { words: 10, length: (8, 8), target: Target::Copy };
    for (variant, decay) in [
        ("teacher forcing", Decay::TEACHER_FORCING),
        ("linear", Decay::Linear { start: 1.0, slope: 1.0 / 600.0, floor: 0.25 }),
        ("exponential", Decay::Exponential { base: 0.998 }),
        ("inverse sigmoid", Decay::InverseSigmoid { k: 60.0 }),
        ("always own tokens", Decay::Constant { epsilon: 0.0 }),
    ] {
        let schedule = Schedule { updates: 600, learning_rate: 3e-3, decay };
        let stack = StackConfig { width: 64, ..StackConfig::default() };
        let config = Seq2SeqConfig { reading: Reading::Reversed, stack, ..Seq2SeqConfig::default() };
        let network = train(trial, variant, &config, &task, schedule)?;
        let share = accuracy(trial, &network, &task)?;
        trial.record(variant, share);
    }
    Ok(())
}
