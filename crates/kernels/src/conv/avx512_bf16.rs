//! bf16 kernels for AVX-512 BF16, whose dot-product instruction multiplies pairs of bf16 and adds both products to an `f32`.
//!
//! The tiles are those of [`super::fp32`], but every operand is a pair of neighbors along the summed dimension. Where the two are
//! not adjacent in memory, vectors of both are interleaved.

use super::fp32::{at_least, put, tiles};
use super::shape::LayerShape;
use crate::Element;
use crate::simd::{SimdLevel, level};
use half::bf16;
use std::arch::x86_64::{
    __m128i, __m256bh, __m256i, __m512, __m512bh, __m512i, _mm256_mask_storeu_epi16, _mm256_maskz_loadu_epi16,
    _mm512_add_ps, _mm512_castsi512_ps, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtepu16_epi32,
    _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_maskz_loadu_epi16, _mm512_max_ps, _mm512_mul_ps,
    _mm512_permutex2var_epi16, _mm512_reduce_add_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_slli_epi32, _mm512_storeu_ps, _mm512_sub_ps,
};

/// Whether this processor has AVX-512 BF16, and may use it.
pub(crate) fn supported() -> bool {
    level() >= SimdLevel::Avx512Bf16
}

/// bf16 elements of a register.
pub(crate) const LANES: usize = 32;

/// `f32` sums of a register.
const SUMS: usize = 16;

/// Two neighbors along the summed dimension.
pub(crate) type Pair = [bf16; 2];

/// The pairs of a register, aligned with a cache line: a load that crosses two takes twice as long.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Pairs([Pair; SUMS]);

const ZEROS: Pairs = Pairs([[bf16::ZERO; 2]; SUMS]);

fn pairs(elements: &[bf16]) -> &[Pair] {
    elements.as_chunks().0
}

fn bits([first, second]: Pair) -> i32 {
    (u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16).cast_signed()
}

/// Loads up to a register of elements, padded with zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load(from: &[bf16]) -> __m512i {
    assert!((1..=LANES).contains(&from.len()));
    // SAFETY: the mask excludes memory beyond the slice.
    unsafe { _mm512_maskz_loadu_epi16(u32::MAX >> (LANES - from.len()), from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_pairs(pairs: &Pairs) -> __m512i {
    load(pairs.0.as_flattened())
}

/// Reinterprets the bits.
fn as_bf16(bits: __m512i) -> __m512bh {
    // SAFETY: the types have equal sizes, and every bit pattern is valid.
    unsafe { std::mem::transmute(bits) }
}

/// `sums[r][v] += Σ rows[r][k]·weights[k·stride + v]`.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply<const R: usize, const V: usize>(
    sums: &mut [[__m512; V]; R],
    rows: &[&[Pair]; R],
    weights: &[Pairs],
    stride: usize,
) {
    let n = rows[0].len();
    let mut tile = *sums;
    let mut at = [&rows[0][..0]; R];
    for r in 0..R {
        at[r] = &rows[r][..n];
    }
    for k in 0..n {
        let weights = &weights[k * stride..][..V];
        let mut w = [as_bf16(_mm512_set1_epi32(0)); V];
        for v in 0..V {
            w[v] = as_bf16(load_pairs(&weights[v]));
        }
        for r in 0..R {
            let x = as_bf16(_mm512_set1_epi32(bits(at[r][k])));
            for v in 0..V {
                tile[r][v] = _mm512_dpbf16_ps(tile[r][v], x, w[v]);
            }
        }
    }
    *sums = tile;
}

/// `to = (pixel − mean) · factor`, rounded to bf16: [`crate::frames::scale`] with this level's conversions.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn scale(pixels: &[u8], mean: f32, factor: f32, to: &mut [bf16]) {
    let ((pixels, last), (to, rest)) = (pixels.as_chunks::<SUMS>(), to.as_chunks_mut::<SUMS>());
    rest.iter_mut().zip(last).for_each(|(to, &p)| *to = bf16::narrow((f32::from(p) - mean) * factor));
    let (mean, factor) = (_mm512_set1_ps(mean), _mm512_set1_ps(factor));
    for (pixels, to) in pixels.iter().zip(to) {
        // SAFETY: the types have equal sizes, and every bit pattern is valid.
        let pixels = unsafe { std::mem::transmute::<[u8; SUMS], __m128i>(*pixels) };
        let x = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(pixels));
        let x = _mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_sub_ps(x, mean), factor));
        // SAFETY: as above.
        *to = unsafe { std::mem::transmute::<__m256bh, [bf16; SUMS]>(x) };
    }
}

