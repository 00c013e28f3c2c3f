//! Skip connections, which preserve gradients in deep stacks.
//!
//! ```text
//! plain           x¹ = f₀(x⁰)              x² = f₁(x¹)                    y = x^L
//! input_output    x¹ = f₀(x⁰)              x² = f₁([x⁰; x¹])              y = [x¹; …; x^L]     Graves 2013
//! residual        x¹ = f₀(x⁰) + x⁰         x² = f₁(x¹) + x¹               y = x^L              He et al. 2016
//! dense           x¹ = f₀(x⁰) + x⁰         x² = f₁(x¹) + x¹ + x⁰          y = x^L              Britz et al. 2017, "ResD"
//! ```
//!
//! `input_output` connects the input to every layer and every layer to the output, at the price of wider matrices. The sums are
//! free, but need equal widths: a linear layer projects an input of another width.
//!
//! Not for one or two layers. A dense sum grows: with layers near 0 at initialization x^l is about 2^(l−1)·x⁰, which
//! saturates cells in stacks of eight layers.

use crate::init::Init;
use crate::layers::linear::Linear;
use crate::params::{Builder, Weights};
use playfield_core::Result;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// The type of skip connections of a stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connections {
    /// None.
    #[default]
    Plain,
    /// From the input to every layer, and from every layer to the output.
    InputOutput,
    /// From each layer's input to its output.
    Residual,
    /// From the inputs of all layers so far to a layer's output.
    Dense,
}

/// The connections of a stack of `layers` layers.
#[derive(Clone, Copy, Debug)]
pub struct Skip {
    connections: Connections,
    project: Option<Linear>,
    inputs: i64,
    width: i64,
    layers: i64,
}

impl Skip {
    /// Skip connections of `layers` layers of `width` features each, on an input of `inputs` features.
    pub fn new(b: &mut Builder<'_>, connections: Connections, inputs: i64, width: i64, layers: i64) -> Self {
        let sums = matches!(connections, Connections::Residual | Connections::Dense);
        let uniform = Init::Uniform { fan_in: inputs };
        let project =
            (sums && inputs != width).then(|| Linear::new(b, "project", inputs, width, uniform, Init::Constant(0.0)));
        Self { connections, project, inputs, width, layers }
    }

    /// The number of input features of layer `layer` (from 0).
    pub fn inputs(&self, layer: i64) -> i64 {
        match (self.connections, layer) {
            (Connections::InputOutput, 1..) => self.inputs + self.width,
            (_, 0) if self.project.is_none() => self.inputs,
            _ => self.width,
        }
    }

    /// The number of output features of the stack.
    pub fn outputs(&self) -> i64 {
        match self.connections {
            Connections::InputOutput => self.layers * self.width,
            _ => self.width,
        }
    }

    /// Applies `layer(l, x)` for each layer to `x` `[…, inputs]`, with the connections: `[…, outputs]`.
    ///
    /// # Errors
    /// Those of `layer`.
    pub fn forward(
        &self,
        w: &Weights,
        x: &Tensor,
        mut layer: impl FnMut(usize, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let input = self.project.map_or_else(|| x.shallow_clone(), |project| project.forward(w, x));
        let (mut x, mut sum, mut all) = (input.shallow_clone(), input.shallow_clone(), Vec::new());
        for l in 0..self.layers as usize {
            match self.connections {
                Connections::Plain => x = layer(l, &x)?,
                Connections::Residual => x = layer(l, &x)? + &x,
                Connections::Dense => {
                    x = layer(l, &x)? + &sum;
                    sum = &sum + &x;
                }
                Connections::InputOutput => {
                    let below = if l == 0 { x.shallow_clone() } else { Tensor::cat(&[&input, &x], -1) };
                    x = layer(l, &below)?;
                    all.push(x.shallow_clone());
                }
            }
        }
        Ok(if all.is_empty() { x } else { Tensor::cat(&all, -1) })
    }
}
