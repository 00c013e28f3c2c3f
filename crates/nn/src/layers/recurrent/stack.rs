//! Stacked recurrent layers: unidirectional or bidirectional, with dropout and skip connections.
//!
//! ```text
//! xˡ⁺¹ = layer_l(D(xˡ))         D: dropout between layers and on the output, never on the recurrent
//! y    = D(x^L)                 connections (Zaremba, Sutskever and Vinyals 2014)
//! ```
//!
//! A bidirectional layer (Schuster and Paliwal 1997) is two layers of half the width, one of which reads every sequence from its own
//! end; their outputs are concatenated. It needs the whole sequence, such as a sentence to be translated: not for acting, and not
//! for a decoder.
//!
//! Two to four layers are enough for most (Britz et al. 2017, section 4.3); more need [`Connections`].

use super::cell::{CellKind, Recurrent};
use super::lstm::LstmConfig;
use super::sequence::Lengths;
use super::state::RecurrentState;
use crate::layers::dropout::Dropout;
use crate::layers::skip::{Connections, Skip};
use crate::params::{Builder, Weights};
use playfield_core::rng::Rng;
use playfield_core::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// The settings of a [`Stack`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StackConfig {
    /// The recurrent layer.
    pub cell: CellKind,
    /// Output features of each layer, both directions together.
    pub width: i64,
    /// The number of layers.
    pub layers: i64,
    /// Whether every layer is bidirectional.
    pub bidirectional: bool,
    /// Skip connections.
    pub connections: Connections,
    /// Dropout rate between layers and on the output, in [0, 1).
    pub dropout: f64,
    /// Dropout rate of a cell's candidate, in [0, 1): see [`crate::lstm`].
    pub recurrent_dropout: f64,
    /// The initial forget bias of an LSTM.
    pub forget_bias: f32,
    /// Whether an LSTM has peepholes.
    pub peephole: bool,
}

impl Default for StackConfig {
    fn default() -> Self {
        let LstmConfig { forget_bias, peephole, recurrent_dropout } = LstmConfig::default();
        Self {
            cell: CellKind::Lstm,
            width: 128,
            layers: 1,
            bidirectional: false,
            connections: Connections::Plain,
            dropout: 0.0,
            recurrent_dropout,
            forget_bias,
            peephole,
        }
    }
}

/// `[steps, n, inputs] → [steps, n, outputs]`.
#[derive(Clone, Debug)]
pub struct Stack {
    /// Each layer in one or two directions.
    layers: Vec<Vec<Recurrent>>,
    skip: Skip,
    dropout: Dropout,
}

impl Stack {
    /// A stack called `name`; its layers are `layer0`, `layer1` …, the backward ones `layer0_reverse` ….
    ///
    /// # Errors
    /// [`Error::Config`] naming a setting that cannot work.
    pub fn new(b: &mut Builder<'_>, name: &str, inputs: i64, config: &StackConfig) -> Result<Self> {
        let directions = if config.bidirectional { 2 } else { 1 };
        for (setting, value) in [("width", config.width), ("layers", config.layers), ("inputs", inputs)] {
            if value < 1 {
                return Err(Error::config(format!("`{setting}` = {value} must be at least 1")));
            }
        }
        if config.width % directions != 0 {
            return Err(Error::config(format!("`width` = {} must be even: each direction has half", config.width)));
        }
        let dropout = Dropout::new("dropout", config.dropout)?;
        let lstm = LstmConfig {
            forget_bias: config.forget_bias,
            peephole: config.peephole,
            recurrent_dropout: config.recurrent_dropout,
        };
        b.scope(name, |b| {
            let skip = Skip::new(b, config.connections, inputs, config.width, config.layers);
            let mut layers = Vec::new();
            for l in 0..config.layers {
                let size = (skip.inputs(l), config.width / directions);
                let names = [format!("layer{l}"), format!("layer{l}_reverse")];
                let layer = names.iter().take(directions as usize);
                layers
                    .push(layer.map(|name| Recurrent::new(b, name, config.cell, size, &lstm)).collect::<Result<_>>()?);
            }
            Ok(Self { layers, skip, dropout })
        })
    }

    /// The number of output features.
    pub fn outputs(&self) -> i64 {
        self.skip.outputs()
    }

    /// The initial states of `n` sequences: zeros, layer by layer, forward before backward.
    pub fn initial_state(&self, n: usize, device: Device) -> Vec<RecurrentState> {
        self.layers.iter().flatten().map(|layer| layer.initial_state(n, device)).collect()
    }

    /// Processes `x` `[steps, n, inputs]` from `states`; `rng` in training, for dropout. Returns the outputs, 0 past a
    /// sequence's end, and each layer's state at the end of each sequence (of a backward layer: at its beginning).
    ///
    /// # Errors
    /// [`Error::Config`] where `x` or `states` does not fit the lengths or this stack.
    pub fn forward(
        &self,
        w: &Weights,
        x: &Tensor,
        states: &[RecurrentState],
        lengths: &Lengths,
        mut rng: Option<&mut Rng>,
    ) -> Result<(Tensor, Vec<RecurrentState>)> {
        let directions = self.layers[0].len();
        if states.len() != self.layers.len() * directions {
            let needed = self.layers.len() * directions;
            return Err(Error::config(format!(
                "recurrent states of {} layers where {needed} are needed",
                states.len()
            )));
        }
        let mut ends = Vec::with_capacity(states.len());
        let y = self.skip.forward(w, x, |l, x| {
            let x = self.dropout.apply(x, rng.as_deref_mut());
            let mut read = |d: usize, x: &Tensor| {
                let start = &states[l * directions + d];
                let (y, end) = self.layers[l][d].sequence(w, x, start, lengths, rng.as_deref_mut())?;
                ends.push(end);
                Ok::<_, Error>(y)
            };
            let forwards = read(0, &x)?;
            if directions == 1 {
                return Ok(forwards);
            }
            let backwards = lengths.reverse(&read(1, &lengths.reverse(&x))?);
            Ok(Tensor::cat(&[forwards, backwards], -1))
        })?;
        // Skip connections bypass the layers' masks.
        Ok((lengths.clear(&self.dropout.apply(&y, rng)), ends))
    }
}