/// Packs weights `[outputs, inputs]` as pairs of inputs, `[inputs / 2][outputs / 16]`, padded with zeros.
pub(crate) fn pack_inputs(weights: &[bf16], inputs: usize, packed: &mut Vec<Pairs>) {
    let blocks = (weights.len() / inputs).div_ceil(SUMS);
    packed.resize(inputs / 2 * blocks, ZEROS);
    for (o, row) in weights.chunks_exact(inputs).enumerate() {
        for (packed, pair) in packed[o / SUMS..].iter_mut().step_by(blocks).zip(pairs(row)) {
            packed.0[o % SUMS] = *pair;
        }
    }
}

/// Registers of sums that cover a kernel row.
fn row_blocks(shape: &LayerShape) -> usize {
    shape.row_len.div_ceil(SUMS)
}

/// Packs weights `[outputs, kernel_rows, row_len]` as pairs of outputs, `[outputs / 2][kernel_rows][row_len]`, each row padded with
/// zeros to whole registers.
pub(crate) fn pack_outputs(shape: &LayerShape, weights: &[bf16], packed: &mut Vec<Pairs>) {
    let (blocks, len) = (row_blocks(shape), shape.row_len);
    packed.resize(shape.outputs / 2 * shape.kernel_rows * blocks, ZEROS);
    let outputs = weights.chunks_exact(2 * shape.inputs()).map(|weights| weights.split_at(shape.inputs()));
    let rows = outputs.flat_map(|(first, second)| first.chunks_exact(len).zip(second.chunks_exact(len)));
    for (packed, (first, second)) in packed.chunks_exact_mut(blocks).zip(rows) {
        for (packed, (first, second)) in packed.iter_mut().zip(first.chunks(SUMS).zip(second.chunks(SUMS))) {
            packed.0.iter_mut().zip(first.iter().zip(second)).for_each(|(pair, (a, b))| *pair = [*a, *b]);
        }
    }
}

/// `y[position] = max(floor, Σ x·w + b)` at the `positions` of an image `x`. `packed` by [`pack_inputs`]; `y` `[positions, outputs]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(crate) fn convolve(
    shape: &LayerShape,
    packed: &[Pairs],
    bias: &[bf16],
    floor: f32,
    positions: &[usize],
    x: &[bf16],
    y: &mut [bf16],
) {
    let blocks = shape.outputs.div_ceil(SUMS);
    for block in (0..blocks / 2 * 2).step_by(2) {
        convolve_block::<8, 2>(shape, packed, (bias, floor), positions, x, y, block);
    }
    match (blocks % 2, positions.len()) {
        (0, _) => {}
        (_, 16..) => convolve_block::<16, 1>(shape, packed, (bias, floor), positions, x, y, blocks - 1),
        _ => convolve_block::<8, 1>(shape, packed, (bias, floor), positions, x, y, blocks - 1),
    }
}

