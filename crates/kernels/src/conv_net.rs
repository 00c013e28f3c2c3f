//! Convolutional networks on flat parameter buffers, forward and backward.
//!
//! A network is a sequence of convolutions, then fully connected layers, each followed by a rectifier; without padding and
//! normalization. Frames are `u8`, height × width × channels; weights are channels-last, `[outputs, height, width, channels]`.

use crate::conv::{LayerKernels, LayerShape, MIN_POSITIONS, rectifier_gradient};
use crate::frames::Scaling;
use std::ops::Range;

/// How many inferred frames keep their activations for a training pass with the same weights: a rollout of 20 steps, and the
/// observation after it.
const CACHED: usize = 21;

/// A layer of a [`ConvNet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Output channels.
    pub outputs: usize,
    /// Kernel side and stride of a convolution; `None`: fully connected.
    pub convolution: Option<(usize, usize)>,
    /// Where `[outputs, inputs]` lies in the flat parameters.
    pub weight: Range<usize>,
    /// Where `[outputs]` lies in the flat parameters.
    pub bias: Range<usize>,
}

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
    /// Inputs of the fully connected layers, then the features, `[n, elements]` each: of inference and of training.
    inferred_dense: Vec<Vec<T>>,
    trained_dense: Vec<Vec<T>>,
    gradients: Gradients<T>,
}

#[derive(Debug, Default)]
struct Gradients<T> {
    /// Of all frames' last convolution.
    all: Vec<f32>,
    /// Of one layer: after its rectifier, before its rectifier, and of its input.
    after: Vec<f32>,
    before: Vec<T>,
    input: Vec<f32>,
}

/// A frame and the output of each convolution.
#[derive(Debug, Default)]
struct Activations<T> {
    frame: Vec<u8>,
    outputs: Vec<Vec<T>>,
}

/// A layer with its buffers.
#[derive(Debug)]
struct Planned<T: LayerKernels> {
    shape: LayerShape,
    weight: Range<usize>,
    bias: Range<usize>,
    /// Offset of the first element that the kernel reads at each position of the input.
    positions: Vec<usize>,
    /// Elements of the input.
    inputs: usize,
    packed: T::Packed,
    /// Sums over frames.
    weight_gradient: Vec<f32>,
    bias_gradient: Vec<f32>,
}

