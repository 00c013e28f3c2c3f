//! Long short-term memory (Hochreiter and Schmidhuber 1997; Gers, Schmidhuber and Cummins 2000).
//!
//! ```text
//! i, f, g, o = x W_ihᵀ + h W_hhᵀ + b         gates, in PyTorch's order
//! c′ = σ(f)·c + σ(i)·tanh(g)                 the cell
//! h′ = σ(o)·tanh(c′)                         the output
//! ```
//!
//! The forget gate's bias starts at 1, so that a cell remembers until it has learned to forget (Jozefowicz, Zaremba and
//! Sutskever 2015). What it remembers is a value of its own ([`Memory`]), handed in and handed back: acting carries it from
//! step to step, an update starts from where the rollout started, and a bootstrap looks without touching it.
//!
//! **Peepholes** (Gers, Schraudolph and Schmidhuber 2002) let the gates see the *cell*, one weight for each number:
//! p_i·c and p_f·c are added to i and f, and p_o·c′ to o, as ONNX's LSTM has it with its `P`. (Some lists of tricks say that
//! the previous *output* is connected; but that every LSTM does.) For tasks where it counts *when* something happens; they
//! start at 0, where they change nothing. libtorch's fused operation has none, so they cost speed.
//!
//! **Recurrent dropout without memory loss** (Semeniuta, Severyn and Barth 2016) drops from the candidate alone,
//! c′ = σ(f)·c + σ(i)·d(tanh(g)), with a new mask each step: what is remembered is never dropped, however long. Dropping
//! from c itself would halve a memory every few steps.
//!
//! Not where the last few frames say everything: the steps of a sequence are computed one after the other.

use crate::config::InitKind;
use crate::dropout::Dropout;
use crate::init::Init;
use crate::params::{Builder, Slot, Weights, to_vec};
use crate::recurrent::{recurrent_init, unroll};
use crate::sequence::Lengths;
use playfield_core::rng::Rng;
use playfield_core::{Array, Error, Result, Snapshot};
use tch::{Device, Kind, Tensor, no_grad};

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

/// What an [`Lstm`] may have besides its matrices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LstmConfig {
    /// What the forget gate's bias starts at.
    pub forget_bias: f32,
    /// Whether the gates see the cell.
    pub peephole: bool,
    /// The share of the candidate that is dropped while training, in [0, 1).
    pub recurrent_dropout: f64,
}

impl Default for LstmConfig {
    fn default() -> Self {
        Self { forget_bias: 1.0, peephole: false, recurrent_dropout: 0.0 }
    }
}

/// What an LSTM remembers of `n` sequences; of a network without one, nothing.
#[derive(Debug)]
pub struct RecurrentState {
    /// The last output, `[n, width]`.
    h: Tensor,
    /// The cell, `[n, width]`.
    c: Tensor,
}

