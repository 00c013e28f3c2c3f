//! Loops for the widest vectors that the processor has.

use tch::Kind;

/// Defines a function whose body is compiled for AVX-512, for AVX2 and for any processor; a call runs the widest that this
/// one has. All give the same numbers: what they do to each is the same, and nothing is summed in another order.
macro_rules! widest {
    ($(#[$attribute:meta])* $vis:vis fn $name:ident $(<$($generic:ident: $bound:ident),*>)? ($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$attribute])*
        $vis fn $name $(<$($generic: $bound),*>)? ($($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn any $(<$($generic: $bound),*>)? ($($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
                fn wide $(<$($generic: $bound),*>)? ($($argument: $type),*) $(-> $result)? {
                    any($($argument),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn middle $(<$($generic: $bound),*>)? ($($argument: $type),*) $(-> $result)? {
                    any($($argument),*)
                }
                use $crate::simd::{Width, width};
                match width() {
                    // SAFETY: the processor has these instructions.
                    Width::Sixteen => return unsafe { wide($($argument),*) },
                    // SAFETY: the processor has these instructions.
                    Width::Eight => return unsafe { middle($($argument),*) },
                    Width::Other => {}
                }
            }
            any($($argument),*)
        }
    };
}

pub(crate) use widest;

/// What [`widest!`] chooses by: how many `f32` a vector register has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// AVX-512.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    Sixteen,
    /// AVX2 with fused multiplication and addition.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    Eight,
    /// Whatever every processor of this architecture has.
    Other,
}

/// This processor's.
#[inline]
pub(crate) fn width() -> Width {
    #[cfg(target_arch = "x86_64")]
    {
        use std::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") && has!("fma") {
            return Width::Sixteen;
        }
        if has!("avx2") && has!("fma") {
            return Width::Eight;
        }
    }
    Width::Other
}

/// A number as a buffer holds it.
pub(crate) trait Number: Copy {
    /// What libtorch calls it.
    const KIND: Kind;
    /// Its value.
    fn get(self) -> f32;
    /// The nearest number to `x`; of two as near the even one, as libtorch rounds.
    fn of(x: f32) -> Self;
}

impl Number for f32 {
    const KIND: Kind = Kind::Float;
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }
    #[inline(always)]
    fn of(x: f32) -> Self {
        x
    }
}

/// The bits of a bf16: the upper half of those of an `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(transparent)]
pub(crate) struct Bf16(pub u16);

impl Number for Bf16 {
    const KIND: Kind = Kind::BFloat16;
    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
    #[inline(always)]
    fn of(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
        Self(if x.is_nan() { 0x7fc0 } else { rounded })
    }
}
