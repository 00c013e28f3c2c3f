//! Inference or training.

use tch::no_grad_guard;

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
            Self::Infer => {
                // It also ends when `forward` unwinds.
                let _guard = no_grad_guard();
                forward()
            }
            Self::Train => forward(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;
    use tch::{Kind, Tensor};

    /// Inference that unwinds leaves autograd as it was.
    #[test]
    fn autograd_records_again_after_inference_that_unwinds() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        assert!(catch_unwind(|| Pass::Infer.run(|| panic!("an operation failed"))).is_err());
        std::panic::set_hook(hook);
        let leaf = Tensor::zeros([1], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        assert!(
            Pass::Train.run(|| (&leaf * 2.0).requires_grad()) && !Pass::Infer.run(|| (&leaf * 2.0).requires_grad())
        );
    }
}
