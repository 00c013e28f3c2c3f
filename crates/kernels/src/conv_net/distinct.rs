//! Convolutions over the distinct windows of a batch.
//!
//! Most of an Atari frame is background that stays. What a convolution computes at a position depends on its window of the input alone, so
//! windows that are equal, anywhere in a batch, have equal outputs, and one of them is computed. Equal windows have equal
//! [`numbers`](super::numbers): first those of pixels, then, for each further convolution, those of the numbers of its inputs. A frame is
//! then a grid of numbers, and a layer's output a list by number.
//!
//! The lists last as long as the weights. A policy that acts computes what it has not seen before, and a training pass with the weights that have
//! acted finds there what this network has inferred (each thread has its own).
//!
//! Where most windows are distinct, numbering costs more than it saves: then [`ConvNet`](super::ConvNet) computes
//! [whole frames](super::whole_frames).
//!
//! In the backward pass the output gradients of equal windows are summed, and all else is computed of the sums. Outputs are those of all
//! positions bit for bit, gradients but for rounding, of which there is less.

use super::image::Image;
use super::layer::{Connection, Convolution, Layer};
use super::numbers::{Cells, Number, Windows};
use crate::buffer::Buffer;
use crate::conv::{LayerKernels, LayerShape, MIN_POSITIONS, rectifier_gradient};
use crate::elementwise::narrow;
use crate::frames::Scaling;
use crate::simd::multiversion;
use std::ops::Range;

/// Windows whose inputs and their gradients the second-level cache holds.
const BLOCK: usize = 128;

/// A pass begins without known windows where a layer knows more. Those of `nature` then take some 20 MB.
const MAX_KNOWN: usize = 1 << 14;

/// The frames of a batch by which [`DistinctWindows::suit`] decides.
const SAMPLE: usize = 4;

/// The largest share of the arithmetic of whole frames with which distinct windows are faster.
pub(super) const MAX_SHARE: f64 = 0.7;

/// The frames of inference after which many windows are forgotten.
const CHUNK: usize = 128;

/// Not among the windows of the training pass.
const UNUSED: u32 = u32::MAX;

/// Convolutions over distinct windows.
#[derive(Debug)]
pub(super) struct DistinctWindows<T: LayerKernels> {
    frame: Image,
    cells: Cells,
    /// The pixels of each cell, scaled.
    pixels: Buffer<T>,
    layers: Vec<WindowLayer<T>>,
    /// Version of the weights.
    version: Option<u64>,
    /// Of the windows of the last convolution in the frames of a pass, `[frames, positions]`.
    numbers: Vec<Number>,
    /// The same of the training pass that a backward pass may follow.
    trained: Option<Vec<Number>>,
    /// [`MAX_SHARE`].
    max_share: f64,
    scratch: Scratch<T>,
}

/// A convolution, with the windows that it knows. They are numbered.
#[derive(Debug)]
struct WindowLayer<T: LayerKernels> {
    weight: Range<usize>,
    bias: Range<usize>,
    /// A window is an image of its own.
    shape: LayerShape,
    packed: T::Packed,
    /// The offsets of a block of windows in memory.
    positions: Vec<usize>,
    windows: Windows,
    /// `[windows, outputs]`
    outputs: Buffer<T>,
    /// The windows of the training pass, and for each known window its index among them, or [`UNUSED`].
    used: Vec<Number>,
    slots: Vec<u32>,
    /// Output gradients, each summed over all positions with the same window, `[used, outputs]`.
    sums: Buffer<f32>,
    weight_gradient: Buffer<f32>,
    bias_gradient: Vec<f32>,
}

/// What the numbers of a layer's input stand for: cells, or outputs of the layer before. Each has `lines` lines of `len` elements.
#[derive(Clone, Copy, Debug)]
struct Inputs<'a, T> {
    elements: &'a [T],
    lines: usize,
    len: usize,
}

/// Of a layer's `used` windows: outputs and the gradients of its products; of a block of windows: inputs and their gradients.
#[derive(Debug, Default)]
struct Scratch<T> {
    y: Buffer<T>,
    dy: Buffer<T>,
    x: Buffer<T>,
    dx: Buffer<f32>,
    slots: Vec<u32>,
}