/// `V` vectors of outputs from block `block`, at all positions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn convolve_block<const R: usize, const V: usize>(
    &LayerShape { outputs, kernel_rows, row_len, row_stride }: &LayerShape,
    packed: &[Pairs],
    (bias, floor): (&[bf16], f32),
    positions: &[usize],
    x: &[bf16],
    y: &mut [bf16],
    block: usize,
) {
    let (blocks, floor) = (outputs.div_ceil(SUMS), _mm512_set1_ps(floor));
    for first in tiles::<R>(positions.len()) {
        let mut sums = [[_mm512_setzero_ps(); V]; R];
        for i in 0..kernel_rows {
            let mut rows = [&[][..]; R];
            for r in 0..R {
                rows[r] = pairs(&x[positions[first + r] + i * row_stride..][..row_len]);
            }
            multiply(&mut sums, &rows, &packed[i * row_len / 2 * blocks + block..], blocks);
        }
        for (v, block) in (block..block + V).enumerate() {
            let columns = block * SUMS..outputs.min((block + 1) * SUMS);
            let bias = widen(&bias[columns.clone()]);
            for r in 0..R {
                finish(sums[r][v], bias, floor, &mut y[(first + r) * outputs..][columns.clone()]);
            }
        }
    }
}

/// Up to 16 elements, padded with zeros, as `f32`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn widen(elements: &[bf16]) -> __m512 {
    assert!((1..=SUMS).contains(&elements.len()));
    // SAFETY: the mask excludes memory beyond the slice.
    let bits = unsafe { _mm256_maskz_loadu_epi16(u16::MAX >> (SUMS - elements.len()), elements.as_ptr().cast()) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
}

/// `y = max(floor, sums + bias)` for up to 16 elements. NaN stays NaN, so that divergence is detected.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn finish(sums: __m512, bias: __m512, floor: __m512, y: &mut [bf16]) {
    assert!((1..=SUMS).contains(&y.len()));
    let rounded = _mm512_cvtneps_pbh(_mm512_max_ps(floor, _mm512_add_ps(sums, bias)));
    // SAFETY: the types have equal sizes and every bit pattern is valid; the mask excludes memory beyond the slice.
    unsafe {
        let bits = std::mem::transmute::<__m256bh, __m256i>(rounded);
        _mm256_mask_storeu_epi16(y.as_mut_ptr().cast(), u16::MAX >> (SUMS - y.len()), bits);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn to_array(sums: __m512) -> [f32; SUMS] {
    let mut array = [0.0; SUMS];
    // SAFETY: the array has the length of a register.
    unsafe { _mm512_storeu_ps(array.as_mut_ptr(), sums) };
    array
}

/// The gradient of an image: `dx += Σ dy·w` at each of its `positions`. `packed` by [`pack_outputs`]; `dy` `[positions, outputs]`.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn input_gradient(shape: &LayerShape, packed: &[Pairs], positions: &[usize], dy: &[bf16], dx: &mut [f32]) {
    let &LayerShape { outputs, kernel_rows, row_len, row_stride } = shape;
    let blocks = row_blocks(shape);
    let (stride, mut next) = (kernel_rows * blocks, 0);
    for first in tiles::<8>(positions.len()) {
        // Skip positions that the previous tile has added.
        let new = &positions[next..first + 8];
        next = first + 8;
        let mut rows = [&[][..]; 8];
        for r in 0..8 {
            rows[r] = pairs(&dy[(first + r) * outputs..][..outputs]);
        }
        for i in 0..kernel_rows {
            for j in (0..row_len).step_by(LANES) {
                let (packed, offset) = (&packed[i * blocks + j / SUMS..], i * row_stride + j);
                match row_len - j {
                    // A constant length needs no remainders.
                    LANES.. => input_gradient_tile::<2>(&rows, packed, stride, new, (offset, LANES), dx),
                    len @ ..=SUMS => input_gradient_tile::<1>(&rows, packed, stride, new, (offset, len), dx),
                    len => input_gradient_tile::<2>(&rows, packed, stride, new, (offset, len), dx),
                }
            }
        }
    }
}

