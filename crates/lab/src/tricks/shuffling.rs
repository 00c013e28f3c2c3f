//! Trick 9: the composition of batches: fixed, shuffled within shards, or shuffled thoroughly.
//!
//! With batch norm, examples that always share a batch are always normalized with the same statistics. Small batches and many
//! epochs should make the effect visible, if there is one.

use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::config::{Activation, InitKind};
use playfield_tricks::classifier::{Config, Start, train};
use playfield_tricks::data::digits;
use playfield_tricks::loader::Shuffle;

const NEVER: &str = "the same batches";
const SHARDS: &str = "within shards of 64";
const THOROUGH: &str = "thorough";

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 9,
    name: "shuffling",
    about: "examples are shuffled so that batches differ between epochs",
    source: "Ioffe and Szegedy 2015, section 4.2.1",
    data: "digits (toy: 1797 images of 8×8 pixels), a third for training",
    verified_by: "crates/tricks/tests/loader.rs: no_two_epochs_share_a_batch",
    metric: "test error after 1500 steps, %",
    better: Better::Lower,
    baseline: NEVER,
    with: &[SHARDS, THOROUGH],
    timed: false,
    run,
};

const STEPS: u64 = 1500;

fn run(trial: &mut Trial) -> Result<()> {
    let (data, test) = digits().split(2.0 / 3.0, &mut trial.rng("split"))?;
    trial.axes("step", "error on the test set, %");
    for (variant, shuffle) in
        [(NEVER, Shuffle::Never), (SHARDS, Shuffle::WithinShards { shard: 64 }), (THOROUGH, Shuffle::Thorough)]
    {
        let relu = Config { activation: Activation::Relu, init: Start::Rule(InitKind::He), ..Config::default() };
        let config = Config { hidden: vec![64, 64], batch_size: 8, shuffle, ..relu }.bn_with(&[]);
        let net = train(&config, &data, trial.seed(), |p| {
            if p.steps % 100 == 0 {
                trial.point(variant, p.steps as f64, 100.0 * (1.0 - p.classifier.accuracy(&test)));
            }
            p.steps >= STEPS
        })?;
        trial.record(variant, 100.0 * (1.0 - net.accuracy(&test)));
    }
    Ok(())
}