impl<T: LayerKernels> DistinctWindows<T> {
    /// The convolutions `layers` on images `frame`, whose pixels are scaled by [`Scaling::Unit`]; `None` where whole frames are needed (padding, norm, pooling, residual sums) or the
    /// kernels do not support them.
    pub fn new(layers: &[Layer], frame: Image) -> Option<Self> {
        let Convolution { size, stride, .. } = layers.first()?.convolution?;
        let cells = size.is_multiple_of(stride).then(|| Cells::new(frame, stride))??;
        let (mut grid, mut channels) = (cells.grid.size, frame.channels);
        let mut planned: Vec<WindowLayer<T>> = Vec::new();
        for layer in layers {
            let Convolution { size, stride, padding } = layer.convolution?;
            let (side, stride) = if planned.is_empty() { (size / stride, 1) } else { (size, stride) };
            // Kernels that differ between shapes are the same for windows and whole frames.
            let row_len = size * channels;
            let shape = LayerShape { outputs: layer.outputs, kernel_rows: size, row_len, row_stride: row_len };
            let is_plain = layer.norm.is_none() && layer.connection == Connection::Direct && layer.rectifier;
            if padding > 0 || !is_plain || !T::supports(&shape) {
                return None;
            }
            let windows = Windows::new(grid, side, stride)?;
            (grid, channels) = (windows.grid.size, layer.outputs);
            planned.push(WindowLayer::new(layer, shape, windows));
        }
        Some(Self {
            frame,
            cells,
            pixels: Buffer::default(),
            layers: planned,
            version: None,
            numbers: Vec::new(),
            trained: None,
            max_share: MAX_SHARE,
            scratch: Scratch::default(),
        })
    }

    /// Whether they suit a training pass, which begins: an estimate from a few of its `frames`, whatever windows are known, so that it is the same
    /// in a resumed run. `version` identifies the values of `weights`.
    pub fn suit(&mut self, weights: &[T], version: u64, frames: &[u8]) -> bool {
        self.trained = None;
        self.begin(weights, version);
        let n = frames.len() / self.frame.inner_len();
        let mut seen: Vec<Vec<Number>> = vec![Vec::new(); self.layers.len()];
        for i in 0..n.min(SAMPLE) {
            let frame = i * n / n.min(SAMPLE);
            self.number(&frames[frame * self.frame.inner_len()..][..self.frame.inner_len()]);
            seen.iter_mut().zip(&self.layers).for_each(|(seen, layer)| seen.extend(&layer.windows.grid.numbers));
        }
        let cost = |seen: &[Vec<Number>]| -> usize {
            self.layers.iter().zip(seen).map(|(layer, seen)| layer.cost() * seen.len()).sum()
        };
        let all = cost(&seen);
        seen.iter_mut().for_each(|seen| {
            seen.sort_unstable();
            seen.dedup();
        });
        let suit = cost(&seen) as f64 <= self.max_share * all as f64;
        if !suit {
            // The windows of the sample have no outputs.
            self.forget();
        }
        suit
    }

    /// Forgets the windows of other weights, and all where there are too many, unless a backward pass may need them.
    fn begin(&mut self, weights: &[T], version: u64) {
        let knows_many = self.layers.iter().any(|layer| layer.windows.len() > MAX_KNOWN);
        if self.version != Some(version) || knows_many && self.trained.is_none() {
            self.forget();
        }
        if self.version != Some(version) {
            for layer in &mut self.layers {
                T::pack(&layer.shape, &weights[layer.weight.clone()], &mut layer.packed);
            }
            self.version = Some(version);
        }
    }

    /// Numbers the windows of a frame.
    fn number(&mut self, pixels: &[u8]) {
        let Self { cells, pixels: scaled, layers, .. } = self;
        let (mean, factor) = Scaling::Unit.mean_and_factor(pixels);
        cells.number(pixels, |cell| {
            let end = scaled.len();
            scaled.resize(end + cell.len(), T::default());
            T::scale(cell, mean, factor, &mut scaled[end..]);
        });
        let mut grid = &cells.grid;
        for layer in layers {
            layer.windows.number(grid);
            grid = &layer.windows.grid;
        }
    }