impl Lstm {
    /// An LSTM called `name`. Its parameters are PyTorch's `weight_ih`, `weight_hh` and the sum of its two biases.
    pub fn new(b: &mut Builder<'_>, name: &str, inputs: i64, width: i64, init: InitKind) -> Self {
        Self::with(b, name, (inputs, width), init, &LstmConfig::default()).expect("the default drops nothing")
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

    /// How many features it yields.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// Goes through `x` `[steps · n, inputs]` from `memory` of n sequences. Where `resets` (one per row of `x`, or empty for
    /// none) says so, a sequence starts anew before that row. Returns the outputs `[steps · n, width]` and the memory after
    /// the last step.
    pub fn forward(
        &self,
        w: &Weights,
        x: &Tensor,
        memory: &RecurrentState,
        resets: &[bool],
    ) -> (Tensor, RecurrentState) {
        let n = memory.sequences();
        // What comes from below needs no order: all steps at once.
        let x = x.to_kind(w[self.input].kind());
        let below = x.linear(&w[self.input], Some(&w[self.bias])).view([-1, n as i64, 4 * self.width]);
        let recurrent = w[self.recurrent].tr();
        let (mut h, mut c) = (memory.h.shallow_clone(), memory.c.shallow_clone());
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

    /// One step from what comes from below, `[n, 4·width]`, and `recurrent`, the transposed matrix. `mask` is the
    /// candidate's.
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
        let look = |gate: Tensor, cell: &Tensor, k: i64| match self.peephole {
            Some(slot) => gate + cell * w[slot].get(k),
            None => gate,
        };
        let (i, f) = (look(i, c, 0), look(f, c, 1));
        let candidate = match mask {
            None => g.tanh(),
            Some(mask) => g.tanh() * mask,
        };
        let c = f.sigmoid() * c + i.sigmoid() * candidate;
        (look(o, &c, 2).sigmoid() * c.tanh(), c)
    }

    /// Goes through `x` `[steps, n, inputs]` from `memory` of n sequences; with libtorch's fused operation, unless it has
    /// peepholes or is training (`rng`) with recurrent dropout. Returns the outputs `[steps, n, width]`, 0 past a sequence's
    /// end, and what each sequence remembers at its end.
    ///
    /// # Errors
    /// [`Error::Config`] where `x` or `memory` does not fit the lengths.
    pub fn sequence(
        &self,
        w: &Weights,
        x: &Tensor,
        memory: &RecurrentState,
        lengths: &Lengths,
        rng: Option<&mut Rng>,
    ) -> Result<(Tensor, RecurrentState)> {
        lengths.check(x, self.inputs)?;
        memory.check(lengths.n(), self.width, self.width)?;
        let rng = rng.filter(|_| self.recurrent_dropout.drops());
        if self.peephole.is_some() || rng.is_some() {
            return Ok(self.unrolled(w, x, memory, lengths, rng));
        }
        let bias = &w[self.bias];
        let none = bias.zeros_like();
        let params = [&w[self.input], &w[self.recurrent], bias, &none];
        let state = [&memory.h, &memory.c].map(|s| s.to_kind(x.kind()).unsqueeze(0));
        let (y, h, c) = if lengths.is_full() {
            x.lstm(&state.each_ref(), &params, true, 1, 0.0, false, false, false)
        } else {
            let (y, mut state) = lengths.packed(x, &state, |data, sizes, state| {
                let (y, h, c) =
                    Tensor::lstm_data(data, sizes, &[&state[0], &state[1]], &params, true, 1, 0.0, false, false);
                (y, vec![h, c])
            });
            let c = state.pop().expect("two of them");
            (y, state.pop().expect("two of them"), c)
        };
        Ok((y, RecurrentState { h: h.squeeze_dim(0), c: c.squeeze_dim(0) }))
    }

    /// The formula above, step by step, with a new mask for each step where `rng` is given.
    fn unrolled(
        &self,
        w: &Weights,
        x: &Tensor,
        memory: &RecurrentState,
        lengths: &Lengths,
        mut rng: Option<&mut Rng>,
    ) -> (Tensor, RecurrentState) {
        let below = x.linear(&w[self.input], Some(&w[self.bias]));
        let recurrent = w[self.recurrent].tr();
        let shape = [lengths.n(), self.width];
        let (y, memory) = unroll(lengths, memory, |t, RecurrentState { h, c }| {
            let kind = if x.kind() == Kind::Double { Kind::Double } else { Kind::Float };
            let mask = rng.as_deref_mut().map(|rng| self.recurrent_dropout.mask(&shape, (kind, x.device()), rng));
            let (h, c) = self.step(w, &recurrent, &below.get(t), h, c, mask.as_ref());
            RecurrentState { h, c }
        });
        (y.to_kind(x.kind()), memory)
    }
}

/// 1 for each sequence that goes on and 0 for each that starts anew, `[n, 1]`.
fn keep(ended: &[bool], device: Device) -> Tensor {
    let keep: Vec<f32> = ended.iter().map(|&e| if e { 0.0 } else { 1.0 }).collect();
    Tensor::from_slice(&keep).unsqueeze(1).to_device(device)
}

impl RecurrentState {
    /// Of `n` sequences that start now, `width` features each (0: of a network that remembers nothing).
    pub fn new(n: usize, width: i64, device: Device) -> Self {
        let zeros = || Tensor::zeros([n as i64, width], (Kind::Float, device));
        Self { h: zeros(), c: zeros() }
    }

