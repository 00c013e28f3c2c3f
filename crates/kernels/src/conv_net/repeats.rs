//! Skips positions of a convolution whose window of the input equals that of the position to the left or above, in whole frames.
//!
//! Most of an Atari frame is background and stripes. Equal windows have equal outputs, so one is computed and copied. In the backward pass
//! the output gradients of equal positions are summed, and only one of them is multiplied by its window (the weight gradient) and by the
//! weights (the input gradient). The gradient of the input is then that of one window instead of spread over all equal ones. This changes
//! no gradient of a parameter: those elements of the input are equal, and so were the windows that they were computed from, the
//! rectifier's mask and a layer norm's normalized values, and only sums over them enter further.
//!
//! Of the positions of `nature`'s three convolutions 16, 43 and 71 % are computed in Pong, 30, 55 and 81 % in Breakout, 61, 92 and 100 % in
//! Space Invaders, 92, 100 and 100 % in Ms. Pac-Man (means over random play).
//!
//! In the first layer windows are compared, in blocks as wide as the stride. Further layers follow from the repeats of the layer before.

use super::image::Image;
use super::layer::{Convolution, Planned};
use crate::Element;
use crate::buffer::Buffer;
use crate::conv::{LayerKernels, MIN_POSITIONS};
use crate::elementwise::narrow;
use crate::simd::multiversion;

/// The supported counts of output channels.
const OUTPUTS: [usize; 4] = [8, 16, 32, 64];

/// The largest supported stride.
const MAX_STRIDE: usize = 16;

/// A bit for each column of each row of an image, the leftmost the lowest: whether it equals the one before, in the same row (`left`) or in
/// the same column (`up`).
#[derive(Debug, Default)]
struct Equal {
    left: Vec<u64>,
    up: Vec<u64>,
}

/// The repeats of one layer in one frame.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// Of its positions. Empty where that is not known.
    outputs: Equal,
    /// Of its input, with the stride as the distance; of blocks of columns in the first layer.
    inputs: Equal,
    /// The offsets of the positions that repeat none before. Empty where all positions are computed.
    distinct: Vec<usize>,
    /// For each position, the index into `distinct` of the position that it repeats, or of itself.
    slots: Vec<u16>,
}

/// Buffers for sums of output gradients.
#[derive(Debug, Default)]
pub(super) struct Sums<T> {
    exact: Buffer<f32>,
    rounded: Buffer<T>,
}

/// What a layer's windows cover: columns (or blocks of columns) and rows, and their strides.
struct Windows {
    columns: usize,
    column_stride: usize,
    rows: usize,
    row_stride: usize,
}

impl Repeats {
    /// Finds those of the first layer in the frame `pixels`.
    pub fn find_in_frame<T: LayerKernels>(&mut self, layer: &Planned<T>, frame: Image, pixels: &[u8]) {
        let Some(Convolution { size, stride, .. }) = supported(layer).filter(|c| c.size % c.stride == 0) else {
            return self.clear();
        };
        let compare = match stride * frame.channels {
            _ if frame.width / stride > u64::BITS as usize => return self.clear(),
            4 => compare_blocks::<4>,
            8 => compare_blocks::<8>,
            12 => compare_blocks::<12>,
            16 => compare_blocks::<16>,
            48 => compare_blocks::<48>,
            _ => return self.clear(),
        };
        compare(pixels, frame.row_len(), stride, &mut self.inputs);
        let windows = Windows { columns: size / stride, column_stride: 1, rows: size, row_stride: stride };
        self.find(&windows, &layer.positions);
    }

    /// Finds those of a layer that reads the output of a layer with the repeats `before`.
    pub fn find_after<T: LayerKernels>(&mut self, layer: &Planned<T>, before: &Self) {
        let Some(Convolution { size, stride, .. }) = supported(layer).filter(|_| !before.outputs.left.is_empty())
        else {
            return self.clear();
        };
        // Two columns or rows are equal at a distance of `stride` where each of as many equals the one before.
        let Equal { left, up } = &before.outputs;
        let all_left = |row: &u64| (0..stride).fold(u64::MAX, |all, j| all & row << j);
        let all_up = |y: usize| (0..stride).fold(u64::MAX, |all, j| if j > y { 0 } else { all & up[y - j] });
        self.inputs.left.clear();
        self.inputs.left.extend(left.iter().map(all_left));
        self.inputs.up.clear();
        self.inputs.up.extend((0..up.len()).map(all_up));
        let windows = Windows { columns: size, column_stride: stride, rows: size, row_stride: stride };
        self.find(&windows, &layer.positions);
    }

    /// Without repeats.
    pub fn clear(&mut self) {
        self.outputs.left.clear();
        self.outputs.up.clear();
        self.distinct.clear();
    }

