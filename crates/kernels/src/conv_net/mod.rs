//! Convolutional networks on flat parameter buffers, forward and backward.
//!
//! A network is a sequence of convolutions, then fully connected layers, each followed by an optional layer norm and a rectifier. A
//! convolution may be max-pooled or added to a residual sum before its rectifier. Frames are `u8`, height × width × channels; weights are
//! channels-last, `[outputs, height, width, channels]`.
//!
//! Convolutions are computed once for all equal windows of a batch ([`distinct`]) or, where that is not possible or not faster, frame by
//! frame ([`whole_frames`]). In the latter a layer writes its output into an image with the border of zeros that the next layer's padding
//! needs: kernels read a padded image like any other.

mod cache;
mod distinct;
mod ids;
mod image;
mod layer;
mod repeats;
#[cfg(test)]
mod test_frames;
mod transposed;
mod whole_frames;

use crate::buffer::Buffer;
use crate::conv::LayerKernels;
use crate::frames::Scaling;
use distinct::{DensePositions, DistinctWindows};
use image::Image;
use layer::{Activations, GradientScratch, Planned, Scratch};
use std::mem::{swap, take};
use whole_frames::WholeFrames;

pub use layer::{Connection, Convolution, Layer};

/// For how many passes of inference whole frames are computed after one in which distinct windows were likely slower.
const WHOLE_PASSES: u32 = 31;

/// A network over one element type, with its buffers.
#[derive(Debug)]
pub struct ConvNet<T: LayerKernels> {
    /// Elements of a frame.
    frame_len: usize,
    /// The convolutions over distinct windows, where these are supported, and over whole frames.
    distinct: Option<DistinctWindows<T>>,
    whole: WholeFrames<T>,
    /// Passes of inference that compute whole frames before distinct windows are tried again.
    whole_passes: u32,
    /// Whether whole frames were computed in the last training pass.
    trained_whole: bool,
    dense: Vec<Planned<T>>,
    /// For the backward pass of the first fully connected layer after distinct windows, where it is supported.
    dense_positions: Option<DensePositions<T>>,
    scratch: Scratch<T>,
    /// The fully connected layers of inference and of training.
    inferred: Dense<T>,
    trained: Dense<T>,
    gradients: Gradients<T>,
}

/// The input of the fully connected layers, `[frames, elements]`, and their activations.
#[derive(Debug, Default)]
struct Dense<T> {
    input: Buffer<T>,
    layers: Vec<Activations<T>>,
}

