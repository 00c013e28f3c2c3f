//! The plain recurrent network (Elman 1990).
//!
//! ```text
//! h′ = tanh(x W_ihᵀ + h W_hhᵀ + b)
//! ```
//!
//! Its memory is written over at every step, so what it knew a few dozen steps ago is gone, and so is the gradient
//! (Hochreiter 1991; Pascanu, Mikolov and Bengio 2013). It is here to be compared with: use [`crate::lstm`] or
//! [`crate::gru`] for anything that must be remembered.

use crate::config::InitKind;
use crate::init::Init;
use crate::lstm::RecurrentState;
use crate::params::{Builder, Slot, Weights};
use crate::recurrent::recurrent_init;
use crate::sequence::Lengths;
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

    /// How many features it yields.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// Goes through `x` `[steps, n, inputs]` from `memory` of n sequences, with libtorch's fused operation. Returns the
    /// outputs, 0 past a sequence's end, and what each sequence remembers at its end.
    ///
    /// # Errors
    /// [`playfield_core::Error::Config`] where `x` or `memory` does not fit the lengths.
    pub fn sequence(
        &self,
        w: &Weights,
        x: &Tensor,
        memory: &RecurrentState,
        lengths: &Lengths,
    ) -> Result<(Tensor, RecurrentState)> {
        lengths.check(x, self.inputs)?;
        memory.check(lengths.n(), self.width, 0)?;
        let bias = &w[self.bias];
        let params = [&w[self.input], &w[self.recurrent], bias, &bias.zeros_like()];
        let h = memory.h().to_kind(x.kind()).unsqueeze(0);
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
