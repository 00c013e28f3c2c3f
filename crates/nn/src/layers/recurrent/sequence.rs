//! Batches of sequences of unequal length, padded to the longest.
//!
//! ```text
//! time ↓   sequence 0   1   2          lengths = [3, 1, 2]
//!              x        x   x
//!              x        ·   x          · = padding: ignored by every layer; outputs there are 0
//!              x        ·   ·
//! ```
//!
//! Time is the first axis, sequences the second, features the third. [`crate::rnn`], [`crate::gru`] and [`crate::lstm`] return the state
//! of each sequence's own last step, and a backward layer starts at each sequence's own end, not in the padding.

use playfield_core::{Error, Result};
use tch::{Device, Kind, Tensor};

/// The length of each sequence of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Lengths {
    lengths: Vec<i64>,
    steps: i64,
}

impl Lengths {
    /// Sequences of these lengths, padded to `steps`.
    ///
    /// # Errors
    /// [`Error::Config`] where there is no sequence, or a sequence is empty or longer than `steps`.
    pub fn new(lengths: &[i64], steps: i64) -> Result<Self> {
        if lengths.is_empty() {
            return Err(Error::config("a batch must hold at least 1 sequence, and this one holds 0"));
        }
        for (i, &length) in lengths.iter().enumerate() {
            if length < 1 {
                return Err(Error::config(format!(
                    "sequence {i} is empty: its length is {length}, and must be at least 1"
                )));
            }
            if length > steps {
                return Err(Error::config(format!(
                    "sequence {i} has length {length}, more than the batch's {steps} steps"
                )));
            }
        }
        Ok(Self { lengths: lengths.to_vec(), steps })
    }

