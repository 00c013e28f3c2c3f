//! Where a network lives, by name.

use playfield_core::{Error, Result};
use tch::{Cuda, Device};

/// The device called `name`: `cpu`, `cuda`, `cuda:N`, or `auto` (CUDA where there is one).
///
/// # Errors
/// [`Error::Config`] for an unknown name or a device that this machine or this libtorch does not have.
pub fn parse(name: &str) -> Result<Device> {
    let available = if Cuda::is_available() { Cuda::device_count() as usize } else { 0 };
    let cuda = |index: usize| {
        if index < available {
            Ok(Device::Cuda(index))
        } else if available == 0 {
            Err(Error::config(format!(
                "device '{name}': this libtorch sees no CUDA device. Use device 'cpu', or run `make setup DEVICE=cuda` on a machine with an NVIDIA GPU"
            )))
        } else {
            Err(Error::config(format!("device '{name}': the devices here are cuda:0 to cuda:{}", available - 1)))
        }
    };
    match name {
        "auto" => Ok(if available > 0 { Device::Cuda(0) } else { Device::Cpu }),
        "cpu" => Ok(Device::Cpu),
        "cuda" => cuda(0),
        _ => match name.strip_prefix("cuda:").map(str::parse) {
            Some(Ok(index)) => cuda(index),
            _ => Err(Error::config(format!("device '{name}' is unknown: use cpu, cuda, cuda:N or auto"))),
        },
    }
}
