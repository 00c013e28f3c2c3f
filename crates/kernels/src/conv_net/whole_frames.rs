//! Convolutions frame by frame: with padding, layer norm, pooling and residual sums, of frames that are standardized, and of frames whose
//! windows are mostly distinct. Positions that repeat their neighbors are left out ([`repeats`](super::repeats)).

use super::cache::{self, Cache};
use super::image::Image;
use super::layer::{Activations, Connection, GradientScratch, Planned, Scratch};
use super::repeats::{Repeats, Sums};
use crate::buffer::Buffer;
use crate::conv::LayerKernels;
use crate::frames::Scaling;
use std::mem::{swap, take};

/// Convolutions over whole frames.
#[derive(Debug)]
pub(super) struct WholeFrames<T: LayerKernels> {
    pub layers: Vec<Planned<T>>,
    /// Version of the packed weights.
    version: Option<u64>,
    /// A frame, and the same scaled.
    frame: Image,
    image: Buffer<T>,
    scratch: Scratch<T>,
    pub cache: Cache<T>,
    /// Whether inferred frames are cached: known after two training passes, of which the second finds most of its frames there or not.
    pub caches: Option<bool>,
    /// Whether positions that repeat others are left out.
    pub finds_repeats: bool,
    /// Activations of the last training pass.
    pub trained: Vec<Convolved<T>>,
    gradients: Gradients<T>,
}

/// Gradients of one layer: of its output, of its products, and of its input.
#[derive(Debug, Default)]
struct Gradients<T> {
    after: Buffer<f32>,
    before: Buffer<T>,
    input: Buffer<f32>,
    /// Of its products, each the sum over the positions that repeat one.
    sums: Sums<T>,
    scratch: GradientScratch,
}

/// A frame, and the repeats and activations of each convolution.
#[derive(Debug, Default)]
pub(super) struct Convolved<T> {
    pub frame: Vec<u8>,
    pub repeats: Vec<Repeats>,
    pub layers: Vec<Activations<T>>,
}

impl<T: LayerKernels> WholeFrames<T> {
    /// The convolutions `layers` on images `frame`.
    pub fn new(layers: Vec<Planned<T>>, frame: Image) -> Self {
        let direct = |layer: &Planned<T>| layer.transposed.is_none() && layer.connection == Connection::Direct;
        Self {
            finds_repeats: frame.padding == 0 && layers.iter().all(direct),
            layers,
            version: None,
            frame,
            image: Buffer::zeros(frame.len()),
            scratch: Scratch::default(),
            cache: Cache::default(),
            caches: None,
            trained: Vec::new(),
            gradients: Gradients::default(),
        }
    }

    /// Appends the outputs of the last convolution to `features`, `[frames, positions, outputs]`.
    pub fn forward(
        &mut self,
        weights: &[T],
        version: u64,
        scaling: Scaling,
        frames: &[&[u8]],
        train: bool,
        features: &mut Buffer<T>,
    ) {
        let Self { layers, frame, image, scratch, cache, caches, finds_repeats, trained, .. } = self;
        if self.version != Some(version) {
            for Planned { shape, weight, packed, .. } in layers.iter_mut() {
                T::pack(shape, &weights[weight.clone()], packed);
            }
            self.version = Some(version);
        }
        if train {
            cache.recycle(trained.drain(..));
        }
        let (caching, mut found) = (*caches == Some(true), 0);
        for &pixels in frames {
            let hash = if caching { cache::hash(pixels) } else { 0 };
            let cached = if caching && train { cache.take(version, hash, pixels) } else { None };
            found += usize::from(cached.is_some());
            let convolved = cached.unwrap_or_else(|| {
                let mut convolved = cache.spare();
                scale(scaling, pixels, *frame, image);
                convolved.find_repeats(layers, finds_repeats.then_some(*frame), pixels);
                convolved.compute(layers, weights, pixels, image, scratch);
                convolved
            });
            features.extend_from_slice(&convolved.layers.last().expect("a convolution").output);
            match train {
                true => trained.push(convolved),
                false if caching => cache.put(version, hash, convolved),
                false => cache.recycle([convolved]),
            }
        }
        if train {
            *caches = Some(caches.is_none_or(|caches| caches && 2 * found >= frames.len()));
        }
    }

