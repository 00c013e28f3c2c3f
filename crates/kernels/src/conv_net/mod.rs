//! Convolutional networks on flat parameter buffers, forward and backward.
//!
//! A network is a sequence of convolutions, then fully connected layers, each followed by an optional layer norm and a rectifier;
//! without padding. Frames are `u8`, height × width × channels; weights are channels-last, `[outputs, height, width, channels]`.

mod layer;

use crate::conv::LayerKernels;
use crate::frames::Scaling;
use layer::{Output, Planned};

pub use layer::Layer;

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
    /// A scaled frame.
    image: Vec<T>,
    /// Activations of the last inferred frames. An on-policy learner trains on the frames that it has just acted on, with the same
    /// weights: their convolutions are not computed again.
    cache: Vec<Activations<T>>,
    /// Activations of the last training pass.
    trained: Vec<Activations<T>>,
    /// Allocations for reuse.
    spare: Vec<Activations<T>>,
    /// The fully connected layers of inference and of training.
    inferred_dense: Dense<T>,
    trained_dense: Dense<T>,
    gradients: Gradients<T>,
}

#[derive(Debug, Default)]
struct Gradients<T> {
    /// Of all frames' last convolution.
    all: Vec<f32>,
    /// Of one layer: of its output, of its products, and of its input.
    after: Vec<f32>,
    before: Vec<T>,
    input: Vec<f32>,
}

/// A frame and the output of each convolution.
#[derive(Debug, Default)]
struct Activations<T> {
    frame: Vec<u8>,
    outputs: Vec<Output<T>>,
}

/// The input of the fully connected layers, `[frames, elements]`, and their outputs.
#[derive(Debug, Default)]
struct Dense<T> {
    input: Vec<T>,
    outputs: Vec<Output<T>>,
}

impl<T: LayerKernels> ConvNet<T> {
    /// `layers` on frames of `[height, width, channels]`; `None` where the kernels do not support them.
    pub fn new(layers: &[Layer], mut image: [usize; 3]) -> Option<Self> {
        Some(Self {
            image: vec![T::default(); image.iter().product()],
            layers: layers.iter().map(|layer| Planned::new(layer, &mut image)).collect::<Option<_>>()?,
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
        let Self { layers, image, cache, trained, spare, inferred_dense, trained_dense, .. } = self;
        assert_eq!(frames.len(), n * image.len(), "`frames` must hold {n} observations");
        let (convolutions, dense) = layers.split_at_mut(self.convolutions);
        if self.version != Some(version) {
            for Planned { shape, weight, packed, .. } in convolutions.iter_mut() {
                T::pack(shape, &weights[weight.clone()], packed);
            }
            spare.append(cache);
            self.version = Some(version);
        }
        let Dense { input, outputs } = if train { trained_dense } else { inferred_dense };
        input.clear();
        if train {
            spare.append(trained);
        }
        for frame in frames.chunks_exact(image.len()) {
            let cached = (train && n <= CACHED).then(|| cache.iter().position(|known| known.frame == frame)).flatten();
            let activations = cached.map(|i| cache.remove(i)).unwrap_or_else(|| {
                let mut activations = spare.pop().unwrap_or_default();
                activations.compute(convolutions, weights, scaling, frame, image);
                activations
            });
            input.extend_from_slice(&activations.outputs.last().expect("a convolution").values);
            match train {
                true => trained.push(activations),
                false if n <= CACHED => cache.push(activations),
                false => spare.push(activations),
            }
        }
        if cache.len() > CACHED {
            spare.extend(cache.drain(..cache.len() - CACHED));
        }
        outputs.resize_with(dense.len(), Output::default);
        for (i, layer) in dense.iter().enumerate() {
            let Planned { shape, weight, bias, .. } = layer;
            let (before, y) = outputs.split_at_mut(i);
            let x = before.last().map_or(&*input, |output| &output.values);
            layer.activate(weights, n, &mut y[0], |rectify, y| {
                T::linear(shape, &weights[weight.clone()], &weights[bias.clone()], rectify, x, y);
            });
        }
        outputs.last().map_or(&*input, |output| &output.values).iter().map(|x| x.widen()).collect()
    }

    /// Sets the layers' part of `gradient` from the gradient of the features of the last training pass, `[n, outputs]`.
    pub fn backward(&mut self, weights: &[T], gradient: &mut [T], scaling: Scaling, features: &[f32]) {
        let Self { layers, image, trained, trained_dense, gradients, .. } = self;
        let Gradients { all, after, before, input } = gradients;
        let (convolutions, dense) = layers.split_at_mut(self.convolutions);
        let n = trained.len();
        after.clear();
        after.extend_from_slice(features);
        for (i, layer) in dense.iter_mut().enumerate().rev() {
            layer.clear_gradients(false);
            layer.activation_gradient(weights, &trained_dense.outputs[i], after, before);
            let Planned { shape, weight, packed, .. } = layer;
            let x = if i == 0 { &trained_dense.input } else { &trained_dense.outputs[i - 1].values };
            T::linear_weight_gradient(shape, packed, x, before, &mut gradient[weight.clone()]);
            input.resize(n * shape.inputs(), 0.0);
            T::linear_input_gradient(shape, packed, &weights[weight.clone()], before, input);
            std::mem::swap(after, input);
        }
        for (i, layer) in convolutions.iter_mut().enumerate() {
            layer.clear_gradients(true);
            if i > 0 {
                T::pack_transposed(&layer.shape, &weights[layer.weight.clone()], &mut layer.packed);
            }
        }
        std::mem::swap(all, after);
        for (activations, dy) in trained.iter().zip(all.chunks_exact(all.len() / n)) {
            scale(scaling, &activations.frame, image);
            after.clear();
            after.extend_from_slice(dy);
            for (i, layer) in convolutions.iter_mut().enumerate().rev() {
                layer.activation_gradient(weights, &activations.outputs[i], after, before);
                let Planned { shape, weight, positions, inputs, packed, weight_gradient, .. } = layer;
                let x = if i == 0 { &*image } else { &activations.outputs[i - 1].values };
                T::weight_gradient(shape, packed, positions, x, before, weight_gradient);
                if i > 0 {
                    input.clear();
                    input.resize(*inputs, 0.0);
                    T::input_gradient(shape, packed, &weights[weight.clone()], positions, before, input);
                    std::mem::swap(after, input);
                }
            }
        }
        layers.iter().for_each(|layer| layer.store_gradients(gradient));
    }
}

fn scale<T: LayerKernels>(scaling: Scaling, frame: &[u8], to: &mut [T]) {
    let (mean, factor) = scaling.mean_and_factor(frame);
    T::scale(frame, mean, factor, to);
}

impl<T: LayerKernels> Activations<T> {
    /// Computes the convolutions of a frame. `image` is a buffer for the scaled frame.
    fn compute(&mut self, convolutions: &[Planned<T>], weights: &[T], scaling: Scaling, frame: &[u8], image: &mut [T]) {
        scale(scaling, frame, image);
        self.frame.clear();
        self.frame.extend_from_slice(frame);
        self.outputs.resize_with(convolutions.len(), Output::default);
        for (i, layer) in convolutions.iter().enumerate() {
            let Planned { shape, bias, positions, packed, .. } = layer;
            let (before, y) = self.outputs.split_at_mut(i);
            let x = before.last().map_or(&*image, |output| &output.values);
            layer.activate(weights, 1, &mut y[0], |rectify, y| {
                T::convolve(shape, packed, &weights[bias.clone()], rectify, positions, x, y);
            });
        }
    }
}