    /// `n` sequences of `steps` steps each: no padding.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn full(n: i64, steps: i64) -> Result<Self> {
        Self::new(&vec![steps; n.max(0) as usize], steps)
    }

    /// The lengths of `mask` `[steps, n]`: true (or not 0) up to a sequence's end, false after it.
    ///
    /// # Errors
    /// [`Error::Config`] where the mask has another shape, has a hole, or leaves a sequence empty.
    pub fn from_mask(mask: &Tensor, steps: i64, n: i64) -> Result<Self> {
        if mask.size() != [steps, n] {
            return Err(Error::config(format!("a mask of shape {:?} where [steps, n] = [{steps}, {n}]", mask.size())));
        }
        let mask = mask.to_device(Device::Cpu).to_kind(Kind::Bool).to_kind(Kind::Int64);
        let counts = mask.sum_dim_intlist([0_i64].as_slice(), false, Kind::Int64);
        let lengths: Vec<i64> = Vec::try_from(&counts).map_err(|e| Error::config(format!("a mask: {e}")))?;
        let lengths = Self::new(&lengths, steps)?;
        let prefix = lengths.mask(Device::Cpu).to_kind(Kind::Int64);
        if let Some(i) = (0..n).find(|&i| prefix.select(1, i) != mask.select(1, i)) {
            return Err(Error::config(format!(
                "the mask of sequence {i} has a hole: it must be true up to the end only"
            )));
        }
        Ok(lengths)
    }

    /// The number of sequences.
    pub fn n(&self) -> i64 {
        self.lengths.len() as i64
    }

    /// The padded number of steps: the first axis of the batch.
    pub fn steps(&self) -> i64 {
        self.steps
    }

    /// The length of each sequence.
    pub fn each(&self) -> &[i64] {
        &self.lengths
    }

    /// Whether there is no padding.
    pub fn is_full(&self) -> bool {
        self.lengths.iter().all(|&l| l == self.steps)
    }

    /// True up to each sequence's end, `[steps, n]`.
    pub fn mask(&self, device: Device) -> Tensor {
        let time = Tensor::arange(self.steps, (Kind::Int64, device)).unsqueeze(1);
        time.less_tensor(&Tensor::from_slice(&self.lengths).to_device(device).unsqueeze(0))
    }

    /// `x` `[steps, n, …]` with zeros past each sequence's end.
    pub fn clear(&self, x: &Tensor) -> Tensor {
        if self.is_full() {
            return x.shallow_clone();
        }
        x * self.mask(x.device()).to_kind(x.kind()).unsqueeze(-1)
    }

    /// `x` `[steps, n, features]` with each sequence reversed; padding stays at the end.
    pub fn reverse(&self, x: &Tensor) -> Tensor {
        if self.is_full() {
            return x.flip([0]);
        }
        let from = |t: i64| self.lengths.iter().map(move |&l| if t < l { l - 1 - t } else { t });
        let index: Vec<i64> = (0..self.steps).flat_map(from).collect();
        let index = Tensor::from_slice(&index).view([self.steps, self.n(), 1]).to_device(x.device());
        x.gather(0, &index.expand_as(x), false)
    }

    /// Refuses an input that is not `[steps, n, features]`.
    pub(crate) fn check(&self, x: &Tensor, features: i64) -> Result<()> {
        let expected = [self.steps, self.n(), features];
        if x.size() == expected {
            return Ok(());
        }
        Err(Error::config(format!("an input of shape {:?} where [steps, n, features] = {expected:?}", x.size())))
    }

    /// Runs `op` on `x` and `state` (each `[1, n, width]`) without its padding, as libtorch's recurrent operations take it:
    /// longest sequence first, all first steps, all second steps, … `op` gets data, batch sizes and state, and returns
    /// outputs and state.
    pub(crate) fn packed(
        &self,
        x: &Tensor,
        state: &[Tensor],
        op: impl FnOnce(&Tensor, &Tensor, &[Tensor]) -> (Tensor, Vec<Tensor>),
    ) -> (Tensor, Vec<Tensor>) {
        let mut order: Vec<i64> = (0..self.n()).collect();
        order.sort_by_key(|&i| -self.lengths[i as usize]);
        let mut back = vec![0; order.len()];
        order.iter().enumerate().for_each(|(rank, &i)| back[i as usize] = rank as i64);
        let sorted: Vec<i64> = order.iter().map(|&i| self.lengths[i as usize]).collect();
        let [order, back] = [order, back].map(|index| Tensor::from_slice(&index).to_device(x.device()));

        let (data, sizes) =
            x.index_select(1, &order).internal_pack_padded_sequence(&Tensor::from_slice(&sorted), false);
        let state: Vec<_> = state.iter().map(|s| s.index_select(1, &order)).collect();
        let (y, state) = op(&data, &sizes, &state);
        let (y, _) = Tensor::internal_pad_packed_sequence(&y, &sizes, false, 0.0, self.steps);
        (y.index_select(1, &back), state.iter().map(|s| s.index_select(1, &back)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_lengths_are_refused() {
        let error = |result: Result<Lengths>| result.unwrap_err().to_string();
        assert!(error(Lengths::new(&[], 3)).contains("at least 1 sequence"));
        assert!(error(Lengths::new(&[2, 0], 3)).contains("sequence 1 is empty"));
        assert!(error(Lengths::new(&[4], 3)).contains("length 4, more than the batch's 3 steps"));
        let mask = Tensor::from_slice(&[true, true, false, true]).view([2, 2]);
        assert_eq!(Lengths::from_mask(&mask, 2, 2).unwrap().each(), [1, 2]);
        assert!(error(Lengths::from_mask(&mask, 3, 2)).contains("shape [2, 2] where [steps, n] = [3, 2]"));
        let holed = Tensor::from_slice(&[false, true]).view([2, 1]);
        assert!(error(Lengths::from_mask(&holed, 2, 1)).contains("hole"));
    }

    #[test]
    fn a_sequence_is_reversed_within_its_length() {
        let x = Tensor::from_slice(&[1_i64, 10, 2, 20, 3, 0]).view([3, 2, 1]);
        let lengths = Lengths::new(&[3, 2], 3).unwrap();
        let expected = Tensor::from_slice(&[3_i64, 20, 2, 10, 1, 0]).view([3, 2, 1]);
        assert_eq!(lengths.reverse(&x), expected);
        assert_eq!(lengths.reverse(&lengths.reverse(&x)), x);
        assert_eq!(Lengths::full(2, 3).unwrap().reverse(&x), x.flip([0]));
    }
}
