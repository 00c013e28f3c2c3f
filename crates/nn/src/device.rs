//! Where a network lives, by name.

use playfield_core::{Error, Result};
use tch::{Cuda, Device};

/// The device called `name`: `cpu`, `cuda`, `cuda:N`, or `auto` (CUDA where there is one).
///
/// `cuda` and `auto` mean the first CUDA device or, in one of several processes of a machine, that of the number in the environment
/// variable `LOCAL_RANK`, which launchers set, modulo the number of devices: one each, where there are enough.
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
    let own = || own_index(std::env::var("LOCAL_RANK").ok().as_deref(), available);
    match name {
        "auto" => Ok(if available > 0 { Device::Cuda(own()?) } else { Device::Cpu }),
        "cpu" => Ok(Device::Cpu),
        "cuda" => cuda(own()?),
        _ => match name.strip_prefix("cuda:").map(str::parse) {
            Some(Ok(index)) => cuda(index),
            _ => Err(Error::config(format!("device '{name}' is unknown: use cpu, cuda, cuda:N or auto"))),
        },
    }
}

/// The index of the device of the process with the number `local_rank` on its machine.
fn own_index(local_rank: Option<&str>, available: usize) -> Result<usize> {
    let Some(text) = local_rank else { return Ok(0) };
    let rank: usize = text
        .trim()
        .parse()
        .map_err(|_| Error::config(format!("the environment variable LOCAL_RANK = '{text}' must be a whole number")))?;
    Ok(rank % available.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_a_machine_have_a_device_each() {
        let index = |rank: &str, available| own_index(Some(rank), available).unwrap();
        assert_eq!(["0", "1", "3"].map(|rank| index(rank, 4)), [0, 1, 3]);
        assert_eq!(["0", "1", "2"].map(|rank| index(rank, 2)), [0, 1, 0]);
        assert_eq!((own_index(None, 4).unwrap(), index("3", 0)), (0, 0));
        assert!(own_index(Some("first"), 1).unwrap_err().to_string().contains("LOCAL_RANK = 'first'"));
    }
}