    /// Appends the outputs of the last convolution for `frames` of inference to `features`, `[frames, positions, outputs]`. Whether distinct
    /// windows suit such frames.
    pub fn infer(&mut self, weights: &[T], version: u64, frames: &[u8], features: &mut Buffer<T>) -> bool {
        let mut suit = true;
        for frames in frames.chunks(CHUNK * self.frame.inner_len()) {
            self.begin(weights, version);
            let knew = self.layers[0].known() > 0;
            let share = self.compute(weights, frames, features);
            // Without known windows more are computed than later.
            suit &= !knew || share <= self.max_share;
        }
        suit
    }

    /// The same for a training pass, after [`suit`](Self::suit).
    pub fn train(&mut self, weights: &[T], frames: &[u8], features: &mut Buffer<T>) {
        self.compute(weights, frames, features);
        self.trained = Some(self.numbers.clone());
    }

    /// Appends the outputs of the last convolution to `features`. The share of the arithmetic of all positions that was needed for windows that
    /// had no outputs.
    fn compute(&mut self, weights: &[T], frames: &[u8], features: &mut Buffer<T>) -> f64 {
        self.numbers.clear();
        for pixels in frames.chunks_exact(self.frame.inner_len()) {
            self.number(pixels);
            self.numbers.extend_from_slice(&self.layers.last().expect("a convolution").windows.grid.numbers);
        }
        let Self { frame, cells, pixels: scaled, layers, numbers, scratch, .. } = self;
        let (n, new) = (frames.len() / frame.inner_len(), |layer: &WindowLayer<T>| layer.windows.len() - layer.known());
        let needed: usize = layers.iter().map(|layer| layer.cost() * new(layer)).sum();
        let all: usize = layers.iter().map(|layer| layer.cost() * n * layer.windows.grid.numbers.len()).sum();
        let cells = Inputs { elements: scaled, lines: cells.side, len: cells.line_len() };
        for i in 0..layers.len() {
            let (before, layer) = layers.split_at_mut(i);
            layer[0].compute(weights, before.last().map_or(cells, WindowLayer::as_inputs), &mut scratch.x);
        }
        let last = layers.last().expect("a convolution");
        let from = features.len();
        features.resize(from + numbers.len() * last.shape.outputs, T::default());
        last.as_inputs().copy(numbers, 0, &mut features[from..]);
        needed as f64 / all.max(1) as f64
    }

    /// Computes the layers' weight and bias gradients from the gradient `dy` of the outputs in the last training pass,
    /// `[frames, positions, outputs]`.
    ///
    /// # Panics
    /// Without a training pass with the weights of the last pass: a bug of the caller.
    pub fn backward(&mut self, weights: &[T], dy: &[f32]) {
        let Self { cells, pixels, layers, trained, scratch, .. } = self;
        let cells = Inputs { elements: pixels, lines: cells.side, len: cells.line_len() };
        let numbers = trained.take().expect("a training pass with these weights");
        for i in (0..layers.len()).rev() {
            let (layer, after) = layers[i..].split_first_mut().expect("a layer");
            match after.first() {
                None => layer.begin_gradients(numbers.iter()),
                Some(after) => layer.begin_gradients(after.used.iter().flat_map(|&window| after.windows.taps(window))),
            }
        }
        let last = layers.last_mut().expect("a convolution");
        scratch.slots.clear();
        scratch.slots.extend(numbers.iter().map(|&number| last.slots[number as usize]));
        add_rows_at(dy, &scratch.slots, last.shape.outputs, &mut last.sums);
        for i in (0..layers.len()).rev() {
            let (before, layer) = layers.split_at_mut(i);
            layer[0].backward(weights, cells, before.last_mut(), scratch);
        }
    }

    /// Writes the layers' gradients to their parts of `gradient`.
    pub fn store_gradients(&self, gradient: &mut [T]) {
        for WindowLayer { weight, bias, weight_gradient, bias_gradient, .. } in &self.layers {
            narrow(weight_gradient, &mut gradient[weight.clone()]);
            narrow(bias_gradient, &mut gradient[bias.clone()]);
        }
    }

    /// Forgets all windows.
    pub fn forget(&mut self) {
        self.cells.forget();
        self.pixels.clear();
        self.layers.iter_mut().for_each(WindowLayer::forget);
        self.trained = None;
    }
}

impl<T: LayerKernels> WindowLayer<T> {
    fn new(layer: &Layer, shape: LayerShape, windows: Windows) -> Self {
        Self {
            weight: layer.weight.clone(),
            bias: layer.bias.clone(),
            shape,
            packed: T::Packed::default(),
            positions: (0..BLOCK).map(|window| window * shape.inputs()).collect(),
            windows,
            outputs: Buffer::default(),
            used: Vec::new(),
            slots: Vec::new(),
            sums: Buffer::default(),
            weight_gradient: Buffer::default(),
            bias_gradient: vec![0.0; shape.outputs],
        }
    }

