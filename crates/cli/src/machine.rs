//! The machine and the libraries that the program runs on.

use playfield_kernels::simd::{SimdLevel, level};
use playfield_nn::config::native_bf16;
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

/// One line for the run folder: program, libtorch, processor, and the instructions that kernels use.
pub fn describe() -> String {
    let instructions = match level() {
        SimdLevel::Avx512 if native_bf16() => "AVX-512 with BF16",
        SimdLevel::Avx512 => "AVX-512",
        SimdLevel::Avx2 => "AVX2",
        SimdLevel::Baseline => "no AVX2",
    };
    let (version, libtorch, processor) = (env!("CARGO_PKG_VERSION"), libtorch(), processor());
    format!("{processor} ({instructions}), libtorch {libtorch}, playfield {version}")
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
