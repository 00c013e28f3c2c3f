//! Loops for the widest vectors that the processor has.

/// Defines a function whose body is compiled for AVX-512, for AVX2 and for any processor; a call runs the widest that this
/// one has. All give the same numbers: what they do to each is the same, and nothing is summed in another order.
macro_rules! widest {
    ($(#[$attribute:meta])* $vis:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$attribute])*
        $vis fn $name($($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn any($($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
                fn wide($($argument: $type),*) $(-> $result)? {
                    any($($argument),*)
                }
                #[target_feature(enable = "avx2")]
                fn middle($($argument: $type),*) $(-> $result)? {
                    any($($argument),*)
                }
                use std::is_x86_feature_detected as has;
                if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") {
                    // SAFETY: the processor has these instructions.
                    return unsafe { wide($($argument),*) };
                }
                if has!("avx2") {
                    // SAFETY: the processor has these instructions.
                    return unsafe { middle($($argument),*) };
                }
            }
            any($($argument),*)
        }
    };
}

pub(crate) use widest;

/// Rounds to the nearest bf16, ties to even, as libtorch does.
#[inline(always)]
pub(crate) fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    if x.is_nan() { 0x7fc0 } else { rounded }
}