    /// Computes the layers' gradients from the gradient `dy` of the outputs in the last training pass, `[frames, positions, outputs]`.
    pub fn backward(&mut self, weights: &[T], scaling: Scaling, dy: &[f32]) {
        let Self { layers, frame, image, trained, gradients, .. } = self;
        let Gradients { after, before, input, sums, scratch } = gradients;
        for (i, layer) in layers.iter_mut().enumerate() {
            layer.clear_gradients(true);
            let weights = &weights[layer.weight.clone()];
            match &mut layer.transposed {
                _ if i == 0 => {}
                Some(transposed) => transposed.pack(weights),
                None => T::pack_transposed(&layer.shape, weights, &mut layer.packed),
            }
        }
        for (convolved, dy) in trained.iter().zip(dy.chunks_exact(dy.len() / trained.len())) {
            scale(scaling, &convolved.frame, *frame, image);
            after.clear();
            after.extend_from_slice(dy);
            for (i, layer) in layers.iter_mut().enumerate().rev() {
                layer.activation_gradient(weights, &convolved.layers[i], after, scratch, before);
                let Planned { shape, weight, positions, packed, transposed, weight_gradient, .. } = layer;
                let x = if i == 0 { &*image } else { &convolved.layers[i - 1].output };
                let (positions, dy) = convolved.repeats[i].sum(positions, shape.outputs, before, sums);
                T::weight_gradient(shape, packed, positions, x, dy, weight_gradient);
                match transposed {
                    _ if i == 0 => break,
                    Some(transposed) => transposed.input_gradient(before, input),
                    None => {
                        input.fill_with_zeros(layer.input.len());
                        T::input_gradient(shape, packed, &weights[weight.clone()], positions, dy, input);
                    }
                }
                swap(after, input);
            }
        }
    }

    /// Writes the layers' gradients to their parts of `gradient`.
    pub fn store_gradients(&self, gradient: &mut [T]) {
        self.layers.iter().for_each(|layer| layer.store_gradients(gradient));
    }
}

/// Scales the pixels of a frame into `image`.
fn scale<T: LayerKernels>(scaling: Scaling, pixels: &[u8], frame: Image, image: &mut [T]) {
    let (mean, factor) = scaling.mean_and_factor(pixels);
    for (pixels, row) in pixels.chunks_exact(frame.row_len()).zip(frame.rows_mut(image)) {
        T::scale(pixels, mean, factor, row);
    }
}

impl<T: LayerKernels> Convolved<T> {
    /// Finds the repeats of each convolution of the frame `pixels`, of this shape; none without it.
    fn find_repeats(&mut self, convolutions: &[Planned<T>], frame: Option<Image>, pixels: &[u8]) {
        self.repeats.resize_with(convolutions.len(), Repeats::default);
        for (i, layer) in convolutions.iter().enumerate() {
            let (before, repeats) = self.repeats.split_at_mut(i);
            match (frame, before.last()) {
                (None, _) => repeats[0].clear(),
                (Some(frame), None) => repeats[0].find_in_frame(layer, frame, pixels),
                (_, Some(before)) => repeats[0].find_after(layer, before),
            }
        }
    }

    /// Computes the convolutions of a frame, which is scaled in `image`.
    fn compute(
        &mut self,
        layers: &mut [Planned<T>],
        weights: &[T],
        pixels: &[u8],
        image: &[T],
        scratch: &mut Scratch<T>,
    ) {
        self.frame.clear();
        self.frame.extend_from_slice(pixels);
        self.layers.resize_with(layers.len(), Activations::default);
        for (i, layer) in layers.iter_mut().enumerate() {
            let mut packed = take(&mut layer.packed);
            let Planned { shape, bias, positions, .. } = &*layer;
            let (before, activations) = self.layers.split_at_mut(i);
            let x = before.last().map_or(image, |before| &before.output);
            let repeats = &self.repeats[i];
            layer.activate(weights, 1, &mut activations[0], scratch, |rectify, y| {
                repeats.multiply(positions, shape.outputs, y, |positions, y| {
                    T::convolve(shape, &mut packed, &weights[bias.clone()], rectify, positions, x, y);
                });
            });
            layer.packed = packed;
        }
    }
}
