//! Values for tests of bf16 kernels.

use crate::{Element, bf16};

/// Integers from −8 to 8: exact in bf16, and the sums of their products in f32.
pub(super) fn integers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003 % 17) as f32 - 8.0).collect()
}

/// Rounded to bf16.
pub(super) fn bf16s(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|x| bf16::narrow(*x)).collect()
}

/// Exact.
pub(super) fn f32s(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|x| x.widen()).collect()
}
