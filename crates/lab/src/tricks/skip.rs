//! Trick 10: skip connections, and the gradient of the lowest layer.

use super::series::{Reader, Series, error};
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_core::rng::Rng;
use playfield_nn::skip::Connections;
use playfield_nn::stack::StackConfig;
use rand::RngExt as _;
use tch::{Device, Kind, Tensor};

const PLAIN: &str = "none";
const GRAVES: &str = "input and output";
const RESIDUAL: &str = "residual";

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 10,
    name: "skip-connections",
    about: "connections from the input to every layer and from every layer to the output; or residual connections",
    source: "Graves 2013, Generating Sequences With Recurrent Neural Networks, section 2; He et al. 2016",
    data: "toy: predicting the mean of a series of 20 random numbers; stacked LSTM layers",
    verified_by: "crates/nn/tests/recurrent.rs: stack_gradients_equal_finite_differences",
    metric: "gradient norm of the lowest of 6 layers at initialization",
    better: Better::Higher,
    baseline: PLAIN,
    with: &[GRAVES, RESIDUAL],
    timed: false,
    run,
};

const STEPS: i64 = 20;

fn run(trial: &mut Trial) -> Result<()> {
    trial.axes("layers", "norm of the lowest layer's gradient");
    for (variant, connections) in
        [(PLAIN, Connections::Plain), (GRAVES, Connections::InputOutput), (RESIDUAL, Connections::Residual)]
    {
        for layers in [1, 2, 3, 4, 6, 8, 10] {
            let stack = StackConfig { width: 32, layers, connections, ..StackConfig::default() };
            let norm = lowest(&stack, &mean(256, &mut trial.rng("series")), &mut trial.rng("init"))?;
            trial.point(variant, layers as f64, norm);
            if layers == 6 {
                trial.record(variant, norm);
            }
        }
    }
    Ok(())
}

/// The gradient norm of all parameters of the lowest layer.
fn lowest(stack: &StackConfig, series: &Series, rng: &mut Rng) -> Result<f64> {
    let mut reader = Reader::new(stack, series.x.size()[2], rng)?;
    let loss = error(&reader, series)?;
    reader.params.zero_gradient();
    loss.backward();
    let gradients = reader.params.named(&reader.params.gradient());
    let of_lowest = gradients.iter().filter(|(name, _)| name.starts_with("stack.layer0."));
    let squares =
        of_lowest.map(|(_, g)| g.values::<f32>().map_or(f64::NAN, |v| v.iter().map(|x| f64::from(x * x)).sum()));
    Ok(squares.sum::<f64>().sqrt())
}

fn mean(n: usize, rng: &mut Rng) -> Series {
    let x: Vec<f32> = (0..STEPS * n as i64).map(|_| rng.random_range(-1.0..1.0)).collect();
    let x = Tensor::from_slice(&x).view([STEPS, n as i64, 1]);
    let y = x.mean_dim([0_i64, 2].as_slice(), false, Kind::Float) * 4.0;
    Series { x, y, at: Tensor::full([n as i64], STEPS - 1, (Kind::Int64, Device::Cpu)) }
}
