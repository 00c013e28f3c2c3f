//! `f32` kernels.
//!
//! Each kernel computes a tile of its result in vector registers, and uses every loaded element for a whole row or column of the
//! tile. The loops run over arrays of constant size, which the compiler turns into fused multiply-adds of whole registers. No such
//! loop lies in a closure: a closure that is not inlined is compiled for the baseline, where a fused multiply-add is a call.

use super::shape::LayerShape;
use crate::Element;
use crate::buffer::Buffer;
use crate::simd::{SimdLevel, level, multiversion};

/// `f32` elements of an AVX-512 register.
pub(crate) const LANES: usize = 16;

/// One AVX-512 register.
pub(crate) type Vector = [f32; LANES];

/// The first rows of the tiles of `R` rows that cover `total` rows. The last tile starts early and may overlap the one before.
#[inline(always)]
pub(crate) fn tiles<const R: usize>(total: usize) -> impl Iterator<Item = usize> {
    (0..total.div_ceil(R)).map(move |i| (i * R).min(total - R))
}

/// The offsets of vectors that cover `row_len` elements: `V` vectors at a time (true), then one at a time, the last one partial
/// (false).
#[inline(always)]
fn vectors<const V: usize>(row_len: usize) -> impl Iterator<Item = (usize, bool)> {
    let many = row_len / (V * LANES) * (V * LANES);
    let one = (many..row_len).step_by(LANES).map(|j| (j, false));
    (0..many).step_by(V * LANES).map(|j| (j, true)).chain(one)
}

#[inline(always)]
fn load(from: &[f32]) -> Vector {
    from.try_into().expect("the slice has this length")
}

/// Loads `V` vectors; if `PARTIAL`, elements beyond the end of `from` are 0.
#[inline(always)]
fn load_vectors<const V: usize, const PARTIAL: bool>(from: &[f32]) -> [Vector; V] {
    let mut vectors = [[0.0; LANES]; V];
    if PARTIAL && from.len() < V * LANES {
        vectors.as_flattened_mut()[..from.len()].copy_from_slice(from);
        return vectors;
    }
    let from = &from[..V * LANES];
    for v in 0..V {
        vectors[v] = load(&from[v * LANES..][..LANES]);
    }
    vectors
}

#[inline(always)]
fn add_product(sum: &mut Vector, x: f32, w: &Vector) {
    sum.iter_mut().zip(w).for_each(|(sum, w)| *sum = x.mul_add(*w, *sum));
}

/// The least output of a layer: 0 where a rectifier follows.
pub(crate) fn floor(rectify: bool) -> f32 {
    if rectify { 0.0 } else { f32::NEG_INFINITY }
}

/// max(floor, x); NaN stays NaN, so that divergence is detected.
#[inline(always)]
pub(crate) fn at_least(floor: f32, x: f32) -> f32 {
    if x < floor { floor } else { x }
}

/// Adds `sums` to `to`, or overwrites `to` with them.
#[inline(always)]
pub(crate) fn put<T: Element>(sums: &[f32], to: &mut [T], add: bool) {
    if add {
        to.iter_mut().zip(sums).for_each(|(to, s)| *to = T::narrow(to.widen() + s));
    } else {
        to.iter_mut().zip(sums).for_each(|(to, s)| *to = T::narrow(*s));
    }
}

/// Whether registers are wide and numerous enough for large tiles. AVX2 has 16 of 8 elements: a tile of twelve leaves enough for its
/// operands, and one of 16 would be kept in memory.
#[inline(always)]
fn large() -> bool {
    level() != SimdLevel::Avx2
}

/// Packs weights `[outputs, inputs]` as `[inputs][outputs / 16]`, padded with zeros.
pub(crate) fn pack(weights: &[f32], inputs: usize, packed: &mut Buffer<Vector>) {
    let blocks = (weights.len() / inputs).div_ceil(LANES);
    packed.resize(inputs * blocks, [0.0; LANES]);
    for (o, row) in weights.chunks_exact(inputs).enumerate() {
        for (packed, w) in packed[o / LANES..].iter_mut().step_by(blocks).zip(row) {
            packed[o % LANES] = *w;
        }
    }
}

