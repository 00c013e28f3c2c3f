//! Long short-term memory (Hochreiter and Schmidhuber 1997; Gers, Schmidhuber and Cummins 2000).
//!
//! ```text
//! i, f, g, o = x W_ihᵀ + h W_hhᵀ + b         gates, in PyTorch's order
//! c′ = σ(f)·c + σ(i)·tanh(g)                 the cell
//! h′ = σ(o)·tanh(c′)                         the output
//! ```
//!
//! The forget gate's bias starts at 1, so that a cell remembers until it has learnt to forget (Jozefowicz, Zaremba and
//! Sutskever 2015). What it remembers is a value of its own ([`Memory`]), handed in and handed back: acting carries it from
//! step to step, an update starts from where the rollout started, and a bootstrap looks without touching it.
//!
//! Not where the last few frames say everything: the steps of a sequence are computed one after the other.

use crate::config::InitKind;
use crate::init::Init;
use crate::params::{Builder, Slot, Weights, to_vec};
use playfield_core::{Array, Error, Result, Snapshot};
use tch::{Device, Kind, Tensor, no_grad};

/// `[steps · n, inputs] → [steps · n, width]`, time first.
#[derive(Clone, Copy, Debug)]
pub struct Lstm {
    input: Slot,
    recurrent: Slot,
    bias: Slot,
    width: i64,
}

/// What an LSTM remembers of `n` sequences; of a network without one, nothing.
#[derive(Debug)]
pub struct Memory {
    /// The last output, `[n, width]`.
    h: Tensor,
    /// The cell, `[n, width]`.
    c: Tensor,
}

impl Lstm {
    /// An LSTM called `name`. Its parameters are PyTorch's `weight_ih`, `weight_hh` and the sum of its two biases.
    pub fn new(b: &mut Builder<'_>, name: &str, inputs: i64, width: i64, init: InitKind) -> Self {
        let weight = match init {
            InitKind::FanIn => Init::Uniform { fan_in: width },
            InitKind::Orthogonal => Init::Orthogonal { gain: 1.0 },
        };
        b.scope(name, |b| Self {
            input: b.param("weight_ih", &[4 * width, inputs], weight),
            recurrent: b.param("weight_hh", &[4 * width, width], weight),
            bias: b.param("bias", &[4 * width], Init::Gates { forget: 1.0 }),
            width,
        })
    }

    /// How many features it yields.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// Goes through `x` `[steps · n, inputs]` from `memory` of n sequences. Where `resets` (one per row of `x`, or empty for
    /// none) says so, a sequence starts anew before that row. Returns the outputs `[steps · n, width]` and the memory after
    /// the last step.
    pub fn forward(&self, w: &Weights, x: &Tensor, memory: &Memory, resets: &[bool]) -> (Tensor, Memory) {
        let n = memory.sequences();
        // What comes from below needs no order: all steps at once.
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
            let gates = (below.get(t) + h.to_kind(x.kind()).matmul(&recurrent)).to_kind(Kind::Float);
            let [i, f, g, o] = [0, 1, 2, 3].map(|k| gates.narrow(1, k * self.width, self.width));
            c = f.sigmoid() * c + i.sigmoid() * g.tanh();
            h = o.sigmoid() * c.tanh();
            outputs.push(h.shallow_clone());
        }
        (Tensor::cat(&outputs, 0).to_kind(x.kind()), Memory { h, c })
    }
}

/// 1 for each sequence that goes on and 0 for each that starts anew, `[n, 1]`.
fn keep(ended: &[bool], device: Device) -> Tensor {
    let keep: Vec<f32> = ended.iter().map(|&e| if e { 0.0 } else { 1.0 }).collect();
    Tensor::from_slice(&keep).unsqueeze(1).to_device(device)
}

impl Memory {
    /// Of `n` sequences that start now, `width` features each (0: of a network that remembers nothing).
    pub fn new(n: usize, width: i64, device: Device) -> Self {
        let zeros = || Tensor::zeros([n as i64, width], (Kind::Float, device));
        Self { h: zeros(), c: zeros() }
    }

    /// How many sequences.
    pub fn sequences(&self) -> usize {
        self.h.size()[0] as usize
    }

    /// The same memory once more: nothing ever changes in place.
    pub fn same(&self) -> Self {
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
