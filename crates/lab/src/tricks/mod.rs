//! The tricks, one file each, in the order of the original list.

use crate::Trick;

mod agents;
mod attention;
mod batch_norm;
mod beam_search;
mod cells;
mod char_features;
mod depth;
mod distillation;
mod dropout;
mod embedding_size;
mod encoder;
mod exploration;
mod fold;
mod forget_bias;
mod frame_skip;
mod history;
mod init;
mod log_softmax;
mod peephole;
mod perplexity;
mod random_search;
mod replay;
mod reverse_source;
mod scheduled_sampling;
mod separate_weights;
mod sequences;
mod series;
mod shuffling;
mod skip;
mod synchronous;

/// All tricks.
pub const ALL: &[Trick] = &[
    init::TRICK,
    forget_bias::TRICK,
    perplexity::TRICK,
    distillation::TRICK,
    random_search::TRICK,
    dropout::UPWARDS,
    dropout::RECURRENT,
    batch_norm::TRICK,
    shuffling::TRICK,
    skip::TRICK,
    peephole::TRICK,
    log_softmax::TRICK,
    embedding_size::TRICK,
    cells::TRICK,
    depth::TRICK,
    encoder::TRICK,
    attention::TRICK,
    beam_search::TRICK,
    reverse_source::TRICK,
    separate_weights::TRICK,
    scheduled_sampling::TRICK,
    char_features::TRICK,
    exploration::TRICK,
    frame_skip::TRICK,
    history::TRICK,
    replay::TRICK,
    synchronous::TRICK,
    fold::TRICK,
];

#[cfg(test)]
mod tests {
    use super::{ALL, exploration, frame_skip, history, replay, synchronous};
    use crate::Trial;
    use playfield_core::run::Stop;
    use std::path::Path;

    #[test]
    fn numbers_ascend_and_names_are_unique() {
        assert!(ALL.is_sorted_by(|a, b| a.number < b.number));
        for trick in ALL {
            assert_eq!(ALL.iter().filter(|t| t.name == trick.name).count(), 1, "{}", trick.name);
            assert!(!trick.with.is_empty() && !trick.with.contains(&trick.baseline), "{}", trick.name);
        }
    }

    /// The tests that each trick names exist.
    #[test]
    fn the_tests_that_verify_each_trick_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for trick in ALL {
            for test in trick.verified_by.split("; ") {
                let (file, name) = test.split_once(": ").unwrap_or_else(|| panic!("{}: '{test}'", trick.name));
                let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
                assert!(text.contains(&format!("fn {name}(")), "{}: no {name} in {file}", trick.name);
            }
        }
    }

    /// The experiments that train agents accept their own configurations: with a stop request each trains for no step.
    #[test]
    fn experiments_with_agents_have_valid_configurations() {
        for trick in [exploration::TRICK, frame_skip::TRICK, history::TRICK, replay::TRICK, synchronous::TRICK] {
            let stop = Stop::default();
            stop.request(2);
            let run = (trick.run)(&mut Trial::new(1, trick.better, stop));
            run.unwrap_or_else(|error| panic!("{}: {error}", trick.name));
        }
    }
}