multiversion! {
    /// `y[position] = max(floor, Σ x·w + b)` at the `positions` of an image `x`, for few weights and many positions. `packed` by
    /// [`pack`]; `y` `[positions, outputs]`.
    pub(crate) fn convolve(shape: &LayerShape, packed: &[Vector], bias: &[f32], floor: f32, positions: &[usize], x: &[f32], y: &mut [f32]) {
        if large() {
            convolve_by::<8>(shape, packed, bias, floor, positions, x, y);
        } else {
            convolve_by::<6>(shape, packed, bias, floor, positions, x, y);
        }
    }
}

/// The fewest positions that [`convolve`] accepts.
pub(crate) const MIN_POSITIONS: usize = 8;

#[inline(always)]
fn convolve_by<const R: usize>(
    shape: &LayerShape,
    packed: &[Vector],
    bias: &[f32],
    floor: f32,
    positions: &[usize],
    x: &[f32],
    y: &mut [f32],
) {
    let LayerShape { outputs, kernel_rows, row_len, row_stride } = *shape;
    let blocks = outputs.div_ceil(LANES);
    for block in 0..blocks {
        let columns = block * LANES..outputs.min((block + 1) * LANES);
        for first in tiles::<R>(positions.len()) {
            let mut sums = [[0.0; LANES]; R];
            for i in 0..kernel_rows {
                let mut rows = [&x[..0]; R];
                for r in 0..R {
                    rows[r] = &x[positions[first + r] + i * row_stride..][..row_len];
                }
                let weights = &packed[i * row_len * blocks..][..row_len * blocks];
                for j in 0..row_len {
                    let w = &weights[j * blocks + block];
                    for r in 0..R {
                        add_product(&mut sums[r], rows[r][j], w);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                let y = &mut y[(first + r) * outputs..][columns.clone()];
                y.iter_mut().zip(sums).zip(&bias[columns.clone()]).for_each(|((y, s), b)| *y = at_least(floor, s + b));
            }
        }
    }
}

multiversion! {
    /// `y[row] = max(floor, Σ x·w + b)` of a fully connected layer, for many weights and few rows: `x` `[rows, inputs]`, `weights` `[outputs, inputs]`, `y`
    /// `[rows, outputs]`.
    pub(crate) fn linear(shape: &LayerShape, weights: &[f32], bias: &[f32], floor: f32, x: &[f32], y: &mut [f32]) {
        // Few rows fit one tile, so that each weight is loaded once; the registers left set the number of columns.
        match (x.len() / shape.inputs(), large()) {
            (1, _) => linear_by::<1, 4>(shape, weights, bias, floor, x, y),
            (2, true) => linear_by::<2, 4>(shape, weights, bias, floor, x, y),
            (2, false) => linear_by::<2, 2>(shape, weights, bias, floor, x, y),
            (5, true) => linear_by::<5, 2>(shape, weights, bias, floor, x, y),
            (3, _) | (_, false) => linear_by::<3, 2>(shape, weights, bias, floor, x, y),
            (_, true) => linear_by::<4, 2>(shape, weights, bias, floor, x, y),
        }
    }
}

/// In tiles of `R` rows and `C` outputs.
#[inline(always)]
fn linear_by<const R: usize, const C: usize>(
    shape: &LayerShape,
    weights: &[f32],
    bias: &[f32],
    floor: f32,
    x: &[f32],
    y: &mut [f32],
) {
    let (outputs, inputs) = (shape.outputs, shape.inputs());
    for first in (0..outputs).step_by(C) {
        for row in tiles::<R>(x.len() / inputs) {
            let (mut rows, mut columns) = ([&x[..0]; R], [&weights[..0]; C]);
            for r in 0..R {
                rows[r] = &x[(row + r) * inputs..][..inputs];
            }
            for c in 0..C {
                columns[c] = &weights[(first + c) * inputs..][..inputs];
            }
            let mut sums = [[[0.0; LANES]; C]; R];
            for j in (0..inputs).step_by(LANES) {
                let mut w = [[0.0; LANES]; C];
                for c in 0..C {
                    w[c] = load(&columns[c][j..j + LANES]);
                }
                for r in 0..R {
                    let x = load(&rows[r][j..j + LANES]);
                    for c in 0..C {
                        for lane in 0..LANES {
                            sums[r][c][lane] = x[lane].mul_add(w[c][lane], sums[r][c][lane]);
                        }
                    }
                }
            }
            for r in 0..R {
                for c in 0..C {
                    y[(row + r) * outputs + first + c] = at_least(floor, sum(&sums[r][c]) + bias[first + c]);
                }
            }
        }
    }
}

/// The sum of a register by halves.
#[inline(always)]
fn sum(v: &Vector) -> f32 {
    let (mut eight, mut four) = ([0.0; 8], [0.0; 4]);
    for i in 0..8 {
        eight[i] = v[i] + v[i + 8];
    }
    for i in 0..4 {
        four[i] = eight[i] + eight[i + 4];
    }
    (four[0] + four[2]) + (four[1] + four[3])
}

multiversion! {
    /// The gradient of an image: `dx += Σ dy·w` at each of its `positions`. `weights` `[outputs, inputs]`, `dy` `[positions, outputs]`.
    pub(crate) fn input_gradient(shape: &LayerShape, weights: &[f32], positions: &[usize], dy: &[f32], dx: &mut [f32]) {
        match (positions.len(), large()) {
            (1, _) => input_gradient_by::<1, 4>(shape, weights, positions, dy, dx),
            (2, true) => input_gradient_by::<2, 4>(shape, weights, positions, dy, dx),
            (2, false) => input_gradient_by::<2, 2>(shape, weights, positions, dy, dx),
            (3, _) => input_gradient_by::<3, 2>(shape, weights, positions, dy, dx),
            (5, true) => input_gradient_by::<5, 2>(shape, weights, positions, dy, dx),
            (8.., true) => input_gradient_by::<8, 1>(shape, weights, positions, dy, dx),
            (_, true) => input_gradient_by::<4, 2>(shape, weights, positions, dy, dx),
            (6.., false) => input_gradient_by::<6, 1>(shape, weights, positions, dy, dx),
            (_, false) => input_gradient_by::<4, 1>(shape, weights, positions, dy, dx),
        }
    }
}

#[inline(always)]
fn input_gradient_by<const R: usize, const V: usize>(
    shape: &LayerShape,
    weights: &[f32],
    positions: &[usize],
    dy: &[f32],
    dx: &mut [f32],
) {
    let mut next = 0;
    for first in tiles::<R>(positions.len()) {
        // Skip positions that the previous tile has added.
        let new = next - first..R;
        next = first + R;
        for i in 0..shape.kernel_rows {
            for (j, many) in vectors::<V>(shape.row_len) {
                let at = (first, new.clone(), i, j);
                if many {
                    input_gradient_tile::<R, V, false>(shape, weights, positions, dy, dx, at);
                } else {
                    input_gradient_tile::<R, 1, true>(shape, weights, positions, dy, dx, at);
                }
            }
        }
    }
}

/// `R` positions, `V` vectors of kernel row `i` from element `j`.
#[inline(always)]
fn input_gradient_tile<const R: usize, const V: usize, const PARTIAL: bool>(
    shape: &LayerShape,
    weights: &[f32],
    positions: &[usize],
    dy: &[f32],
    dx: &mut [f32],
    (first, new, i, j): (usize, std::ops::Range<usize>, usize, usize),
) {
    let (outputs, inputs) = (shape.outputs, shape.inputs());
    let mut rows = [&dy[..0]; R];
    for r in 0..R {
        rows[r] = &dy[(first + r) * outputs..][..outputs];
    }
    let mut sums = [[[0.0; LANES]; V]; R];
    for o in 0..outputs {
        let vectors = load_vectors::<V, PARTIAL>(&weights[o * inputs + i * shape.row_len + j..]);
        for r in 0..R {
            for v in 0..V {
                add_product(&mut sums[r][v], rows[r][o], &vectors[v]);
            }
        }
    }
    for r in new {
        let dx = &mut dx[positions[first + r] + i * shape.row_stride + j..];
        if PARTIAL {
            let len = LANES.min(shape.row_len - j);
            dx[..len].iter_mut().zip(sums[r].as_flattened()).for_each(|(dx, s)| *dx += s);
        } else {
            dx[..V * LANES].iter_mut().zip(sums[r].as_flattened()).for_each(|(dx, s)| *dx += s);
        }
    }
}

multiversion! {
    /// The weight gradient `[outputs, inputs]`: `dw = Σ dy·x` over all positions, added to `dw` where `add`.
    pub(crate) fn weight_gradient(shape: &LayerShape, positions: &[usize], x: &[f32], dy: &[f32], dw: &mut [f32], add: bool) {
        let threes = shape.row_len.is_multiple_of(3 * LANES) || shape.row_len > 30 * LANES;
        if large() {
            weight_gradient_by::<4, 2>(shape, positions, x, dy, dw, add);
        } else if threes {
            weight_gradient_by::<2, 3>(shape, positions, x, dy, dw, add);
        } else {
            weight_gradient_by::<4, 1>(shape, positions, x, dy, dw, add);
        }
    }
}

#[inline(always)]
fn weight_gradient_by<const C: usize, const V: usize>(
    shape: &LayerShape,
    positions: &[usize],
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    add: bool,
) {
    for i in 0..shape.kernel_rows {
        for (j, many) in vectors::<V>(shape.row_len) {
            for o in (0..shape.outputs).step_by(C) {
                if many {
                    weight_gradient_tile::<C, V, false>(shape, positions, x, dy, dw, add, (o, i, j));
                } else {
                    weight_gradient_tile::<C, 1, true>(shape, positions, x, dy, dw, add, (o, i, j));
                }
            }
        }
    }
}

/// `C` outputs, `V` vectors of kernel row `i` from element `j`.
#[inline(always)]
fn weight_gradient_tile<const C: usize, const V: usize, const PARTIAL: bool>(
    shape: &LayerShape,
    positions: &[usize],
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    add: bool,
    (o, i, j): (usize, usize, usize),
) {
    let (outputs, inputs) = (shape.outputs, shape.inputs());
    let mut sums = [[[0.0; LANES]; V]; C];
    for (position, dy) in positions.iter().zip(dy.chunks_exact(outputs)) {
        let dy: &[f32; C] = dy[o..o + C].try_into().expect("the slice has this length");
        let x = load_vectors::<V, PARTIAL>(&x[position + i * shape.row_stride + j..]);
        for v in 0..V {
            for c in 0..C {
                add_product(&mut sums[c][v], dy[c], &x[v]);
            }
        }
    }
    let len = if PARTIAL { LANES.min(shape.row_len - j) } else { V * LANES };
    for (c, sums) in sums.iter().enumerate() {
        put(sums.as_flattened(), &mut dw[(o + c) * inputs + i * shape.row_len + j..][..len], add);
    }
}

multiversion! {
    /// The gradient before the rectifier, `to`, and that of the bias, added to `db` `[outputs]`. `y`, `dy` and `to` are
    /// `[rows, outputs]`.
    pub(crate) fn rectifier_gradient<T: Element>(y: &[T], dy: &[f32], to: &mut [T], db: &mut [f32]) {
        let n = db.len();
        for ((y, dy), to) in y.chunks_exact(n).zip(dy.chunks_exact(n)).zip(to.chunks_exact_mut(n)) {
            for (((y, dy), to), db) in y.iter().zip(dy).zip(to).zip(&mut *db) {
                let dy = if y.widen() <= 0.0 { 0.0 } else { *dy };
                *db += dy;
                *to = T::narrow(dy);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    type Convolve = fn(&LayerShape, &[Vector], &[f32], f32, &[usize], &[f32], &mut [f32]);
    type InputGradient = fn(&LayerShape, &[f32], &[usize], &[f32], &mut [f32]);

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
    }

    fn close(actual: &[f32], expected: &[f32]) {
        assert_eq!(actual.len(), expected.len());
        for (a, e) in actual.iter().zip(expected) {
            assert!((a - e).abs() < 1e-4, "{a} is not {e}");
        }
    }

    /// The offsets of the elements that a kernel reads at a position.
    fn receptive_field(shape: &LayerShape, position: usize) -> impl Iterator<Item = usize> + Clone {
        let LayerShape { kernel_rows, row_len, row_stride, .. } = *shape;
        (0..kernel_rows).flat_map(move |i| (0..row_len).map(move |j| position + i * row_stride + j))
    }

    /// A 3 × 3 kernel with strides 2 and 1 on a 7 × 13 image: 3 × 11 overlapping positions.
    fn convolution(channels: usize) -> (LayerShape, Vec<usize>, Vec<f32>) {
        let shape = LayerShape { outputs: 24, kernel_rows: 3, row_len: 3 * channels, row_stride: 13 * channels };
        let positions = (0..3).flat_map(|y| (0..11).map(move |x| (y * 2 * 13 + x) * channels)).collect();
        (shape, positions, values(7 * 13 * channels, 1))
    }

    /// Kernel rows of three vectors; of less than one; of one, and one with a single element.
    #[test]
    fn tiles_of_every_size_equal_naive_loops() {
        [48, 12, 33].into_iter().for_each(|row_len| tiles_equal_naive_loops(row_len / 3));
    }

    fn tiles_equal_naive_loops(channels: usize) {
        let (shape, all, x) = convolution(channels);
        let (outputs, inputs) = (shape.outputs, shape.inputs());
        let (w, b) = (values(outputs * inputs, 2), values(outputs, 3));
        let mut packed = Buffer::default();
        pack(&w, inputs, &mut packed);
        for count in [1, 2, 3, 4, 5, 8, 9, all.len()] {
            let positions = &all[..count];
            let dy = values(count * outputs, 4);
            let (mut y, mut dx, mut dw) = (vec![0.0; dy.len()], vec![0.5; x.len()], vec![0.25; w.len()]);
            let mut unrectified = y.clone();
            for (p, position) in positions.iter().enumerate() {
                for o in 0..outputs {
                    let (w, dw) = (&w[o * inputs..][..inputs], &mut dw[o * inputs..][..inputs]);
                    let dot: f32 = receptive_field(&shape, *position).zip(w).map(|(i, w)| x[i] * w).sum();
                    unrectified[p * outputs + o] = dot + b[o];
                    y[p * outputs + o] = (dot + b[o]).max(0.0);
                    for ((i, w), dw) in receptive_field(&shape, *position).zip(w).zip(dw) {
                        dx[i] += dy[p * outputs + o] * w;
                        *dw += dy[p * outputs + o] * x[i];
                    }
                }
            }
            let forward = |by: Convolve| {
                let mut to = vec![0.0; y.len()];
                by(&shape, &packed, &b, floor(true), positions, &x, &mut to);
                close(&to, &y);
                by(&shape, &packed, &b, floor(false), positions, &x, &mut to);
                close(&to, &unrectified);
            };
            if count >= 6 {
                forward(convolve_by::<6>);
            }
            if count >= MIN_POSITIONS {
                [convolve_by::<8>, convolve].into_iter().for_each(forward);
            }
            let backward = |by: InputGradient| {
                let mut to = vec![0.5; x.len()];
                by(&shape, &w, positions, &dy, &mut to);
                close(&to, &dx);
            };
            backward(input_gradient);
            // The tiles of every level; those for one row are used by all.
            for (rows, by) in [
                (2, input_gradient_by::<2, 4> as InputGradient),
                (2, input_gradient_by::<2, 2>),
                (4, input_gradient_by::<4, 2>),
                (4, input_gradient_by::<4, 1>),
                (5, input_gradient_by::<5, 2>),
                (6, input_gradient_by::<6, 1>),
                (8, input_gradient_by::<8, 1>),
            ] {
                if count >= rows {
                    backward(by);
                }
            }
            for by in
                [weight_gradient_by::<4, 2>, weight_gradient_by::<4, 1>, weight_gradient_by::<2, 3>, weight_gradient]
            {
                let mut to = vec![0.25; w.len()];
                by(&shape, positions, &x, &dy, &mut to, true);
                close(&to, &dw);
                to.fill(f32::NAN); // previous contents must not matter
                by(&shape, positions, &x, &dy, &mut to, false);
                close(&to, &dw.iter().map(|w| w - 0.25).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn fully_connected_rows_equal_naive_loops() {
        let shape = LayerShape { outputs: 12, kernel_rows: 1, row_len: 80, row_stride: 80 };
        let (w, b) = (values(12 * 80, 1), values(12, 2));
        for rows in [1, 2, 3, 4, 5, 6, 9] {
            let x = values(rows * 80, 3);
            let row = |x: &[f32]| -> Vec<f32> {
                let dot = |o: usize| -> f32 { x.iter().zip(&w[o * 80..]).map(|(x, w)| x * w).sum() };
                (0..12).map(|o| dot(o) + b[o]).collect()
            };
            let unrectified = x.chunks(80).flat_map(row).collect::<Vec<_>>();
            let mut y = vec![0.0; rows * 12];
            linear(&shape, &w, &b, floor(false), &x, &mut y);
            close(&y, &unrectified);
            for (least, by) in [
                (1, linear as fn(&LayerShape, &[f32], &[f32], f32, &[f32], &mut [f32])),
                (2, linear_by::<2, 2>),
                (2, linear_by::<2, 4>),
                (3, linear_by::<3, 2>),
                (4, linear_by::<4, 2>),
                (5, linear_by::<5, 2>),
            ] {
                if rows >= least {
                    by(&shape, &w, &b, floor(true), &x, &mut y);
                    close(&y, &unrectified.iter().map(|y| y.max(0.0)).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn the_rectifier_blocks_gradients_of_inactive_units() {
        assert!(at_least(floor(true), f32::NAN).is_nan());
        assert_eq!([-1.0, 0.0, 2.0].map(|x| at_least(floor(true), x)), [0.0, 0.0, 2.0]);
        assert_eq!([-1.0, 0.0, 2.0].map(|x| at_least(floor(false), x)), [-1.0, 0.0, 2.0]);
        let dy = [3.0, 4.0, 5.0, 6.0];
        let (mut to, mut db) = ([7.0; 4], [1.0, 2.0]);
        rectifier_gradient(&[0.0, 2.0, 1.0, -0.0], &dy, &mut to, &mut db);
        assert_eq!((to, db), ([0.0, 4.0, 5.0, 0.0], [6.0, 6.0]));
        let (mut to, y) = ([bf16::from_bits(7); 4], [0.0, 2.0, 1.0, -0.0].map(bf16::narrow));
        rectifier_gradient(&y, &dy, &mut to, &mut db);
        assert_eq!((to.map(|x| x.widen()), db), ([0.0, 4.0, 5.0, 0.0], [11.0, 10.0]));
    }
}
