//! Function multiversioning by SIMD level.
//!
//! The level is that of the processor, or a lower one that [`limit`] sets: for tests, and for comparisons as on another processor.

use std::sync::atomic::{AtomicU8, Ordering};

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
                    SimdLevel::Avx512 | SimdLevel::Avx512Bf16 => return unsafe { avx512($($argument),*) },
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

/// SIMD levels that kernels are compiled for; each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum SimdLevel {
    /// The instructions that every processor of this architecture has.
    Baseline,
    /// AVX2 with FMA: 8 `f32` per register.
    Avx2,
    /// AVX-512 (F, BW, VL, DQ): 16 `f32` per register.
    Avx512,
    /// AVX-512 BF16: dot products of 32 pairs of bf16.
    Avx512Bf16,
}

impl SimdLevel {
    /// All levels, in ascending order.
    pub const ALL: [Self; 4] = [Self::Baseline, Self::Avx2, Self::Avx512, Self::Avx512Bf16];

    /// Its name in options and reports.
    pub fn name(self) -> &'static str {
        ["baseline", "avx2", "avx512", "avx512_bf16"][self as usize]
    }
}

/// The level in use, as its number; [`UNKNOWN`] before the first call of [`level`].
static LEVEL: AtomicU8 = AtomicU8::new(UNKNOWN);

const UNKNOWN: u8 = u8::MAX;

/// The level in use: the highest of this processor, or the [`limit`].
#[inline]
pub fn level() -> SimdLevel {
    match LEVEL.load(Ordering::Relaxed) {
        UNKNOWN => limit(SimdLevel::Avx512Bf16),
        level => SimdLevel::ALL[usize::from(level)],
    }
}

/// Sets the highest level that kernels use, and returns the level in use from now on. Call it before the first kernel: results of
/// different levels differ by rounding, and packed weights belong to one level.
pub fn limit(highest: SimdLevel) -> SimdLevel {
    let level = detected().min(highest);
    LEVEL.store(level as u8, Ordering::Relaxed);
    level
}

/// The highest level of this processor.
pub fn detected() -> SimdLevel {
    #[cfg(target_arch = "x86_64")]
    {
        use std::is_x86_feature_detected as has;
        let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") && has!("fma");
        if avx512 && has!("avx512bf16") {
            return SimdLevel::Avx512Bf16;
        }
        if avx512 {
            return SimdLevel::Avx512;
        }
        if has!("avx2") && has!("fma") {
            return SimdLevel::Avx2;
        }
    }
    SimdLevel::Baseline
}
