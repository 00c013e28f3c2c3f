//! Trick 8: batch norm in a deep sigmoid network, alone and with its authors' companion changes.
//!
//! The plain network is trained as before batch norm: with local response normalization, dropout, an L2 penalty, distorted images,
//! fixed batches, and a slowly decaying learning rate. In addition to the three tested variants, each of the seven companions is
//! disabled in turn. Plain and batch norm are also compared with other initializations, because batch norm is claimed to reduce the
//! sensitivity to initial weights.

use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::config::InitKind;
use playfield_tricks::classifier::{Companion, Config, Start, train};
use playfield_tricks::data::{Dataset, digits};
use playfield_tricks::loader::Shuffle;

const PLAIN: &str = "plain";
const BN: &str = "batch norm";
const ALL: &str = "batch norm, companions";

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 8,
    name: "batch-norm",
    about: "batch normalization, with its authors' seven companion tricks",
    source: "Ioffe and Szegedy 2015, Batch Normalization",
    data: "digits (toy: 1797 images of 8×8 pixels)",
    verified_by: "crates/nn/tests/norm.rs: batch_norm_equals_pytorch",
    metric: "steps to 90 % of the test set (2000 at most)",
    better: Better::Lower,
    baseline: PLAIN,
    with: &[BN, ALL],
    timed: false,
    run,
};

/// Training stops here if the goal is not reached.
const MOST_STEPS: u64 = 2000;

/// Steps between two evaluations on the test set.
const EVAL_INTERVAL: u64 = 20;

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
    let (mut steps, tested) = (MOST_STEPS, [PLAIN, BN, ALL].contains(&variant));
    train(config, data, trial.seed(), |p| {
        if p.steps % EVAL_INTERVAL == 0 {
            let accuracy = p.classifier.accuracy(test);
            if tested {
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
