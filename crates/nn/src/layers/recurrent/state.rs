//! The recurrent state of a batch of sequences.

use crate::observations::upload;
use crate::tensor::to_vec;
use playfield_core::{Array, Error, Result, Snapshot};
use tch::{Device, Kind, Tensor, no_grad};

/// The recurrent state of `n` sequences, hidden and cell; empty for a network without recurrent layers.
#[derive(Debug)]
pub struct RecurrentState {
    /// The hidden state: the last output, `[n, width]`.
    pub(super) h: Tensor,
    /// The cell, `[n, width]`.
    pub(super) c: Tensor,
}

impl RecurrentState {
    /// Zeros for `n` sequences, `width` features each (0: no recurrent layer).
    pub fn new(n: usize, width: i64, device: Device) -> Self {
        let zeros = || Tensor::zeros([n as i64, width], (Kind::Float, device));
        Self { h: zeros(), c: zeros() }
    }

    /// The state of a layer without a cell: its output.
    pub(crate) fn of_output(h: Tensor) -> Self {
        let c = Tensor::zeros([h.size()[0], 0], (h.kind(), h.device()));
        Self { h, c }
    }

    /// The hidden state: the last output, `[n, width]`.
    pub fn h(&self) -> &Tensor {
        &self.h
    }

    /// The cell, `[n, width]`; `[n, 0]` for a layer without one.
    pub fn c(&self) -> &Tensor {
        &self.c
    }

    /// The sequences `rows` (`i64`, repeats allowed).
    pub fn rows(&self, rows: &Tensor) -> Self {
        Self { h: self.h.index_select(0, rows), c: self.c.index_select(0, rows) }
    }

    /// Both states of the same sequences, concatenated along the features: `[n, width + width]`.
    pub fn concat(&self, other: &Self) -> Self {
        let join = |a: &Tensor, b: &Tensor| Tensor::cat(&[a, b], 1);
        Self { h: join(&self.h, &other.h), c: join(&self.c, &other.c) }
    }

    /// This where `condition` `[n, 1]` holds, else `other`.
    pub(super) fn select(&self, condition: &Tensor, other: &Self) -> Self {
        let choose = |a: &Tensor, b: &Tensor| a.where_self(condition, &b.to_kind(a.kind()));
        Self { h: choose(&self.h, &other.h), c: choose(&self.c, &other.c) }
    }

    /// The same values without gradient: the cut of truncated backpropagation (Williams and Peng 1990).
    pub fn detached(&self) -> Self {
        Self { h: self.h.detach(), c: self.c.detach() }
    }

    /// Refuses a state that is not of `n` sequences, with `width` outputs and `cell` elements of a cell.
    pub(crate) fn check(&self, n: i64, width: i64, cell: i64) -> Result<()> {
        let (h, c) = (self.h.size(), self.c.size());
        if h == [n, width] && c == [n, cell] {
            return Ok(());
        }
        Err(Error::config(format!(
            "a recurrent state of shapes {h:?} and {c:?} where [{n}, {width}] and [{n}, {cell}] are needed"
        )))
    }

    /// The number of sequences.
    pub fn sequences(&self) -> usize {
        self.h.size()[0] as usize
    }

    /// A second handle to the same state; nothing changes it in place.
    pub fn shallow_clone(&self) -> Self {
        Self { h: self.h.shallow_clone(), c: self.c.shallow_clone() }
    }

    /// Sequence `i` alone.
    pub fn row(&self, i: usize) -> Self {
        Self { h: self.h.narrow(0, i as i64, 1), c: self.c.narrow(0, i as i64, 1) }
    }

    /// Sets the state to zero where a sequence has `ended` (one per sequence).
    pub fn reset(&mut self, ended: &[bool]) {
        if self.h.numel() > 0 && ended.contains(&true) {
            let keep = keep(ended, self.h.device());
            *self = no_grad(|| Self { h: &self.h * &keep, c: &self.c * &keep });
        }
    }

    /// Writes it into `snapshot`; nothing if it is empty.
    pub fn save(&self, snapshot: &mut Snapshot) {
        if self.h.numel() > 0 {
            let shape = self.h.size().iter().map(|&d| d as usize).collect::<Vec<_>>();
            for (name, tensor) in [("recurrent_state.h", &self.h), ("recurrent_state.c", &self.c)] {
                snapshot.arrays.insert(name.into(), Array::new(&shape, &to_vec(tensor)));
            }
        }
    }

    /// Restores what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is missing or of another size.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        if self.h.numel() > 0 {
            for (name, tensor) in [("recurrent_state.h", &mut self.h), ("recurrent_state.c", &mut self.c)] {
                let values = snapshot.array(name)?.values::<f32>().filter(|v| v.len() == tensor.numel());
                let values = values.ok_or_else(|| Error::checkpoint(name, "of another network"))?;
                *tensor = Tensor::from_slice(&values).view_as(tensor).to_device(tensor.device());
            }
        }
        Ok(())
    }
}

/// `[n, 1]`: 0 where a sequence has ended, else 1.
pub(super) fn keep(ended: &[bool], device: Device) -> Tensor {
    let keep: Vec<f32> = ended.iter().map(|&e| if e { 0.0 } else { 1.0 }).collect();
    upload(&Tensor::from_slice(&keep).unsqueeze(1), device)
}
