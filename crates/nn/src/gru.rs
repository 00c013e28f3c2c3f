//! The gated recurrent unit (Cho et al. 2014), as PyTorch and cuDNN have it.
//!
//! ```text
//! r = σ(x W_irᵀ + b_ir + h W_hrᵀ + b_hr)          what of the past the candidate sees
//! z = σ(x W_izᵀ + b_iz + h W_hzᵀ + b_hz)          what is kept
//! n = tanh(x W_inᵀ + b_in + r·(h W_hnᵀ + b_hn))   the candidate
//! h′ = (1 − z)·n + z·h
//! ```
//!
//! The reset gate multiplies *after* the matrix (the paper: before it), which is why it needs both biases. A third fewer
//! parameters than an LSTM's, and usually as good; it has no cell apart from its output, so no peepholes.
//!
//! **Recurrent dropout** (Semeniuta, Severyn and Barth 2016) drops from the candidate alone, `(1 − z)·d(n) + z·h`: what is
//! remembered is never dropped. See [`crate::lstm`].

use crate::config::InitKind;
use crate::dropout::Dropout;
use crate::init::Init;
use crate::lstm::RecurrentState;
use crate::params::{Builder, Slot, Weights};
use crate::recurrent::{recurrent_init, unroll};
use crate::sequence::Lengths;
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
    /// [`playfield_core::Error::Config`] where that rate is not.
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

    /// How many features it yields.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// Goes through `x` `[steps, n, inputs]` from `memory` of n sequences; with libtorch's fused operation, unless training
    /// (`rng`) with recurrent dropout. Returns the outputs, 0 past a sequence's end, and what each sequence remembers at its
    /// end.
    ///
    /// # Errors
    /// [`playfield_core::Error::Config`] where `x` or `memory` does not fit the lengths.
    pub fn sequence(
        &self,
        w: &Weights,
        x: &Tensor,
        memory: &RecurrentState,
        lengths: &Lengths,
        rng: Option<&mut Rng>,
    ) -> Result<(Tensor, RecurrentState)> {
        lengths.check(x, self.inputs)?;
        memory.check(lengths.n(), self.width, 0)?;
        match rng {
            Some(rng) if self.recurrent_dropout.drops() => Ok(self.unrolled(w, x, memory, lengths, Some(rng))),
            _ => Ok(self.fused(w, x, memory, lengths)),
        }
    }

    fn fused(&self, w: &Weights, x: &Tensor, memory: &RecurrentState, lengths: &Lengths) -> (Tensor, RecurrentState) {
        let params = [self.input, self.recurrent, self.input_bias, self.recurrent_bias].map(|slot| &w[slot]);
        let h = memory.h().to_kind(x.kind()).unsqueeze(0);
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

    /// The formula above, step by step.
    pub(crate) fn unrolled(
        &self,
        w: &Weights,
        x: &Tensor,
        memory: &RecurrentState,
        lengths: &Lengths,
        mut rng: Option<&mut Rng>,
    ) -> (Tensor, RecurrentState) {
        let below = x.linear(&w[self.input], Some(&w[self.input_bias]));
        unroll(lengths, memory, |t, memory| {
            let (x, h) = (below.get(t), memory.h());
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
