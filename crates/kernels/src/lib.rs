//! Compute kernels on slices: convolutional networks ([`ConvNet`]), their last layers ([`heads`]), optimizer steps ([`optimizer`]) and frame
//! scaling ([`frames`]).
//!
//! libtorch's operators target large networks. For an Atari-sized network, operator dispatch, layout changes and autograd's
//! bookkeeping cost more than the arithmetic, above all at batch sizes 1 to 5; an optimizer step written as tensor operations
//! passes over memory some ten times. These kernels avoid both, and compute equal windows of a batch once: in
//! games most windows show background.
//!
//! Each kernel is a plain loop that [`simd`] compiles for AVX-512, AVX2 and the baseline of the architecture; bf16 arithmetic uses
//! AVX-512 BF16 intrinsics and AMX tiles. The crate depends on neither libtorch nor any agent: callers pass slices.
//!
//! bf16 is [`half::bf16`]; conversions are branch-free here, because `half`'s test for NaN keeps loops from being vectorized.

mod buffer;
pub mod conv;
mod conv_net;
mod element;
mod elementwise;
pub mod frames;
pub mod heads;
mod norm;
pub mod optimizer;
mod pool;
pub mod simd;

pub use conv_net::{Connection, ConvNet, Convolution, Layer};
pub use element::Element;
pub use half::bf16;