/// `dx += Σ dy·w` at the last `positions` of eight: `len` elements, in `V` registers, from `offset`.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn input_gradient_tile<const V: usize>(
    rows: &[&[Pair]; 8],
    packed: &[Pairs],
    stride: usize,
    positions: &[usize],
    (offset, len): (usize, usize),
    dx: &mut [f32],
) {
    let mut sums = [[_mm512_setzero_ps(); V]; 8];
    multiply(&mut sums, rows, packed, stride);
    for (position, sums) in positions.iter().zip(&sums[8 - positions.len()..]) {
        let dx = &mut dx[position + offset..][..len];
        for v in 0..V {
            let dx = &mut dx[v * SUMS..len.min((v + 1) * SUMS)];
            match dx.first_chunk_mut::<SUMS>() {
                Some(dx) => put(&to_array(sums[v]), dx, true),
                None => put(&to_array(sums[v]), dx, true),
            }
        }
    }
}

/// Pairs rows: `[rows, columns]` to `[rows / 2][columns]`; an odd last row is paired with zeros.
pub(crate) fn pair_rows(elements: &[bf16], columns: usize, paired: &mut Vec<Pair>) {
    paired.resize(elements.len().div_ceil(2 * columns) * columns, [bf16::ZERO; 2]);
    for (paired, rows) in paired.chunks_exact_mut(columns).zip(elements.chunks(2 * columns)) {
        let (first, second) = rows.split_at(columns);
        if second.is_empty() {
            paired.iter_mut().zip(first).for_each(|(pair, a)| *pair = [*a, bf16::ZERO]);
        } else {
            paired.iter_mut().zip(first).zip(second).for_each(|((pair, a), b)| *pair = [*a, *b]);
        }
    }
}

/// Pairs of positions whose inputs and output gradients the first-level cache holds.
const CACHED_PAIRS: usize = 100;

/// The weight gradient `[outputs, inputs]`: `dw = Σ dy·x` over all positions, added to `dw` where `ADD`. `dy` by [`pair_rows`] of
/// `[positions, outputs]`; `buffer` is scratch. Tiles of outputs overlap where 8 does not divide their number, which excludes `ADD`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) fn weight_gradient<T: Element, const ADD: bool>(
    shape: &LayerShape,
    positions: &[usize],
    x: &[bf16],
    dy: &[Pair],
    dw: &mut [T],
    buffer: &mut Vec<[Pairs; 2]>,
) {
    debug_assert!(!ADD || shape.outputs.is_multiple_of(8));
    // Only sums that are added to may be computed in parts.
    let pairs = if ADD { CACHED_PAIRS } else { positions.len() };
    buffer.resize(pairs.min(positions.len().div_ceil(2)), [ZEROS; 2]);
    for (positions, dy) in positions.chunks(2 * pairs).zip(dy.chunks(pairs * shape.outputs)) {
        match shape.outputs {
            1 => weight_gradient_by::<T, 1, ADD>(shape, positions, x, dy, dw, buffer),
            2 => weight_gradient_by::<T, 2, ADD>(shape, positions, x, dy, dw, buffer),
            3 => weight_gradient_by::<T, 3, ADD>(shape, positions, x, dy, dw, buffer),
            4..8 => weight_gradient_by::<T, 4, ADD>(shape, positions, x, dy, dw, buffer),
            _ => weight_gradient_by::<T, 8, ADD>(shape, positions, x, dy, dw, buffer),
        }
    }
}

