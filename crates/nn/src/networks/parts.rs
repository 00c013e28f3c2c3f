//! Observations with several parts, of which at least one is an image ([`EnvSpec::of_parts`]).
//!
//! As in Stable-Baselines3's `CombinedExtractor`, each image has a torso of its own; their features and all other parts are
//! concatenated, and the `hidden` layers follow. An image that is too small for the torso, or any image with `torso = "mlp"`, is
//! flattened, with values from 0 to 1.
//!
//! ```text
//! image ─ torso.image0 (convolutions, fc) ─┐
//! image ─ torso.image1 (convolutions, fc) ─┼─ concatenated ─ torso.fc1 (hidden) ─ …
//! vectors, small images ───────────────────┘
//! ```
//!
//! Here the bytes of an observation become tensors, once the network reads them.

use super::config::NetworkConfig;
use super::torso;
use crate::observations::upload;
use crate::pass::Pass;
use playfield_core::obs::read_vector;
use playfield_core::{Dtype, EnvSpec, Part};
use playfield_kernels::frames::WHITE;
use std::collections::HashMap;
use std::ops::Range;
use tch::{Device, Kind, Tensor, no_grad};

/// Reads the parts of observations.
#[derive(Debug)]
pub(super) struct Parts {
    /// The images that have a torso: first byte, and `[height, width, channels]`, in a stacked observation.
    images: Vec<(usize, [i64; 3])>,
    /// The others: their bytes in a stacked observation.
    others: Vec<(Dtype, Range<usize>)>,
    /// The number of bytes of a stacked observation.
    len: usize,
    frame_stack: usize,
    device: Device,
    kind: Kind,
    /// The buffers of images, reused between calls.
    kept: HashMap<(usize, Pass), Vec<Tensor>>,
}

/// Whether `part` of an observation of `spec` has a torso of its own.
pub(super) fn has_torso(config: &NetworkConfig, spec: &EnvSpec, part: &Part) -> bool {
    torso::fits(torso::resolve(config, spec), &spec.of_part(part))
}

impl Parts {
    /// For observations of `spec` with their history.
    pub fn new(config: &NetworkConfig, spec: &EnvSpec, device: Device, kind: Kind) -> Self {
        let (mut images, mut others) = (Vec::new(), Vec::new());
        for (part, Range { start, end }) in spec.part_ranges() {
            let (start, end) = (start * spec.frame_stack, end * spec.frame_stack);
            match part.shape[..] {
                [h, w, ref channels @ ..] if has_torso(config, spec, part) => {
                    let channels = channels.iter().product::<usize>() * spec.frame_stack;
                    images.push((start, [h as i64, w as i64, channels as i64]));
                }
                _ => others.push((part.dtype, start..end)),
            }
        }
        let (len, frame_stack) = (spec.obs_len(), spec.frame_stack);
        Self { images, others, len, frame_stack, device, kind, kept: HashMap::new() }
    }

    /// A copy with buffers of its own.
    pub fn deep_clone(&self) -> Self {
        let Self { images, others, len, frame_stack, device, kind, .. } = self;
        let (images, others, kept) = (images.clone(), others.clone(), HashMap::new());
        Self { images, others, len: *len, frame_stack: *frame_stack, device: *device, kind: *kind, kept }
    }

    /// The images `[n, c, h, w]` (channels-last in memory) of `n` observations, and all other parts, `[n, features]`, if there are
    /// any.
    pub fn load(&mut self, obs: &[u8], n: usize, pass: Pass) -> Vec<Tensor> {
        assert_eq!(obs.len(), n * self.len, "`obs` must hold {n} observations of this spec");
        let (device, kind, rows) = (self.device, self.kind, n as i64);
        let kept = self.kept.entry((n, pass)).or_insert_with(|| {
            self.images.iter().map(|(_, [h, w, c])| Tensor::empty([rows, *h, *w, *c], (kind, device))).collect()
        });
        let mut tensors = Vec::with_capacity(kept.len() + 1);
        for ((start, [h, w, c]), to) in self.images.iter().zip(kept) {
            let (size, strides) = ([rows, *h, *w, *c], [self.len as i64, w * c, *c, 1]);
            // SAFETY: the pixels of an image lie within each observation of `obs`, whose length is asserted; `obs` outlives the
            // tensor, which is only read.
            let pixels =
                unsafe { Tensor::from_blob(obs[*start..].as_ptr(), &size, &strides, Kind::Uint8, Device::Cpu) };
            no_grad(|| to.copy_(&if device == Device::Cpu { pixels } else { upload(&pixels.contiguous(), device) }));
            tensors.push(to.permute([0, 3, 1, 2]));
        }
        if !self.others.is_empty() {
            let mut values = Vec::new();
            for row in obs.chunks_exact(self.len) {
                for (dtype, range) in &self.others {
                    match dtype {
                        Dtype::F32 => read_vector(&row[range.clone()], self.frame_stack, &mut values),
                        Dtype::U8 => values.extend(row[range.clone()].iter().map(|&pixel| f32::from(pixel) / WHITE)),
                    }
                }
            }
            tensors.push(upload(&Tensor::from_slice(&values), device).view([rows, -1]).to_kind(kind));
        }
        tensors
    }
}
