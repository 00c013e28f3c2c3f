//! Convolutional networks on flat parameter buffers, forward and backward.
//!
//! A network is a sequence of convolutions, then fully connected layers, each followed by an optional layer norm and a rectifier. A
//! convolution may be max-pooled or added to a residual sum before its rectifier. Frames are `u8`, height × width × channels; weights are
//! channels-last, `[outputs, height, width, channels]`.
//!
//! A layer writes its output into an image with the border of zeros that the next layer's padding needs: kernels read a padded image like
//! any other.

mod image;
mod layer;
mod transposed;

use crate::buffer::Buffer;
use crate::conv::LayerKernels;
use crate::frames::Scaling;
use image::Image;
use layer::{Activations, GradientScratch, Planned, Scratch};
use std::mem::take;

pub use layer::{Connection, Convolution, Layer};

/// How many inferred frames keep their activations for a training pass with the same weights: a rollout of 20 steps, and the
/// observation after it.
const CACHED: usize = 21;

/// A network over one element type, with its buffers.
#[derive(Debug)]
pub struct ConvNet<T: LayerKernels> {
    layers: Vec<Planned<T>>,
    /// How many of the layers are convolutions; they come first.
    convolutions: usize,
    /// Version of the packed weights and of the cache.
    version: Option<u64>,
    /// A frame, and the same scaled.
    frame: Image,
    image: Buffer<T>,
    scratch: Scratch<T>,
    /// Activations of the last inferred frames. An on-policy learner trains on the frames that it has just acted on, with the same
    /// weights: their convolutions are not computed again.
    cache: Vec<Convolved<T>>,
    /// Activations of the last training pass.
    trained: Vec<Convolved<T>>,
    /// Allocations for reuse.
    spare: Vec<Convolved<T>>,
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
    scratch: GradientScratch,
}

/// A frame and the activations of each convolution.
#[derive(Debug, Default)]
struct Convolved<T> {
    frame: Vec<u8>,
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
            cache: Vec::new(),
            trained: Vec::new(),
            spare: Vec::new(),
            inferred_dense: Dense::default(),
            trained_dense: Dense::default(),
            gradients: Gradients::default(),
        })
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
        let Self { layers, frame, image, scratch, cache, trained, spare, inferred_dense, trained_dense, .. } = self;
        assert_eq!(frames.len(), n * frame.inner_len(), "`frames` must hold {n} observations");
        let (convolutions, dense) = layers.split_at_mut(self.convolutions);
        if self.version != Some(version) {
            for Planned { shape, weight, packed, .. } in convolutions.iter_mut() {
                T::pack(shape, &weights[weight.clone()], packed);
            }
            spare.append(cache);
            self.version = Some(version);
        }
        let Dense { input, layers } = if train { trained_dense } else { inferred_dense };
        input.clear();
        if train {
            spare.append(trained);
        }
        for pixels in frames.chunks_exact(frame.inner_len()) {
            let cached = (train && n <= CACHED).then(|| cache.iter().position(|known| known.frame == pixels)).flatten();
            let convolved = cached.map(|i| cache.remove(i)).unwrap_or_else(|| {
                let mut convolved = spare.pop().unwrap_or_default();
                scale(scaling, pixels, *frame, image);
                convolved.compute(convolutions, weights, pixels, image, scratch);
                convolved
            });
            input.extend_from_slice(&convolved.layers.last().expect("a convolution").output);
            match train {
                true => trained.push(convolved),
                false if n <= CACHED => cache.push(convolved),
                false => spare.push(convolved),
            }
        }
        if cache.len() > CACHED {
            spare.extend(cache.drain(..cache.len() - CACHED));
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
        let Gradients { all, after, before, input, scratch } = gradients;
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
                T::weight_gradient(shape, packed, positions, x, before, weight_gradient);
                match transposed {
                    _ if i == 0 => break,
                    Some(transposed) => transposed.input_gradient(before, input),
                    None => {
                        input.fill_with_zeros(layer.input.len());
                        T::input_gradient(shape, packed, &weights[weight.clone()], positions, before, input);
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
            layer.activate(weights, 1, &mut activations[0], scratch, |rectify, y| {
                T::convolve(shape, &mut packed, &weights[bias.clone()], rectify, positions, x, y);
            });
            layer.packed = packed;
        }
    }
}
