//! Convolutional torsos on the processor, without libtorch.
//!
//! libtorch's convolutions are made for large networks. Those of Atari's agents are so small that handing them over, laying
//! out their operands anew and recording them costs more than the arithmetic, most of all where an actor has a row or an
//! actor-learner five. Here the layers are loops over the network's own flat buffers, forward and backward, in the numbers
//! that the weights are kept in: [`kernels`] for `f32`, [`dots`] for bf16, where the processor multiplies that.
//!
//! A network's remaining layers and its loss are libtorch's: for autograd the features are a leaf, whose gradient is taken
//! from there through the layers below.
//!
//! Only torsos of convolutions with rectifiers, one after the other, then fully connected layers, none of them normalized, are
//! computed here, and only where that is faster ([`dispatch`](crate::dispatch)). Everything else, and every other device, is
//! left to libtorch.

#[cfg(target_arch = "x86_64")]
mod dots;
mod kernels;
mod numbers;

use crate::input::Input;
use crate::params::{Params, Slot};
use kernels::{Kernel, PLACES};
use numbers::Arithmetic;
use playfield_core::ObsRef;
use std::fmt::Debug;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Of how many rows what was acted on is kept, should they be learned from next: a long rollout, and the observation after it.
const SEEN: usize = 21;

/// A torso that is computed here.
pub(crate) trait Direct: Debug + Send {
    /// The features of `n` observations, `[n, width]`, `f32`.
    ///
    /// # Panics
    /// If `obs` is not `n` observations: a bug of the caller.
    fn forward(&mut self, params: &Params, input: &Input, obs: ObsRef<'_>, n: usize, recording: bool) -> Tensor;

    /// What was recorded will have no backward pass.
    fn forget(&mut self);

    /// After the backward pass of a loss of the features that were recorded last: sets the layers' part of the gradient.
    fn backward(&mut self, params: &mut Params, input: &Input);
}

/// `layers` on frames of `[height, width, channels]`; `None` where they are better left to libtorch.
pub(crate) fn build(layers: &[Plain], params: &Params, image: [usize; 3]) -> Option<Box<dyn Direct>> {
    if params.master().device() != Device::Cpu {
        return None;
    }
    match params.precision() {
        Kind::Float => Some(Box::new(Loops::<f32>::new(layers, params, image)?)),
        #[cfg(target_arch = "x86_64")]
        Kind::BFloat16 => Some(Box::new(Loops::<crate::simd::Bf16>::new(layers, params, image)?)),
        _ => None,
    }
}

/// The layers of a torso over numbers of one kind, with the room that they need to compute.
#[derive(Debug)]
struct Loops<T: Arithmetic> {
    layers: Vec<Layer<T>>,
    /// How many of them convolve.
    convolutions: usize,
    /// Of the weights that are packed, and by which rows were seen.
    version: Option<u64>,
    /// An observation as numbers.
    image: Vec<T>,
    /// What was acted on last. An actor-learner learns from what it has just played, with the weights by which it played: such
    /// rows are not convolved again.
    seen: Vec<Row<T>>,
    /// What was recorded last.
    recorded: Vec<Row<T>>,
    /// Rows to be used again.
    spare: Vec<Row<T>>,
    /// What the fully connected layers see, one after the other, and the features: `[rows, numbers]` each.
    acting: Vec<Vec<T>>,
    learning: Vec<Vec<T>>,
    /// The features that were recorded last, as the loss sees them, until their backward pass.
    leaf: Option<Tensor>,
    gradients: Gradients<T>,
}

#[derive(Debug, Default)]
struct Gradients<T> {
    /// Of what all rows' convolutions yield.
    all: Vec<f32>,
    /// Of one layer: behind its rectifier, before it, and of what it sees.
    behind: Vec<f32>,
    before: Vec<T>,
    dx: Vec<f32>,
}

/// An observation, and what each convolution made of it.
#[derive(Debug, Default)]
struct Row<T> {
    frame: Vec<u8>,
    outputs: Vec<Vec<T>>,
}

/// A layer with a rectifier. A fully connected one is a convolution with a single place.
#[derive(Debug)]
struct Layer<T: Arithmetic> {
    kernel: Kernel,
    /// Where in the flat parameters `[outputs, inputs]` lie, and `[outputs]`.
    weight: Range<usize>,
    bias: Range<usize>,
    /// The first number that the kernel sees at each of its places in an image.
    places: Vec<usize>,
    /// Numbers of an image.
    image: usize,
    /// Its weights as the loops like them.
    packed: T::Packed,
    /// Sums over rows.
    weight_gradient: Vec<f32>,
    bias_gradient: Vec<f32>,
}

/// A layer of a torso that can be computed here: the slots of its weight and bias; of a convolution also its stride.
pub(crate) type Plain = (Slot, Slot, Option<i64>);

impl<T: Arithmetic> Loops<T> {
    fn new(layers: &[Plain], params: &Params, [height, width, channels]: [usize; 3]) -> Option<Self> {
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
            if !T::fits(&kernel) || stride.is_some() && places.len() < PLACES {
                return None;
            }
            built.push(Layer {
                kernel,
                weight: params.range(weight),
                bias: params.range(bias),
                places,
                image,
                packed: T::Packed::default(),
                weight_gradient: Vec::new(),
                bias_gradient: vec![0.0; outputs],
            });
        }
        let convolutions = layers.iter().filter(|(.., stride)| stride.is_some()).count();
        Some(Self {
            image: vec![T::default(); height * width * channels],
            layers: built,
            convolutions,
            version: None,
            seen: Vec::new(),
            recorded: Vec::new(),
            spare: Vec::new(),
            acting: Vec::new(),
            learning: Vec::new(),
            leaf: None,
            gradients: Gradients::default(),
        })
    }
}

