//! Element types of buffers.

use half::bf16;

/// An element type: `f32` or `bf16`. Kernels compute in `f32` and convert at loads and stores.
pub trait Element: Copy {
    /// The value as `f32`, exact.
    fn widen(self) -> f32;
    /// The nearest value to `x`; ties round to even, as in libtorch.
    fn narrow(x: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        x
    }
}

/// A bf16 is the upper half of the bits of an `f32`.
impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
        Self::from_bits(if x.is_nan() { 0x7fc0 } else { rounded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The conversions equal those of `half`: every bf16 but NaN exactly, and `f32`s around each rounding boundary.
    #[test]
    fn conversions_equal_those_of_half() {
        for value in (0..=u16::MAX).map(bf16::from_bits).filter(|value| !value.is_nan()) {
            assert_eq!(value.widen().to_bits(), value.to_f32().to_bits());
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(u32::from(value.to_bits()) << 16 | low);
                let actual = bf16::narrow(x);
                assert!(actual.to_bits() == bf16::from_f32(x).to_bits() || x.is_nan() && actual.is_nan(), "{x}");
            }
        }
    }
}
