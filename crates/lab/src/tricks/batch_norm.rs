//! Batch norm in a deep sigmoid network, alone and with what its authors change along with it.
//!
//! The plain network is trained as one was before: local response normalization, dropout, an L2 penalty, distorted images,
//! batches that repeat, a learning rate that falls slowly. Beside the three that are judged, each of the seven companions is
//! switched off in turn; and plain and batch norm start from other weights, as batch norm is said to lessen the need for good
//! ones.

use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::config::InitKind;
use playfield_tricks::classifier::{Companion, Config, Start, train};
use playfield_tricks::data::{Dataset, digits};
use playfield_tricks::loader::Shuffle;

const PLAIN: &str = "plain";
const BN: &str = "batch norm";
const ALL: &str = "batch norm, companions";

/// The trick.
pub const TRICK: Trick = Trick {
    number: 8,
    name: "batch-norm",
    about: "batch normalization, with its authors' seven companion tricks",
    source: "Ioffe and Szegedy 2015, Batch Normalization",
    data: "digits (toy: 1797 images of 8×8 pixels)",
    held_by: "crates/nn/tests/norm.rs: batch_norm_equals_pytorch",
    metric: "steps to 90 % of the test set (2000 at most)",
    better: Better::Lower,
    baseline: PLAIN,
    with: &[BN, ALL],
    timed: false,
    run,
};

/// Where a training that does not get there is given up.
const MOST_STEPS: u64 = 2000;

/// Steps between two looks at the test set.
const LOOK: u64 = 20;

fn plain() -> Config {
    let plain = Config::default();
    Config {
        channels: vec![8],
        hidden: vec![64; 4],
        local_response: true,
        dropout: 0.1,
        optimizer: plain.optimizer.with_weight_decay(1e-4),
        learning_rate: 0.02,
        learning_rate_decay: 0.995,
        shuffle: Shuffle::Never,
        distortion: 0.3,
        ..plain
    }
}

fn run(trial: &mut Trial) -> Result<()> {
    let (data, test) = digits().split(0.2, &mut trial.rng("split"))?;
    trial.axes("step", "accuracy on the test set");
    measure(trial, PLAIN, &plain(), &data, &test)?;
    measure(trial, BN, &plain().bn_with(&[]), &data, &test)?;
    measure(trial, ALL, &plain().bn(), &data, &test)?;
    for companion in Companion::ALL {
        let others: Vec<_> = Companion::ALL.into_iter().filter(|&c| c != companion).collect();
        measure(trial, &format!("companions but {companion:?}"), &plain().bn_with(&others), &data, &test)?;
    }
    for (start, init) in [
        ("U(±.5) everywhere", Start::Same { bound: 0.5 }),
        ("Glorot", Start::Rule(InitKind::Glorot)),
        ("orthogonal", Start::Rule(InitKind::Orthogonal)),
    ] {
        let config = Config { init, ..plain() };
        measure(trial, &format!("{PLAIN}, {start}"), &config, &data, &test)?;
        measure(trial, &format!("{BN}, {start}"), &config.bn_with(&[]), &data, &test)?;
    }
    Ok(())
}

fn measure(trial: &mut Trial, variant: &str, config: &Config, data: &Dataset, test: &Dataset) -> Result<()> {
    let (mut steps, judged) = (MOST_STEPS, [PLAIN, BN, ALL].contains(&variant));
    train(config, data, trial.seed(), |p| {
        if p.steps % LOOK == 0 {
            let accuracy = p.classifier.accuracy(test);
            if judged {
                trial.point(variant, p.steps as f64, accuracy);
            }
            if accuracy >= 0.9 {
                steps = p.steps;
                return true;
            }
        }
        p.steps >= MOST_STEPS
    })?;
    trial.record(variant, steps as f64);
    Ok(())
}
