//! The one place where observations become floats.
//!
//! Frames are `u8` until here. They are copied into a buffer that is kept from call to call (fresh buffers of this size
//! cost more in page faults than the arithmetic on them), channels-last, in the network's precision. bf16 holds every
//! integer to 256 exactly, so nothing is lost; the division by 255 happens inside the first layer's weights. (Loops of our own,
//! `direct`, divide the pixel: that rounds as much as dividing the weight does.)
//!
//! Frames may be standardized instead (LeCun et al. 1998, *Efficient BackProp*, section 4.3): each observation by its own
//! mean and deviation, so that there are no statistics to keep, and acting and learning see the same.

use crate::config::NetworkConfig;
use crate::simd::{Bf16, Number, widest};
use playfield_core::{Dtype, EnvSpec, Error, ObsRef, Result};
use std::collections::HashMap;
use tch::{Device, Kind, Tensor, no_grad};

/// The brightest pixel.
const WHITE: f32 = 255.0;

/// Turns observations of one spec into tensors on one device.
#[derive(Debug)]
pub struct Input {
    /// `[height, width, channels]` for frames, `[features]` for vectors; history included.
    shape: Vec<i64>,
    device: Device,
    kind: Kind,
    standardize: bool,
    kept: HashMap<usize, Tensor>,
}

impl Input {
    /// For observations of `spec` with their history. `planes`: as images `[n, c, h, w]`; else flat, `[n, features]`.
    ///
    /// # Errors
    /// [`Error::Config`] where vectors are to be standardized as if they were frames.
    pub fn new(config: &NetworkConfig, spec: &EnvSpec, planes: bool, device: Device, kind: Kind) -> Result<Self> {
        if config.standardize && spec.dtype != Dtype::U8 {
            return Err(Error::config(format!(
                "[network]: `standardize` is for frames, and {} observes vectors; use env.normalize_obs = true",
                spec.id
            )));
        }
        let shape = match (planes, &spec.shape[..]) {
            (true, &[h, w, ref colors @ ..]) => {
                let channels = colors.iter().product::<usize>() * spec.frame_stack;
                vec![h as i64, w as i64, channels as i64]
            }
            _ => vec![spec.obs_len() as i64],
        };
        Ok(Self { shape, device, kind, standardize: config.standardize, kept: HashMap::new() })
    }

    /// The same with buffers of its own.
    pub fn deep_clone(&self) -> Self {
        let Self { shape, device, kind, standardize, .. } = self;
        Self { shape: shape.clone(), device: *device, kind: *kind, standardize: *standardize, kept: HashMap::new() }
    }

    /// The factor that the first layer applies: 1/255 for the pixels of images (bytes with two or three axes), 1 for vectors
    /// (of bytes, too) and standardized frames.
    pub fn scale(config: &NetworkConfig, spec: &EnvSpec) -> f64 {
        match spec.dtype {
            Dtype::U8 if !config.standardize && spec.shape.len() > 1 => 1.0 / f64::from(WHITE),
            _ => 1.0,
        }
    }

    /// `[height, width, channels]` of frames that are taken as images.
    pub(crate) fn image(&self) -> Option<[usize; 3]> {
        let &[height, width, channels] = &self.shape[..] else { return None };
        Some([height as usize, width as usize, channels as usize])
    }

