use crate::output::out;
use crate::paths;
use playfield_core::{Error, Result};
use std::process::ExitCode;

/// `playfield doctor`.
pub fn doctor() -> Result<ExitCode> {
    let mut report = vec![
        ("playfield".to_string(), Ok(format!("{}, {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH))),
        ("processor".to_string(), Ok(processor())),
        ("libtorch".to_string(), libtorch()),
        ("devices".to_string(), Ok(devices())),
        ("this folder".to_string(), writable()),
    ];
    report.extend(python());
    let mut healthy = true;
    for (part, found) in &report {
        match found {
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
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let bf16 = match playfield_nn::config::native_bf16() {
        true => "multiplies bf16: networks on frames compute in it",
        false => "does not multiply bf16: networks compute in fp32",
    };
    format!("{cores} cores, {bf16}")
}

/// Whether libtorch computes: 1·3 + 2·4.
fn libtorch() -> Result<String> {
    let product = tch::Tensor::from_slice(&[1.0_f32, 2.0]).dot(&tch::Tensor::from_slice(&[3.0_f32, 4.0]));
    match product.double_value(&[]) {
        11.0 => Ok(format!("computes, on {} threads", tch::get_num_threads())),
        wrong => Err(Error::config(format!("computes wrongly (1·3 + 2·4 = {wrong}): run `make setup`"))),
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
    Ok("can be written: runs go to ./runs".into())
}

#[cfg(feature = "python")]
fn python() -> Vec<(String, Result<String>)> {
    playfield_gymnasium::doctor()
}

#[cfg(not(feature = "python"))]
fn python() -> Vec<(String, Result<String>)> {
    vec![("Python".into(), Ok("left out of this build: no Gymnasium, no Atari".into()))]
}
