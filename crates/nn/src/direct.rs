//! Convolutional torsos on the processor, without libtorch.
//!
//! libtorch's convolutions are made for large networks. Those of Atari's agents are so small that handing them over, laying
//! out their operands anew and recording them costs more than the arithmetic, most of all where an actor has a row or an
//! actor-learner five. Here the layers are loops over the network's own flat buffers ([`kernels`]), forward and backward,
//! in 32-bit floats whatever the weights are kept in.
//!
//! A network's remaining layers and its loss are libtorch's: for autograd the features are a leaf, whose gradient is taken
//! from there through the layers below.
//!
//! Only what pays is done so: few rows, through convolutions with rectifiers, one after the other, then fully connected
//! layers, none of them normalised. Everything else, and every other device, is left to libtorch.

mod kernels;

use crate::fused;
use crate::input::Input;
use crate::norm::recording;
use crate::params::{Params, Slot};
use crate::simd::{Bf16, Number, Width, width};
use kernels::{Kernel, LANES, PLACES, Vector};
use playfield_core::ObsRef;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// The layers of a torso, with the room that they need to compute.
#[derive(Debug)]
pub(crate) struct Direct {
    layers: Vec<Layer>,
    /// How many of them convolve.
    convolutions: usize,
    /// Of the parameters that the layers' copies are of.
    version: Option<u64>,
    /// An observation as floats.
    image: Vec<f32>,
    acting: Pass,
    learning: Pass,
    /// What was recorded last and has had no backward pass: its features, as the loss sees them.
    leaf: Option<Tensor>,
    /// The gradients of the images between layers: of one convolution's, of one batch.
    gradients: [Vec<f32>; 2],
}

/// A layer with a rectifier. A fully connected one is a convolution with a single place.
#[derive(Debug)]
struct Layer {
    kernel: Kernel,
    /// Where in the flat parameters `[outputs, inputs]` lie, and `[outputs]`.
    weight: Range<usize>,
    bias: Range<usize>,
    /// The first number that the kernel sees at each of its places in an image.
    places: Vec<usize>,
    /// Numbers of an image.
    image: usize,
    copies: Copies,
}

/// A convolution's weights as its loops like them, and room for their gradient.
#[derive(Debug, Default)]
struct Copies {
    /// `[inputs][outputs / 16]`, zeros where there are no 16.
    packed: Vec<Vector>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    weight_gradient: Vec<f32>,
    bias_gradient: Vec<f32>,
}

/// What a forward pass leaves for the backward pass.
#[derive(Debug, Default)]
struct Pass {
    rows: usize,
    frames: Vec<u8>,
    /// Each layer's, of all rows.
    outputs: Vec<Vec<f32>>,
}

/// A layer of a torso that can be computed here: the slots of its weight and bias; of a convolution also its stride.
pub(crate) type Plain = (Slot, Slot, Option<i64>);

impl Direct {
    /// For `layers` on frames of `[height, width, channels]`; `None` where they are better left to libtorch.
    pub fn new(layers: &[Plain], params: &Params, [height, width, channels]: [usize; 3]) -> Option<Self> {
        if params.master().device() != Device::Cpu || self::width() == Width::Other && cfg!(target_arch = "x86_64") {
            return None;
        }
        let (mut h, mut w, mut c) = (height, width, channels);
        let mut built = Vec::new();
        for &(weight, bias, stride) in layers {
            let shape = params.shape(weight);
            let (outputs, image) = (shape[0], h * w * c);
            let (kernel, places);
            if let Some(stride) = stride {
                let (size, stride) = (shape[2], stride as usize);
                let (rows, columns) = ((h - size) / stride + 1, (w - size) / stride + 1);
                let place = move |y: usize, x: usize| (y * w + x) * c * stride;
                kernel = Kernel { outputs, runs: size, run: size * c, pitch: w * c };
                places = (0..rows).flat_map(|y| (0..columns).map(move |x| place(y, x))).collect::<Vec<_>>();
                (h, w, c) = (rows, columns, outputs);
            } else {
                kernel = Kernel { outputs, runs: 1, run: image, pitch: image };
                places = vec![0];
                (h, w, c) = (1, 1, outputs);
            }
            if !kernel.run.is_multiple_of(LANES)
                || !outputs.is_multiple_of(4)
                || stride.is_some() && places.len() < PLACES
            {
                return None;
            }
            let (weight, bias) = (params.range(weight), params.range(bias));
            built.push(Layer { kernel, weight, bias, places, image, copies: Copies::default() });
        }
        let convolutions = layers.iter().filter(|(.., stride)| stride.is_some()).count();
        Some(Self {
            image: vec![0.0; height * width * channels],
            layers: built,
            convolutions,
            version: None,
            acting: Pass::default(),
            learning: Pass::default(),
            leaf: None,
            gradients: Default::default(),
        })
    }