impl<T: Arithmetic> Direct for Loops<T> {
    fn forward(&mut self, params: &Params, input: &Input, obs: ObsRef<'_>, n: usize, recording: bool) -> Tensor {
        let ObsRef::U8(frames) = obs else { unreachable!("frames, as the torso was built for") };
        let Self { layers, version, image, seen, recorded, spare, acting, learning, .. } = self;
        assert_eq!(frames.len(), n * image.len(), "observations that are not {n} of this spec");
        let (weights, now) = (params.numbers::<T>(), Some(params.version()));
        let (convolutions, connected) = layers.split_at_mut(self.convolutions);
        if *version != now {
            for Layer { kernel, weight, packed, .. } in convolutions.iter_mut() {
                T::pack(kernel, &weights[weight.clone()], packed);
            }
            spare.append(seen);
            *version = now;
        }
        let numbers = if recording { learning } else { acting };
        numbers.resize_with(connected.len() + 1, Vec::new);
        numbers[0].clear();
        if recording {
            spare.append(recorded);
        }
        for frame in frames.chunks_exact(image.len()) {
            let known = (recording && n <= SEEN).then(|| seen.iter().position(|row| row.frame == frame)).flatten();
            let row = known.map(|i| seen.remove(i)).unwrap_or_else(|| {
                let mut row = spare.pop().unwrap_or_default();
                row.compute(convolutions, weights, input, frame, image);
                row
            });
            numbers[0].extend_from_slice(row.outputs.last().expect("a convolution"));
            match recording {
                true => recorded.push(row),
                false if n <= SEEN => seen.push(row),
                false => spare.push(row),
            }
        }
        if seen.len() > SEEN {
            spare.extend(seen.drain(..seen.len() - SEEN));
        }
        for (i, Layer { kernel, weight, bias, .. }) in connected.iter().enumerate() {
            let (x, y) = numbers.split_at_mut(i + 1);
            y[0].resize(n * kernel.outputs, T::default());
            T::connect(kernel, &weights[weight.clone()], &weights[bias.clone()], &x[i], &mut y[0]);
        }
        let features: Vec<_> = numbers.last().expect("features").iter().map(|x| x.get()).collect();
        let mut features = Tensor::from_slice(&features).view([n as i64, -1]);
        if recording {
            features = features.set_requires_grad(true);
            self.leaf = Some(features.shallow_clone());
        }
        features
    }

    fn forget(&mut self) {
        self.leaf = None;
    }