    fn forget(&mut self) {
        self.windows.forget();
        self.outputs.clear();
    }

    /// Multiplications for a window.
    fn cost(&self) -> usize {
        self.weight.len()
    }

    /// How many windows have outputs.
    fn known(&self) -> usize {
        self.outputs.len() / self.shape.outputs
    }

    /// Its outputs, as inputs of a layer.
    fn as_inputs(&self) -> Inputs<'_, T> {
        Inputs { elements: &self.outputs, lines: 1, len: self.shape.outputs }
    }

    /// Sets `x` to the inputs of `windows`, `[windows, inputs]`, and zeros up to the least that kernels support.
    fn copy_inputs(&self, inputs: Inputs<'_, T>, windows: impl ExactSizeIterator<Item = Number>, x: &mut Buffer<T>) {
        let len = self.shape.inputs();
        x.resize(windows.len().max(MIN_POSITIONS) * len, T::default());
        x[windows.len() * len..].fill(T::default());
        for (window, x) in windows.zip(x.chunks_exact_mut(len)) {
            inputs.copy_window(self.windows.taps(window), self.windows.side, x);
        }
    }

    /// Computes the outputs of windows that have none.
    fn compute(&mut self, weights: &[T], inputs: Inputs<'_, T>, x: &mut Buffer<T>) {
        let outputs = self.shape.outputs;
        let all = self.windows.len();
        for first in (self.known()..all).step_by(BLOCK) {
            let end = all.min(first + BLOCK);
            self.copy_inputs(inputs, first as Number..end as Number, x);
            let positions = &self.positions[..x.len() / self.shape.inputs()];
            self.outputs.resize((first + positions.len()) * outputs, T::default());
            let y = &mut self.outputs[first * outputs..];
            T::convolve(&self.shape, &mut self.packed, &weights[self.bias.clone()], true, positions, x, y);
            self.outputs.resize(end * outputs, T::default());
        }
    }

    /// Sets gradients to zero, for a backward pass over the windows `numbers`, each any number of times.
    fn begin_gradients<'a>(&mut self, numbers: impl Iterator<Item = &'a Number>) {
        self.used.clear();
        self.slots.clear();
        self.slots.resize(self.windows.len(), UNUSED);
        numbers.for_each(|&number| {
            let slot = &mut self.slots[number as usize];
            if *slot == UNUSED {
                *slot = self.used.len() as u32;
                self.used.push(number);
            }
        });
        self.sums.fill_with_zeros(self.used.len() * self.shape.outputs);
        self.weight_gradient.fill_with_zeros(self.weight.len());
        self.bias_gradient.fill(0.0);
    }

    /// Computes the gradients of weights and biases from `sums`, and adds those of the inputs to the `sums` of the layer before, or, without
    /// one, none to the `cells`.
    fn backward(
        &mut self,
        weights: &[T],
        cells: Inputs<'_, T>,
        mut before: Option<&mut Self>,
        scratch: &mut Scratch<T>,
    ) {
        let Scratch { y, dy, x, dx, slots } = scratch;
        let (outputs, weights) = (self.shape.outputs, &weights[self.weight.clone()]);
        y.resize(self.sums.len(), T::default());
        self.as_inputs().copy(&self.used, 0, y);
        dy.resize(self.sums.len(), T::default());
        rectifier_gradient(y, &self.sums, dy, &mut self.bias_gradient);
        // The last block may be smaller than kernels support.
        dy.resize(self.sums.len() + MIN_POSITIONS * outputs, T::default());
        dy[self.sums.len()..].fill(T::default());
        for (i, windows) in self.used.chunks(BLOCK).enumerate() {
            let inputs = before.as_deref().map_or(cells, Self::as_inputs);
            self.copy_inputs(inputs, windows.iter().copied(), x);
            let positions = &self.positions[..x.len() / self.shape.inputs()];
            let dy = &dy[i * BLOCK * outputs..][..positions.len() * outputs];
            T::weight_gradient(&self.shape, &mut self.packed, positions, x, dy, &mut self.weight_gradient);
            if let Some(before) = &mut before {
                dx.resize(x.len(), 0.0);
                T::linear_input_gradient(&self.shape, &mut self.packed, weights, dy, dx);
                slots.clear();
                for &window in windows {
                    slots.extend(self.windows.taps(window).iter().map(|&tap| before.slots[tap as usize]));
                }
                add_rows_at(dx, slots, before.shape.outputs, &mut before.sums);
            }
        }
    }
}

