//! The loops that convolve in bf16, for processors that multiply two pairs of such numbers, and add both products to an
//! `f32`, in the time of one (AVX-512 BF16).
//!
//! The same tiles as [`super::kernels`], but every operand is a pair: two neighbors of what is summed over. Where they do not
//! lie side by side, vectors of both are interleaved.

use super::kernels::{Kernel, put, rectified, tiles};
use crate::simd::{Bf16, Number};
use std::arch::x86_64::{
    __m128i, __m256bh, __m512, __m512bh, __m512i, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtneps_pbh,
    _mm512_dpbf16_ps, _mm512_maskz_loadu_epi16, _mm512_mul_ps, _mm512_permutex2var_ps, _mm512_reduce_add_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_sub_ps,
    _mm512_unpackhi_epi16, _mm512_unpacklo_epi16,
};

/// Whether this processor has these instructions.
pub(super) fn supported() -> bool {
    use std::is_x86_feature_detected as has;
    has!("avx512bf16") && has!("avx512f") && has!("avx512bw")
}

/// Numbers of one vector of bf16.
pub(super) const LANES: usize = 32;

/// Half as many sums.
const SUMS: usize = 16;

/// Two numbers that are multiplied with two others.
pub(super) type Pair = [Bf16; 2];

/// Those of one vector.
pub(super) type Pairs = [Pair; SUMS];

const ZERO: Pair = [Bf16(0); 2];

fn pairs(numbers: &[Bf16]) -> &[Pair] {
    numbers.as_chunks().0
}

fn bits([first, second]: Pair) -> i32 {
    (u32::from(first.0) | u32::from(second.0) << 16).cast_signed()
}

/// Up to a vector of numbers, zeros behind them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load(from: &[Bf16]) -> __m512i {
    assert!((1..=LANES).contains(&from.len()));
    // SAFETY: what lies behind the numbers is not touched.
    unsafe { _mm512_maskz_loadu_epi16(u32::MAX >> (LANES - from.len()), from.as_ptr().cast()) }
}

/// The bits, of another type.
fn bf16(bits: __m512i) -> __m512bh {
    // SAFETY: of the same size, and any bits are valid.
    unsafe { std::mem::transmute(bits) }
}

/// `sums[r][v] += Σ rows[r][k]·weights[k·pitch + v]`.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply<const R: usize, const V: usize>(
    sums: &mut [[__m512; V]; R],
    rows: &[&[Pair]; R],
    weights: &[Pairs],
    pitch: usize,
) {
    let n = rows[0].len();
    let mut tile = *sums;
    let mut at = [&rows[0][..0]; R];
    for r in 0..R {
        at[r] = &rows[r][..n];
    }
    for k in 0..n {
        let weights = &weights[k * pitch..][..V];
        let mut w = [bf16(_mm512_set1_epi32(0)); V];
        for v in 0..V {
            w[v] = bf16(load(weights[v].as_flattened()));
        }
        for r in 0..R {
            let x = bf16(_mm512_set1_epi32(bits(at[r][k])));
            for v in 0..V {
                tile[r][v] = _mm512_dpbf16_ps(tile[r][v], x, w[v]);
            }
        }
    }
    *sums = tile;
}

/// A frame as numbers: `(pixel − mean) · factor`.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn scale(pixels: &[u8], mean: f32, factor: f32, to: &mut [Bf16]) {
    let ((pixels, last), (to, rest)) = (pixels.as_chunks::<SUMS>(), to.as_chunks_mut::<SUMS>());
    rest.iter_mut().zip(last).for_each(|(to, &p)| *to = Bf16::of((f32::from(p) - mean) * factor));
    let (mean, factor) = (_mm512_set1_ps(mean), _mm512_set1_ps(factor));
    for (pixels, to) in pixels.iter().zip(to) {
        // SAFETY: of the same size, and any bits are valid.
        let pixels = unsafe { std::mem::transmute::<[u8; SUMS], __m128i>(*pixels) };
        let x = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(pixels));
        let x = _mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_sub_ps(x, mean), factor));
        // SAFETY: as above.
        *to = unsafe { std::mem::transmute::<__m256bh, [Bf16; SUMS]>(x) };
    }
}

/// `[inputs / 2][outputs / 16]` of weights `[outputs, inputs]`: pairs of inputs, zeros where there are no 16 outputs.
pub(super) fn pack_inputs(weights: &[Bf16], inputs: usize, packed: &mut Vec<Pairs>) {
    let blocks = (weights.len() / inputs).div_ceil(SUMS);
    packed.resize(inputs / 2 * blocks, [ZERO; SUMS]);
    for (o, row) in weights.chunks_exact(inputs).enumerate() {
        for (packed, pair) in packed[o / SUMS..].iter_mut().step_by(blocks).zip(pairs(row)) {
            packed[o % SUMS] = *pair;
        }
    }
}