/// In tiles of `C` outputs and 32 columns. The first tile of the same columns pairs the positions for all others.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn weight_gradient_by<T: Element, const C: usize, const ADD: bool>(
    shape: &LayerShape,
    positions: &[usize],
    x: &[bf16],
    dy: &[Pair],
    dw: &mut [T],
    buffer: &mut [[Pairs; 2]],
) {
    let buffer = &mut buffer[..positions.len().div_ceil(2)];
    let mut sums = [[[0.0; SUMS]; 2]; C];
    for i in 0..shape.kernel_rows {
        for j in (0..shape.row_len).step_by(LANES) {
            let len = LANES.min(shape.row_len - j);
            let x = &x[i * shape.row_stride + j..];
            for o in tiles::<C>(shape.outputs) {
                let dy = dy.chunks_exact(shape.outputs).map(|dy| dy[o..].first_chunk().expect("outputs of a tile"));
                let to = &mut sums;
                match (o, len) {
                    // A constant length needs no masks.
                    (0, LANES) => weight_gradient_tile::<C, 2>(pair_positions(positions, x, LANES, buffer), dy, to),
                    (0, ..=SUMS) => weight_gradient_tile::<C, 1>(pair_positions(positions, x, len, buffer), dy, to),
                    (0, _) => weight_gradient_tile::<C, 2>(pair_positions(positions, x, len, buffer), dy, to),
                    (_, ..=SUMS) => {
                        weight_gradient_tile::<C, 1>(buffer.iter().map(|x| [load_pairs(&x[0])]), dy, to);
                    }
                    _ => {
                        let x = buffer.iter().map(|x| [load_pairs(&x[0]), load_pairs(&x[1])]);
                        weight_gradient_tile::<C, 2>(x, dy, to);
                    }
                }
                for (c, sums) in sums.iter().enumerate() {
                    let dw = &mut dw[(o + c) * shape.inputs() + i * shape.row_len + j..][..len];
                    match dw.first_chunk_mut::<LANES>() {
                        Some(dw) => put(sums.as_flattened(), dw, ADD),
                        None => put(sums.as_flattened(), dw, ADD),
                    }
                }
            }
        }
    }
}

/// `to = Σ dy·x` over pairs of positions: of `C` outputs and `V` registers of columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn weight_gradient_tile<'a, const C: usize, const V: usize>(
    x: impl Iterator<Item = [__m512i; V]>,
    dy: impl Iterator<Item = &'a [Pair; C]>,
    to: &mut [[[f32; SUMS]; 2]; C],
) {
    let mut sums = [[_mm512_setzero_ps(); V]; C];
    for (x, dy) in x.zip(dy) {
        for c in 0..C {
            let dy = as_bf16(_mm512_set1_epi32(bits(dy[c])));
            for v in 0..V {
                sums[c][v] = _mm512_dpbf16_ps(sums[c][v], as_bf16(x[v]), dy);
            }
        }
    }
    for c in 0..C {
        for v in 0..V {
            to[c][v] = to_array(sums[c][v]);
        }
    }
}

/// Interleaves `len` elements, up to 16·`V`, at each two neighbors of `positions`, and keeps them in `to`; an odd last position is
/// paired with itself.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pair_positions<const V: usize>(
    positions: &[usize],
    x: &[bf16],
    len: usize,
    to: &mut [[Pairs; 2]],
) -> impl Iterator<Item = [__m512i; V]> {
    const LOW: [u16; LANES] = interleaved(0);
    const HIGH: [u16; LANES] = interleaved(SUMS as u16);
    // SAFETY: the types have equal sizes, and every bit pattern is valid.
    let order: [__m512i; 2] = unsafe { std::mem::transmute([LOW, HIGH]) };
    positions.chunks(2).zip(to).map(move |(positions, to)| {
        let one = load(&x[positions[0]..][..len]);
        let other = load(&x[positions[positions.len() - 1]..][..len]);
        let mut paired = [one; V];
        for v in 0..V {
            paired[v] = _mm512_permutex2var_epi16(one, order[v], other);
            // SAFETY: as above.
            to[v] = unsafe { std::mem::transmute::<__m512i, Pairs>(paired[v]) };
        }
        paired
    })
}

/// The order that interleaves half a register from `first` with the same half of another.
const fn interleaved(first: u16) -> [u16; LANES] {
    let (mut order, mut i) = ([0; LANES], 0);
    while i < LANES {
        order[i] = first + i as u16 / 2 + i as u16 % 2 * LANES as u16;
        i += 1;
    }
    order
}

