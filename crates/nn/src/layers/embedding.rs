//! An embedding: a table of learned vectors, one per token (Bengio et al. 2003).
//!
//! Britz et al. 2017 (section 4.1) measured its size for translation: 2048 was best, and 128 nearly as good.

use crate::init::Init;
use crate::params::{Builder, Slot, Weights};
use tch::Tensor;

/// Tokens `[…]` (`i64`, each less than the vocabulary) to vectors `[…, size]`.
#[derive(Clone, Copy, Debug)]
pub struct Embedding {
    weight: Slot,
    size: i64,
}

impl Embedding {
    /// A table called `name` for tokens 0 to `vocabulary` − 1, sampled from U(−1, 1).
    pub fn new(b: &mut Builder<'_>, name: &str, vocabulary: i64, size: i64) -> Self {
        let weight = b.scope(name, |b| b.param("weight", &[vocabulary, size], Init::Uniform { fan_in: 1 }));
        Self { weight, size }
    }

    /// The size of a vector.
    pub fn size(&self) -> i64 {
        self.size
    }

    /// The vectors of `tokens`.
    pub fn forward(&self, w: &Weights, tokens: &Tensor) -> Tensor {
        Tensor::embedding(&w[self.weight], tokens, -1, false, false)
    }
}
