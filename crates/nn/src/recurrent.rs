//! The three recurrent layers behind one name, for networks that choose theirs by configuration.

use crate::config::InitKind;
use crate::gru::Gru;
use crate::init::Init;
use crate::lstm::{Lstm, LstmConfig, RecurrentState};
use crate::params::{Builder, Weights};
use crate::rnn::Rnn;
use crate::sequence::Lengths;
use playfield_core::rng::Rng;
use playfield_core::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// Which of the three.
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
    /// A plain one.
    Rnn(Rnn),
    /// A gated unit.
    Gru(Gru),
    /// A long short-term memory.
    Lstm(Lstm),
}

impl Recurrent {
    /// A layer called `name`. Of `config` only the LSTM heeds everything; a GRU heeds the recurrent dropout.
    ///
    /// # Errors
    /// [`Error::Config`] where a dropout is not in [0, 1), or the cell has not what is asked for.
    pub fn new(
        b: &mut Builder<'_>,
        name: &str,
        kind: CellKind,
        (inputs, width): (i64, i64),
        config: &LstmConfig,
    ) -> Result<Self> {
        if config.peephole && kind != CellKind::Lstm {
            return Err(Error::config(format!(
                "`peephole` = true needs cell = \"lstm\": a {kind:?} has no cell to look at"
            )));
        }
        let init = InitKind::FanIn;
        Ok(match kind {
            CellKind::Rnn if config.recurrent_dropout != 0.0 => {
                return Err(Error::config(format!(
                    "`recurrent_dropout` = {} must be 0 with cell = \"rnn\": all it has is memory, which dropout would erase",
                    config.recurrent_dropout
                )));
            }
            CellKind::Rnn => Self::Rnn(Rnn::new(b, name, inputs, width, init)),
            CellKind::Gru => Self::Gru(Gru::new(b, name, inputs, width, init, config.recurrent_dropout)?),
            CellKind::Lstm => Self::Lstm(Lstm::with(b, name, (inputs, width), init, config)?),
        })
    }

    /// How many features it yields.
    pub fn width(&self) -> i64 {
        match self {
            Self::Rnn(rnn) => rnn.width(),
            Self::Gru(gru) => gru.width(),
            Self::Lstm(lstm) => lstm.width(),
        }
    }

    /// What it remembers of `n` sequences that start now.
    pub fn initial_state(&self, n: usize, device: Device) -> RecurrentState {
        match self {
            Self::Lstm(_) => RecurrentState::new(n, self.width(), device),
            _ => RecurrentState::of_output(Tensor::zeros([n as i64, self.width()], (tch::Kind::Float, device))),
        }
    }

    /// Goes through `x` `[steps, n, inputs]`: see [`Lstm::sequence`].
    ///
    /// # Errors
    /// As there.
    pub fn sequence(
        &self,
        w: &Weights,
        x: &Tensor,
        memory: &RecurrentState,
        lengths: &Lengths,
        rng: Option<&mut Rng>,
    ) -> Result<(Tensor, RecurrentState)> {
        match self {
            Self::Rnn(rnn) => rnn.sequence(w, x, memory, lengths),
            Self::Gru(gru) => gru.sequence(w, x, memory, lengths, rng),
            Self::Lstm(lstm) => lstm.sequence(w, x, memory, lengths, rng),
        }
    }
}

/// Initial values of a recurrent layer's matrices: PyTorch draws both from U(±1/√width).
pub(crate) fn recurrent_init(init: InitKind, width: i64) -> Init {
    match init {
        // Gates have no rectifier: He's rule is not for them.
        InitKind::FanIn | InitKind::He => Init::Uniform { fan_in: width },
        InitKind::Glorot => Init::Glorot { gain: 1.0 },
        InitKind::Orthogonal => Init::Orthogonal { gain: 1.0 },
    }
}

/// Steps through a batch by `step(t, memory)`. Where a sequence has ended its memory stands still and its output is 0.
pub(crate) fn unroll(
    lengths: &Lengths,
    memory: &RecurrentState,
    mut step: impl FnMut(i64, &RecurrentState) -> RecurrentState,
) -> (Tensor, RecurrentState) {
    let mut memory = memory.shallow_clone();
    let mask = (!lengths.is_full()).then(|| lengths.mask(memory.h().device()).unsqueeze(-1));
    let mut outputs = Vec::with_capacity(lengths.steps() as usize);
    for t in 0..lengths.steps() {
        let next = step(t, &memory);
        match mask.as_ref().map(|mask| mask.get(t)) {
            None => {
                outputs.push(next.h().shallow_clone());
                memory = next;
            }
            Some(runs) => {
                outputs.push(next.h() * runs.to_kind(next.h().kind()));
                memory = next.chosen(&runs, &memory);
            }
        }
    }
    (Tensor::stack(&outputs, 0), memory)
}
