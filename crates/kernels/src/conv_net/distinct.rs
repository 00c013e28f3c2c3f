//! Convolutions over the distinct windows of a batch.
//!
//! Most of an Atari frame is background that stays. What a convolution computes at a position depends on its window of the input alone, so
//! windows that are equal, anywhere in a batch, have equal outputs, and one of them is computed. Equal windows get equal
//! [`ids`](super::ids): first windows of pixels, then, for each further convolution, windows of the ids of its inputs. A frame is then a
//! grid of ids, and a layer's output a list by id.
//!
//! The lists last as long as the weights. A policy that acts computes what it has not seen before, and a training pass with the weights that have
//! acted finds there what this network has inferred (each thread has its own).
//!
//! Where most windows are distinct, finding ids costs more than it saves: then [`ConvNet`](super::ConvNet) computes
//! [whole frames](super::whole_frames).
//!
//! In the backward pass the output gradients of equal windows are summed, and all else is computed of the sums. Outputs are those of all
//! positions bit for bit, gradients but for rounding, of which there is less. The fully connected layer that follows sums its output gradients,
//! too ([`dense`]); in bf16 these sums are rounded once more.

mod dense;

use super::ids::{Cells, Id, Windows};
use super::image::Image;
use super::layer::{Connection, Convolution, Layer};
use crate::Element;
use crate::buffer::Buffer;
use crate::conv::{LayerKernels, LayerShape, MIN_POSITIONS, rectifier_gradient};
use crate::elementwise::narrow;
use crate::frames::Scaling;
use crate::simd::multiversion;
use std::mem::take;
use std::ops::Range;

pub(super) use dense::DensePositions;

/// Windows whose inputs and their gradients the second-level cache holds.
const BLOCK: usize = 128;

/// A pass begins without known windows where a layer knows more. Those of `nature` then take some 20 MB.
const MAX_KNOWN: usize = 1 << 14;

/// How many frames of a batch [`DistinctWindows::suit_training`] examines.
const SAMPLE: usize = 4;

/// The largest share of the arithmetic of whole frames with which distinct windows are used: of [`SAMPLE`] frames, Beam Rider, which is slower
/// with them on two threads of a Zen 4 EPYC, has .79, Ms. Pac-Man, which is faster, .68.
pub(super) const MAX_SHARE: f64 = 0.7;

/// The frames of inference that are computed at once: between them windows are forgotten where there are too many.
const CHUNK: usize = 128;

/// The slot of a window that is not in the training pass.
const UNUSED: u32 = u32::MAX;

/// Convolutions over distinct windows.
#[derive(Debug)]
pub(super) struct DistinctWindows<T: LayerKernels> {
    cells: Cells,
    /// The pixels of each cell, scaled.
    pixels: Buffer<T>,
    layers: Vec<WindowLayer<T>>,
    /// Version of the weights.
    version: Option<u64>,
    /// Ids of the windows of the last convolution in the frames of a pass, `[frames, positions]`.
    ids: Vec<Id>,
    /// The same of the training pass that a backward pass may follow.
    trained: Option<Vec<Id>>,
    /// [`MAX_SHARE`].
    max_share: f64,
    scratch: Scratch<T>,
}

/// A convolution, with the windows that it knows.
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
    used: Vec<Id>,
    slots: Vec<u32>,
    /// Output gradients, each summed over all positions with the same window, `[used, outputs]`.
    sums: Buffer<f32>,
    weight_gradient: Buffer<f32>,
    bias_gradient: Vec<f32>,
}