    /// The features of `n` observations, `[n, width]`, of the weights' kind.
    pub fn forward(&mut self, params: &Params, input: &Input, obs: ObsRef<'_>, n: usize) -> Tensor {
        let ObsRef::U8(frames) = obs else { unreachable!("frames, as the torso was built for") };
        assert_eq!(frames.len(), n * self.image.len(), "observations that are not {n} of this spec");
        let (kind, recording) = (params.weights().flat().kind(), recording());
        let mut pass = std::mem::take(if recording { &mut self.learning } else { &mut self.acting });
        match kind {
            Kind::BFloat16 => self.pass(&mut pass, params, input, frames, fused::numbers::<Bf16>(params)),
            _ => self.pass(&mut pass, params, input, frames, fused::numbers::<f32>(params)),
        }
        let features = Tensor::from_slice(pass.outputs.last().expect("a layer")).view([n as i64, -1]);
        if !recording {
            self.acting = pass;
            return features.to_kind(kind);
        }
        pass.frames.clear();
        pass.frames.extend_from_slice(frames);
        self.learning = pass;
        let leaf = features.set_requires_grad(true);
        self.leaf = Some(leaf.shallow_clone());
        leaf.to_kind(kind)
    }

    /// What was recorded will have no backward pass.
    pub fn forget(&mut self) {
        self.leaf = None;
    }

    fn pass<T: Number>(&mut self, pass: &mut Pass, params: &Params, input: &Input, frames: &[u8], weights: &[T]) {
        let Self { layers, convolutions, version, image, .. } = self;
        if *version != Some(params.version()) {
            layers[..*convolutions].iter_mut().for_each(|layer| layer.copy(weights));
            *version = Some(params.version());
        }
        pass.rows = frames.len() / image.len();
        pass.outputs.resize_with(layers.len(), Vec::new);
        for (layer, output) in layers.iter().zip(&mut pass.outputs) {
            output.resize(pass.rows * layer.width(), 0.0);
        }
        for (row, frame) in frames.chunks_exact(image.len()).enumerate() {
            input.floats(frame, image);
            let mut x: &[f32] = image;
            for (layer, y) in layers[..*convolutions].iter().zip(&mut pass.outputs) {
                let Layer { kernel, places, copies, .. } = layer;
                let y = &mut y[row * layer.width()..][..layer.width()];
                kernels::convolve(kernel, &copies.packed, &copies.bias, places, x, y);
                x = y;
            }
        }
        for (i, layer) in layers.iter().enumerate().skip(*convolutions) {
            let (before, y) = pass.outputs.split_at_mut(i);
            let (weight, bias) = (&weights[layer.weight.clone()], &weights[layer.bias.clone()]);
            kernels::connect(&layer.kernel, weight, bias, &before[i - 1], &mut y[0]);
        }
    }

    /// After the backward pass of a loss of the features that were recorded last: sets the layers' part of the gradient.
    pub fn backward(&mut self, params: &mut Params, input: &Input) {
        let Some(leaf) = self.leaf.take() else { return };
        let mut dy = vec![0.0; leaf.numel()];
        leaf.grad().copy_data(&mut dy, leaf.numel());
        match params.weights().flat().kind() {
            Kind::BFloat16 => self.back(input, dy, fused::numbers_and_gradient::<Bf16>(params)),
            _ => self.back(input, dy, fused::numbers_and_gradient::<f32>(params)),
        }
    }

