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

use crate::input::Input;
use crate::params::{Params, Slot};
use crate::simd::{Bf16, Number, Width, width};
use kernels::{Kernel, LANES, PLACES, Vector};
use playfield_core::ObsRef;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Up to how many rows libtorch is slower at acting (`cargo bench -p playfield-nn --bench torso`): with more, its bf16
/// multiplications, two in the time of one, make up for what it costs to call them.
const ACTED: usize = 2;

/// The same of learning, which costs more calls.
const LEARNT: usize = 5;

/// The layers of a torso, with the room that they need to compute.
#[derive(Debug)]
pub(crate) struct Direct {
    layers: Vec<Layer>,
    /// How many of them convolve.
    convolutions: usize,
    /// Of the weights that the layers' copies, and rows that were seen, are of.
    version: Option<u64>,
    /// An observation as floats.
    image: Vec<f32>,
    /// What was acted on last. An actor-learner learns from what it has just played, with the weights by which it played: such
    /// rows are not convolved again.
    seen: Vec<Row>,
    /// What was recorded last.
    recorded: Vec<Row>,
    /// Rows to be used again.
    spare: Vec<Row>,
    /// What the fully connected layers see, one after the other, and the features: `[rows, numbers]` each.
    acting: Vec<Vec<f32>>,
    learning: Vec<Vec<f32>>,
    /// The features that were recorded last, as the loss sees them, until their backward pass.
    leaf: Option<Tensor>,
    /// Gradients of images between layers.
    gradients: [Vec<f32>; 2],
}

