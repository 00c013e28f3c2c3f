//! Convolutional networks on flat parameter buffers, forward and backward.
//!
//! A network is a sequence of convolutions, then fully connected layers, each followed by an optional layer norm and a rectifier. A
//! convolution may be max-pooled or added to a residual sum before its rectifier. Frames are `u8`, height × width × channels; weights are
//! channels-last, `[outputs, height, width, channels]`.
//!
//! A layer writes its output into an image with the border of zeros that the next layer's padding needs: kernels read a padded image like
//! any other.

mod cache;
mod image;
mod layer;
mod repeats;
mod transposed;

use crate::buffer::Buffer;
use crate::conv::LayerKernels;
use crate::frames::Scaling;
use cache::Cache;
use image::Image;
use layer::{Activations, GradientScratch, Planned, Scratch};
use repeats::{Repeats, Sums};
use std::mem::take;

pub use layer::{Connection, Convolution, Layer};

/// A network over one element type, with its buffers.
#[derive(Debug)]
pub struct ConvNet<T: LayerKernels> {
    layers: Vec<Planned<T>>,
    /// How many of the layers are convolutions; they come first.
    convolutions: usize,
    /// Version of the packed weights.
    version: Option<u64>,
    /// A frame, and the same scaled.
    frame: Image,
    image: Buffer<T>,
    scratch: Scratch<T>,
    cache: Cache<T>,
    /// Whether inferred frames are cached: known after two training passes, of which the second finds most of its frames there or not.
    caches: Option<bool>,
    /// Whether positions that repeat others are left out.
    finds_repeats: bool,
    /// Activations of the last training pass.
    trained: Vec<Convolved<T>>,
    /// The fully connected layers of inference and of training.
    inferred_dense: Dense<T>,
    trained_dense: Dense<T>,
    gradients: Gradients<T>,
}

#[derive(Debug, Default)]
struct Gradients<T> {
    /// Of all frames' last convolution.
    all: Buffer<f32>,
    /// Of one layer: of its output, of its products, and of its input.
    after: Buffer<f32>,
    before: Buffer<T>,
    input: Buffer<f32>,
    /// Of its products, each the sum over the positions that repeat one.
    sums: Sums<T>,
    scratch: GradientScratch,
}

/// A frame, and the repeats and activations of each convolution.
#[derive(Debug, Default)]
struct Convolved<T> {
    frame: Vec<u8>,
    repeats: Vec<Repeats>,
    layers: Vec<Activations<T>>,
}

/// The input of the fully connected layers, `[frames, elements]`, and their activations.
#[derive(Debug, Default)]
struct Dense<T> {
    input: Buffer<T>,
    layers: Vec<Activations<T>>,
}

impl<T: LayerKernels> ConvNet<T> {
    /// `layers` on frames of `[height, width, channels]`; `None` where the kernels do not support them.
    pub fn new(layers: &[Layer], [height, width, channels]: [usize; 3]) -> Option<Self> {
        let padding = |layer: Option<&Layer>| layer.and_then(|layer| layer.convolution).map_or(0, |c| c.padding);
        let frame = Image { height, width, channels, padding: padding(layers.first()) };
        let (mut planned, mut input) = (Vec::new(), frame);
        for (i, layer) in layers.iter().enumerate() {
            planned.push(Planned::new(layer, input, padding(layers.get(i + 1)))?);
            if i > 0 && input.padding > 0 && planned[i].transposed.is_none() {
                return None;
            }
            input = planned[i].output;
        }
        Some(Self {
            frame,
            image: Buffer::zeros(frame.len()),
            scratch: Scratch::default(),
            layers: planned,
            convolutions: layers.iter().filter(|layer| layer.convolution.is_some()).count(),
            version: None,
            cache: Cache::default(),
            caches: None,
            finds_repeats: layers.iter().filter_map(|layer| layer.convolution).all(|c| c.padding == 0)
                && layers.iter().all(|layer| layer.connection == Connection::Direct),
            trained: Vec::new(),
            inferred_dense: Dense::default(),
            trained_dense: Dense::default(),
            gradients: Gradients::default(),
        })
    }

    /// Shares the cache of `other`, a network with the same parameters on another thread.
    pub fn share_cache(&mut self, other: &Self) {
        self.cache = other.cache.clone();
    }

