//! The backward pass of the fully connected layer that reads the outputs of distinct windows.
//!
//! Where frames of a batch have equal windows at a position, the layer reads equal inputs there. Both its weight gradient and the sum of these
//! inputs' gradients, which is all that the convolutions need, are products with the sum of the frames' output gradients. So these are summed
//! first, and a position is computed like a small layer of its own, with a row for each distinct window in place of each frame. In bf16 the
//! sums are rounded, as the output gradients are.

use super::super::ids::Id;
use super::super::layer::Planned;
use super::{DistinctWindows, UNUSED, add_rows_at};
use crate::buffer::Buffer;
use crate::conv::{LayerKernels, LayerShape, MIN_POSITIONS};
use crate::elementwise::narrow;

/// Positions whose weights and gradients are copied at once: a row of those of `nature`. One at a time took a twentieth longer on a Zen 4 EPYC.
const GROUP: usize = 7;

/// How many rows each position must save on average, to make up for copying its weights and gradients. With 30 PPO learned from Enduro 5 % more slowly
/// than without this on a Zen 4 EPYC, with 40 as fast.
const MIN_SAVED: usize = 40;

/// The fully connected layer, one position at a time.
#[derive(Debug)]
pub(in super::super) struct DensePositions<T: LayerKernels> {
    /// Of the layer at one position.
    shape: LayerShape,
    packed: T::Packed,
    /// Positions of the last convolution.
    positions: usize,
    /// The distinct windows at each position, one position after the other, and where those of each begin.
    windows: Vec<Id>,
    starts: Vec<usize>,
    /// The index of each frame's window among those of the position, `[positions, frames]`.
    slots: Vec<u32>,
    buffers: Buffers<T>,
}

/// What is computed between the layer's buffers and those of the convolutions.
#[derive(Debug, Default)]
struct Buffers<T> {
    /// Of one position: output gradients, summed, `[windows, outputs]`.
    sums: Buffer<f32>,
    dy: Buffer<T>,
    /// Of one position: inputs, `[windows, channels]`, and where their gradients are added.
    x: Buffer<T>,
    input_offsets: Vec<usize>,
    /// Of a group of positions: weights and their gradients, `[positions, outputs, channels]`.
    w: Buffer<T>,
    dw: Buffer<T>,
    /// Where each window was seen last: the position, and its index there.
    seen: Vec<(u32, u32)>,
}

impl<T: LayerKernels> DensePositions<T> {
    /// A layer of `outputs` after a convolution with `channels` at `positions`; `None` where the kernels do not support it.
    pub fn new(outputs: usize, channels: usize, positions: usize) -> Option<Self> {
        let shape = LayerShape { outputs, kernel_rows: 1, row_len: channels, row_stride: channels };
        T::supports(&shape).then(|| Self {
            shape,
            packed: T::Packed::default(),
            positions,
            windows: Vec::new(),
            starts: Vec::new(),
            slots: Vec::new(),
            buffers: Buffers::default(),
        })
    }

    /// Finds the distinct windows at each position in the training pass. Returns whether they are few enough for [`backward`](Self::backward) to
    /// be faster than all frames.
    pub fn find_windows(&mut self, convolved: &DistinctWindows<T>) -> bool {
        let Self { windows, starts, slots, positions, buffers: Buffers { seen, .. }, .. } = self;
        let (last, ids) = (convolved.layers.last().expect("a convolution"), convolved.trained.as_deref());
        let ids = ids.expect("a training pass with these weights");
        if ids.len() < MIN_SAVED * *positions {
            return false;
        }
        windows.clear();
        starts.clear();
        slots.clear();
        seen.clear();
        seen.resize(last.windows.len(), (UNUSED, UNUSED));
        for position in 0..*positions {
            starts.push(windows.len());
            for &id in ids[position..].iter().step_by(*positions) {
                let (at, slot) = &mut seen[id as usize];
                if *at != position as u32 {
                    (*at, *slot) = (position as u32, (windows.len() - starts[position]) as u32);
                    windows.push(id);
                }
                slots.push(*slot);
            }
        }
        starts.push(windows.len());
        ids.len() - windows.len() >= MIN_SAVED * *positions
    }