impl<T: Copy> Inputs<'_, T> {
    /// Sets `to` to the inputs of a window of numbers: in each of its rows, of `side` numbers, line by line.
    fn copy_window(self, taps: &[Number], side: usize, to: &mut [T]) {
        let rows = taps.chunks_exact(side).zip(to.chunks_exact_mut(side * self.lines * self.len));
        for (taps, to) in rows {
            for (line, to) in to.chunks_exact_mut(side * self.len).enumerate() {
                self.copy(taps, line, to);
            }
        }
    }

    /// Sets `to` to one line of each of `numbers`.
    fn copy(self, numbers: &[Number], line: usize, to: &mut [T]) {
        fn copy<T: Copy, const N: usize>(from: &[T], lines: impl Iterator<Item = usize>, to: &mut [T]) {
            let (from, to) = (from.as_chunks::<N>().0, to.as_chunks_mut::<N>().0);
            to.iter_mut().zip(lines).for_each(|(to, line)| *to = from[line]);
        }
        let Self { elements: from, lines, len } = self;
        let lines = numbers.iter().map(|&number| number as usize * lines + line);
        match len {
            // Copies of a constant length take few instructions.
            16 => copy::<T, 16>(from, lines, to),
            32 => copy::<T, 32>(from, lines, to),
            64 => copy::<T, 64>(from, lines, to),
            _ => {
                let lines = lines.map(|line| &from[line * len..][..len]);
                to.chunks_exact_mut(len).zip(lines).for_each(|(to, line)| to.copy_from_slice(line));
            }
        }
    }
}