impl<T: LayerKernels> ConvNet<T> {
    /// `layers` on frames of `[height, width, channels]`; `None` where the kernels do not support them.
    pub fn new(layers: &[Layer], [height, width, channels]: [usize; 3]) -> Option<Self> {
        let (mut h, mut w, mut c) = (height, width, channels);
        let mut planned = Vec::new();
        for Layer { outputs, convolution, weight, bias } in layers {
            let (outputs, inputs) = (*outputs, h * w * c);
            let (shape, positions);
            if let Some((size, stride)) = *convolution {
                let (rows, columns) = ((h - size) / stride + 1, (w - size) / stride + 1);
                let position = move |y: usize, x: usize| (y * w + x) * c * stride;
                shape = LayerShape { outputs, kernel_rows: size, row_len: size * c, row_stride: w * c };
                positions = (0..rows).flat_map(|y| (0..columns).map(move |x| position(y, x))).collect::<Vec<_>>();
                (h, w, c) = (rows, columns, outputs);
            } else {
                shape = LayerShape { outputs, kernel_rows: 1, row_len: inputs, row_stride: inputs };
                positions = vec![0];
                (h, w, c) = (1, 1, outputs);
            }
            if !T::supports(&shape) || convolution.is_some() && positions.len() < MIN_POSITIONS {
                return None;
            }
            planned.push(Planned {
                shape,
                weight: weight.clone(),
                bias: bias.clone(),
                positions,
                inputs,
                packed: T::Packed::default(),
                weight_gradient: Vec::new(),
                bias_gradient: vec![0.0; outputs],
            });
        }
        Some(Self {
            image: vec![T::default(); height * width * channels],
            layers: planned,
            convolutions: layers.iter().filter(|layer| layer.convolution.is_some()).count(),
            version: None,
            cache: Vec::new(),
            trained: Vec::new(),
            spare: Vec::new(),
            inferred_dense: Vec::new(),
            trained_dense: Vec::new(),
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
        let outputs = if train { trained_dense } else { inferred_dense };
        outputs.resize_with(dense.len() + 1, Vec::new);
        outputs[0].clear();
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
            outputs[0].extend_from_slice(activations.outputs.last().expect("a convolution"));
            match train {
                true => trained.push(activations),
                false if n <= CACHED => cache.push(activations),
                false => spare.push(activations),
            }
        }
        if cache.len() > CACHED {
            spare.extend(cache.drain(..cache.len() - CACHED));
        }
        for (i, Planned { shape, weight, bias, packed, .. }) in dense.iter_mut().enumerate() {
            let (x, y) = outputs.split_at_mut(i + 1);
            y[0].resize(n * shape.outputs, T::default());
            T::linear(shape, packed, &weights[weight.clone()], &weights[bias.clone()], &x[i], &mut y[0]);
        }
        outputs.last().expect("features").iter().map(|x| x.widen()).collect()
    }

    /// Sets the layers' part of `gradient` from the gradient of the features of the last training pass, `[n, outputs]`.
    pub fn backward(&mut self, weights: &[T], gradient: &mut [T], scaling: Scaling, features: &[f32]) {
        let Self { layers, image, trained, trained_dense, gradients, .. } = self;
        let Gradients { all, after, before, input } = gradients;
        let (convolutions, dense) = layers.split_at_mut(self.convolutions);
        let n = trained.len();
        after.clear();
        after.extend_from_slice(features);
        for (i, Planned { shape, weight, bias, bias_gradient, packed, .. }) in dense.iter_mut().enumerate().rev() {
            bias_gradient.fill(0.0);
            before.resize(after.len(), T::default());
            rectifier_gradient(&trained_dense[i + 1], after, before, bias_gradient);
            store(&mut gradient[bias.clone()], bias_gradient);
            T::linear_weight_gradient(shape, packed, &trained_dense[i], before, &mut gradient[weight.clone()]);
            input.resize(n * shape.inputs(), 0.0);
            T::linear_input_gradient(shape, packed, &weights[weight.clone()], before, input);
            std::mem::swap(after, input);
        }
        for (i, layer) in convolutions.iter_mut().enumerate() {
            let Planned { shape, weight, packed, weight_gradient, bias_gradient, .. } = layer;
            if i > 0 {
                T::pack_transposed(shape, &weights[weight.clone()], packed);
            }
            weight_gradient.clear();
            weight_gradient.resize(weight.len(), 0.0);
            bias_gradient.fill(0.0);
        }
        std::mem::swap(all, after);
        for (activations, dy) in trained.iter().zip(all.chunks_exact(all.len() / n)) {
            scale(scaling, &activations.frame, image);
            after.clear();
            after.extend_from_slice(dy);
            for (i, layer) in convolutions.iter_mut().enumerate().rev() {
                let Planned { shape, weight, positions, inputs, packed, weight_gradient, bias_gradient, .. } = layer;
                before.resize(after.len(), T::default());
                rectifier_gradient(&activations.outputs[i], after, before, bias_gradient);
                let x = if i == 0 { &*image } else { &activations.outputs[i - 1] };
                T::weight_gradient(shape, packed, positions, x, before, weight_gradient);
                if i > 0 {
                    input.clear();
                    input.resize(*inputs, 0.0);
                    T::input_gradient(shape, packed, &weights[weight.clone()], positions, before, input);
                    std::mem::swap(after, input);
                }
            }
        }
        for Planned { weight, bias, weight_gradient, bias_gradient, .. } in convolutions.iter() {
            store(&mut gradient[weight.clone()], weight_gradient);
            store(&mut gradient[bias.clone()], bias_gradient);
        }
    }
}

fn scale<T: LayerKernels>(scaling: Scaling, frame: &[u8], to: &mut [T]) {
    let (mean, factor) = scaling.mean_and_factor(frame);
    T::scale(frame, mean, factor, to);
}

fn store<T: LayerKernels>(to: &mut [T], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, x)| *to = T::narrow(*x));
}

impl<T: LayerKernels> Activations<T> {
    /// Computes the convolutions of a frame. `image` is a buffer for the scaled frame.
    fn compute(
        &mut self,
        convolutions: &mut [Planned<T>],
        weights: &[T],
        scaling: Scaling,
        frame: &[u8],
        image: &mut [T],
    ) {
        scale(scaling, frame, image);
        self.frame.clear();
        self.frame.extend_from_slice(frame);
        self.outputs.resize_with(convolutions.len(), Vec::new);
        for (i, Planned { shape, bias, positions, packed, .. }) in convolutions.iter_mut().enumerate() {
            let (before, y) = self.outputs.split_at_mut(i);
            y[0].resize(positions.len() * shape.outputs, T::default());
            let x = before.last().map_or(&*image, |x| x);
            T::convolve(shape, packed, &weights[bias.clone()], positions, x, &mut y[0]);
        }
    }
}
