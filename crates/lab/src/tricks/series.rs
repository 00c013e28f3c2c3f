//! Series of numbers and a recurrent regression network, shared by the experiments on recurrent layers.

use crate::Trial;
use playfield_core::Result;
use playfield_core::rng::Rng;
use playfield_nn::init::Init;
use playfield_nn::linear::Linear;
use playfield_nn::params::{Builder, Params};
use playfield_nn::sequence::Lengths;
use playfield_nn::stack::{Stack, StackConfig};
use tch::{Device, Kind, Tensor, no_grad};

/// A recurrent stack with a linear layer on its output: `[steps, n, inputs] → [steps, n]`.
pub(super) struct Reader {
    pub params: Params,
    stack: Stack,
    output: Linear,
}

impl Reader {
    pub fn new(config: &StackConfig, inputs: i64, rng: &mut Rng) -> Result<Self> {
        let mut b = Builder::new(rng);
        let stack = Stack::new(&mut b, "stack", inputs, config)?;
        let uniform = Init::Uniform { fan_in: stack.outputs() };
        let output = Linear::new(&mut b, "output", stack.outputs(), 1, uniform, Init::Constant(0.0));
        Ok(Self { params: b.finish(Device::Cpu, Kind::Float), stack, output })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (steps, n, _) = x.size3().expect("[steps, n, inputs]");
        let (w, start) = (self.params.weights(), self.stack.initial_state(n as usize, Device::Cpu));
        let (y, _) = self.stack.forward(w, x, &start, &Lengths::full(n, steps)?, None)?;
        Ok(self.output.forward(w, &y).squeeze_dim(-1))
    }
}

/// A task: series `[steps, n, inputs]`, the target `[n]` of each, and the step `[n]` of each at which it is predicted.
pub(super) struct Series {
    pub x: Tensor,
    pub y: Tensor,
    pub at: Tensor,
}

/// The mean squared error of `reader`'s predictions at the steps `series.at` (a scalar).
pub(super) fn error(reader: &Reader, series: &Series) -> Result<Tensor> {
    let said = reader.forward(&series.x)?.gather(0, &series.at.unsqueeze(0), false).squeeze_dim(0);
    Ok((said - &series.y).square().mean(Kind::Float))
}

/// Trains on fresh series of 64 until the error on `test` falls below `goal`, or `most` updates are done; returns their number and
/// the last error. Draws the error as the curve of `variant`.
pub(super) fn train(
    trial: &mut Trial,
    variant: &str,
    (config, learning_rate): (&StackConfig, f64),
    draw: impl Fn(usize, &mut Rng) -> Series,
    (goal, most): (f64, u64),
) -> Result<(u64, f64)> {
    let test = draw(500, &mut trial.rng("test"));
    let mut reader = Reader::new(config, test.x.size()[2], &mut trial.rng("init"))?;
    let (mut optimizer, mut series) = (super::sequences::adam(&reader.params), trial.rng("series"));
    for update in 0..=most {
        if update % 50 == 0 {
            let mse = no_grad(|| error(&reader, &test))?.double_value(&[]);
            trial.point(variant, update as f64, mse);
            if mse < goal || update == most {
                return Ok((update, mse));
            }
        }
        let loss = error(&reader, &draw(64, &mut series))?;
        reader.params.zero_gradient();
        loss.backward();
        optimizer.step(&mut reader.params, learning_rate, 1.0);
    }
    unreachable!("the last update returns")
}