/// Gradients of a fully connected layer: of its output, of its products, and of its input.
#[derive(Debug, Default)]
struct Gradients<T> {
    after: Buffer<f32>,
    before: Buffer<T>,
    input: Buffer<f32>,
    scratch: GradientScratch,
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
        let convolutions = layers.iter().filter(|layer| layer.convolution.is_some()).count();
        let dense = planned.split_off(convolutions);
        let distinct = DistinctWindows::new(&layers[..convolutions], frame);
        let ends = planned.last().zip(dense.first()).filter(|_| distinct.is_some());
        let dense_positions = ends.and_then(|(last, layer)| {
            DensePositions::new(layer.shape.outputs, last.shape.outputs, last.positions.len())
        });
        Some(Self {
            frame_len: frame.inner_len(),
            whole: WholeFrames::new(planned, frame),
            distinct,
            whole_passes: 0,
            trained_whole: false,
            dense,
            dense_positions,
            scratch: Scratch::default(),
            inferred: Dense::default(),
            trained: Dense::default(),
            gradients: Gradients::default(),
        })
    }

    /// Shares the cache of `other`, a network with the same parameters on another thread.
    pub fn share_cache(&mut self, other: &Self) {
        self.whole.cache = other.whole.cache.clone();
    }

    /// Forgets the activations of all frames, so that a pass that is timed computes them.
    pub fn forget(&mut self) {
        self.distinct.iter_mut().for_each(DistinctWindows::forget);
    }

    /// The features `[frames, outputs]` of frames, each with the shape of [`new`](Self::new). `version` identifies the values of `weights`;
    /// `train`: [`backward`](Self::backward) may follow.
    ///
    /// # Panics
    /// If a frame has another shape: a bug of the caller.
    pub fn forward(
        &mut self,
        weights: &[T],
        version: u64,
        scaling: Scaling,
        frames: &[&[u8]],
        train: bool,
    ) -> Vec<f32> {
        assert!(frames.iter().all(|frame| frame.len() == self.frame_len), "frames have {} elements", self.frame_len);
        let n = frames.len();
        let Self { distinct, whole, whole_passes, trained_whole, dense, scratch, inferred, trained, .. } = self;
        let Dense { input, layers } = if train { trained } else { inferred };
        input.clear();
        // Outputs are the same either way, gradients but for rounding: what a training pass does depends on its frames alone.
        let is_faster = distinct.as_mut().is_some_and(|distinct| match train {
            // Of standardized frames each has values of its own.
            _ if scaling != Scaling::Unit => false,
            true => distinct.suit_training(weights, version, frames),
            false => *whole_passes == 0,
        });
        match distinct.as_mut().filter(|_| is_faster) {
            Some(distinct) if train => {
                distinct.train(weights, frames, input);
                whole.caches = Some(false);
            }
            Some(distinct) => {
                let was_faster = distinct.infer(weights, version, frames, input);
                *whole_passes = if was_faster { 0 } else { WHOLE_PASSES };
            }
            None => {
                *whole_passes = whole_passes.saturating_sub(u32::from(!train));
                whole.forward(weights, version, scaling, frames, train, input);
            }
        }
        if train {
            *trained_whole = !is_faster;
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
        let Self { distinct, whole, trained_whole, dense, dense_positions, trained, gradients, .. } = self;
        let Gradients { after, before, input, scratch } = gradients;
        let mut distinct = distinct.as_mut().filter(|_| !*trained_whole);
        let mut sums_by_position = false;
        after.clear();
        after.extend_from_slice(features);
        for (i, layer) in dense.iter_mut().enumerate().rev() {
            layer.clear_gradients(false);
            layer.activation_gradient(weights, &trained.layers[i], after, scratch, before);
            if i == 0
                && let (Some(positions), Some(distinct)) = (&mut *dense_positions, &mut distinct)
                && positions.find_windows(distinct)
            {
                positions.backward(layer, weights, before, gradient, distinct);
                sums_by_position = true;
                continue;
            }
            let Planned { shape, weight, packed, .. } = layer;
            let x = if i == 0 { &trained.input } else { &trained.layers[i - 1].output };
            T::linear_weight_gradient(shape, packed, x, before, &mut gradient[weight.clone()]);
            input.resize(x.len(), 0.0);
            T::linear_input_gradient(shape, packed, &weights[weight.clone()], before, input);
            swap(after, input);
        }
        match distinct {
            Some(distinct) => {
                if !sums_by_position {
                    distinct.begin_backward_with(after);
                }
                distinct.backward(weights);
                distinct.store_gradients(gradient);
            }
            None => {
                whole.backward(weights, scaling, after);
                whole.store_gradients(gradient);
            }
        }
        dense.iter().for_each(|layer| layer.store_gradients(gradient));
    }
}

#[cfg(test)]
mod tests {
    use super::cache::{self, Cache};
    use super::test_frames::split_frames;
    use super::whole_frames::Convolved;
    use super::*;
    use crate::simd::{SimdLevel, level};

    const FRAME: usize = 6 * 6 * 4;

    /// A convolution and a fully connected layer, over whole frames.
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
        (ConvNet { distinct: None, ..ConvNet::new(&[convolution, dense], [6, 6, 4]).unwrap() }, weights)
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
            let features = net.forward(&weights, version, Scaling::Unit, &split_frames(&frames(from, 2), 2), true);
            let mut gradient = vec![0.0; weights.len()];
            net.backward(&weights, &mut gradient, Scaling::Unit, &vec![1.0; features.len()]);
            (features, gradient)
        };
        for version in 1..6 {
            for (net, from) in [(&mut one, 0), (&mut other, 2)] {
                net.forward(&weights, version, Scaling::Unit, &split_frames(&frames(from, 2), 2), false);
            }
            let trained_on = if version == 4 { [10, 12] } else { [2, 0] };
            let mut cached = vec![one.whole.cache.len()];
            for (net, from) in [&mut one, &mut other].into_iter().zip(trained_on) {
                assert_eq!(gradient(net, version, from), gradient(&mut plain, version, from), "version {version}");
                cached.push(net.whole.cache.len());
            }
            // At first neither network knows that it trains.
            let expected = match version {
                1 => [0, 0, 0],
                2 | 3 => [4, 2, 0],
                _ => [4, 4, 4],
            };
            assert_eq!(cached, expected, "version {version}");
        }
        assert_eq!((one.whole.caches, other.whole.caches), (Some(false), Some(false)));
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