    fn find(&mut self, windows: &Windows, positions: &[usize]) {
        self.clear();
        self.slots.clear();
        let Self { outputs, inputs, distinct, slots } = self;
        let rows = (inputs.left.len() - windows.rows) / windows.row_stride + 1;
        let columns = positions.len() / rows;
        for (y, positions) in positions.chunks_exact(columns).enumerate() {
            let [left, up] = [&inputs.left, &inputs.up].map(|inputs| windows.all(inputs, y, columns));
            for (p, &position) in positions.iter().enumerate() {
                let i = y * columns + p;
                let slot = match () {
                    () if left >> p & 1 == 1 => slots[i - 1],
                    () if up >> p & 1 == 1 => slots[i - columns],
                    () => {
                        distinct.push(position);
                        distinct.len() as u16 - 1
                    }
                };
                slots.push(slot);
            }
            outputs.left.push(left);
            outputs.up.push(up);
        }
        // Kernels need some positions, and a few repeats are not worth the copies: then all are computed.
        if distinct.len() < MIN_POSITIONS || distinct.len() * 8 > positions.len() * 7 {
            distinct.clear();
        }
    }

    /// Computes a layer's output `y`, `[positions, outputs]`. `multiply` computes it at the positions that it is given.
    pub fn multiply<T: Copy>(
        &self,
        positions: &[usize],
        outputs: usize,
        y: &mut [T],
        multiply: impl FnOnce(&[usize], &mut [T]),
    ) {
        if self.distinct.is_empty() {
            return multiply(positions, y);
        }
        multiply(&self.distinct, &mut y[..self.distinct.len() * outputs]);
        match outputs {
            8 => self.spread(y.as_chunks_mut::<8>().0),
            16 => self.spread(y.as_chunks_mut::<16>().0),
            32 => self.spread(y.as_chunks_mut::<32>().0),
            64 => self.spread(y.as_chunks_mut::<64>().0),
            _ => unreachable!("{outputs} is not one of OUTPUTS"),
        }
    }

    /// Moves the outputs of distinct positions, which come first, to all positions: from the last to the first, so that none is overwritten
    /// before it is read.
    fn spread<T: Copy, const N: usize>(&self, y: &mut [[T; N]]) {
        for (to, &slot) in self.slots.iter().enumerate().rev() {
            y[to] = y[usize::from(slot)];
        }
    }

    /// Distinct positions and the sums of the output gradients `dy` of all that equal them, `[positions, outputs]`.
    pub fn sum<'a, T: Element + Default>(
        &'a self,
        positions: &'a [usize],
        outputs: usize,
        dy: &'a [T],
        Sums { exact, rounded }: &'a mut Sums<T>,
    ) -> (&'a [usize], &'a [T]) {
        if self.distinct.is_empty() {
            return (positions, dy);
        }
        exact.fill_with_zeros(self.distinct.len() * outputs);
        add_to_slots(dy, &self.slots, exact, outputs);
        rounded.resize(exact.len(), T::default());
        narrow(exact, rounded);
        (&self.distinct, rounded)
    }
}

multiversion! {
    /// Adds each row of `outputs` elements of `dy` to the row of `sums` that its slot names.
    fn add_to_slots<T: Element>(dy: &[T], slots: &[u16], sums: &mut [f32], outputs: usize) {
        for (dy, &slot) in dy.chunks_exact(outputs).zip(slots) {
            let sum = &mut sums[usize::from(slot) * outputs..][..outputs];
            sum.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy.widen());
        }
    }
}

impl Windows {
    /// A bit for each of `columns` windows of row `y`: whether all that it covers of `equal` is equal.
    fn all(&self, equal: &[u64], y: usize, columns: usize) -> u64 {
        let rows = equal[y * self.row_stride..][..self.rows].iter().fold(u64::MAX, |all, row| all & row);
        let spans = (0..self.columns).fold(u64::MAX, |spans, j| spans & rows >> j);
        (0..columns).fold(0, |row, p| row | (spans >> (p * self.column_stride) & 1) << p)
    }
}

/// The convolution of a layer whose repeats can be found.
fn supported<T: LayerKernels>(layer: &Planned<T>) -> Option<Convolution> {
    let is_indexed = layer.positions.len() <= usize::from(u16::MAX);
    let fits = |c: &Convolution| c.padding == 0 && c.stride <= MAX_STRIDE;
    layer.convolution.filter(fits).filter(|_| is_indexed && OUTPUTS.contains(&layer.shape.outputs))
}

/// Compares each block of `N` bytes of an image of bytes with the one before in the row, and with the one `stride` rows above.
fn compare_blocks<const N: usize>(pixels: &[u8], row_len: usize, stride: usize, equal: &mut Equal) {
    let bits =
        |a: &[[u8; N]], b: &[[u8; N]]| a.iter().zip(b).rev().fold(0, |bits, (a, b)| bits << 1 | u64::from(a == b));
    let row = |y: usize| pixels[y * row_len..][..row_len].as_chunks::<N>().0;
    let rows = 0..pixels.len() / row_len;
    equal.left.clear();
    equal.left.extend(rows.clone().map(|y| bits(&row(y)[1..], row(y)) << 1));
    equal.up.clear();
    equal.up.extend(rows.map(|y| if y < stride { 0 } else { bits(row(y), row(y - stride)) }));
}