    /// Of a layer without a cell, whose output is all it remembers.
    pub(crate) fn of_output(h: Tensor) -> Self {
        let c = Tensor::zeros([h.size()[0], 0], (h.kind(), h.device()));
        Self { h, c }
    }

    /// The last output, `[n, width]`.
    pub fn h(&self) -> &Tensor {
        &self.h
    }

    /// The cell, `[n, width]`; `[n, 0]` where a layer has none.
    pub fn c(&self) -> &Tensor {
        &self.c
    }

    /// The sequences `rows` (`i64`, any number of times each).
    pub fn rows(&self, rows: &Tensor) -> Self {
        Self { h: self.h.index_select(0, rows), c: self.c.index_select(0, rows) }
    }

    /// Both memories side by side, of the same sequences: `[n, width + width]`.
    pub fn beside(&self, other: &Self) -> Self {
        let join = |a: &Tensor, b: &Tensor| Tensor::cat(&[a, b], 1);
        Self { h: join(&self.h, &other.h), c: join(&self.c, &other.c) }
    }

    /// This where `condition` `[n, 1]` holds, else `other`.
    pub(crate) fn chosen(&self, condition: &Tensor, other: &Self) -> Self {
        let choose = |a: &Tensor, b: &Tensor| a.where_self(condition, &b.to_kind(a.kind()));
        Self { h: choose(&self.h, &other.h), c: choose(&self.c, &other.c) }
    }

    /// The same numbers, through which no gradient flows: where truncated backpropagation cuts (Williams and Peng 1990).
    pub fn detached(&self) -> Self {
        Self { h: self.h.detach(), c: self.c.detach() }
    }

    /// Refuses a memory that is not of `n` sequences, with `width` outputs and `cell` numbers of a cell.
    pub(crate) fn check(&self, n: i64, width: i64, cell: i64) -> Result<()> {
        let (h, c) = (self.h.size(), self.c.size());
        if h == [n, width] && c == [n, cell] {
            return Ok(());
        }
        Err(Error::config(format!(
            "a memory of shapes {h:?} and {c:?} where [{n}, {width}] and [{n}, {cell}] are needed"
        )))
    }

    /// How many sequences.
    pub fn sequences(&self) -> usize {
        self.h.size()[0] as usize
    }

    /// The same memory once more: nothing ever changes in place.
    pub fn shallow_clone(&self) -> Self {
        Self { h: self.h.shallow_clone(), c: self.c.shallow_clone() }
    }

    /// Sequence `i` alone.
    pub fn row(&self, i: usize) -> Self {
        Self { h: self.h.narrow(0, i as i64, 1), c: self.c.narrow(0, i as i64, 1) }
    }

    /// Starts the sequences anew that `ended` (one per sequence).
    pub fn forget(&mut self, ended: &[bool]) {
        if self.h.numel() > 0 && ended.contains(&true) {
            let keep = keep(ended, self.h.device());
            *self = no_grad(|| Self { h: &self.h * &keep, c: &self.c * &keep });
        }
    }

    /// Writes it into `snapshot`; nothing where there is nothing to remember.
    pub fn save(&self, snapshot: &mut Snapshot) {
        if self.h.numel() > 0 {
            let shape = self.h.size().iter().map(|&d| d as usize).collect::<Vec<_>>();
            for (name, tensor) in [("memory.h", &self.h), ("memory.c", &self.c)] {
                snapshot.arrays.insert(name.into(), Array::new(&shape, &to_vec(tensor)));
            }
        }
    }

    /// Takes what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is missing or of another size.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        if self.h.numel() > 0 {
            for (name, tensor) in [("memory.h", &mut self.h), ("memory.c", &mut self.c)] {
                let values = snapshot.array(name)?.values::<f32>().filter(|v| v.len() == tensor.numel());
                let values = values.ok_or_else(|| Error::checkpoint(name, "of another network"))?;
                *tensor = Tensor::from_slice(&values).view_as(tensor).to_device(tensor.device());
            }
        }
        Ok(())
    }
}
