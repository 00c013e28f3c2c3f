//! The machine and the libraries that the program runs on.

use playfield_kernels::simd::{self, SimdLevel};
use std::fs;

/// Cores and processor: `2 cores of AMD EPYC 9R14`.
pub fn processor() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|l| l.strip_prefix("model name")).and_then(|l| l.split_once(": "));
    format!("{cores} cores of {}", model.map_or("an unnamed processor", |(_, name)| name))
}

/// The version of the loaded libtorch: `2.13.0`.
pub fn libtorch() -> String {
    unsafe extern "C" {
        fn aoti_torch_abi_version() -> u64;
    }
    // SAFETY: the function of libtorch takes no arguments and returns a constant: the bytes major, minor, patch, and five others.
    let [major, minor, patch, ..] = unsafe { aoti_torch_abi_version() }.to_be_bytes();
    format!("{major}.{minor}.{patch}")
}

/// The instructions that kernels use: `AVX2 (limited; the processor has AVX-512)`.
pub fn instructions() -> String {
    let name = |level| match level {
        SimdLevel::Amx => "AMX, AVX-512 with BF16",
        SimdLevel::Avx512Bf16 => "AVX-512 with BF16",
        SimdLevel::Avx512 => "AVX-512",
        SimdLevel::Avx2 => "AVX2",
        SimdLevel::Baseline => "no AVX2",
    };
    let (level, detected) = (simd::level(), simd::detected());
    match level == detected {
        true => name(level).into(),
        false => format!("{}, limited: the processor has {}", name(level), name(detected)),
    }
}

/// One line for the run folder: program, libtorch, processor, and the instructions that kernels use.
pub fn describe() -> String {
    let (version, libtorch, processor) = (env!("CARGO_PKG_VERSION"), libtorch(), processor());
    format!("{processor} ({}), libtorch {libtorch}, playfield {version}", instructions())
}

/// Limits the instructions that own kernels, libtorch and child processes use. Call it before the first use of libtorch, while the
/// process has one thread.
pub fn limit(level: SimdLevel) {
    simd::limit(level);
    let [aten, onednn, mkl] = match level {
        SimdLevel::Baseline => ["default", "SSE41", "SSE4_2"],
        SimdLevel::Avx2 => ["avx2", "AVX2", "AVX2"],
        SimdLevel::Avx512 => ["avx512", "AVX512_CORE", "AVX512"],
        SimdLevel::Avx512Bf16 => ["avx512", "AVX512_CORE_BF16", "AVX512"],
        SimdLevel::Amx => ["avx512", "AVX512_CORE_AMX", "AVX512"],
    };
    for (variable, value) in [
        ("PLAYFIELD_CPU", level.name()),
        ("ATEN_CPU_CAPABILITY", aten),
        ("ONEDNN_MAX_CPU_ISA", onednn),
        ("MKL_ENABLE_INSTRUCTIONS", mkl),
    ] {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var(variable, value) };
    }
}

#[cfg(test)]
mod tests {
    /// `scripts/setup` links the headers of the same wheel as the library.
    #[test]
    fn the_version_of_libtorch_equals_that_of_its_headers() {
        let header = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.libtorch/include/torch/headeronly/version.h");
        let header = std::fs::read_to_string(header).unwrap();
        assert!(header.contains(&format!("\"{}\"", super::libtorch())), "{}", super::libtorch());
        assert!(super::describe().contains(" cores of "), "{}", super::describe());
    }
}