/// `[outputs / 2][inputs]` of weights `[outputs, inputs]`: pairs of outputs.
pub(super) fn pack_outputs(weights: &[Bf16], inputs: usize, packed: &mut Vec<Pairs>) {
    packed.resize(weights.len() / LANES, [ZERO; SUMS]);
    for (packed, rows) in packed.chunks_exact_mut(inputs / SUMS).zip(weights.chunks_exact(2 * inputs)) {
        let (first, second) = rows.split_at(inputs);
        let packed = packed.as_flattened_mut().iter_mut();
        packed.zip(first.iter().zip(second)).for_each(|(pair, (a, b))| *pair = [*a, *b]);
    }
}

/// `y[place] = max(0, Σ x·w + b)` at the `places` of an image `x`. `packed` by [`pack_inputs`]; `y` `[places, outputs]`.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn convolve(kernel: &Kernel, packed: &[Pairs], bias: &[Bf16], places: &[usize], x: &[Bf16], y: &mut [Bf16]) {
    let blocks = kernel.outputs.div_ceil(SUMS);
    for block in (0..blocks / 2 * 2).step_by(2) {
        convolve_block::<8, 2>(kernel, packed, bias, places, x, y, block);
    }
    match (blocks % 2, places.len()) {
        (0, _) => {}
        (_, 16..) => convolve_block::<16, 1>(kernel, packed, bias, places, x, y, blocks - 1),
        _ => convolve_block::<8, 1>(kernel, packed, bias, places, x, y, blocks - 1),
    }
}

/// `V` vectors of outputs from block `block` on, at all places.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn convolve_block<const R: usize, const V: usize>(
    &Kernel { outputs, runs, run, pitch }: &Kernel,
    packed: &[Pairs],
    bias: &[Bf16],
    places: &[usize],
    x: &[Bf16],
    y: &mut [Bf16],
    block: usize,
) {
    let blocks = outputs.div_ceil(SUMS);
    for first in tiles::<R>(places.len()) {
        let mut sums = [[_mm512_setzero_ps(); V]; R];
        for i in 0..runs {
            let mut rows = [&[][..]; R];
            for r in 0..R {
                rows[r] = pairs(&x[places[first + r] + i * pitch..][..run]);
            }
            multiply(&mut sums, &rows, &packed[i * run / 2 * blocks + block..], blocks);
        }
        for r in 0..R {
            for v in 0..V {
                let columns = (block + v) * SUMS..outputs.min((block + v + 1) * SUMS);
                let y = &mut y[(first + r) * outputs..][columns.clone()];
                let (sums, bias) = (numbers(sums[r][v]), &bias[columns]);
                // A length that the compiler knows makes vectors of it.
                match y.first_chunk_mut::<SUMS>() {
                    Some(y) => rectify(&sums, bias, y),
                    None => rectify(&sums, bias, y),
                }
            }
        }
    }
}

/// `y = max(0, sums + b)`.
#[inline(always)]
fn rectify(sums: &[f32], bias: &[Bf16], y: &mut [Bf16]) {
    y.iter_mut().zip(sums).zip(bias).for_each(|((y, s), b)| *y = Bf16::of(rectified(s + b.get())));
}

#[inline]
#[target_feature(enable = "avx512f")]
fn numbers(sums: __m512) -> [f32; SUMS] {
    let mut numbers = [0.0; SUMS];
    // SAFETY: as long as a vector.
    unsafe { _mm512_storeu_ps(numbers.as_mut_ptr(), sums) };
    numbers
}

/// The gradient of an image: `dx += Σ dy·w` at each of its `places`. `packed` by [`pack_outputs`]; `dy` `[places, outputs]`.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn input_gradient(kernel: &Kernel, packed: &[Pairs], places: &[usize], dy: &[Bf16], dx: &mut [f32]) {
    let &Kernel { outputs, runs, run, pitch } = kernel;
    let mut next = 0;
    for first in tiles::<8>(places.len()) {
        // What another tile has added is not added again.
        let new = next - first..8;
        next = first + 8;
        let mut rows = [&[][..]; 8];
        for r in 0..8 {
            rows[r] = pairs(&dy[(first + r) * outputs..][..outputs]);
        }
        for i in 0..runs {
            for j in (0..run).step_by(LANES) {
                let mut sums = [[_mm512_setzero_ps(); 2]; 8];
                multiply(&mut sums, &rows, &packed[(i * run + j) / SUMS..], kernel.inputs() / SUMS);
                for r in new.clone() {
                    let dx = &mut dx[places[first + r] + i * pitch + j..][..LANES];
                    let (low, high) = dx.split_at_mut(SUMS);
                    for (dx, sums) in [low, high].into_iter().zip(sums[r]) {
                        dx.iter_mut().zip(numbers(sums)).for_each(|(dx, s)| *dx += s);
                    }
                }
            }
        }
    }
}

