//! Trick 2: the initial bias of an LSTM's forget gate.

use super::series::{Series, train};
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_core::rng::Rng;
use playfield_nn::stack::StackConfig;
use rand::RngExt as _;
use tch::Tensor;

const ZERO: &str = "bias 0";
const ONE: &str = "bias 1";

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 2,
    name: "forget-bias",
    about: "an LSTM's forget gate bias is initialized to 1",
    source: "Gers, Schmidhuber and Cummins 2000; Jozefowicz, Zaremba and Sutskever 2015",
    data: "the adding problem (Hochreiter and Schmidhuber 1997): the sum of two marked numbers among 100",
    verified_by: "crates/nn/tests/lstm.rs: the_forget_gate_starts_open; crates/nn/tests/recurrent.rs: cells_and_their_gradients_equal_pytorch",
    metric: "updates to a mean squared error below .05 (2000 at most)",
    better: Better::Lower,
    baseline: ZERO,
    with: &[ONE],
    timed: false,
    run,
};

const STEPS: usize = 100;

fn run(trial: &mut Trial) -> Result<()> {
    trial.axes("updates", "mean squared error on a test set");
    for (variant, forget_bias) in [(ZERO, 0.0), (ONE, 1.0)] {
        let stack = StackConfig { width: 32, forget_bias, ..StackConfig::default() };
        let (updates, _) = train(trial, variant, (&stack, 3e-3), adding, (0.05, 2000))?;
        trial.record(variant, updates as f64);
    }
    Ok(())
}

/// Numbers in [0, 1); one in each half is marked. The target, at the last step, is the sum of the two.
fn adding(n: usize, rng: &mut Rng) -> Series {
    let (mut x, mut y) = (vec![0.0_f32; STEPS * n * 2], Vec::new());
    for i in 0..n {
        for t in 0..STEPS {
            x[(t * n + i) * 2] = rng.random();
        }
        let marked = [rng.random_range(0..STEPS / 2), rng.random_range(STEPS / 2..STEPS)];
        marked.iter().for_each(|t| x[(t * n + i) * 2 + 1] = 1.0);
        y.push(marked.iter().map(|t| x[(t * n + i) * 2]).sum::<f32>());
    }
    let at = Tensor::full([n as i64], STEPS as i64 - 1, (tch::Kind::Int64, tch::Device::Cpu));
    Series { x: Tensor::from_slice(&x).view([STEPS as i64, n as i64, 2]), y: Tensor::from_slice(&y), at }
}