/// `y[row] = max(floor, Σ x·w + b)` of a fully connected layer: `x` `[rows, inputs]`, `weights` `[outputs, inputs]`, `y` `[rows, outputs]`.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn linear(shape: &LayerShape, weights: &[bf16], bias: &[bf16], floor: f32, x: &[bf16], y: &mut [bf16]) {
    match x.len() / shape.inputs() {
        1 => linear_by::<1>(shape, weights, bias, floor, x, y),
        2 => linear_by::<2>(shape, weights, bias, floor, x, y),
        3 => linear_by::<3>(shape, weights, bias, floor, x, y),
        _ => linear_by::<4>(shape, weights, bias, floor, x, y),
    }
}

/// In tiles of `R` rows and four outputs.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn linear_by<const R: usize>(
    shape: &LayerShape,
    weights: &[bf16],
    bias: &[bf16],
    floor: f32,
    x: &[bf16],
    y: &mut [bf16],
) {
    const C: usize = 4;
    let (outputs, inputs) = (shape.outputs, shape.inputs());
    for first in (0..outputs).step_by(C) {
        let (mut rows, mut columns) = ([&x[..0]; R], [&weights[..0]; C]);
        for c in 0..C {
            columns[c] = &weights[(first + c) * inputs..][..inputs];
        }
        for row in tiles::<R>(x.len() / inputs) {
            for r in 0..R {
                rows[r] = &x[(row + r) * inputs..][..inputs];
            }
            let mut sums = [[_mm512_setzero_ps(); C]; R];
            let whole = inputs / LANES * LANES;
            for j in (0..whole).step_by(LANES) {
                add_products(&mut sums, &rows, &columns, j, LANES);
            }
            if whole < inputs {
                add_products(&mut sums, &rows, &columns, whole, inputs - whole);
            }
            for r in 0..R {
                for c in 0..C {
                    let sum = _mm512_reduce_add_ps(sums[r][c]) + bias[first + c].widen();
                    y[(row + r) * outputs + first + c] = bf16::narrow(at_least(floor, sum));
                }
            }
        }
    }
}