/// Pairs of rows: `[rows / 2][columns]` of numbers `[rows, columns]`, a row of zeros behind an odd number of them.
pub(super) fn pair_rows(numbers: &[Bf16], columns: usize, paired: &mut Vec<Pair>) {
    paired.clear();
    for rows in numbers.chunks(2 * columns) {
        let (first, second) = rows.split_at(columns);
        let second = second.iter().copied().chain(std::iter::repeat(Bf16(0)));
        paired.extend(first.iter().zip(second).map(|(a, b)| [*a, b]));
    }
}

/// The weights' gradient, `[outputs, inputs]`: `dw = Σ dy·x` over all places, added to what `dw` holds, or in its stead. `dy`
/// by [`pair_rows`] of `[places, outputs]`. Tiles of outputs overlap where 8 does not divide their number: then never added.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn weight_gradient<T: Number>(
    kernel: &Kernel,
    places: &[usize],
    x: &[Bf16],
    dy: &[Pair],
    dw: &mut [T],
    add: bool,
) {
    debug_assert!(!add || kernel.outputs.is_multiple_of(8));
    match kernel.outputs {
        1 => weight_gradient_by::<T, 1>(kernel, places, x, dy, dw, add),
        2 => weight_gradient_by::<T, 2>(kernel, places, x, dy, dw, add),
        3 => weight_gradient_by::<T, 3>(kernel, places, x, dy, dw, add),
        4..8 => weight_gradient_by::<T, 4>(kernel, places, x, dy, dw, add),
        _ => weight_gradient_by::<T, 8>(kernel, places, x, dy, dw, add),
    }
}

/// By tiles of `C` outputs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn weight_gradient_by<T: Number, const C: usize>(
    kernel: &Kernel,
    places: &[usize],
    x: &[Bf16],
    dy: &[Pair],
    dw: &mut [T],
    add: bool,
) {
    for i in 0..kernel.runs {
        for j in (0..kernel.run).step_by(LANES) {
            for o in tiles::<C>(kernel.outputs) {
                // A length that the compiler knows makes it leave masks away.
                match kernel.run - j {
                    LANES.. => weight_gradient_tile::<T, C>(kernel, places, x, dy, dw, add, (o, i, j, LANES)),
                    len => weight_gradient_tile::<T, C>(kernel, places, x, dy, dw, add, (o, i, j, len)),
                }
            }
        }
    }
}

/// `C` outputs from `o` on, `len` numbers of run `i` from `j` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn weight_gradient_tile<T: Number, const C: usize>(
    kernel: &Kernel,
    places: &[usize],
    x: &[Bf16],
    dy: &[Pair],
    dw: &mut [T],
    add: bool,
    (o, i, j, len): (usize, usize, usize, usize),
) {
    let start = i * kernel.pitch + j;
    let mut sums = [[_mm512_setzero_ps(); 2]; C];
    for (places, dy) in places.chunks(2).zip(dy.chunks_exact(kernel.outputs)) {
        let dy: &[Pair; C] = dy[o..o + C].try_into().expect("as many");
        let one = load(&x[places[0] + start..][..len]);
        let other = load(&x[places[places.len() - 1] + start..][..len]);
        let (low, high) = (bf16(_mm512_unpacklo_epi16(one, other)), bf16(_mm512_unpackhi_epi16(one, other)));
        for c in 0..C {
            let dy = bf16(_mm512_set1_epi32(bits(dy[c])));
            sums[c][0] = _mm512_dpbf16_ps(sums[c][0], low, dy);
            sums[c][1] = _mm512_dpbf16_ps(sums[c][1], high, dy);
        }
    }
    // Interleaving goes by quarters of a vector: four columns are in the first, the next four in the second.
    let low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    let high = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    for (c, [one, other]) in sums.into_iter().enumerate() {
        let sums = [low, high].map(|columns| numbers(_mm512_permutex2var_ps(one, columns, other)));
        let dw = &mut dw[(o + c) * kernel.inputs() + i * kernel.run + j..][..len];
        put(sums.as_flattened(), dw, add);
    }
}

