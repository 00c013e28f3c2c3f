//! The three recurrent layers as one type, for networks that choose theirs by configuration.

use super::gru::Gru;
use super::lstm::{Lstm, LstmConfig};
use super::rnn::Rnn;
use super::sequence::Lengths;
use super::state::RecurrentState;
use crate::init::InitKind;
use crate::params::{Builder, Weights};
use playfield_core::rng::Rng;
use playfield_core::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// The type of a recurrent layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CellKind {
    /// [`Rnn`].
    Rnn,
    /// [`Gru`].
    Gru,
    /// [`Lstm`].
    #[default]
    Lstm,
}

/// One recurrent layer.
#[derive(Clone, Copy, Debug)]
pub enum Recurrent {
    /// An Elman network.
    Rnn(Rnn),
    /// A gated recurrent unit.
    Gru(Gru),
    /// An LSTM.
    Lstm(Lstm),
}

impl Recurrent {
    /// A layer called `name`. The LSTM supports all of `config`, the GRU only the recurrent dropout.
    ///
    /// # Errors
    /// [`Error::Config`] where a dropout rate is not in [0, 1), or the layer lacks an option.
    pub fn new(
        b: &mut Builder<'_>,
        name: &str,
        kind: CellKind,
        (inputs, width): (i64, i64),
        config: &LstmConfig,
    ) -> Result<Self> {
        if config.peephole && kind != CellKind::Lstm {
            return Err(Error::config(format!("`peephole` = true needs cell = \"lstm\": a {kind:?} has no cell")));
        }
        let init = InitKind::FanIn;
        Ok(match kind {
            CellKind::Rnn if config.recurrent_dropout != 0.0 => {
                return Err(Error::config(format!(
                    "`recurrent_dropout` = {} must be 0 with cell = \"rnn\", whose whole state dropout would erase",
                    config.recurrent_dropout
                )));
            }
            CellKind::Rnn => Self::Rnn(Rnn::new(b, name, inputs, width, init)),
            CellKind::Gru => Self::Gru(Gru::new(b, name, inputs, width, init, config.recurrent_dropout)?),
            CellKind::Lstm => Self::Lstm(Lstm::with(b, name, (inputs, width), init, config)?),
        })
    }

    /// The number of output features.
    pub fn width(&self) -> i64 {
        match self {
            Self::Rnn(rnn) => rnn.width(),
            Self::Gru(gru) => gru.width(),
            Self::Lstm(lstm) => lstm.width(),
        }
    }

    /// The initial state of `n` sequences: zeros.
    pub fn initial_state(&self, n: usize, device: Device) -> RecurrentState {
        match self {
            Self::Lstm(_) => RecurrentState::new(n, self.width(), device),
            _ => RecurrentState::of_output(Tensor::zeros([n as i64, self.width()], (tch::Kind::Float, device))),
        }
    }

    /// Processes `x` `[steps, n, inputs]`: see [`Lstm::sequence`].
    ///
    /// # Errors
    /// As there.
    pub fn sequence(
        &self,
        w: &Weights,
        x: &Tensor,
        state: &RecurrentState,
        lengths: &Lengths,
        rng: Option<&mut Rng>,
    ) -> Result<(Tensor, RecurrentState)> {
        match self {
            Self::Rnn(rnn) => rnn.sequence(w, x, state, lengths),
            Self::Gru(gru) => gru.sequence(w, x, state, lengths, rng),
            Self::Lstm(lstm) => lstm.sequence(w, x, state, lengths, rng),
        }
    }
}
