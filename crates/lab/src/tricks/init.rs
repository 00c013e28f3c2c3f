//! Trick 1: initial weights scaled by the size of each layer, or of the same scale everywhere.
//!
//! The network has six tanh layers. Weights that are not scaled by the number of inputs saturate tanh: the outputs are ±1 and the
//! gradient vanishes. The curves show the effect at initialization: the standard deviation of activations by depth.

use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::config::{Activation, InitKind};
use playfield_tricks::classifier::{Classifier, Config, Start, train};
use playfield_tricks::data::digits;
use tch::Kind;

const SAME: &str = "U(±.5) everywhere";
const FAN_IN: &str = "U(±1/√fan_in)";

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 1,
    name: "init",
    about: "initial weights uniform in ±1/√fan_in, biases likewise or 0",
    source: "Bottou 2012, Stochastic Gradient Descent Tricks; Torch's default",
    data: "digits (toy: 1797 images of 8×8 pixels)",
    verified_by: "crates/nn/tests/init.rs: each_rule_has_its_papers_variance_and_bound",
    metric: "epochs to 90 % of the test set (30 at most)",
    better: Better::Lower,
    baseline: SAME,
    with: &[FAN_IN],
    timed: false,
    run,
};

/// Training stops here if the goal is not reached.
const MOST_EPOCHS: u64 = 30;

fn run(trial: &mut Trial) -> Result<()> {
    let (data, test) = digits().split(0.2, &mut trial.rng("split"))?;
    let (x, _) = test.tensors();
    trial.axes("layer", "standard deviation of activations before learning");
    for (variant, init) in [
        (SAME, Start::Same { bound: 0.5 }),
        (FAN_IN, Start::Rule(InitKind::FanIn)),
        ("Glorot", Start::Rule(InitKind::Glorot)),
        ("He", Start::Rule(InitKind::He)),
        ("orthogonal, gain √2", Start::Rule(InitKind::Orthogonal)),
    ] {
        let config = Config { hidden: vec![100; 6], activation: Activation::Tanh, init, ..Config::default() };
        let fresh = Classifier::new(&config, data.features, data.classes, trial.seed())?;
        for (depth, y) in fresh.activations(&x).iter().enumerate() {
            // Over the batch: the variation with the input, without the bias.
            let deviation = y.std_dim([0_i64].as_slice(), false, false).mean(Kind::Float).double_value(&[]);
            trial.point(variant, depth as f64 + 1.0, deviation);
        }
        let (mut epochs, mut last) = (MOST_EPOCHS, 0);
        train(&config, &data, trial.seed(), |p| {
            let ended = p.epochs > last;
            last = p.epochs;
            if ended && p.classifier.accuracy(&test) >= 0.9 {
                epochs = p.epochs;
                return true;
            }
            p.epochs >= MOST_EPOCHS
        })?;
        trial.record(variant, epochs as f64);
    }
    Ok(())
}
