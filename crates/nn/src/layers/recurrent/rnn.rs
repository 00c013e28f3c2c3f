//! The plain recurrent network (Elman 1990).
//!
//! ```text
//! h′ = tanh(x W_ihᵀ + h W_hhᵀ + b)
//! ```
//!
//! Every step overwrites the state, so that information and gradients vanish within a few dozen steps
//! (Hochreiter 1991; Pascanu, Mikolov and Bengio 2013). A baseline: use [`crate::lstm`] or [`crate::gru`] for longer dependencies.

use super::sequence::Lengths;
use super::state::RecurrentState;
use super::unroll::recurrent_init;
use crate::init::{Init, InitKind};
use crate::params::{Builder, Slot, Weights};
use playfield_core::Result;
use tch::Tensor;

/// `[steps, n, inputs] → [steps, n, width]`.
#[derive(Clone, Copy, Debug)]
pub struct Rnn {
    input: Slot,
    recurrent: Slot,
    bias: Slot,
    inputs: i64,
    width: i64,
}

impl Rnn {
    /// A network called `name`. Its parameters are PyTorch's `weight_ih`, `weight_hh` and the sum of its two biases.
    pub fn new(b: &mut Builder<'_>, name: &str, inputs: i64, width: i64, init: InitKind) -> Self {
        let weight = recurrent_init(init, width);
        b.scope(name, |b| Self {
            input: b.param("weight_ih", &[width, inputs], weight),
            recurrent: b.param("weight_hh", &[width, width], weight),
            bias: b.param("bias", &[width], Init::Constant(0.0)),
            inputs,
            width,
        })
    }

    /// The number of output features.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// Processes `x` `[steps, n, inputs]` from the `state` of n sequences, with libtorch's fused operation. Returns the
    /// outputs, 0 past a sequence's end, and the state at each sequence's end.
    ///
    /// # Errors
    /// [`playfield_core::Error::Config`] where `x` or `state` does not fit the lengths.
    pub fn sequence(
        &self,
        w: &Weights,
        x: &Tensor,
        state: &RecurrentState,
        lengths: &Lengths,
    ) -> Result<(Tensor, RecurrentState)> {
        lengths.check(x, self.inputs)?;
        state.check(lengths.n(), self.width, 0)?;
        let bias = &w[self.bias];
        let params = [&w[self.input], &w[self.recurrent], bias, &bias.zeros_like()];
        let h = state.h().to_kind(x.kind()).unsqueeze(0);
        let (y, h) = if lengths.is_full() {
            x.rnn_tanh(&h, &params, true, 1, 0.0, false, false, false)
        } else {
            let (y, state) = lengths.packed(x, &[h], |data, sizes, state| {
                let (y, h) = Tensor::rnn_tanh_data(data, sizes, &state[0], &params, true, 1, 0.0, false, false);
                (y, vec![h])
            });
            (y, state[0].shallow_clone())
        };
        Ok((y, RecurrentState::of_output(h.squeeze_dim(0))))
    }
}