/// `sums[r][c] += Σ rows[r][k]·columns[c][k]` over `len` elements from `j`, one partial sum per lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn add_products<const R: usize, const C: usize>(
    sums: &mut [[__m512; C]; R],
    rows: &[&[bf16]; R],
    columns: &[&[bf16]; C],
    j: usize,
    len: usize,
) {
    let mut w = [as_bf16(_mm512_set1_epi32(0)); C];
    for c in 0..C {
        w[c] = as_bf16(load(&columns[c][j..j + len]));
    }
    for r in 0..R {
        let x = as_bf16(load(&rows[r][j..j + len]));
        for c in 0..C {
            sums[r][c] = _mm512_dpbf16_ps(sums[r][c], x, w[c]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fp32::floor;
    use super::super::test_values::{bf16s, f32s, integers};
    use super::*;

    /// Kernel rows of three vectors, of one and a half, and of less than one.
    #[test]
    fn tiles_of_every_size_equal_naive_loops() {
        if supported() {
            [96, 48, 42, 12].into_iter().for_each(|row_len| tiles_equal_naive_loops(row_len / 3));
        }
    }

    /// Exact equality with naive loops, for multiples of a tile's positions and for other numbers: a 3 × 3 kernel with strides 2 and 1
    /// on a 7 × 13 image; outputs of two and a half vectors.
    fn tiles_equal_naive_loops(channels: usize) {
        let row_len = 3 * channels;
        let shape = LayerShape { outputs: 40, kernel_rows: 3, row_len, row_stride: 13 * channels };
        let all: Vec<usize> = (0..3).flat_map(|y| (0..11).map(move |x| (y * 2 * 13 + x) * channels)).collect();
        let (outputs, inputs) = (shape.outputs, shape.inputs());
        let (x, w, b) = (integers(7 * 13 * channels, 1), integers(outputs * inputs, 2), integers(outputs, 3));
        let (mut by_inputs, mut by_outputs) = (Vec::new(), Vec::new());
        pack_inputs(&bf16s(&w), inputs, &mut by_inputs);
        pack_outputs(&shape, &bf16s(&w), &mut by_outputs);
        for count in [8, 9, 15, 16, all.len()] {
            let positions = &all[..count];
            let dy = integers(count * outputs, 4);
            let (mut y, mut dx, mut dw) = (vec![0.0; dy.len()], vec![0.5; x.len()], vec![0.25; w.len()]);
            let mut linear = y.clone();
            for (p, position) in positions.iter().enumerate() {
                let receptive_field =
                    || (0..3).flat_map(|i| (0..row_len).map(move |j| position + i * shape.row_stride + j));
                for o in 0..outputs {
                    let (w, dw) = (&w[o * inputs..][..inputs], &mut dw[o * inputs..][..inputs]);
                    let dot: f32 = receptive_field().zip(w).map(|(i, w)| x[i] * w).sum();
                    linear[p * outputs + o] = bf16::narrow(dot + b[o]).widen();
                    y[p * outputs + o] = linear[p * outputs + o].max(0.0);
                    for ((i, w), dw) in receptive_field().zip(w).zip(dw) {
                        dx[i] += dy[p * outputs + o] * w;
                        *dw += dy[p * outputs + o] * x[i];
                    }
                }
            }
            let (x, dy) = (bf16s(&x), bf16s(&dy));
            let mut paired = Vec::new();
            pair_rows(&dy, outputs, &mut paired);
            let mut actual_linear = vec![bf16::ZERO; y.len()];
            let (mut actual_y, mut actual_dx) = (vec![bf16::ZERO; y.len()], vec![0.5; x.len()]);
            let (mut actual_dw, mut fresh) = (vec![0.25; w.len()], vec![f32::NAN; w.len()]);
            // SAFETY: `supported` detected these instructions.
            unsafe {
                convolve(&shape, &by_inputs, &bf16s(&b), floor(true), positions, &x, &mut actual_y);
                convolve(&shape, &by_inputs, &bf16s(&b), floor(false), positions, &x, &mut actual_linear);
                input_gradient(&shape, &by_outputs, positions, &dy, &mut actual_dx);
                weight_gradient::<f32, true>(&shape, positions, &x, &paired, &mut actual_dw, &mut Vec::new());
                weight_gradient::<f32, false>(&shape, positions, &x, &paired, &mut fresh, &mut Vec::new());
            }
            assert_eq!(f32s(&actual_y), y);
            assert_eq!(f32s(&actual_linear), linear);
            assert_eq!(actual_dx, dx);
            assert_eq!(actual_dw, dw);
            assert_eq!(fresh, dw.iter().map(|dw| dw - 0.25).collect::<Vec<_>>());
        }
    }

    /// A fully connected layer and its gradients, for 1 to 19 rows: tiles of every height.
    #[test]
    fn fully_connected_rows_equal_naive_loops() {
        if !supported() {
            return;
        }
        let (outputs, inputs) = (16, 72); // two vectors and a quarter
        let shape = LayerShape { outputs, kernel_rows: 1, row_len: inputs, row_stride: inputs };
        let (w, b) = (integers(outputs * inputs, 1), integers(outputs, 2));
        for rows in 1..=19 {
            let (x, dy) = (integers(rows * inputs, 3), integers(rows * outputs, 4));
            let (mut y, mut unrectified, mut dw) =
                (vec![0.0; rows * outputs], vec![0.0; rows * outputs], vec![0.0; w.len()]);
            for (i, dy) in dy.iter().enumerate() {
                let (row, o) = (i / outputs, i % outputs);
                let (x, w) = (&x[row * inputs..][..inputs], &w[o * inputs..][..inputs]);
                let dot: f32 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                unrectified[i] = bf16::narrow(dot + b[o]).widen();
                y[i] = unrectified[i].max(0.0);
                dw[o * inputs..][..inputs].iter_mut().zip(x).for_each(|(dw, x)| *dw += dy * x);
            }
            let (x, positions) = (bf16s(&x), (0..rows).map(|row| row * inputs).collect::<Vec<_>>());
            let (mut actual_y, mut actual_dw, mut paired) =
                (vec![bf16::ZERO; y.len()], vec![f32::NAN; w.len()], Vec::new());
            let mut actual_linear = actual_y.clone();
            pair_rows(&bf16s(&dy), outputs, &mut paired);
            // SAFETY: `supported` detected these instructions.
            unsafe {
                linear(&shape, &bf16s(&w), &bf16s(&b), floor(true), &x, &mut actual_y);
                linear(&shape, &bf16s(&w), &bf16s(&b), floor(false), &x, &mut actual_linear);
                weight_gradient::<f32, false>(&shape, &positions, &x, &paired, &mut actual_dw, &mut Vec::new());
            }
            assert_eq!(f32s(&actual_y), y, "{rows} rows");
            assert_eq!(f32s(&actual_linear), unrectified, "{rows} rows");
            assert_eq!(actual_dw, dw, "{rows} rows");
            // Outputs and rows exchanged: few outputs, many positions.
            let shape = LayerShape { outputs: rows, ..shape };
            let turned: Vec<f32> = (0..outputs * rows).map(|i| dy[i % rows * outputs + i / rows]).collect();
            pair_rows(&bf16s(&turned), rows, &mut paired);
            let positions: Vec<_> = (0..outputs).map(|o| o * inputs).collect();
            let (mut dx, mut actual_dx) = (vec![0.0; rows * inputs], vec![f32::NAN; rows * inputs]);
            for (i, dx) in dx.iter_mut().enumerate() {
                *dx = (0..outputs).map(|o| dy[i / inputs * outputs + o] * w[o * inputs + i % inputs]).sum();
            }
            // SAFETY: `supported` detected these instructions.
            unsafe {
                weight_gradient::<f32, false>(&shape, &positions, &bf16s(&w), &paired, &mut actual_dx, &mut Vec::new())
            };
            assert_eq!(actual_dx, dx, "{rows} rows");
        }
    }

    /// As [`at_least`], for a register and less; NaN stays NaN.
    #[test]
    fn outputs_are_rectified() {
        if !supported() {
            return;
        }
        for n in [3, SUMS] {
            let bias: Vec<bf16> = (0..n).map(|i| bf16::narrow(i as f32 - 1.0)).collect();
            let mut y = vec![bf16::ONE; n];
            // SAFETY: `supported` detected these instructions.
            unsafe { finish(_mm512_set1_ps(-0.5), widen(&bias), _mm512_setzero_ps(), &mut y) };
            assert_eq!(f32s(&y), (0..n).map(|i| (i as f32 - 1.5).max(0.0)).collect::<Vec<_>>());
            // SAFETY: as above.
            unsafe { finish(_mm512_set1_ps(f32::NAN), widen(&bias), _mm512_setzero_ps(), &mut y) };
            assert!(y.iter().all(|y| y.is_nan()));
        }
    }

    /// Bit-exact equality with the generic kernel, for a number of pixels that registers do not divide.
    #[test]
    fn scaled_pixels_equal_the_generic_kernel() {
        if !supported() {
            return;
        }
        let pixels: Vec<u8> = (0..=255).chain(3..20).collect();
        for (mean, factor) in [(0.0, 1.0 / 255.0), (101.3, 0.0217)] {
            let mut actual = vec![bf16::ZERO; pixels.len()];
            let mut expected = actual.clone();
            // SAFETY: `supported` detected these instructions.
            unsafe { scale(&pixels, mean, factor, &mut actual) };
            crate::frames::scale(&pixels, mean, factor, &mut expected);
            assert_eq!(actual, expected);
        }
    }
}
