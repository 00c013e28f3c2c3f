use crate::tensor::to_vec;
use tch::Tensor;

/// The global norm of a gradient before it was clipped.
#[derive(Debug)]
pub enum Norm {
    /// On the host.
    Known(f64),
    /// A scalar that a device computes: reading it waits for the device.
    OnDevice(Tensor),
}

impl Norm {
    /// Reads it.
    pub fn value(&self) -> f64 {
        Self::values(std::slice::from_ref(self))[0]
    }

    /// The values of `norms`, read from the device at once.
    pub fn values(norms: &[Self]) -> Vec<f64> {
        let on_device = |norm: &Self| match norm {
            Self::Known(_) => None,
            Self::OnDevice(norm) => Some(norm.shallow_clone()),
        };
        let tensors: Vec<_> = norms.iter().filter_map(on_device).collect();
        let read = if tensors.is_empty() { Vec::new() } else { to_vec(&Tensor::stack(&tensors, 0)) };
        let mut read = read.into_iter();
        let value = |norm: &Self| match norm {
            Self::Known(value) => *value,
            Self::OnDevice(_) => f64::from(read.next().expect("one for each")),
        };
        norms.iter().map(value).collect()
    }
}