    /// The features `[n, outputs]` of `n` frames. `version` identifies the values of `weights`; `train`:
    /// [`backward`](Self::backward) may follow.
    ///
    /// # Panics
    /// If `frames` is not `n` frames: a bug of the caller.
    pub fn forward(
        &mut self,
        weights: &[T],
        version: u64,
        scaling: Scaling,
        frames: &[u8],
        n: usize,
        train: bool,
    ) -> Vec<f32> {
        let Self { layers, frame, image, scratch, cache, caches, trained, inferred_dense, trained_dense, .. } = self;
        let finds_repeats = self.finds_repeats;
        assert_eq!(frames.len(), n * frame.inner_len(), "`frames` must hold {n} observations");
        let (convolutions, dense) = layers.split_at_mut(self.convolutions);
        if self.version != Some(version) {
            for Planned { shape, weight, packed, .. } in convolutions.iter_mut() {
                T::pack(shape, &weights[weight.clone()], packed);
            }
            self.version = Some(version);
        }
        let Dense { input, layers } = if train { trained_dense } else { inferred_dense };
        input.clear();
        if train {
            cache.recycle(trained.drain(..));
        }
        let (caching, mut found) = (*caches == Some(true), 0);
        for pixels in frames.chunks_exact(frame.inner_len()) {
            let hash = if caching { cache::hash(pixels) } else { 0 };
            let cached = if caching && train { cache.take(version, hash, pixels) } else { None };
            found += usize::from(cached.is_some());
            let convolved = cached.unwrap_or_else(|| {
                let mut convolved = cache.spare();
                scale(scaling, pixels, *frame, image);
                convolved.find_repeats(convolutions, finds_repeats.then_some(*frame), pixels);
                convolved.compute(convolutions, weights, pixels, image, scratch);
                convolved
            });
            input.extend_from_slice(&convolved.layers.last().expect("a convolution").output);
            match train {
                true => trained.push(convolved),
                false if caching => cache.put(version, hash, convolved),
                false => cache.recycle([convolved]),
            }
        }
        if train {
            *caches = Some(caches.is_none_or(|caches| caches && 2 * found >= n));
        }
        layers.resize_with(dense.len(), Activations::default);
        for (i, layer) in dense.iter_mut().enumerate() {
            let mut packed = take(&mut layer.packed);
            let Planned { shape, weight, bias, .. } = &*layer;
            let (before, activations) = layers.split_at_mut(i);
            let x = before.last().map_or(&*input, |before| &before.output);
            layer.activate(weights, n, &mut activations[0], scratch, |rectify, y| {
                T::linear(shape, &mut packed, &weights[weight.clone()], &weights[bias.clone()], rectify, x, y);
            });
            layer.packed = packed;
        }
        layers.last().map_or(&*input, |last| &last.output).iter().map(|x| x.widen()).collect()
    }

