//! Inference or training.

use tch::no_grad;

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// Evaluation: autograd records nothing, and batch norm uses its running statistics.
    Infer,
    /// A backward pass follows: autograd records, and batch norm uses, and updates its running statistics by, the batch's.
    Train,
}

impl Pass {
    /// Runs `forward` with autograd recording or not. Threads do not inherit autograd's mode: each must call this.
    pub fn run<T>(self, forward: impl FnOnce() -> T) -> T {
        match self {
            Self::Infer => no_grad(forward),
            Self::Train => forward(),
        }
    }
}
