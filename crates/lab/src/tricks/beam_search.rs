//! Trick 18: beam search compared with greedy decoding.

use super::sequences::{Schedule, Target, Task, train};
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::stack::StackConfig;
use playfield_tricks::beam::BeamConfig;
use playfield_tricks::scheduled_sampling::Decay;
use playfield_tricks::seq2seq::{END, Reading, Seq2SeqConfig};

const GREEDY: &str = "width 1";
const TEN: &str = "width 10, penalty 1";

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 18,
    name: "beam-search",
    about: "a search that keeps the ten best partial sequences, with a length penalty",
    source: "Britz et al. 2017, section 4.6; the penalty: Wu et al. 2016",
    data: "toy: copying a sequence of 2 to 10 random words from a vocabulary of 10, with a network trained for only 400 updates",
    verified_by: "crates/tricks/src/beam.rs: a_wide_beam_equals_exhaustive_search",
    metric: "share of 200 sources copied without an error",
    better: Better::Higher,
    baseline: GREEDY,
    with: &[TEN],
    timed: false,
    run,
};

fn run(trial: &mut Trial) -> Result<()> {
    let task = Task { words: 10, length: (2, 10), target: Target::Copy };
    let schedule = Schedule { updates: 400, learning_rate: 3e-3, decay: Decay::TEACHER_FORCING };
    let stack = StackConfig { width: 64, ..StackConfig::default() };
    let config = Seq2SeqConfig { reading: Reading::Reversed, stack, ..Seq2SeqConfig::default() };
    let network = train(trial, "training", &config, &task, schedule)?;
    let (sources, targets) = task.test(trial);
    for (variant, width, length_penalty) in [
        (GREEDY, 1, 0.0),
        ("width 2, penalty 1", 2, 1.0),
        ("width 5, penalty 1", 5, 1.0),
        (TEN, 10, 1.0),
        ("width 10, no penalty", 10, 0.0),
        ("width 10, penalty 2", 10, 2.0),
    ] {
        let beam = BeamConfig { width, length_penalty, max_steps: 20 };
        let mut whole = 0;
        for (source, target) in sources.iter().zip(&targets) {
            let found = network.beam(source, &beam)?;
            let said = found[0].tokens.strip_suffix(&[END]).unwrap_or(&found[0].tokens);
            whole += usize::from(said == target);
        }
        trial.record(variant, whole as f64 / targets.len() as f64);
    }
    Ok(())
}