    fn backward(&mut self, params: &mut Params, input: &Input) {
        // A loss that does not depend on the features has no gradient of them.
        let Some(leaf) = self.leaf.take().filter(|leaf| leaf.grad().defined()) else { return };
        let Self { layers, image, recorded, learning, gradients: Gradients { all, behind, before, dx }, .. } = self;
        let (weights, grads) = params.numbers_and_gradient::<T>();
        let (convolutions, connected) = layers.split_at_mut(self.convolutions);
        let n = recorded.len();
        behind.resize(leaf.numel(), 0.0);
        leaf.grad().copy_data(behind, leaf.numel());
        for (i, Layer { kernel, weight, bias, bias_gradient, packed, .. }) in connected.iter_mut().enumerate().rev() {
            bias_gradient.fill(0.0);
            before.resize(behind.len(), T::default());
            kernels::rectifier_gradient(&learning[i + 1], behind, before, bias_gradient);
            set(&mut grads[bias.clone()], bias_gradient);
            T::connected_gradient(kernel, packed, &learning[i], before, &mut grads[weight.clone()]);
            dx.resize(n * kernel.inputs(), 0.0);
            T::connected_input_gradient(kernel, packed, &weights[weight.clone()], before, dx);
            std::mem::swap(behind, dx);
        }
        for (i, layer) in convolutions.iter_mut().enumerate() {
            let Layer { kernel, weight, packed, weight_gradient, bias_gradient, .. } = layer;
            if i > 0 {
                T::pack_back(kernel, &weights[weight.clone()], packed);
            }
            weight_gradient.clear();
            weight_gradient.resize(weight.len(), 0.0);
            bias_gradient.fill(0.0);
        }
        std::mem::swap(all, behind);
        for (row, dy) in recorded.iter().zip(all.chunks_exact(all.len() / n)) {
            load(input, &row.frame, image);
            behind.clear();
            behind.extend_from_slice(dy);
            for (i, layer) in convolutions.iter_mut().enumerate().rev() {
                let Layer { kernel, weight, places, image: from, packed, weight_gradient, bias_gradient, .. } = layer;
                before.resize(behind.len(), T::default());
                kernels::rectifier_gradient(&row.outputs[i], behind, before, bias_gradient);
                let x = if i == 0 { &*image } else { &row.outputs[i - 1] };
                T::weight_gradient(kernel, packed, places, x, before, weight_gradient);
                if i > 0 {
                    dx.clear();
                    dx.resize(*from, 0.0);
                    T::input_gradient(kernel, packed, &weights[weight.clone()], places, before, dx);
                    std::mem::swap(behind, dx);
                }
            }
        }
        for Layer { weight, bias, weight_gradient, bias_gradient, .. } in convolutions.iter() {
            set(&mut grads[weight.clone()], weight_gradient);
            set(&mut grads[bias.clone()], bias_gradient);
        }
    }
}

/// A frame as the first layer sees it.
fn load<T: Arithmetic>(input: &Input, frame: &[u8], to: &mut [T]) {
    let (mean, factor) = input.scaling(frame);
    T::scale(frame, mean, factor, to);
}

fn set<T: Arithmetic>(to: &mut [T], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, x)| *to = T::of(*x));
}

impl<T: Arithmetic> Row<T> {
    /// Takes a frame through the convolutions. `image` is where it becomes numbers.
    fn compute(&mut self, convolutions: &[Layer<T>], weights: &[T], input: &Input, frame: &[u8], image: &mut [T]) {
        load(input, frame, image);
        self.frame.clear();
        self.frame.extend_from_slice(frame);
        self.outputs.resize_with(convolutions.len(), Vec::new);
        for (i, Layer { kernel, bias, places, packed, .. }) in convolutions.iter().enumerate() {
            let (before, y) = self.outputs.split_at_mut(i);
            y[0].resize(places.len() * kernel.outputs, T::default());
            let x = before.last().map_or(&*image, |x| x);
            T::convolve(kernel, packed, &weights[bias.clone()], places, x, &mut y[0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Precision, TorsoKind};
    use crate::params::Builder;
    use crate::simd::{Width, width};
    use crate::torso::Torso;
    use crate::{NetworkConfig, config};
    use playfield_core::{ActionSpace, Dtype, EnvSpec, rng};
    use tch::Device;

    /// Atari's torsos are computed here wherever the processor can, and what is normalized is not.
    #[test]
    fn what_is_computed_here() {
        let actions = ActionSpace::Discrete { n: 6 };
        let spec = EnvSpec::new("frames", &[84, 84], Dtype::U8, actions).with_frame_stack(4);
        let here = |torso, precision, norm| {
            let config = NetworkConfig { torso, precision, norm, ..NetworkConfig::default() };
            let mut rng = rng::stream(1, "init");
            let mut b = Builder::new(&mut rng);
            let torso = Torso::new(&mut b, &config, &spec).unwrap();
            let params = b.finish(Device::Cpu, config.kind(Device::Cpu, true));
            torso.plain().and_then(|layers| super::build(&layers, &params, [84, 84, 4])).is_some()
        };
        let wide = width() != Width::Other || !cfg!(target_arch = "x86_64");
        for torso in [TorsoKind::Small, TorsoKind::Nips, TorsoKind::Nature] {
            assert_eq!(here(torso, Precision::Fp32, config::NormKind::None), wide);
            assert_eq!(here(torso, Precision::Bf16, config::NormKind::None), config::native_bf16());
            assert!(!here(torso, Precision::Fp32, config::NormKind::Layer));
        }
    }
}
