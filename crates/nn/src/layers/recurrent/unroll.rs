//! What the recurrent layers share: initial values, and the loop over steps.

use super::sequence::Lengths;
use super::state::RecurrentState;
use crate::init::{Init, InitKind};
use tch::Tensor;

/// Initial values of a recurrent layer's matrices: PyTorch samples both from U(±1/√width).
pub(super) fn recurrent_init(init: InitKind, width: i64) -> Init {
    match init {
        // Gates have no rectifier, which He's rule assumes.
        InitKind::FanIn | InitKind::He => Init::Uniform { fan_in: width },
        InitKind::Glorot => Init::Glorot { gain: 1.0 },
        InitKind::Orthogonal => Init::Orthogonal { gain: 1.0 },
    }
}

/// Steps through a batch by `step(t, state)`. Past a sequence's end its state stays as it is and its output is 0.
pub(super) fn unroll(
    lengths: &Lengths,
    state: &RecurrentState,
    mut step: impl FnMut(i64, &RecurrentState) -> RecurrentState,
) -> (Tensor, RecurrentState) {
    let mut state = state.shallow_clone();
    let mask = (!lengths.is_full()).then(|| lengths.mask(state.h().device()).unsqueeze(-1));
    let mut outputs = Vec::with_capacity(lengths.steps() as usize);
    for t in 0..lengths.steps() {
        let next = step(t, &state);
        match mask.as_ref().map(|mask| mask.get(t)) {
            None => {
                outputs.push(next.h().shallow_clone());
                state = next;
            }
            Some(running) => {
                outputs.push(next.h() * running.to_kind(next.h().kind()));
                state = next.select(&running, &state);
            }
        }
    }
    (Tensor::stack(&outputs, 0), state)
}
