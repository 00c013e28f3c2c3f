//! Automatic values of a network's configuration, resolved for an environment and a device.

use crate::config::{NetworkConfig, Precision};
use crate::{device, timing, torso};
use playfield_core::{EnvSpec, Result};
use tch::{Device, Kind};

/// The configuration with its automatic values (feature extractor, precision) resolved for observations of `spec`, and the name
/// of the device that `device` means here. Resolving twice changes nothing.
///
/// # Errors
/// [`Error::Config`](playfield_core::Error::Config) where the device is missing or a value cannot work.
pub fn resolve(config: &NetworkConfig, spec: &EnvSpec, device: &str) -> Result<(NetworkConfig, String)> {
    config.check()?;
    let device = device::parse(device)?;
    let torso = torso::resolve(config, spec);
    let precision = match config.kind(device, torso.convolves() && spec.parts.is_empty()) {
        Kind::BFloat16 if config.precision == Precision::Auto && device == Device::Cpu => {
            timing::faster_precision(config, spec)?
        }
        Kind::BFloat16 => Precision::Bf16,
        _ => Precision::Fp32,
    };
    let name = match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".into(),
    };
    Ok((NetworkConfig { torso, lstm: config.lstm_width(), precision, ..config.clone() }, name))
}
