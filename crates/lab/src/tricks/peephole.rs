//! Trick 11: peephole connections.

use super::series::{Series, train};
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_core::rng::Rng;
use playfield_nn::stack::StackConfig;
use rand::RngExt as _;
use tch::Tensor;

const WITHOUT: &str = "without";
const WITH: &str = "peepholes";

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 11,
    name: "peephole",
    about: "an LSTM's gates receive its cell state",
    source: "Gers, Schraudolph and Schmidhuber 2002, section 5.1: measuring spike delays",
    data: "toy: predicting the delay between two spikes, with 5 to 25 empty steps between them",
    verified_by: "crates/nn/tests/recurrent.rs: peepholes_equal_onnx",
    metric: "mean squared error after 1000 updates, of delays divided by the longest",
    better: Better::Lower,
    baseline: WITHOUT,
    with: &[WITH],
    timed: false,
    run,
};

/// The longest delay.
const LONGEST: usize = 25;
const STEPS: usize = LONGEST + 5;

fn run(trial: &mut Trial) -> Result<()> {
    trial.axes("updates", "mean squared error on a test set");
    for (variant, peephole) in [(WITHOUT, false), (WITH, true)] {
        let stack = StackConfig { width: 8, peephole, ..StackConfig::default() };
        let (_, mse) = train(trial, variant, (&stack, 3e-3), delays, (0.0, 1000))?;
        trial.record(variant, mse);
    }
    Ok(())
}

/// Two spikes; the target, at the second one, is the delay between them.
fn delays(n: usize, rng: &mut Rng) -> Series {
    let (mut x, mut y, mut at) = (vec![0.0_f32; STEPS * n], Vec::new(), Vec::new());
    for i in 0..n {
        let delay = rng.random_range(5..=LONGEST);
        let first = rng.random_range(0..STEPS - delay);
        x[first * n + i] = 1.0;
        x[(first + delay) * n + i] = 1.0;
        y.push(delay as f32 / LONGEST as f32);
        at.push((first + delay) as i64);
    }
    let x = Tensor::from_slice(&x).view([STEPS as i64, n as i64, 1]);
    Series { x, y: Tensor::from_slice(&y), at: Tensor::from_slice(&at) }
}