    /// Sets the layers' part of `gradient` from the gradient of the features of the last training pass, `[n, outputs]`.
    pub fn backward(&mut self, weights: &[T], gradient: &mut [T], scaling: Scaling, features: &[f32]) {
        let Self { layers, frame, image, trained, trained_dense, gradients, .. } = self;
        let Gradients { all, after, before, input, sums, scratch } = gradients;
        let (convolutions, dense) = layers.split_at_mut(self.convolutions);
        let n = trained.len();
        after.clear();
        after.extend_from_slice(features);
        for (i, layer) in dense.iter_mut().enumerate().rev() {
            layer.clear_gradients(false);
            layer.activation_gradient(weights, &trained_dense.layers[i], after, scratch, before);
            let Planned { shape, weight, packed, .. } = layer;
            let x = if i == 0 { &trained_dense.input } else { &trained_dense.layers[i - 1].output };
            T::linear_weight_gradient(shape, packed, x, before, &mut gradient[weight.clone()]);
            input.resize(n * shape.inputs(), 0.0);
            T::linear_input_gradient(shape, packed, &weights[weight.clone()], before, input);
            std::mem::swap(after, input);
        }
        for (i, layer) in convolutions.iter_mut().enumerate() {
            layer.clear_gradients(true);
            let weights = &weights[layer.weight.clone()];
            match &mut layer.transposed {
                _ if i == 0 => {}
                Some(transposed) => transposed.pack(weights),
                None => T::pack_transposed(&layer.shape, weights, &mut layer.packed),
            }
        }
        std::mem::swap(all, after);
        for (convolved, dy) in trained.iter().zip(all.chunks_exact(all.len() / n)) {
            scale(scaling, &convolved.frame, *frame, image);
            after.clear();
            after.extend_from_slice(dy);
            for (i, layer) in convolutions.iter_mut().enumerate().rev() {
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
                std::mem::swap(after, input);
            }
        }
        layers.iter().for_each(|layer| layer.store_gradients(gradient));
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
        convolutions: &mut [Planned<T>],
        weights: &[T],
        pixels: &[u8],
        image: &[T],
        scratch: &mut Scratch<T>,
    ) {
        self.frame.clear();
        self.frame.extend_from_slice(pixels);
        self.layers.resize_with(convolutions.len(), Activations::default);
        for (i, layer) in convolutions.iter_mut().enumerate() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{SimdLevel, level};

    const FRAME: usize = 6 * 6 * 4;

    /// A convolution and a fully connected layer.
    fn net() -> (ConvNet<f32>, Vec<f32>) {
        let convolution = Layer {
            outputs: 16,
            convolution: Some(Convolution { size: 3, stride: 1, padding: 0 }),
            weight: 0..576,
            bias: 576..592,
            norm: None,
            connection: Connection::Direct,
            rectifier: true,
        };
        let dense =
            Layer { outputs: 8, convolution: None, weight: 592..2_640, bias: 2_640..2_648, ..convolution.clone() };
        let weights = (0..2_648).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect();
        (ConvNet::new(&[convolution, dense], [6, 6, 4]).unwrap(), weights)
    }

    fn frames(from: usize, n: usize) -> Vec<u8> {
        (from * FRAME..(from + n) * FRAME).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    /// Two networks on two threads: what one infers, the other trains on. From the second training pass on the convolutions come from the
    /// cache, and the gradient is bit for bit that of a network that computes them. A training pass on other frames ends it.
    #[test]
    fn a_training_pass_finds_the_frames_that_were_inferred() {
        if level() == SimdLevel::Baseline && cfg!(target_arch = "x86_64") {
            return;
        }
        let ((mut one, weights), (mut other, _), (mut plain, _)) = (net(), net(), net());
        other.share_cache(&one);
        let gradient = |net: &mut ConvNet<f32>, version: u64, from: usize| {
            let features = net.forward(&weights, version, Scaling::Unit, &frames(from, 2), 2, true);
            let mut gradient = vec![0.0; weights.len()];
            net.backward(&weights, &mut gradient, Scaling::Unit, &vec![1.0; features.len()]);
            (features, gradient)
        };
        for version in 1..6 {
            for (net, from) in [(&mut one, 0), (&mut other, 2)] {
                net.forward(&weights, version, Scaling::Unit, &frames(from, 2), 2, false);
            }
            let trained_on = if version == 4 { [10, 12] } else { [2, 0] };
            let mut cached = vec![one.cache.len()];
            for (net, from) in [&mut one, &mut other].into_iter().zip(trained_on) {
                assert_eq!(gradient(net, version, from), gradient(&mut plain, version, from), "version {version}");
                cached.push(net.cache.len());
            }
            // At first neither network knows that it trains.
            let expected = match version {
                1 => [0, 0, 0],
                2 | 3 => [4, 2, 0],
                _ => [4, 4, 4],
            };
            assert_eq!(cached, expected, "version {version}");
        }
        assert_eq!((one.caches, other.caches), (Some(false), Some(false)));
    }

    /// Frames of other weights are not found, equal ones once for each time that they were inferred, and the oldest are dropped.
    #[test]
    fn the_cache_by_hand() {
        let cache = Cache::<f32>::default();
        let put = |version, pixel: u8| {
            let convolved = Convolved { frame: vec![pixel], ..Convolved::default() };
            cache.put(version, cache::hash(&[pixel]), convolved);
        };
        let take = |version, pixel: u8| cache.take(version, cache::hash(&[pixel]), &[pixel]).map(|found| found.frame);
        [3, 5, 5].into_iter().for_each(|pixel| put(1, pixel));
        assert_eq!(cache.take(1, cache::hash(&[3]), &[4]).map(|found| found.frame), None, "equal hashes of two frames");
        assert_eq!([take(1, 5), take(2, 5), take(1, 5), take(1, 5)], [Some(vec![5]), None, Some(vec![5]), None]);
        put(2, 7);
        assert_eq!([take(1, 3), take(2, 3), take(2, 7)], [None, None, Some(vec![7])]);
        (0..=255).for_each(|pixel| put(3, pixel));
        put(3, 0);
        assert_eq!((take(3, 0), take(3, 0), take(3, 1)), (Some(vec![0]), None, Some(vec![1])));
    }
}