    /// The number of windows at each position in the last backward pass; none before the first.
    #[cfg(test)]
    pub fn windows_per_position(&self) -> Vec<usize> {
        let starts = if self.buffers.w.is_empty() { &[] } else { &self.starts[..] };
        starts.windows(2).map(|starts| starts[1] - starts[0]).collect()
    }

    /// Sets the weight gradient of `layer` from the gradient `dy` of its products, `[frames, outputs]`, and begins the backward pass of the
    /// convolutions with the gradients of its inputs. After [`find_windows`](Self::find_windows).
    pub fn backward(
        &mut self,
        layer: &Planned<T>,
        weights: &[T],
        dy: &[T],
        gradient: &mut [T],
        convolved: &mut DistinctWindows<T>,
    ) {
        let Self { shape, packed, positions, windows, starts, slots, buffers } = self;
        let Buffers { sums, dy: summed, x, input_offsets, w, dw, .. } = buffers;
        let LayerShape { outputs, row_len: channels, .. } = *shape;
        let (weights, gradient) = (&weights[layer.weight.clone()], &mut gradient[layer.weight.clone()]);
        let inputs = layer.shape.inputs();
        convolved.begin_backward();
        let last = convolved.layers.last_mut().expect("a convolution");
        let frames = dy.len() / outputs;
        let block = outputs * channels;
        w.resize(GROUP * block, T::default());
        dw.resize(GROUP * block, T::default());
        for group in (0..*positions).step_by(GROUP) {
            let group = group..(group + GROUP).min(*positions);
            let columns = group.start * channels..group.end * channels;
            for (row, weights) in weights.chunks_exact(inputs).enumerate() {
                let to = w.chunks_exact_mut(block).map(|w| &mut w[row * channels..][..channels]);
                copy_rows(weights[columns.clone()].chunks_exact(channels), to, channels);
            }
            for ((position, w), dw) in group.zip(w.chunks_exact(block)).zip(dw.chunks_exact_mut(block)) {
                let windows = &windows[starts[position]..starts[position + 1]];
                sums.fill_with_zeros(windows.len() * outputs);
                add_rows_at(dy, &slots[position * frames..][..frames], outputs, sums);
                summed.resize(sums.len(), T::default());
                narrow(sums, summed);

                x.resize(windows.len() * channels, T::default());
                last.as_inputs().copy(windows, 0, x);
                T::linear_weight_gradient(shape, packed, x, summed, dw);

                T::pack_transposed(shape, w, packed);
                input_offsets.clear();
                input_offsets.extend(windows.iter().map(|&window| last.slots[window as usize] as usize * channels));
                // Up to the least that kernels support, zeros are added to the first window's.
                let rows = windows.len().max(MIN_POSITIONS);
                input_offsets.resize(rows, input_offsets[0]);
                summed.resize(rows * outputs, T::default());
                T::input_gradient(shape, packed, w, input_offsets, summed, &mut last.sums);
            }
            for (row, gradient) in gradient.chunks_exact_mut(inputs).enumerate() {
                let from = dw.chunks_exact(block).map(|dw| &dw[row * channels..][..channels]);
                copy_rows(from, gradient[columns.clone()].chunks_exact_mut(channels), channels);
            }
        }
    }
}

/// Copies rows of `len` elements.
#[inline]
fn copy_rows<'a, T: Copy + 'a>(from: impl Iterator<Item = &'a [T]>, to: impl Iterator<Item = &'a mut [T]>, len: usize) {
    let rows = from.zip(to);
    match len {
        // Copies of a constant length take few instructions.
        64 => rows.for_each(|(from, to)| to[..64].copy_from_slice(&from[..64])),
        32 => rows.for_each(|(from, to)| to[..32].copy_from_slice(&from[..32])),
        _ => rows.for_each(|(from, to)| to.copy_from_slice(from)),
    }
}