/// An observation, and what each convolution made of it.
#[derive(Debug, Default)]
struct Row {
    frame: Vec<u8>,
    outputs: Vec<Vec<f32>>,
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
            seen: Vec::new(),
            recorded: Vec::new(),
            spare: Vec::new(),
            acting: Vec::new(),
            learning: Vec::new(),
            leaf: None,
            gradients: Default::default(),
        })
    }

    /// Whether `n` rows are few enough. `recording`: whether a backward pass shall follow.
    pub fn pays(n: usize, recording: bool) -> bool {
        n <= if recording { LEARNT } else { ACTED }
    }

    /// The features of `n` observations, `[n, width]`, of the weights' kind.
    ///
    /// # Panics
    /// If `obs` is not `n` observations: a bug of the caller.
    pub fn forward(&mut self, params: &Params, input: &Input, obs: ObsRef<'_>, n: usize, recording: bool) -> Tensor {
        let ObsRef::U8(frames) = obs else { unreachable!("frames, as the torso was built for") };
        assert_eq!(frames.len(), n * self.image.len(), "observations that are not {n} of this spec");
        let kind = params.weights().flat().kind();
        match kind {
            Kind::BFloat16 => self.pass(params, input, frames, params.numbers::<Bf16>(), recording),
            _ => self.pass(params, input, frames, params.numbers::<f32>(), recording),
        }
        let features = if recording { &self.learning } else { &self.acting }.last().expect("features");
        let features = Tensor::from_slice(features).view([n as i64, -1]);
        if !recording {
            return features.to_kind(kind);
        }
        let leaf = features.set_requires_grad(true);
        self.leaf = Some(leaf.shallow_clone());
        leaf.to_kind(kind)
    }

    /// What was recorded will have no backward pass.
    pub fn forget(&mut self) {
        self.leaf = None;
    }

    fn pass<T: Number>(&mut self, params: &Params, input: &Input, frames: &[u8], weights: &[T], recording: bool) {
        let Self { layers, version, image, seen, recorded, spare, acting, learning, .. } = self;
        let (convolutions, connected) = layers.split_at_mut(self.convolutions);
        if *version != Some(params.version()) {
            convolutions.iter_mut().for_each(|layer| layer.copy(weights));
            spare.append(seen);
            *version = Some(params.version());
        }
        let numbers = if recording { learning } else { acting };
        numbers.resize_with(connected.len() + 1, Vec::new);
        numbers[0].clear();
        if recording {
            spare.append(recorded);
        }
        for frame in frames.chunks_exact(image.len()) {
            let known = recording.then(|| seen.iter().position(|row| row.frame == frame)).flatten();
            let row = known.map(|i| seen.remove(i)).unwrap_or_else(|| {
                let mut row = spare.pop().unwrap_or_default();
                row.compute(convolutions, input, frame, image);
                row
            });
            numbers[0].extend_from_slice(row.outputs.last().expect("a convolution"));
            if recording { recorded.push(row) } else { seen.push(row) }
        }
        if seen.len() > LEARNT {
            spare.extend(seen.drain(..seen.len() - LEARNT));
        }
        let rows = frames.len() / image.len();
        for (i, Layer { kernel, weight, bias, .. }) in connected.iter().enumerate() {
            let (x, y) = numbers.split_at_mut(i + 1);
            y[0].resize(rows * kernel.outputs, 0.0);
            kernels::connect(kernel, &weights[weight.clone()], &weights[bias.clone()], &x[i], &mut y[0]);
        }
    }

    /// After the backward pass of a loss of the features that were recorded last: sets the layers' part of the gradient.
    pub fn backward(&mut self, params: &mut Params, input: &Input) {
        let Some(leaf) = self.leaf.take() else { return };
        let mut dy = vec![0.0; leaf.numel()];
        leaf.grad().copy_data(&mut dy, leaf.numel());
        match params.weights().flat().kind() {
            Kind::BFloat16 => self.back(input, dy, params.numbers_and_gradient::<Bf16>()),
            _ => self.back(input, dy, params.numbers_and_gradient::<f32>()),
        }
    }

    fn back<T: Number>(&mut self, input: &Input, mut dy: Vec<f32>, (weights, grads): (&[T], &mut [T])) {
        let Self { layers, image, recorded, learning, gradients: [one, all], .. } = self;
        let (convolutions, connected) = layers.split_at_mut(self.convolutions);
        for (i, Layer { kernel, weight, bias, image, .. }) in connected.iter().enumerate().rev() {
            let places: Vec<_> = (0..recorded.len()).map(|row| row * image).collect();
            let mut db = vec![0.0; kernel.outputs];
            kernels::rectifier_gradient(&learning[i + 1], &mut dy, &mut db);
            grads[bias.clone()].iter_mut().zip(&db).for_each(|(to, b)| *to = T::of(*b));
            kernels::weight_gradient(kernel, &places, &learning[i], &dy, &mut grads[weight.clone()], false);
            all.clear();
            all.resize(recorded.len() * image, 0.0);
            kernels::input_gradient(kernel, &weights[weight.clone()], &places, &dy, all);
            std::mem::swap(&mut dy, all);
        }
        convolutions.iter_mut().for_each(|layer| layer.copies.clear_gradient());
        for (row, dy) in recorded.iter().zip(dy.chunks_exact(dy.len() / recorded.len())) {
            input.floats(&row.frame, image);
            one.clear();
            one.extend_from_slice(dy);
            for (i, Layer { kernel, places, image: from, copies, .. }) in convolutions.iter_mut().enumerate().rev() {
                kernels::rectifier_gradient(&row.outputs[i], one, &mut copies.bias_gradient);
                let x = if i == 0 { &*image } else { &row.outputs[i - 1] };
                kernels::weight_gradient(kernel, places, x, one, &mut copies.weight_gradient, true);
                if i > 0 {
                    all.clear();
                    all.resize(*from, 0.0);
                    kernels::input_gradient(kernel, &copies.weight, places, one, all);
                    std::mem::swap(one, all);
                }
            }
        }
        for Layer { weight, bias, copies, .. } in convolutions.iter() {
            for (range, gradient) in [(weight, &copies.weight_gradient), (bias, &copies.bias_gradient)] {
                grads[range.clone()].iter_mut().zip(gradient).for_each(|(to, g)| *to = T::of(*g));
            }
        }
    }
}

impl Row {
    /// Takes a frame through the convolutions. `image` is where it becomes floats.
    fn compute(&mut self, convolutions: &[Layer], input: &Input, frame: &[u8], image: &mut [f32]) {
        input.floats(frame, image);
        self.frame.clear();
        self.frame.extend_from_slice(frame);
        self.outputs.resize_with(convolutions.len(), Vec::new);
        for (i, Layer { kernel, places, copies, .. }) in convolutions.iter().enumerate() {
            let (before, y) = self.outputs.split_at_mut(i);
            y[0].resize(places.len() * kernel.outputs, 0.0);
            let x = before.last().map_or(&*image, |x| x);
            kernels::convolve(kernel, &copies.packed, &copies.bias, places, x, &mut y[0]);
        }
    }
}

impl Layer {
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