#[cfg(test)]
mod tests {
    use super::super::test_frames::{CHANNELS, SIDE, frames, layers, noise, split_frames};
    use super::super::{ConvNet, Layer};
    use super::*;
    use crate::bf16;
    use crate::frames::Scaling;
    use crate::simd::{SimdLevel, level};

    /// Features and gradient of three frames; how many positions of each convolution of the last one are computed.
    fn pass<T: LayerKernels>(norm: bool, finds_repeats: bool) -> (Vec<f32>, Vec<f32>, Vec<usize>) {
        let (layers, parameters) = layers(norm);
        let mut net = ConvNet { distinct: None, ..ConvNet::<T>::new(&layers, [SIDE, SIDE, CHANNELS]).unwrap() };
        assert!(net.whole.finds_repeats);
        net.whole.finds_repeats = finds_repeats;
        let mut weights: Vec<T> = (0..parameters).map(|i| T::narrow(noise(i) / 4.0)).collect();
        for [scale, _] in layers.iter().filter_map(|layer| layer.norm.as_ref()) {
            weights[scale.clone()].fill(T::narrow(1.0));
        }
        let features = net.forward(&weights, 1, Scaling::Unit, &split_frames(&frames(3), 3), true);
        let mut gradient = vec![T::default(); parameters];
        let of_features: Vec<f32> = (0..features.len()).map(noise).collect();
        net.backward(&weights, &mut gradient, Scaling::Unit, &of_features);
        let distinct = net.whole.trained[2].repeats.iter().map(|repeats| repeats.distinct.len()).collect();
        (features, gradient.iter().map(|g| g.widen()).collect(), distinct)
    }

    /// Without its repeats a network computes the same features, bit for bit, and the same gradient but for rounding.
    fn assert_equal<T: LayerKernels>(tolerance: f32) {
        for norm in [false, true] {
            let (features, gradient, distinct) = pass::<T>(norm, true);
            let (expected, expected_gradient, all) = pass::<T>(norm, false);
            assert!(features == expected && features.iter().any(|&x| x > 0.0));
            // Of 324, 64 and 36 positions.
            assert_eq!((distinct, all), (vec![18, 15, 19], vec![0; 3]));
            for Layer { weight, bias, norm, .. } in layers(norm).0 {
                for range in [weight, bias].into_iter().chain(norm.into_iter().flatten()) {
                    let [actual, expected] = [&gradient, &expected_gradient].map(|g| &g[range.clone()]);
                    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
                    let size = norm(&mut expected.iter().copied());
                    let error = norm(&mut actual.iter().zip(expected).map(|(a, b)| a - b));
                    assert!(size > 0.0 && error <= tolerance * size, "{error} of {size}");
                }
            }
        }
    }

    #[test]
    fn repeats_change_no_result() {
        if level() == SimdLevel::Baseline && cfg!(target_arch = "x86_64") {
            return;
        }
        assert_equal::<f32>(1e-5);
        #[cfg(target_arch = "x86_64")]
        if level() >= SimdLevel::Avx512Bf16 {
            assert_equal::<bf16>(1e-2);
        }
    }

    /// A position is left out only if its window, and those of further layers inside of it, equal those of the position that it repeats.
    #[test]
    fn repeats_have_equal_windows() {
        let (layers, _) = layers(false);
        let Some(net) = ConvNet::<f32>::new(&layers, [SIDE, SIDE, CHANNELS]) else { return };
        let frame = Image { height: SIDE, width: SIDE, channels: CHANNELS, padding: 0 };
        let [mut first, mut second, mut third] = [(); 3].map(|()| Repeats::default());
        let noisy: Vec<u8> = (0..frame.len()).map(|i| (noise(i / 2) * 4.0) as u8).collect();
        for pixels in frames(3).chunks_exact(frame.len()).chain([&noisy[..], &vec![7; frame.len()]]) {
            first.find_in_frame(&net.whole.layers[0], frame, pixels);
            second.find_after(&net.whole.layers[1], &first);
            third.find_after(&net.whole.layers[2], &second);
            // All that a window covers.
            let window = |x: usize, y: usize, side: usize| -> Vec<u8> {
                let row = |y: usize| &pixels[(y * SIDE + x) * CHANNELS..][..side * CHANNELS];
                (y..y + side).flat_map(row).copied().collect()
            };
            for (repeats, stride, side, columns) in [(&first, 4, 8, 18), (&second, 8, 20, 8), (&third, 8, 36, 6)] {
                let at = |i: usize| window(i % columns * stride, i / columns * stride, side);
                let slots = &repeats.slots;
                assert_eq!(slots.len(), columns * columns);
                for (i, slot) in slots.iter().enumerate() {
                    let same = slots.iter().position(|other| other == slot).unwrap();
                    assert!(same <= i && at(same) == at(i));
                }
            }
        }
        // One color: each position repeats the first.
        assert_eq!((first.slots.iter().max(), first.outputs.left.len()), (Some(&0), 18));
    }
}
