//! The one place where observations become floats.
//!
//! Frames are `u8` until here. They are copied into a buffer that is reused between calls (page faults of fresh buffers of this size
//! cost more than the arithmetic on them), channels-last, in the network's precision. bf16 represents integers up to 256 exactly;
//! the first layer's weights are divided by 255. (The own kernels divide the pixels, with an equal rounding error.)
//!
//! Frames may be standardized instead (LeCun et al. 1998, *Efficient BackProp*, section 4.3), each observation by its own mean and
//! standard deviation: there are no running statistics, and acting and training compute alike.

use super::config::NetworkConfig;
use super::parts::Parts;
use crate::export::Exporter;
use crate::observations::{Contiguous, upload};
use crate::pass::Pass;
use playfield_core::graph::{Op, Value};
use playfield_core::{Dtype, EnvSpec, Error, ObsRef, Result};
use playfield_kernels::bf16;
use playfield_kernels::frames::{Scaling, WHITE, mean_and_inverse_deviation, scale};
use std::collections::HashMap;
use tch::{Device, Kind, Tensor, no_grad};

/// Turns observations of one spec into tensors on one device.
#[derive(Debug)]
pub struct Input {
    /// Where an observation has several parts; the following fields are those of one part.
    parts: Option<Parts>,
    /// `[height, width, channels]` for frames, `[features]` for vectors; history included.
    shape: Vec<i64>,
    device: Device,
    kind: Kind,
    standardize: bool,
    kept: HashMap<(usize, Pass), Tensor>,
}

impl Input {
    /// For observations of `spec` with their history. `planes`: as images `[n, c, h, w]`; else flat, `[n, features]`.
    ///
    /// # Errors
    /// [`Error::Config`] where `standardize` is set for vectors, or for observations with several parts.
    pub fn new(config: &NetworkConfig, spec: &EnvSpec, planes: bool, device: Device, kind: Kind) -> Result<Self> {
        if config.standardize && !spec.parts.is_empty() {
            return Err(Error::config(format!(
                "[network]: `standardize` is for frames alone, and {} observes {}; set standardize = false",
                spec.id,
                spec.observation_text()
            )));
        }
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
        let parts = (!spec.parts.is_empty()).then(|| Parts::new(config, spec, device, kind));
        Ok(Self { parts, shape, device, kind, standardize: config.standardize, kept: HashMap::new() })
    }

    /// A copy with buffers of its own.
    pub fn deep_clone(&self) -> Self {
        let Self { parts, shape, device, kind, standardize, .. } = self;
        let (parts, shape) = (parts.as_ref().map(Parts::deep_clone), shape.clone());
        Self { parts, shape, device: *device, kind: *kind, standardize: *standardize, kept: HashMap::new() }
    }

    /// The factor that the first layer applies: 1/255 for images (bytes with two or three axes), 1 for vectors (of bytes, too) and
    /// standardized frames.
    pub fn scale(config: &NetworkConfig, spec: &EnvSpec) -> f64 {
        match spec.dtype {
            Dtype::U8 if !config.standardize && spec.shape.len() > 1 => 1.0 / f64::from(WHITE),
            _ => 1.0,
        }
    }

    /// `[height, width, channels]` of images that are the whole observation.
    pub(super) fn image(&self) -> Option<[usize; 3]> {
        let &[height, width, channels] = &self.shape[..] else { return None };
        Some([height as usize, width as usize, channels as usize])
    }

    /// How frames are scaled.
    pub(super) fn scaling(&self) -> Scaling {
        if self.standardize { Scaling::Standardize } else { Scaling::Unit }
    }

    /// `n` observations as one tensor: `[n, c, h, w]` (channels-last in memory) or `[n, features]`. Observations with several
    /// parts are a tensor for each image of the torso, and then one of all other parts, `[n, features]`.
    ///
    /// The next call with the same `n` and `pass` overwrites the tensors: use them, and their backward pass, before that.
    ///
    /// # Panics
    /// If `obs` is not `n` observations: a bug of the caller.
    pub fn load(&mut self, obs: Contiguous<'_>, n: usize, pass: Pass) -> Vec<Tensor> {
        match (&mut self.parts, obs) {
            (Some(parts), Contiguous::Host(obs)) => parts.load(obs.u8(), n, pass),
            (Some(_), Contiguous::Device(_)) => panic!("observations with several parts are not kept on a device"),
            (None, obs) => vec![self.load_whole(obs, n, pass)],
        }
    }