/// `y[row] = max(0, Σ x·w + b)` for many weights: `x` `[rows, inputs]`, `weights` `[outputs, inputs]`, `y` `[rows, outputs]`.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn connect(kernel: &Kernel, weights: &[Bf16], bias: &[Bf16], x: &[Bf16], y: &mut [Bf16]) {
    match x.len() / kernel.inputs() {
        1 => connect_by::<1>(kernel, weights, bias, x, y),
        2 => connect_by::<2>(kernel, weights, bias, x, y),
        3 => connect_by::<3>(kernel, weights, bias, x, y),
        _ => connect_by::<4>(kernel, weights, bias, x, y),
    }
}

/// By tiles of `R` rows and four outputs.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn connect_by<const R: usize>(kernel: &Kernel, weights: &[Bf16], bias: &[Bf16], x: &[Bf16], y: &mut [Bf16]) {
    const C: usize = 4;
    let (outputs, inputs) = (kernel.outputs, kernel.inputs());
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
                    let sum = _mm512_reduce_add_ps(sums[r][c]) + bias[first + c].get();
                    y[(row + r) * outputs + first + c] = Bf16::of(rectified(sum));
                }
            }
        }
    }
}

/// `sums[r][c] += Σ rows[r][k]·columns[c][k]`, each half of a pair in a sum of its own, over `len` numbers from `j` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn add_products<const R: usize, const C: usize>(
    sums: &mut [[__m512; C]; R],
    rows: &[&[Bf16]; R],
    columns: &[&[Bf16]; C],
    j: usize,
    len: usize,
) {
    let mut w = [bf16(_mm512_set1_epi32(0)); C];
    for c in 0..C {
        w[c] = bf16(load(&columns[c][j..j + len]));
    }
    for r in 0..R {
        let x = bf16(load(&rows[r][j..j + len]));
        for c in 0..C {
            sums[r][c] = _mm512_dpbf16_ps(sums[r][c], x, w[c]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole numbers from -8 to 8: bf16 holds them, and f32 their products' sums, exactly.
    fn whole(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003 % 17) as f32 - 8.0).collect()
    }

    fn bf16s(numbers: &[f32]) -> Vec<Bf16> {
        numbers.iter().map(|x| Bf16::of(*x)).collect()
    }

    fn f32s(numbers: &[Bf16]) -> Vec<f32> {
        numbers.iter().map(|x| x.get()).collect()
    }

    /// Everything against plain loops, number by number and without rounding, at numbers of places that tiles divide and do
    /// not: an image of 7 × 13 with 32 channels, seen by 3 × 3 of it two rows and one column apart, whose runs are of three
    /// vectors, and whose outputs are of two and a half.
    #[test]
    fn tiles_of_every_size_equal_plain_loops() {
        if !supported() {
            return;
        }
        let kernel = Kernel { outputs: 40, runs: 3, run: 96, pitch: 13 * 32 };
        let all: Vec<usize> = (0..3).flat_map(|y| (0..11).map(move |x| (y * 2 * 13 + x) * 32)).collect();
        let (outputs, inputs) = (kernel.outputs, kernel.inputs());
        let (x, w, b) = (whole(7 * 13 * 32, 1), whole(outputs * inputs, 2), whole(outputs, 3));
        let (mut by_inputs, mut by_outputs) = (Vec::new(), Vec::new());
        pack_inputs(&bf16s(&w), inputs, &mut by_inputs);
        pack_outputs(&bf16s(&w), inputs, &mut by_outputs);
        for count in [8, 9, 15, 16, all.len()] {
            let places = &all[..count];
            let dy = whole(count * outputs, 4);
            let (mut y, mut dx, mut dw) = (vec![0.0; dy.len()], vec![0.5; x.len()], vec![0.25; w.len()]);
            for (p, place) in places.iter().enumerate() {
                let seen = || (0..3).flat_map(|i| (0..96).map(move |j| place + i * kernel.pitch + j));
                for o in 0..outputs {
                    let (w, dw) = (&w[o * inputs..][..inputs], &mut dw[o * inputs..][..inputs]);
                    let dot: f32 = seen().zip(w).map(|(i, w)| x[i] * w).sum();
                    y[p * outputs + o] = Bf16::of((dot + b[o]).max(0.0)).get();
                    for ((i, w), dw) in seen().zip(w).zip(dw) {
                        dx[i] += dy[p * outputs + o] * w;
                        *dw += dy[p * outputs + o] * x[i];
                    }
                }
            }
            let (x, dy) = (bf16s(&x), bf16s(&dy));
            let mut paired = Vec::new();
            pair_rows(&dy, outputs, &mut paired);
            let (mut own_y, mut own_dx) = (vec![Bf16(0); y.len()], vec![0.5; x.len()]);
            let (mut own_dw, mut fresh) = (vec![0.25; w.len()], vec![f32::NAN; w.len()]);
            // SAFETY: the processor has these instructions.
            unsafe {
                convolve(&kernel, &by_inputs, &bf16s(&b), places, &x, &mut own_y);
                input_gradient(&kernel, &by_outputs, places, &dy, &mut own_dx);
                weight_gradient(&kernel, places, &x, &paired, &mut own_dw, true);
                weight_gradient(&kernel, places, &x, &paired, &mut fresh, false);
            }
            assert_eq!(f32s(&own_y), y);
            assert_eq!(own_dx, dx);
            assert_eq!(own_dw, dw);
            assert_eq!(fresh, dw.iter().map(|dw| dw - 0.25).collect::<Vec<_>>());
        }
    }

    /// A fully connected layer of few rows and many, and its gradients, which are tiles of every number of rows.
    #[test]
    fn rows_are_connected_as_by_plain_loops() {
        if !supported() {
            return;
        }
        let (outputs, inputs) = (16, 72); // two vectors and a quarter
        let kernel = Kernel { outputs, runs: 1, run: inputs, pitch: inputs };
        let (w, b) = (whole(outputs * inputs, 1), whole(outputs, 2));
        for rows in 1..=19 {
            let (x, dy) = (whole(rows * inputs, 3), whole(rows * outputs, 4));
            let (mut y, mut dw) = (vec![0.0; rows * outputs], vec![0.0; w.len()]);
            for (i, dy) in dy.iter().enumerate() {
                let (row, o) = (i / outputs, i % outputs);
                let (x, w) = (&x[row * inputs..][..inputs], &w[o * inputs..][..inputs]);
                let dot: f32 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                y[i] = Bf16::of((dot + b[o]).max(0.0)).get();
                dw[o * inputs..][..inputs].iter_mut().zip(x).for_each(|(dw, x)| *dw += dy * x);
            }
            let (x, places) = (bf16s(&x), (0..rows).map(|row| row * inputs).collect::<Vec<_>>());
            let (mut own_y, mut own_dw, mut paired) = (vec![Bf16(0); y.len()], vec![f32::NAN; w.len()], Vec::new());
            pair_rows(&bf16s(&dy), outputs, &mut paired);
            // SAFETY: the processor has these instructions.
            unsafe {
                connect(&kernel, &bf16s(&w), &bf16s(&b), &x, &mut own_y);
                weight_gradient(&kernel, &places, &x, &paired, &mut own_dw, false);
            }
            assert_eq!(f32s(&own_y), y, "{rows} rows");
            assert_eq!(own_dw, dw, "{rows} rows");
            // With outputs' and rows' parts exchanged: few outputs, many places.
            let kernel = Kernel { outputs: rows, ..kernel };
            let turned: Vec<f32> = (0..outputs * rows).map(|i| dy[i % rows * outputs + i / rows]).collect();
            pair_rows(&bf16s(&turned), rows, &mut paired);
            let places: Vec<_> = (0..outputs).map(|o| o * inputs).collect();
            let (mut dx, mut own_dx) = (vec![0.0; rows * inputs], vec![f32::NAN; rows * inputs]);
            for (i, dx) in dx.iter_mut().enumerate() {
                *dx = (0..outputs).map(|o| dy[i / inputs * outputs + o] * w[o * inputs + i % inputs]).sum();
            }
            // SAFETY: the processor has these instructions.
            unsafe { weight_gradient(&kernel, &places, &bf16s(&w), &paired, &mut own_dx, false) };
            assert_eq!(own_dx, dx, "{rows} rows");
        }
    }

    /// As many pixels as a vector has not, to the last bit of what the plain loop makes of them.
    #[test]
    fn pixels_become_numbers() {
        if !supported() {
            return;
        }
        let pixels: Vec<u8> = (0..=255).chain(3..20).collect();
        for (mean, factor) in [(0.0, 1.0 / 255.0), (101.3, 0.0217)] {
            let mut own = vec![Bf16(0); pixels.len()];
            let mut plain = own.clone();
            // SAFETY: the processor has these instructions.
            unsafe { scale(&pixels, mean, factor, &mut own) };
            crate::input::scale_into(&pixels, mean, factor, &mut plain);
            assert_eq!(own, plain);
        }
    }
}
