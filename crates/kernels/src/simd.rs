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
                    SimdLevel::Avx512 | SimdLevel::Avx512Bf16 | SimdLevel::Amx => return unsafe { avx512($($argument),*) },
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
    /// AMX for bf16: products of tiles of 16 × 32 elements.
    Amx,
}

impl SimdLevel {
    /// All levels, in ascending order.
    pub const ALL: [Self; 5] = [Self::Baseline, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Amx];

    /// Its name in options and reports.
    pub fn name(self) -> &'static str {
        ["baseline", "avx2", "avx512", "avx512_bf16", "amx"][self as usize]
    }
}

/// The level in use, as its number; [`UNKNOWN`] before the first call of [`level`].
static LEVEL: AtomicU8 = AtomicU8::new(UNKNOWN);

const UNKNOWN: u8 = u8::MAX;

/// The level in use: the highest of this processor, or the [`limit`].
#[inline]
pub fn level() -> SimdLevel {
    match LEVEL.load(Ordering::Relaxed) {
        UNKNOWN => limit(SimdLevel::Amx),
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
            return if amx() { SimdLevel::Amx } else { SimdLevel::Avx512Bf16 };
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

/// Whether this processor has AMX for bf16, and the operating system lets this process use it. The registers are large: Linux saves them
/// for a process only after it has asked, once for all of its threads.
fn amx() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        static AMX: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *AMX.get_or_init(|| amx_detected() && amx_permitted())
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}

/// Whether CPUID reports AMX-TILE and AMX-BF16, and the operating system has enabled the tile registers in XCR0.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn amx_detected() -> bool {
    use std::arch::x86_64::{__cpuid_count, _xgetbv};
    const BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
    const TILE_STATES: u64 = 1 << 17 | 1 << 18;
    // `xsave` is detected only where the operating system has enabled XGETBV.
    std::is_x86_feature_detected!("xsave")
        && __cpuid_count(7, 0).edx & BF16_AND_TILE == BF16_AND_TILE
        // SAFETY: the processor has XGETBV.
        && unsafe { _xgetbv(0) } & TILE_STATES == TILE_STATES
}

/// Asks for permission to use the tile registers: `arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)`. Kernels before 5.16 do not know the
/// request; a process whose threads have too small a signal stack is refused.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn amx_permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XTILEDATA: i64 = 18;
    let status: i64;
    // SAFETY: the system call reads and writes no memory of the process; it overwrites rcx and r11.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => status,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    status == 0
}
