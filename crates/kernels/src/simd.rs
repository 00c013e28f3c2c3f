//! Function multiversioning by SIMD level.

/// Defines a function whose body is compiled for AVX-512, for AVX2 and for the baseline; a call dispatches to the highest level
/// of this processor. All versions return equal results: none reorders a sum.
macro_rules! multiversion {
    ($(#[$attribute:meta])* $vis:vis fn $name:ident $(<$($generic:ident: $bound:ident),*>)? ($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$attribute])*
        $vis fn $name $(<$($generic: $bound),*>)? ($($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn baseline $(<$($generic: $bound),*>)? ($($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
                fn avx512 $(<$($generic: $bound),*>)? ($($argument: $type),*) $(-> $result)? {
                    baseline($($argument),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2 $(<$($generic: $bound),*>)? ($($argument: $type),*) $(-> $result)? {
                    baseline($($argument),*)
                }
                use $crate::simd::{SimdLevel, level};
                match level() {
                    // SAFETY: `level` detected these instructions.
                    SimdLevel::Avx512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: `level` detected these instructions.
                    SimdLevel::Avx2 => return unsafe { avx2($($argument),*) },
                    SimdLevel::Baseline => {}
                }
            }
            baseline($($argument),*)
        }
    };
}

pub(crate) use multiversion;

/// SIMD levels that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimdLevel {
    /// AVX-512 (F, BW, VL, DQ): 16 `f32` per register.
    Avx512,
    /// AVX2 with FMA: 8 `f32` per register.
    Avx2,
    /// The instructions that every processor of this architecture has.
    Baseline,
}

/// The highest level of this processor.
#[inline]
pub fn level() -> SimdLevel {
    #[cfg(target_arch = "x86_64")]
    {
        use std::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") && has!("fma") {
            return SimdLevel::Avx512;
        }
        if has!("avx2") && has!("fma") {
            return SimdLevel::Avx2;
        }
    }
    SimdLevel::Baseline
}