    /// The same of observations without parts.
    fn load_whole(&mut self, obs: Contiguous<'_>, n: usize, pass: Pass) -> Tensor {
        let size: Vec<i64> = [n as i64].into_iter().chain(self.shape.iter().copied()).collect();
        let len = match obs {
            Contiguous::Host(obs) => obs.len(),
            Contiguous::Device(frames) => frames.numel(),
        };
        assert_eq!(len as i64, size.iter().product::<i64>(), "`obs` must hold {n} observations of this spec");
        let Self { device, kind, standardize, .. } = *self;
        let kept = self.kept.entry((n, pass)).or_insert_with(|| Tensor::empty(&size[..], (kind, device)));
        match obs {
            Contiguous::Host(ObsRef::U8(frames)) if standardize && device == Device::Cpu => {
                standardize_into(frames, n, kept);
            }
            Contiguous::Host(obs) => {
                let (data, kind) = match obs {
                    ObsRef::U8(v) => (v.as_ptr(), Kind::Uint8),
                    ObsRef::F32(v) => (v.as_ptr().cast(), Kind::Float),
                };
                let strides: Vec<i64> = (0..size.len()).map(|d| size[d + 1..].iter().product()).collect();
                // SAFETY: the memory of `obs` has this length, as asserted, and outlives the tensor, which is only read.
                let source = unsafe { Tensor::from_blob(data, &size, &strides, kind, Device::Cpu) };
                // Frames are copied to another device as u8: a quarter of the bytes of floats.
                copy(&upload(&source, device), standardize, kept);
            }
            Contiguous::Device(frames) => copy(&frames.view(&size[..]), standardize, kept),
        }
        match self.shape.len() {
            3 => kept.permute([0, 3, 1, 2]),
            _ => kept.shallow_clone(),
        }
    }
}

/// Where an observation's variance is below, it is uniform: see [`mean_and_inverse_deviation`].
const LEAST_VARIANCE: f32 = 1e-6;

impl Input {
    /// Adds the conversion of observations `[n, …]` to a graph: `[n, c, h, w]` or `[n, features]`.
    ///
    /// # Errors
    /// [`Error::Config`] for observations with several parts: a graph has no operator that reads floats from bytes.
    pub fn export(&self, e: &mut Exporter<'_>, obs: Value) -> Result<Value> {
        if self.parts.is_some() {
            return Err(Error::config(
                "a policy for observations with several parts, one of which is an image, cannot be exported: run it with playfield::Policy",
            ));
        }
        let shape: Vec<usize> = self.shape.iter().map(|&d| d as usize).collect();
        let x = e.graph.float(obs);
        let mut x = e.graph.reshape(x, &shape);
        if self.standardize {
            let axes: Vec<i64> = (1..=shape.len() as i64).collect();
            let (mean, variance) = e.moments(x, &axes);
            let variance = e.graph.op(Op::Clip { min: LEAST_VARIANCE, max: WHITE * WHITE }, &[variance]);
            x = e.standardize(x, mean, variance);
        }
        Ok(match shape.len() {
            3 => e.graph.op(Op::Transpose(vec![0, 3, 1, 2]), &[x]),
            _ => x,
        })
    }
}

/// Copies observations `from` into `to`, on the same device, as floats; standardized where `standardize` is set.
fn copy(from: &Tensor, standardize: bool, to: &mut Tensor) {
    no_grad(|| match standardize {
        false => to.copy_(from),
        true => {
            let pixels = from.flatten(1, -1).to_kind(Kind::Float);
            let centered = &pixels - pixels.mean_dim(1, true, Kind::Float);
            let variance = centered.square().mean_dim(1, true, Kind::Float);
            let uniform = variance.le(f64::from(LEAST_VARIANCE));
            let deviation = variance.sqrt().masked_fill(&uniform, 1.0);
            to.copy_(&(centered / deviation).view_as(to));
        }
    });
}

/// Standardizes `n` observations into `to`, a contiguous `f32` or bf16 tensor on the CPU.
fn standardize_into(frames: &[u8], n: usize, to: &Tensor) {
    let len = frames.len() / n;
    assert!(to.device() == Device::Cpu && to.is_contiguous() && to.numel() == frames.len());
    let pointer = to.data_ptr();
    for (i, pixels) in frames.chunks_exact(len).enumerate() {
        let (mean, inverse) = mean_and_inverse_deviation(pixels);
        // SAFETY: rows of a contiguous tensor of this type and length, as asserted, that nothing else uses meanwhile.
        unsafe {
            match to.kind() {
                Kind::BFloat16 => {
                    let row = std::slice::from_raw_parts_mut(pointer.cast::<bf16>().add(i * len), len);
                    scale(pixels, mean, inverse, row);
                }
                Kind::Float => {
                    let row = std::slice::from_raw_parts_mut(pointer.cast::<f32>().add(i * len), len);
                    scale(pixels, mean, inverse, row);
                }
                kind => unreachable!("networks compute in f32 or bf16, not {kind:?}"),
            }
        }
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