multiversion! {
    /// `sums[slots[i]] += rows[i]`, rows of `len` elements.
    fn add_rows_at(rows: &[f32], slots: &[u32], len: usize, sums: &mut [f32]) {
        for (row, &slot) in rows.chunks_exact(len).zip(slots) {
            let sum = &mut sums[slot as usize * len..][..len];
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_frames::{CHANNELS, SIDE, frames, layers, noise};
    use super::super::{ConvNet, WHOLE_PASSES};
    use super::*;
    use crate::bf16;
    use crate::simd::{SimdLevel, level};

    /// Rows and columns of the windows of three convolutions.
    const COLUMNS: [usize; 3] = [18, 8, 6];

    fn noisy(n: usize) -> Vec<u8> {
        (0..n * SIDE * SIDE * CHANNELS).map(|i| (noise(i) * 255.0 + 128.0) as u8).collect()
    }

    fn weights<T: LayerKernels>(parameters: usize) -> Vec<T> {
        (0..parameters).map(|i| T::narrow(noise(i) / 4.0)).collect()
    }

    /// A network that computes whole frames where distinct windows need more than `max_share` of their arithmetic.
    fn net_of<T: LayerKernels>(layers: &[Layer], frame: [usize; 3], max_share: f64) -> ConvNet<T> {
        let mut net = ConvNet::new(layers, frame).expect("supported layers");
        net.distinct.as_mut().expect("convolutions over distinct windows").max_share = max_share;
        net
    }

    fn net<T: LayerKernels>(max_share: f64) -> ConvNet<T> {
        net_of(&layers(false).0, [SIDE, SIDE, CHANNELS], max_share)
    }

    fn known<T: LayerKernels>(net: &ConvNet<T>) -> Vec<usize> {
        let layers = &net.distinct.as_ref().expect("convolutions over distinct windows").layers;
        layers.iter().map(|layer| layer.windows.len()).collect()
    }

    fn supported() -> bool {
        level() != SimdLevel::Baseline || !cfg!(target_arch = "x86_64")
    }

    /// Features and gradient of a training pass.
    fn pass<T: LayerKernels>(net: &mut ConvNet<T>, version: u64, frames: &[u8]) -> (Vec<f32>, Vec<f32>) {
        let n = frames.len() / (SIDE * SIDE * CHANNELS);
        let weights = weights::<T>(layers(false).1);
        let features = net.forward(&weights, version, Scaling::Unit, frames, n, true);
        let mut gradient = vec![T::default(); weights.len()];
        let of_features: Vec<f32> = (0..features.len()).map(noise).collect();
        net.backward(&weights, &mut gradient, Scaling::Unit, &of_features);
        (features, gradient.iter().map(|g| g.widen()).collect())
    }

    /// The same features, bit for bit, and the same gradient but for rounding.
    fn assert_equal(
        (features, gradient): &(Vec<f32>, Vec<f32>),
        (expected, expected_gradient): &(Vec<f32>, Vec<f32>),
        tolerance: f32,
    ) {
        assert!(features == expected && expected_gradient.iter().any(|&g| g != 0.0));
        for Layer { weight, bias, .. } in layers(false).0 {
            for range in [weight, bias] {
                let [actual, expected] = [gradient, expected_gradient].map(|g| &g[range.clone()]);
                let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
                let size = norm(&mut expected.iter().copied());
                let error = norm(&mut actual.iter().zip(expected).map(|(a, b)| a - b));
                assert!(error <= tolerance * size, "{error} of {size}");
            }
        }
    }

    /// A network over distinct windows computes what one over whole frames does: for noise, whose windows differ, and for frames that repeat
    /// some, or all, in other frames; once more with windows that are known from inference, and with others beside them.
    fn assert_as_over_whole_frames<T: LayerKernels>(tolerance: f32) {
        let layers = layers(false).0;
        let (mut distinct, mut whole) = (net::<T>(1.0), ConvNet { distinct: None, ..net::<T>(1.0) });
        whole.whole.finds_repeats = false;
        let moving = frames(9);
        let frame_len = moving.len() / 9;
        let noisy = noisy(2);
        let repeated = [&moving[..2 * frame_len], &noisy, &moving[..frame_len]].concat();
        let mut version = 0;
        for (i, frames) in [&moving[..], &noisy, &repeated, &vec![7; 2 * frame_len]].into_iter().enumerate() {
            version += 1;
            let expected = pass(&mut whole, version, frames);
            assert_equal(&pass(&mut distinct, version, frames), &expected, tolerance);
            let windows = known(&distinct);
            // One color: each window is the same.
            assert!(if i == 3 { windows == [1; 3] } else { windows[0] > 1 }, "{windows:?}");
            assert_equal(&pass(&mut distinct, version, frames), &expected, tolerance);
            assert_eq!(known(&distinct), windows, "all were known");
            let inferred = distinct.forward(&weights(layers[3].bias.end), version, Scaling::Unit, &repeated, 5, false);
            assert!(
                inferred == whole.forward(&weights(layers[3].bias.end), version, Scaling::Unit, &repeated, 5, false)
            );
            assert_equal(&pass(&mut distinct, version, frames), &expected, tolerance);
        }
        // Other weights: nothing is known.
        pass(&mut distinct, version + 1, &moving[..frame_len]);
        assert_eq!(known(&distinct), DISTINCT);
    }

    /// Of the first of [`frames`].
    const DISTINCT: [usize; 3] = [18, 11, 14];

    #[test]
    fn distinct_windows_give_the_results_of_whole_frames() {
        if !supported() {
            return;
        }
        assert_as_over_whole_frames::<f32>(1e-5);
        #[cfg(target_arch = "x86_64")]
        if level() >= SimdLevel::Avx512Bf16 {
            assert_as_over_whole_frames::<bf16>(2e-2);
        }
    }

    /// Inference between a training pass and its backward pass, of more windows than are kept, does not disturb it; then they are forgotten.
    #[test]
    fn many_windows_are_forgotten_after_the_backward_pass() {
        if !supported() {
            return;
        }
        let (mut net, parameters) = (net::<f32>(1.0), layers(false).1);
        let weights = weights::<f32>(parameters);
        let frames = frames(2);
        let noisy = noisy(80);
        let mut expected = vec![0.0; parameters];
        let n = net.forward(&weights, 1, Scaling::Unit, &frames, 2, true).len();
        net.backward(&weights, &mut expected, Scaling::Unit, &vec![1.0; n]);
        let mut gradient = vec![0.0; parameters];
        net.forward(&weights, 2, Scaling::Unit, &frames, 2, true);
        for _ in 0..2 {
            net.forward(&weights, 2, Scaling::Unit, &noisy, 80, false);
            assert!(known(&net)[0] > MAX_KNOWN, "{:?}", known(&net));
        }
        net.backward(&weights, &mut gradient, Scaling::Unit, &vec![1.0; n]);
        assert!(gradient == expected);
        net.forward(&weights, 2, Scaling::Unit, &frames[..frames.len() / 2], 1, false);
        assert_eq!(known(&net), DISTINCT);
    }

    /// Two windows have the same number only where all that they cover is equal, and always then.
    #[test]
    fn numbers_are_those_of_equal_windows() {
        if !supported() {
            return;
        }
        let (mut net, parameters) = (net::<f32>(1.0), layers(false).1);
        let noisy: Vec<u8> = (0..SIDE * SIDE * CHANNELS).map(|i| (noise(i / 2) * 4.0) as u8).collect();
        let frames = [frames(3), noisy, vec![7; SIDE * SIDE * CHANNELS], frames(1)].concat();
        let mut seen = [(); 3].map(|()| rustc_hash::FxHashMap::<Vec<u8>, Number>::default());
        for pixels in frames.chunks_exact(SIDE * SIDE * CHANNELS) {
            net.forward(&weights(parameters), 1, Scaling::Unit, pixels, 1, false);
            let layers = &net.distinct.as_ref().unwrap().layers;
            for (i, (stride, side)) in [(4, 8), (8, 20), (8, 36)].into_iter().enumerate() {
                let numbers = &layers[i].windows.grid.numbers;
                assert_eq!(numbers.len(), COLUMNS[i] * COLUMNS[i]);
                for (place, &number) in numbers.iter().enumerate() {
                    let first = (place / COLUMNS[i] * SIDE + place % COLUMNS[i]) * stride * CHANNELS;
                    let row = |y: usize| &pixels[first + y * SIDE * CHANNELS..][..side * CHANNELS];
                    let window = (0..side).flat_map(row).copied().collect();
                    let next = seen[i].len() as Number;
                    assert_eq!(*seen[i].entry(window).or_insert(next), number);
                }
            }
        }
    }

    /// Whole frames are computed for noise: in a training pass by itself, in inference for some passes after one over distinct windows, unless
    /// that knew none. Training passes do not count.
    #[test]
    fn noise_is_computed_as_whole_frames() {
        if !supported() {
            return;
        }
        let (moving, noise) = (frames(2), noisy(4));
        let (noisy, other) = noise.split_at(noise.len() / 2);
        let mut net = net::<f32>(MAX_SHARE);
        for (version, frames, whole) in [(1, &moving[..], false), (2, noisy, true), (3, &moving, false)] {
            pass(&mut net, version, frames);
            assert_eq!(net.trained_whole, whole);
        }
        let weights = weights(layers(false).1);
        net.forward(&weights, 3, Scaling::Standardize, &moving, 2, true);
        assert!(net.trained_whole, "standardized frames");
        let infer = |net: &mut ConvNet<f32>, frames| _ = net.forward(&weights, 4, Scaling::Unit, frames, 2, false);
        infer(&mut net, noisy);
        assert_eq!(net.whole_passes, 0, "nothing was known");
        infer(&mut net, noisy);
        assert_eq!(net.whole_passes, 0, "all was known");
        infer(&mut net, other);
        assert_eq!(net.whole_passes, WHOLE_PASSES);
        let known_before = known(&net);
        pass(&mut net, 4, &moving);
        (0..WHOLE_PASSES).for_each(|_| infer(&mut net, &noise[noise.len() / 4..][..noisy.len()]));
        assert_eq!(net.whole_passes, 0);
        assert!(
            known(&net).iter().zip(known_before).all(|(known, before)| *known < before + 50),
            "only what was trained on"
        );
    }

    /// What suits a training pass depends on its frames, whatever is known; the share of inference counts what is new.
    #[test]
    fn shares_of_the_arithmetic() {
        if !supported() {
            return;
        }
        let (mut net, weights) = (net::<f32>(1.0), weights(layers(false).1));
        let (one_color, noisy) = (vec![7; SIDE * SIDE * CHANNELS], noisy(2));
        let distinct = net.distinct.as_mut().unwrap();
        let costs = [16 * 256, 32 * 256, 16 * 288];
        let all: usize = costs.iter().zip(COLUMNS).map(|(cost, columns)| cost * columns * columns).sum();
        let of_frames = |n: usize| costs.iter().sum::<usize>() as f64 / (n * all) as f64;
        for (frames, share) in
            [(&one_color, of_frames(1)), (&one_color.repeat(3), of_frames(3)), (&noisy, 1.0)].repeat(2)
        {
            for (max_share, suit) in [(share * 0.999, false), (share * 1.001, true)] {
                distinct.max_share = max_share;
                assert_eq!(distinct.suit(&weights, 1, frames), suit);
            }
        }
        distinct.forget();
        let mut compute = |frames: &[u8]| distinct.compute(&weights, frames, &mut Buffer::default());
        assert_eq!(
            [compute(&one_color), compute(&one_color), compute(&noisy), compute(&noisy)],
            [of_frames(1), 0.0, 1.0, 0.0]
        );
        assert_eq!(compute(&[]), 0.0);
    }

    /// A gradient does not depend on what was known before the training pass, so that a resumed run is exact.
    #[test]
    fn gradients_do_not_depend_on_known_windows() {
        if !supported() {
            return;
        }
        let (weights, frames, noisy) = (weights::<f32>(layers(false).1), frames(6), noisy(1));
        let expected = pass(&mut net::<f32>(1.0), 1, &frames);
        let last = &frames[frames.len() / 6 * 5..];
        for before in [vec![&noisy[..]], vec![last, &noisy], vec![&frames[..]]] {
            let mut net = net::<f32>(1.0);
            for frames in before {
                net.forward(&weights, 1, Scaling::Unit, frames, frames.len() / noisy.len(), false);
            }
            assert!(pass(&mut net, 1, &frames) == expected);
        }
    }

    /// Frames of other shapes: 1 or 3 channels, a height that is no multiple of the stride, 64 columns. More columns, or a size that is no multiple of
    /// the stride, are not supported.
    #[test]
    fn frames_of_other_shapes() {
        if !supported() {
            return;
        }
        for (frame, size, stride, distinct) in [
            ([30, 44, 1], 8, 4, true),
            ([21, 36, 3], 8, 4, true),
            ([12, 64, 4], 3, 1, true),
            ([12, 65, 4], 3, 1, false),
            ([30, 30, 4], 6, 4, false),
        ] {
            let [height, width, channels] = frame;
            let (inputs, positions) =
                (size * size * channels, ((height - size) / stride + 1) * ((width - size) / stride + 1));
            let convolution = Layer {
                outputs: 16,
                convolution: Some(Convolution { size, stride, padding: 0 }),
                weight: 0..16 * inputs,
                bias: 16 * inputs..16 * inputs + 16,
                norm: None,
                connection: Connection::Direct,
                rectifier: true,
            };
            let (from, weights) = (convolution.bias.end, 8 * 16 * positions);
            let dense = Layer {
                outputs: 8,
                convolution: None,
                weight: from..from + weights,
                bias: from + weights..from + weights + 8,
                ..convolution.clone()
            };
            let layers = [convolution, dense];
            let mut whole =
                ConvNet { distinct: None, ..ConvNet::<f32>::new(&layers, frame).expect("supported layers") };
            assert_eq!(ConvNet::<f32>::new(&layers, frame).unwrap().distinct.is_some(), distinct, "{frame:?}");
            if !distinct {
                continue;
            }
            let pixels: Vec<u8> =
                (0..3 * height * width * channels).map(|i| (noise(i / 40) * 9.0) as u8 * 20).collect();
            let weights: Vec<f32> = (0..layers[1].bias.end).map(|i| noise(i) / 8.0).collect();
            let gradient = |net: &mut ConvNet<f32>| {
                let features = net.forward(&weights, 1, Scaling::Unit, &pixels, 3, true);
                let mut gradient = vec![0.0; weights.len()];
                net.backward(&weights, &mut gradient, Scaling::Unit, &vec![1.0; features.len()]);
                (features, gradient)
            };
            let (features, actual) = gradient(&mut net_of(&layers, frame, 1.0));
            let (expected_features, expected) = gradient(&mut whole);
            assert!(features == expected_features && features.iter().any(|&x| x > 0.0), "{frame:?}");
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * (1.0 + b.abs());
            assert!(actual.iter().zip(&expected).all(close), "{frame:?}");
        }
    }
}
