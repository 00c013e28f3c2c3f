//! Long short-term memory (Hochreiter and Schmidhuber 1997; Gers, Schmidhuber and Cummins 2000).
//!
//! ```text
//! i, f, g, o = x W_ihᵀ + h W_hhᵀ + b         gates, in PyTorch's order
//! c′ = σ(f)·c + σ(i)·tanh(g)                 the cell
//! h′ = σ(o)·tanh(c′)                         the output
//! ```
//!
//! The forget gate's bias starts at 1, so that the cell keeps its value until training decides otherwise (Jozefowicz, Zaremba and
//! Sutskever 2015). The recurrent state is an argument and a result ([`RecurrentState`]): acting carries it from step to step, an
//! update starts from the state saved at the beginning of the rollout, and a bootstrap value is computed without advancing it.
//!
//! **Peepholes** (Gers, Schraudolph and Schmidhuber 2002) connect the *cell* to the gates, with one weight per element:
//! p_i·c and p_f·c are added to i and f, and p_o·c′ to o, as in ONNX's LSTM (`P`). (Some lists of tricks describe peepholes as
//! connections of the previous *output*, which every LSTM has.) For tasks that depend on timing. They start at 0, where they
//! change nothing. libtorch's fused operation lacks them, so they cost speed.
//!
//! **Recurrent dropout without memory loss** (Semeniuta, Severyn and Barth 2016) drops from the candidate alone,
//! c′ = σ(f)·c + σ(i)·d(tanh(g)), with a new mask each step: the cell itself is never dropped, however long the sequence. Dropout of
//! c would erase its contents within a few steps.
//!
//! Not for tasks that the last few frames determine: the steps of a sequence are computed sequentially.

use super::sequence::Lengths;
use super::state::keep;
use super::unroll::{recurrent_init, unroll};
use crate::export::Exporter;
use crate::init::{Init, InitKind};
use crate::layers::dropout::Dropout;
use crate::params::{Builder, Slot, Weights};
use playfield_core::graph::{Op, Value};
use playfield_core::rng::Rng;
use playfield_core::{Error, Result};
use tch::{Kind, Tensor};

pub use super::state::RecurrentState;

/// `[steps, n, inputs] → [steps, n, width]`, time first.
#[derive(Clone, Copy, Debug)]
pub struct Lstm {
    input: Slot,
    recurrent: Slot,
    bias: Slot,
    peephole: Option<Slot>,
    inputs: i64,
    width: i64,
    recurrent_dropout: Dropout,
}

/// The options of an [`Lstm`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LstmConfig {
    /// The initial bias of the forget gate.
    pub forget_bias: f32,
    /// Whether the gates have peepholes.
    pub peephole: bool,
    /// The dropout rate of the candidate in training, in [0, 1).
    pub recurrent_dropout: f64,
}

impl Default for LstmConfig {
    fn default() -> Self {
        Self { forget_bias: 1.0, peephole: false, recurrent_dropout: 0.0 }
    }
}

impl Lstm {
    /// An LSTM called `name`. Its parameters are PyTorch's `weight_ih`, `weight_hh` and the sum of its two biases.
    pub fn new(b: &mut Builder<'_>, name: &str, inputs: i64, width: i64, init: InitKind) -> Self {
        Self::with(b, name, (inputs, width), init, &LstmConfig::default()).expect("the default dropout is valid")
    }

    /// The same with the options of `config`. The peepholes' parameter is `peephole` `[3, width]`, in the order i, f, o.
    ///
    /// # Errors
    /// [`Error::Config`] where the recurrent dropout is not in [0, 1).
    pub fn with(
        b: &mut Builder<'_>,
        name: &str,
        (inputs, width): (i64, i64),
        init: InitKind,
        config: &LstmConfig,
    ) -> Result<Self> {
        let recurrent_dropout = Dropout::new("recurrent_dropout", config.recurrent_dropout)?;
        let weight = recurrent_init(init, width);
        Ok(b.scope(name, |b| Self {
            input: b.param("weight_ih", &[4 * width, inputs], weight),
            recurrent: b.param("weight_hh", &[4 * width, width], weight),
            bias: b.param("bias", &[4 * width], Init::Gates { forget: config.forget_bias }),
            peephole: config.peephole.then(|| b.param("peephole", &[3, width], Init::Constant(0.0))),
            inputs,
            width,
            recurrent_dropout,
        }))
    }

    /// The number of output features.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// Processes `x` `[steps · n, inputs]` from the `state` of n sequences. Where `resets` (one per row of `x`, or empty for none) is
    /// true, the state is reset before that row. Returns the outputs `[steps · n, width]` and the state after the last step.
    pub fn forward(
        &self,
        w: &Weights,
        x: &Tensor,
        state: &RecurrentState,
        resets: &[bool],
    ) -> (Tensor, RecurrentState) {
        let n = state.sequences();
        // The input projection of all steps at once.
        let x = x.to_kind(w[self.input].kind());
        let below = x.linear(&w[self.input], Some(&w[self.bias])).view([-1, n as i64, 4 * self.width]);
        let recurrent = w[self.recurrent].tr();
        let (mut h, mut c) = (state.h.shallow_clone(), state.c.shallow_clone());
        let mut outputs = Vec::new();
        for t in 0..below.size()[0] {
            let ended = resets.get(t as usize * n..(t as usize + 1) * n).unwrap_or_default();
            if ended.contains(&true) {
                let keep = keep(ended, h.device());
                (h, c) = (h * &keep, c * &keep);
            }
            (h, c) = self.step(w, &recurrent, &below.get(t), &h, &c, None);
            outputs.push(h.shallow_clone());
        }
        (Tensor::cat(&outputs, 0), RecurrentState { h, c })
    }