    fn back<T: Number>(&mut self, input: &Input, mut dy: Vec<f32>, (weights, grads): (&[T], &mut [T])) {
        let Self { layers, convolutions, image, learning: pass, gradients: [one, all], .. } = self;
        let n = pass.rows;
        for (i, layer) in layers.iter().enumerate().skip(*convolutions).rev() {
            let Layer { kernel, weight, bias, .. } = layer;
            let rows: Vec<_> = (0..n).map(|row| row * layer.image).collect();
            let mut db = vec![0.0; kernel.outputs];
            kernels::rectifier_gradient(&pass.outputs[i], &mut dy, &mut db);
            grads[bias.clone()].iter_mut().zip(&db).for_each(|(to, b)| *to = T::of(*b));
            kernels::weight_gradient(kernel, &rows, &pass.outputs[i - 1], &dy, &mut grads[weight.clone()], false);
            all.clear();
            all.resize(n * layer.image, 0.0);
            kernels::input_gradient(kernel, &weights[weight.clone()], &rows, &dy, all);
            std::mem::swap(&mut dy, all);
        }
        layers[..*convolutions].iter_mut().for_each(|layer| layer.copies.clear_gradient());
        for (row, frame) in pass.frames.chunks_exact(image.len()).enumerate() {
            input.floats(frame, image);
            let last = &layers[*convolutions - 1];
            let dy = &mut dy[row * last.width()..][..last.width()];
            one.clear();
            one.extend_from_slice(dy);
            for (i, layer) in layers[..*convolutions].iter_mut().enumerate().rev() {
                let (width, from) = (layer.width(), layer.image);
                let Layer { kernel, places, copies, .. } = layer;
                kernels::rectifier_gradient(&pass.outputs[i][row * width..][..width], one, &mut copies.bias_gradient);
                let x = if i == 0 { &image[..] } else { &pass.outputs[i - 1][row * from..][..from] };
                kernels::weight_gradient(kernel, places, x, one, &mut copies.weight_gradient, true);
                if i > 0 {
                    all.clear();
                    all.resize(from, 0.0);
                    kernels::input_gradient(kernel, &copies.weight, places, one, all);
                    std::mem::swap(one, all);
                }
            }
        }
        for Layer { weight, bias, copies, .. } in &layers[..*convolutions] {
            for (range, gradient) in [(weight, &copies.weight_gradient), (bias, &copies.bias_gradient)] {
                grads[range.clone()].iter_mut().zip(gradient).for_each(|(to, g)| *to = T::of(*g));
            }
        }
    }
}

impl Layer {
    /// Numbers of a row of its output.
    fn width(&self) -> usize {
        self.places.len() * self.kernel.outputs
    }

    /// Copies its weights from all.
    fn copy<T: Number>(&mut self, weights: &[T]) {
        let Self { kernel, weight, bias, copies, .. } = self;
        let (inputs, blocks) = (kernel.inputs(), kernel.outputs.div_ceil(LANES));
        let floats = |range: &Range<usize>| weights[range.clone()].iter().map(|w| w.get());
        copies.weight.clear();
        copies.weight.extend(floats(weight));
        copies.bias.clear();
        copies.bias.extend(floats(bias));
        copies.packed.resize(inputs * blocks, [0.0; LANES]);
        for (o, row) in copies.weight.chunks_exact(inputs).enumerate() {
            for (packed, w) in copies.packed[o / LANES..].iter_mut().step_by(blocks).zip(row) {
                packed[o % LANES] = *w;
            }
        }
    }
}

impl Copies {
    fn clear_gradient(&mut self) {
        for (gradient, like) in [(&mut self.weight_gradient, &self.weight), (&mut self.bias_gradient, &self.bias)] {
            gradient.clear();
            gradient.resize(like.len(), 0.0);
        }
    }
}
