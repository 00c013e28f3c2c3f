//! Trick 28: batch norm at inference, as separate layers or folded into the preceding layers.
//!
//! The two are timed alternately, so that other load on the machine affects both; the fastest pass of each counts. Their outputs
//! are equal, which the trick's test verifies, so only the time differs.

use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::config::{Activation, InitKind};
use playfield_tricks::classifier::{Config, Start, train};
use playfield_tricks::data::digits;
use std::time::Instant;

const APART: &str = "batch norm";
const FOLDED: &str = "folded";

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 28,
    name: "fold",
    about: "batch normalization folded into the weights at inference",
    source: "Ioffe and Szegedy 2015, section 3.1: at inference a linear transform",
    data: "digits (toy), batch size 1, as when acting",
    verified_by: "crates/nn/tests/norm.rs: a_folded_layer_equals_the_two",
    metric: "microseconds per forward pass",
    better: Better::Lower,
    baseline: APART,
    with: &[FOLDED],
    timed: true,
    run,
};

fn run(trial: &mut Trial) -> Result<()> {
    let (data, test) = digits().split(0.2, &mut trial.rng("split"))?;
    let relu = Config { activation: Activation::Relu, init: Start::Rule(InitKind::He), ..Config::default() };
    let config = Config { channels: vec![16, 16], hidden: vec![64, 64], ..relu }.bn_with(&[]);
    let train = || train(&config, &data, trial.seed(), |p| p.steps == 50);
    // Trained twice from the same seed: two identical networks.
    let (apart, mut folded) = (train()?, train()?);
    folded.fold();
    let (x, _) = test.tensors();
    trial.axes("images at once", "microseconds");
    for count in [1, 8, 64, 256] {
        let x = x.narrow(0, 0, count);
        let mut best = [f64::INFINITY; 2];
        for _ in 0..200 {
            for (net, best) in [&apart, &folded].iter().zip(&mut best) {
                let start = Instant::now();
                let _ = net.logits(&x);
                *best = best.min(start.elapsed().as_secs_f64() * 1e6);
            }
        }
        for (variant, best) in [APART, FOLDED].iter().zip(best) {
            trial.point(variant, count as f64, best);
            if count == 1 {
                trial.record(variant, best);
            }
        }
    }
    Ok(())
}