    /// Adds one step to a graph: from `x` `[n, inputs]` and the state before it to the state after it, hidden and cell.
    ///
    /// # Errors
    /// [`Error::Config`] for an LSTM with peepholes.
    pub fn export(&self, e: &mut Exporter<'_>, x: Value, (h, c): (Value, Value)) -> Result<(Value, Value)> {
        if self.peephole.is_some() {
            return Err(Error::config("an LSTM with peepholes cannot be exported: train without `peephole`"));
        }
        let (input, recurrent, bias) = (e.param(self.input), e.param(self.recurrent), e.param(self.bias));
        let below = e.graph.op(Op::Linear, &[x, input, bias]);
        let state = e.graph.op(Op::Linear, &[h, recurrent]);
        let gates = e.graph.op(Op::Add, &[below, state]);
        let mut gate = |k: i64, activation: Op| {
            let gate = e.graph.op(Op::Columns { start: k * self.width, len: self.width }, &[gates]);
            e.graph.op(activation, &[gate])
        };
        let [i, f, g, o] =
            [(0, Op::Sigmoid), (1, Op::Sigmoid), (2, Op::Tanh), (3, Op::Sigmoid)].map(|(k, a)| gate(k, a));
        let (kept, added) = (e.graph.op(Op::Mul, &[f, c]), e.graph.op(Op::Mul, &[i, g]));
        let c = e.graph.op(Op::Add, &[kept, added]);
        let output = e.graph.op(Op::Tanh, &[c]);
        Ok((e.graph.op(Op::Mul, &[o, output]), c))
    }

    /// One step from the input projection `below`, `[n, 4·width]`, and the transposed matrix `recurrent`. `mask`: dropout of the
    /// candidate.
    fn step(
        &self,
        w: &Weights,
        recurrent: &Tensor,
        below: &Tensor,
        h: &Tensor,
        c: &Tensor,
        mask: Option<&Tensor>,
    ) -> (Tensor, Tensor) {
        let kind = if below.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let gates = (below + h.to_kind(below.kind()).matmul(recurrent)).to_kind(kind);
        let [i, f, g, o] = [0, 1, 2, 3].map(|k| gates.narrow(1, k * self.width, self.width));
        let peep = |gate: Tensor, cell: &Tensor, k: i64| match self.peephole {
            Some(slot) => gate + cell * w[slot].get(k),
            None => gate,
        };
        let (i, f) = (peep(i, c, 0), peep(f, c, 1));
        let candidate = match mask {
            None => g.tanh(),
            Some(mask) => g.tanh() * mask,
        };
        let c = f.sigmoid() * c + i.sigmoid() * candidate;
        (peep(o, &c, 2).sigmoid() * c.tanh(), c)
    }

    /// Processes `x` `[steps, n, inputs]` from the `state` of n sequences; with libtorch's fused operation, unless it has
    /// peepholes or is training (`rng`) with recurrent dropout. Returns the outputs `[steps, n, width]`, 0 past a sequence's
    /// end, and the state at each sequence's end.
    ///
    /// # Errors
    /// [`Error::Config`] where `x` or `state` does not fit the lengths.
    pub fn sequence(
        &self,
        w: &Weights,
        x: &Tensor,
        state: &RecurrentState,
        lengths: &Lengths,
        rng: Option<&mut Rng>,
    ) -> Result<(Tensor, RecurrentState)> {
        lengths.check(x, self.inputs)?;
        state.check(lengths.n(), self.width, self.width)?;
        let rng = rng.filter(|_| self.recurrent_dropout.drops());
        if self.peephole.is_some() || rng.is_some() {
            return Ok(self.unrolled(w, x, state, lengths, rng));
        }
        let bias = &w[self.bias];
        let none = bias.zeros_like();
        let params = [&w[self.input], &w[self.recurrent], bias, &none];
        let state = [&state.h, &state.c].map(|s| s.to_kind(x.kind()).unsqueeze(0));
        let (y, h, c) = if lengths.is_full() {
            x.lstm(&state.each_ref(), &params, true, 1, 0.0, false, false, false)
        } else {
            let (y, mut state) = lengths.packed(x, &state, |data, sizes, state| {
                let (y, h, c) =
                    Tensor::lstm_data(data, sizes, &[&state[0], &state[1]], &params, true, 1, 0.0, false, false);
                (y, vec![h, c])
            });
            let c = state.pop().expect("hidden and cell");
            (y, state.pop().expect("hidden and cell"), c)
        };
        Ok((y, RecurrentState { h: h.squeeze_dim(0), c: c.squeeze_dim(0) }))
    }

    /// The equations above, step by step, with a new dropout mask for each step where `rng` is given.
    fn unrolled(
        &self,
        w: &Weights,
        x: &Tensor,
        state: &RecurrentState,
        lengths: &Lengths,
        mut rng: Option<&mut Rng>,
    ) -> (Tensor, RecurrentState) {
        let below = x.linear(&w[self.input], Some(&w[self.bias]));
        let recurrent = w[self.recurrent].tr();
        let shape = [lengths.n(), self.width];
        let (y, state) = unroll(lengths, state, |t, RecurrentState { h, c }| {
            let kind = if x.kind() == Kind::Double { Kind::Double } else { Kind::Float };
            let mask = rng.as_deref_mut().map(|rng| self.recurrent_dropout.mask(&shape, (kind, x.device()), rng));
            let (h, c) = self.step(w, &recurrent, &below.get(t), h, c, mask.as_ref());
            RecurrentState { h, c }
        });
        (y.to_kind(x.kind()), state)
    }
}