    /// What is subtracted from the pixels of one observation, and what they are multiplied with then: it is standardized, or
    /// divided by 255.
    pub(crate) fn scaling(&self, frame: &[u8]) -> (f32, f32) {
        if self.standardize { mean_and_inverse_deviation(frame) } else { (0.0, 1.0 / WHITE) }
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
        let (device, kind) = (self.device, self.kind);
        let kept = self.kept.entry(n).or_insert_with(|| Tensor::empty(&size[..], (kind, device)));
        match obs {
            ObsRef::U8(frames) if self.standardize && device == Device::Cpu => standardize_into(frames, n, kept),
            _ => {
                let (data, kind) = match obs {
                    ObsRef::U8(v) => (v.as_ptr(), Kind::Uint8),
                    ObsRef::F32(v) => (v.as_ptr().cast(), Kind::Float),
                };
                let strides: Vec<i64> = (0..size.len()).map(|d| size[d + 1..].iter().product()).collect();
                // SAFETY: the memory is that of `obs`, long enough as asserted, and outlives the tensor, which lives to the
                // end of this block and is only read.
                let source = unsafe { Tensor::from_blob(data, &size, &strides, kind, Device::Cpu) };
                // On its way to another device a frame stays u8: four times fewer bytes than floats.
                no_grad(|| {
                    if device == Device::Cpu { kept.copy_(&source) } else { kept.copy_(&source.to_device(device)) }
                });
                if let (true, ObsRef::U8(frames)) = (self.standardize, obs) {
                    let (mean, inverse) = frames.chunks_exact(frames.len() / n).map(mean_and_inverse_deviation).unzip();
                    let broadcast: Vec<i64> =
                        size.iter().enumerate().map(|(d, &s)| if d == 0 { s } else { 1 }).collect();
                    let column =
                        |v: Vec<f32>| Tensor::from_slice(&v).view(&broadcast[..]).to_device(device).to_kind(self.kind);
                    let _ = no_grad(|| kept.g_sub_(&column(mean)).g_mul_(&column(inverse)));
                }
            }
        }
        match self.shape.len() {
            3 => kept.permute([0, 3, 1, 2]),
            _ => kept.shallow_clone(),
        }
    }
}

/// Writes `n` observations into `to`, a contiguous `f32` or bf16 tensor of this machine, each with its own mean subtracted
/// and divided by its own deviation.
fn standardize_into(frames: &[u8], n: usize, to: &Tensor) {
    let len = frames.len() / n;
    assert!(to.device() == Device::Cpu && to.is_contiguous() && to.numel() == frames.len());
    let pointer = to.data_ptr();
    for (i, pixels) in frames.chunks_exact(len).enumerate() {
        let (mean, inverse) = mean_and_inverse_deviation(pixels);
        // SAFETY: rows of a contiguous tensor of this type and length, as asserted, that nobody else uses meanwhile.
        unsafe {
            match to.kind() {
                Kind::BFloat16 => {
                    let row = std::slice::from_raw_parts_mut(pointer.cast::<Bf16>().add(i * len), len);
                    scale_into(pixels, mean, inverse, row);
                }
                Kind::Float => {
                    let row = std::slice::from_raw_parts_mut(pointer.cast::<f32>().add(i * len), len);
                    scale_into(pixels, mean, inverse, row);
                }
                kind => unreachable!("networks compute in f32 or bf16, not {kind:?}"),
            }
        }
    }
}

widest! {
    /// `(pixel − mean) · inverse`.
    pub(crate) fn scale_into<T: Number>(pixels: &[u8], mean: f32, inverse: f32, to: &mut [T]) {
        to.iter_mut().zip(pixels).for_each(|(to, &p)| *to = T::of((f32::from(p) - mean) * inverse));
    }
}

widest! {
    /// The mean of an observation's pixels and 1 over their standard deviation (of a uniform observation: 1).
    fn mean_and_inverse_deviation(pixels: &[u8]) -> (f32, f32) {
        // Sums of whole chunks fit u32 and vectorize; over chunks they go into f64.
        let (mut sum, mut squares) = (0.0_f64, 0.0_f64);
        for chunk in pixels.chunks(1 << 15) {
            let (s, q) =
                chunk.iter().fold((0_u32, 0_u32), |(s, q), &p| (s + u32::from(p), q + u32::from(p) * u32::from(p)));
            (sum, squares) = (sum + f64::from(s), squares + f64::from(q));
        }
        let n = pixels.len() as f64;
        let mean = sum / n;
        let variance = squares / n - mean * mean;
        (mean as f32, if variance > 1e-6 { variance.sqrt().recip() as f32 } else { 1.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::ActionSpace;

    #[test]
    fn only_images_are_divided_by_255() {
        let config = NetworkConfig::default();
        for (dtype, shape, expected) in [
            (Dtype::U8, vec![84, 84], 1.0 / 255.0),
            (Dtype::U8, vec![64, 64, 3], 1.0 / 255.0),
            (Dtype::U8, vec![8], 1.0),
            (Dtype::F32, vec![8], 1.0),
            (Dtype::F32, vec![8, 8], 1.0),
        ] {
            let actions = ActionSpace::Discrete { n: 2 };
            let spec = EnvSpec::new("t", &shape, dtype, actions);
            assert_eq!(Input::scale(&config, &spec), expected, "{dtype:?} {:?}", spec.shape);
        }
    }
}
