//! The gated recurrent unit (Cho et al. 2014), as PyTorch and cuDNN define it.
//!
//! ```text
//! r = σ(x W_irᵀ + b_ir + h W_hrᵀ + b_hr)          the reset gate
//! z = σ(x W_izᵀ + b_iz + h W_hzᵀ + b_hz)          the update gate
//! n = tanh(x W_inᵀ + b_in + r·(h W_hnᵀ + b_hn))   the candidate
//! h′ = (1 − z)·n + z·h
//! ```
//!
//! The reset gate multiplies *after* the matrix (in the paper: before it), hence both biases. A GRU has a quarter fewer
//! parameters than an LSTM, and usually performs as well; it has no cell apart from its output, so no peepholes.
//!
//! **Recurrent dropout** (Semeniuta, Severyn and Barth 2016) drops from the candidate alone, `(1 − z)·d(n) + z·h`: the
//! state is never dropped. See [`crate::lstm`].

use super::sequence::Lengths;
use super::state::RecurrentState;
use super::unroll::{recurrent_init, unroll};
use crate::init::{Init, InitKind};
use crate::layers::dropout::Dropout;
use crate::params::{Builder, Slot, Weights};
use playfield_core::Result;
use playfield_core::rng::Rng;
use tch::Tensor;

/// `[steps, n, inputs] → [steps, n, width]`.
#[derive(Clone, Copy, Debug)]
pub struct Gru {
    input: Slot,
    recurrent: Slot,
    input_bias: Slot,
    recurrent_bias: Slot,
    inputs: i64,
    width: i64,
    recurrent_dropout: Dropout,
}

impl Gru {
    /// A unit called `name`. Its parameters are PyTorch's: `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`, gates in the
    /// order r, z, n. `recurrent_dropout` in [0, 1).
    ///
    /// # Errors
    /// [`playfield_core::Error::Config`] where the rate is not.
    pub fn new(
        b: &mut Builder<'_>,
        name: &str,
        inputs: i64,
        width: i64,
        init: InitKind,
        recurrent_dropout: f64,
    ) -> Result<Self> {
        let recurrent_dropout = Dropout::new("recurrent_dropout", recurrent_dropout)?;
        let weight = recurrent_init(init, width);
        Ok(b.scope(name, |b| Self {
            input: b.param("weight_ih", &[3 * width, inputs], weight),
            recurrent: b.param("weight_hh", &[3 * width, width], weight),
            input_bias: b.param("bias_ih", &[3 * width], Init::Constant(0.0)),
            recurrent_bias: b.param("bias_hh", &[3 * width], Init::Constant(0.0)),
            inputs,
            width,
            recurrent_dropout,
        }))
    }

    /// The number of output features.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// Processes `x` `[steps, n, inputs]` from the `state` of n sequences; with libtorch's fused operation, unless training
    /// (`rng`) with recurrent dropout. Returns the outputs, 0 past a sequence's end, and the state at each sequence's end.
    ///
    /// # Errors
    /// [`playfield_core::Error::Config`] where `x` or `state` does not fit the lengths.
    pub fn sequence(
        &self,
        w: &Weights,
        x: &Tensor,
        state: &RecurrentState,
        lengths: &Lengths,
        rng: Option<&mut Rng>,
    ) -> Result<(Tensor, RecurrentState)> {
        lengths.check(x, self.inputs)?;
        state.check(lengths.n(), self.width, 0)?;
        match rng {
            Some(rng) if self.recurrent_dropout.drops() => Ok(self.unrolled(w, x, state, lengths, Some(rng))),
            _ => Ok(self.fused(w, x, state, lengths)),
        }
    }

    fn fused(&self, w: &Weights, x: &Tensor, state: &RecurrentState, lengths: &Lengths) -> (Tensor, RecurrentState) {
        let params = [self.input, self.recurrent, self.input_bias, self.recurrent_bias].map(|slot| &w[slot]);
        let h = state.h().to_kind(x.kind()).unsqueeze(0);
        let (y, h) = if lengths.is_full() {
            x.gru(&h, &params, true, 1, 0.0, false, false, false)
        } else {
            let (y, state) = lengths.packed(x, &[h], |data, sizes, state| {
                let (y, h) = Tensor::gru_data(data, sizes, &state[0], &params, true, 1, 0.0, false, false);
                (y, vec![h])
            });
            (y, state[0].shallow_clone())
        };
        (y, RecurrentState::of_output(h.squeeze_dim(0)))
    }

    /// The equations above, step by step.
    pub(crate) fn unrolled(
        &self,
        w: &Weights,
        x: &Tensor,
        state: &RecurrentState,
        lengths: &Lengths,
        mut rng: Option<&mut Rng>,
    ) -> (Tensor, RecurrentState) {
        let below = x.linear(&w[self.input], Some(&w[self.input_bias]));
        unroll(lengths, state, |t, state| {
            let (x, h) = (below.get(t), state.h());
            let h = h.to_kind(x.kind());
            let own = h.linear(&w[self.recurrent], Some(&w[self.recurrent_bias]));
            let part = |of: &Tensor, k: i64| of.narrow(1, k * self.width, self.width);
            let [r, z] = [0, 1].map(|k| (part(&x, k) + part(&own, k)).sigmoid());
            let candidate = (part(&x, 2) + r * part(&own, 2)).tanh();
            let candidate = self.recurrent_dropout.apply(&candidate, rng.as_deref_mut());
            RecurrentState::of_output((1.0 - &z) * candidate + z * h)
        })
    }
}
