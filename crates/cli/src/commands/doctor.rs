use crate::output::out;
use crate::{machine, paths};
use playfield_core::{Error, Result};
use playfield_kernels::simd::{SimdLevel, level};
use std::process::ExitCode;

/// `playfield doctor`.
pub fn doctor() -> Result<ExitCode> {
    let mut report = vec![
        ("playfield".to_string(), Ok(format!("{}, {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH))),
        ("processor".to_string(), Ok(processor())),
        ("kernels".to_string(), Ok(kernels())),
        ("libtorch".to_string(), libtorch()),
        ("devices".to_string(), Ok(devices())),
        ("this folder".to_string(), writable()),
    ];
    report.extend(python());
    let mut healthy = true;
    for (part, result) in &report {
        match result {
            Ok(found) => out!("ok       {part:<12} {found}"),
            Err(error) => {
                healthy = false;
                out!("missing  {part:<12} {error}");
            }
        }
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn processor() -> String {
    format!("{} ({})", machine::processor(), machine::instructions())
}

/// Whose kernels compute networks on frames: `docs/networks.md`.
fn kernels() -> String {
    match level() {
        SimdLevel::Baseline if cfg!(target_arch = "x86_64") => "libtorch's; playfield's own need AVX2".into(),
        _ => format!("playfield's own or libtorch's, as measured: `{} doctor --bench`", paths::program()),
    }
}

/// Checks libtorch: 1·3 + 2·4 = 11.
fn libtorch() -> Result<String> {
    let product = tch::Tensor::from_slice(&[1.0_f32, 2.0]).dot(&tch::Tensor::from_slice(&[3.0_f32, 4.0]));
    match product.double_value(&[]) {
        11.0 => Ok(format!("{} works, {} threads", machine::libtorch(), tch::get_num_threads())),
        wrong => Err(Error::config(format!("wrong result (1·3 + 2·4 = {wrong}): run `make setup`"))),
    }
}

fn devices() -> String {
    match tch::Cuda::is_available() {
        true => (0..tch::Cuda::device_count()).map(|i| format!("cuda:{i} ")).collect::<String>() + "cpu",
        false => "cpu (no CUDA; on a machine with an NVIDIA GPU: make setup DEVICE=cuda)".into(),
    }
}

fn writable() -> Result<String> {
    let name = paths::absolute(".playfield-doctor");
    std::fs::write(&name, "").map_err(Error::io("write", &name))?;
    std::fs::remove_file(&name).map_err(Error::io("remove", &name))?;
    Ok("writable: runs are saved in ./runs".into())
}

#[cfg(feature = "python")]
fn python() -> Vec<(String, Result<String>)> {
    playfield_gymnasium::doctor()
}

#[cfg(not(feature = "python"))]
fn python() -> Vec<(String, Result<String>)> {
    vec![("Python".into(), Ok("not included in this build: no Gymnasium, no Atari".into()))]
}