/// What the ids of a layer's input identify: cells, or outputs of the layer before. Each has `lines` lines of `len` elements.
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
    /// The convolutions `layers` on images `frame`, whose pixels are scaled by [`Scaling::Unit`]. `None` where whole frames are needed (padding,
    /// norm, pooling, residual sums), or the kernels do not support them.
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
            cells,
            pixels: Buffer::default(),
            layers: planned,
            version: None,
            ids: Vec::new(),
            trained: None,
            max_share: MAX_SHARE,
            scratch: Scratch::default(),
        })
    }

    /// Begins a training pass on `frames`, `[height, width, channels]` each, with the `weights` of `version`. Returns whether distinct windows are
    /// likely to be faster: an estimate from a few frames that does not depend on known windows, so that it is the same in a resumed run.
    pub fn suit_training(&mut self, weights: &[T], version: u64, frames: &[&[u8]]) -> bool {
        self.trained = None;
        self.begin(weights, version);
        let (n, sample) = (frames.len(), frames.len().min(SAMPLE));
        let mut seen: Vec<Vec<Id>> = vec![Vec::new(); self.layers.len()];
        self.set_frames((0..sample).map(|i| frames[i * n / sample]), |layers| {
            seen.iter_mut().zip(layers).for_each(|(seen, layer)| seen.extend(&layer.windows.grid.ids));
        });
        let cost = |seen: &[Vec<Id>]| -> usize {
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

    /// Sets the grid of each layer to the windows of one frame after the other, and calls `visit` after each.
    fn set_frames<'a>(&mut self, frames: impl Iterator<Item = &'a [u8]>, mut visit: impl FnMut(&[WindowLayer<T>])) {
        let Self { cells, pixels: scaled, layers, .. } = self;
        let mut before = None;
        for pixels in frames {
            let (mean, factor) = Scaling::Unit.mean_and_factor(pixels);
            cells.set(before, pixels, |cell| {
                let end = scaled.len();
                scaled.resize(end + cell.len(), T::default());
                T::scale(cell, mean, factor, &mut scaled[end..]);
            });
            before = Some(pixels);
            let mut grid = &cells.grid;
            for layer in &mut *layers {
                layer.windows.set(grid);
                grid = &layer.windows.grid;
            }
            visit(layers);
        }
        before.into_iter().for_each(|last| cells.keep(last));
    }

    /// Appends the outputs of the last convolution for `frames` of inference to `features`, `[frames, positions, outputs]`. Returns whether
    /// distinct windows are likely to be faster for such frames.
    pub fn infer(&mut self, weights: &[T], version: u64, frames: &[&[u8]], features: &mut Buffer<T>) -> bool {
        let mut suit = true;
        for frames in frames.chunks(CHUNK) {
            self.begin(weights, version);
            let knew = self.layers[0].known() > 0;
            let share = self.compute(weights, frames, features);
            // Without known windows more are computed than later.
            suit &= !knew || share <= self.max_share;
        }
        suit
    }

    /// The same for a training pass, after [`suit_training`](Self::suit_training).
    pub fn train(&mut self, weights: &[T], frames: &[&[u8]], features: &mut Buffer<T>) {
        self.compute(weights, frames, features);
        self.trained = Some(self.ids.clone());
    }

    /// Appends the outputs of the last convolution to `features`. Returns the share of the arithmetic of all positions that was needed for
    /// windows that had no outputs.
    fn compute(&mut self, weights: &[T], frames: &[&[u8]], features: &mut Buffer<T>) -> f64 {
        let mut ids = take(&mut self.ids);
        ids.clear();
        self.set_frames(frames.iter().copied(), |layers| {
            ids.extend_from_slice(&layers.last().expect("a convolution").windows.grid.ids);
        });
        self.ids = ids;
        let Self { cells, pixels: scaled, layers, ids, scratch, .. } = self;
        let (n, new) = (frames.len(), |layer: &WindowLayer<T>| layer.windows.len() - layer.known());
        let needed: usize = layers.iter().map(|layer| layer.cost() * new(layer)).sum();
        let all: usize = layers.iter().map(|layer| layer.cost() * n * layer.windows.grid.ids.len()).sum();
        let cells = Inputs { elements: scaled, lines: cells.side, len: cells.line_len() };
        for i in 0..layers.len() {
            let (before, layer) = layers.split_at_mut(i);
            layer[0].compute(weights, before.last().map_or(cells, WindowLayer::as_inputs), &mut scratch.x);
        }
        let last = layers.last().expect("a convolution");
        let from = features.len();
        features.resize(from + ids.len() * last.shape.outputs, T::default());
        last.as_inputs().copy(ids, 0, &mut features[from..]);
        needed as f64 / all.max(1) as f64
    }

    /// Begins the backward pass of the last training pass, with output gradients of 0.
    ///
    /// # Panics
    /// Without a training pass with the weights of the last pass: a bug of the caller.
    fn begin_backward(&mut self) {
        let Self { layers, trained, .. } = self;
        let ids = trained.as_ref().expect("a training pass with these weights");
        for i in (0..layers.len()).rev() {
            let (layer, after) = layers[i..].split_first_mut().expect("a layer");
            match after.first() {
                None => layer.begin_gradients(ids.iter()),
                Some(after) => layer.begin_gradients(after.used.iter().flat_map(|&window| after.windows.taps(window))),
            }
        }
    }

    /// Begins the backward pass of the last training pass with the gradient `dy` of the outputs, `[frames, positions, outputs]`.
    ///
    /// # Panics
    /// As [`begin_backward`](Self::begin_backward).
    pub fn begin_backward_with(&mut self, dy: &[f32]) {
        self.begin_backward();
        let Self { layers, trained, scratch, .. } = self;
        let last = layers.last_mut().expect("a convolution");
        scratch.slots.clear();
        scratch.slots.extend(trained.iter().flatten().map(|&id| last.slots[id as usize]));
        add_rows_at(dy, &scratch.slots, last.shape.outputs, &mut last.sums);
    }

    /// Ends the backward pass: computes the layers' weight and bias gradients.
    pub fn backward(&mut self, weights: &[T]) {
        let Self { cells, pixels, layers, trained, scratch, .. } = self;
        let cells = Inputs { elements: pixels, lines: cells.side, len: cells.line_len() };
        *trained = None;
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
    fn copy_inputs(&self, inputs: Inputs<'_, T>, windows: impl ExactSizeIterator<Item = Id>, x: &mut Buffer<T>) {
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
            self.copy_inputs(inputs, first as Id..end as Id, x);
            let positions = &self.positions[..x.len() / self.shape.inputs()];
            self.outputs.resize((first + positions.len()) * outputs, T::default());
            let y = &mut self.outputs[first * outputs..];
            T::convolve(&self.shape, &mut self.packed, &weights[self.bias.clone()], true, positions, x, y);
            self.outputs.resize(end * outputs, T::default());
        }
    }

    /// Sets gradients to zero, for a backward pass over the windows `ids`; each may occur several times.
    fn begin_gradients<'a>(&mut self, ids: impl Iterator<Item = &'a Id>) {
        self.used.clear();
        self.slots.clear();
        self.slots.resize(self.windows.len(), UNUSED);
        ids.for_each(|&id| {
            let slot = &mut self.slots[id as usize];
            if *slot == UNUSED {
                *slot = self.used.len() as u32;
                self.used.push(id);
            }
        });
        self.sums.fill_with_zeros(self.used.len() * self.shape.outputs);
        self.weight_gradient.fill_with_zeros(self.weight.len());
        self.bias_gradient.fill(0.0);
    }

    /// Computes the gradients of weights and biases from `sums`, and adds those of the inputs to the `sums` of the layer `before`. The inputs of
    /// the first layer are `cells`.
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
    /// Sets `to` to the inputs of a window of ids: in each of its rows, of `side` ids, line by line.
    fn copy_window(self, taps: &[Id], side: usize, to: &mut [T]) {
        let rows = taps.chunks_exact(side).zip(to.chunks_exact_mut(side * self.lines * self.len));
        for (taps, to) in rows {
            for (line, to) in to.chunks_exact_mut(side * self.len).enumerate() {
                self.copy(taps, line, to);
            }
        }
    }

    /// Sets `to` to one line of each of `ids`.
    fn copy(self, ids: &[Id], line: usize, to: &mut [T]) {
        fn copy<T: Copy, const N: usize>(from: &[T], lines: impl Iterator<Item = usize>, to: &mut [T]) {
            let (from, to) = (from.as_chunks::<N>().0, to.as_chunks_mut::<N>().0);
            to.iter_mut().zip(lines).for_each(|(to, line)| *to = from[line]);
        }
        let Self { elements: from, lines, len } = self;
        let lines = ids.iter().map(|&id| id as usize * lines + line);
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
    fn add_rows_at<E: Element>(rows: &[E], slots: &[u32], len: usize, sums: &mut [f32]) {
        for (row, &slot) in rows.chunks_exact(len).zip(slots) {
            let sum = &mut sums[slot as usize * len..][..len];
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x.widen());
        }
    }
}

#[cfg(test)]
mod tests;
