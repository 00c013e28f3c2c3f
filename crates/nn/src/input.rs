//! The one place where observations become floats.
//!
//! Frames are `u8` until here. They are copied into a buffer that is kept from call to call (fresh buffers of this size
//! cost more in page faults than the arithmetic on them), channels-last, in the network's precision. bf16 holds every
//! integer to 256 exactly, so nothing is lost; the division by 255 happens inside the first layer's weights.

use playfield_core::{Dtype, EnvSpec, ObsRef};
use std::collections::HashMap;
use tch::{Device, Kind, Tensor, no_grad};

/// Turns observations of one spec into tensors on one device.
#[derive(Debug)]
pub struct Input {
    /// `[height, width, channels]` for frames, `[features]` for vectors; history included.
    shape: Vec<i64>,
    device: Device,
    kind: Kind,
    kept: HashMap<usize, Tensor>,
}

impl Input {
    /// For observations of `spec` with their history. `planes`: as images `[n, c, h, w]`; else flat, `[n, features]`.
    pub fn new(spec: &EnvSpec, planes: bool, device: Device, kind: Kind) -> Self {
        let shape = match (planes, &spec.shape[..]) {
            (true, &[h, w, ref colours @ ..]) => {
                let channels = colours.iter().product::<usize>() * spec.history;
                vec![h as i64, w as i64, channels as i64]
            }
            _ => vec![spec.obs_len() as i64],
        };
        Self { shape, device, kind, kept: HashMap::new() }
    }

    /// The factor that the first layer applies: 1/255 for pixels, 1 for vectors.
    pub fn scale(spec: &EnvSpec) -> f64 {
        match spec.dtype {
            Dtype::U8 => 1.0 / 255.0,
            Dtype::F32 => 1.0,
        }
    }

    /// `n` observations as one tensor: `[n, c, h, w]` (channels-last in memory) or `[n, features]`.
    ///
    /// The tensor is overwritten by the next call with the same `n`: use it, and its backward pass, before that.
    ///
    /// # Panics
    /// If `obs` is not `n` observations: a bug of the caller.
    pub fn load(&mut self, obs: ObsRef<'_>, n: usize) -> Tensor {
        let size: Vec<i64> = [n as i64].into_iter().chain(self.shape.iter().copied()).collect();
        assert_eq!(obs.len() as i64, size.iter().product::<i64>(), "observations that are not {n} of this spec");
        let (data, kind) = match obs {
            ObsRef::U8(v) => (v.as_ptr(), Kind::Uint8),
            ObsRef::F32(v) => (v.as_ptr().cast(), Kind::Float),
        };
        let strides: Vec<i64> = (0..size.len()).map(|d| size[d + 1..].iter().product()).collect();
        // SAFETY: the memory is that of `obs`, long enough as asserted, and outlives the tensor, which lives to the end of
        // this function and is only read.
        let source = unsafe { Tensor::from_blob(data, &size, &strides, kind, Device::Cpu) };
        let device = self.device;
        let options = (self.kind, device);
        let kept = self.kept.entry(n).or_insert_with(|| Tensor::empty(&size[..], options));
        // On its way to another device a frame stays u8: four times fewer bytes than floats.
        no_grad(|| if device == Device::Cpu { kept.copy_(&source) } else { kept.copy_(&source.to_device(device)) });
        match self.shape.len() {
            3 => kept.permute([0, 3, 1, 2]),
            _ => kept.shallow_clone(),
        }
    }
}
