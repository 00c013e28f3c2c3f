//! The loops that convolve in `f32`.
//!
//! Each works on a tile of its result that fits the vector registers: every number that is loaded is used for a whole row or
//! column of the tile. They are plain loops over arrays of constant size, which the compiler turns into fused
//! multiplications and additions of whole registers; with 16 numbers a register this reaches what the processor can do. No
//! such loop lies in a closure: one that is not inlined is compiled for any processor, where a fused operation is a call.

use crate::simd::{Number, Width, widest, width};

/// Numbers of one vector.
pub(super) const LANES: usize = 16;

/// What one register of the widest holds.
pub(super) type Vector = [f32; LANES];

/// What a layer's kernel sees of an image: `runs` runs of `run` numbers, whose beginnings are `pitch` apart. A fully
/// connected layer sees all of it, in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    pub outputs: usize,
    pub runs: usize,
    pub run: usize,
    pub pitch: usize,
}

impl Kernel {
    /// How many numbers it sees.
    pub fn inputs(&self) -> usize {
        self.runs * self.run
    }
}

/// The first rows of tiles of `R` that cover `total` rows: the last one begins early and covers some twice.
#[inline(always)]
pub(super) fn tiles<const R: usize>(total: usize) -> impl Iterator<Item = usize> {
    (0..total.div_ceil(R)).map(move |i| (i * R).min(total - R))
}

/// The beginnings of vectors that cover a run of `run` numbers: `V` vectors at a time, where true, then one at a time.
#[inline(always)]
fn vectors<const V: usize>(run: usize) -> impl Iterator<Item = (usize, bool)> {
    let many = run / (V * LANES) * (V * LANES);
    let one = (many..run).step_by(LANES).map(|j| (j, false));
    (0..many).step_by(V * LANES).map(|j| (j, true)).chain(one)
}

#[inline(always)]
fn load(from: &[f32]) -> Vector {
    from.try_into().expect("as many")
}

#[inline(always)]
fn add_product(sum: &mut Vector, x: f32, w: &Vector) {
    sum.iter_mut().zip(w).for_each(|(sum, w)| *sum = x.mul_add(*w, *sum));
}

/// max(0, x), and of what is no number none, so that it is noticed.
#[inline(always)]
pub(super) fn rectified(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// Adds sums to numbers, or sets these to them.
#[inline(always)]
pub(super) fn put<T: Number>(sums: &[f32], to: &mut [T], add: bool) {
    if add {
        to.iter_mut().zip(sums).for_each(|(to, s)| *to = T::of(to.get() + s));
    } else {
        to.iter_mut().zip(sums).for_each(|(to, s)| *to = T::of(*s));
    }
}

/// Whether registers are many and wide: a tile may be large.
#[inline(always)]
fn large() -> bool {
    width() != Width::Eight
}

/// `[inputs][outputs / 16]` of weights `[outputs, inputs]`, zeros where there are no 16.
pub(super) fn pack(weights: &[f32], inputs: usize, packed: &mut Vec<Vector>) {
    let blocks = (weights.len() / inputs).div_ceil(LANES);
    packed.resize(inputs * blocks, [0.0; LANES]);
    for (o, row) in weights.chunks_exact(inputs).enumerate() {
        for (packed, w) in packed[o / LANES..].iter_mut().step_by(blocks).zip(row) {
            packed[o % LANES] = *w;
        }
    }
}

widest! {
    /// `y[place] = max(0, Σ x·w + b)` at the `places` of an image `x`, for few weights and many places. `packed`
    /// `[inputs][outputs / 16]`, `y` `[places, outputs]`.
    pub(super) fn convolve(kernel: &Kernel, packed: &[Vector], bias: &[f32], places: &[usize], x: &[f32], y: &mut [f32]) {
        if large() {
            convolve_by::<8>(kernel, packed, bias, places, x, y);
        } else {
            convolve_by::<4>(kernel, packed, bias, places, x, y);
        }
    }
}

/// How many places [`convolve`] needs.
pub(super) const PLACES: usize = 8;

#[inline(always)]
fn convolve_by<const R: usize>(
    kernel: &Kernel,
    packed: &[Vector],
    bias: &[f32],
    places: &[usize],
    x: &[f32],
    y: &mut [f32],
) {
    let Kernel { outputs, runs, run, pitch } = *kernel;
    let blocks = outputs.div_ceil(LANES);
    for block in 0..blocks {
        let columns = block * LANES..outputs.min((block + 1) * LANES);
        for first in tiles::<R>(places.len()) {
            let mut sums = [[0.0; LANES]; R];
            for i in 0..runs {
                let mut rows = [&x[..0]; R];
                for r in 0..R {
                    rows[r] = &x[places[first + r] + i * pitch..][..run];
                }
                let weights = &packed[i * run * blocks..][..run * blocks];
                for j in 0..run {
                    let w = &weights[j * blocks + block];
                    for r in 0..R {
                        add_product(&mut sums[r], rows[r][j], w);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                let y = &mut y[(first + r) * outputs..][columns.clone()];
                y.iter_mut().zip(sums).zip(&bias[columns.clone()]).for_each(|((y, s), b)| *y = rectified(s + b));
            }
        }
    }
}

widest! {
    /// `y[row] = max(0, Σ x·w + b)` for many weights and few rows: `x` `[rows, inputs]`, `weights` `[outputs, inputs]`, `y`
    /// `[rows, outputs]`.
    pub(super) fn connect(kernel: &Kernel, weights: &[f32], bias: &[f32], x: &[f32], y: &mut [f32]) {
        // All rows in one tile where they are few, so that each weight is loaded once; columns as registers allow.
        match x.len() / kernel.inputs() {
            1 => connect_by::<1, 4>(kernel, weights, bias, x, y),
            2 => connect_by::<2, 4>(kernel, weights, bias, x, y),
            3 => connect_by::<3, 2>(kernel, weights, bias, x, y),
            5 => connect_by::<5, 2>(kernel, weights, bias, x, y),
            _ => connect_by::<4, 2>(kernel, weights, bias, x, y),
        }
    }
}

/// By tiles of `R` rows and `C` outputs.
#[inline(always)]
fn connect_by<const R: usize, const C: usize>(
    kernel: &Kernel,
    weights: &[f32],
    bias: &[f32],
    x: &[f32],
    y: &mut [f32],
) {
    let (outputs, inputs) = (kernel.outputs, kernel.inputs());
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
                    y[(row + r) * outputs + first + c] = rectified(sum(&sums[r][c]) + bias[first + c]);
                }
            }
        }
    }
}

/// By halves, as a register is summed.
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

widest! {
    /// The gradient of an image: `dx += Σ dy·w` at each of its `places`. `weights` `[outputs, inputs]`, `dy` `[places, outputs]`.
    pub(super) fn input_gradient(kernel: &Kernel, weights: &[f32], places: &[usize], dy: &[f32], dx: &mut [f32]) {
        match (places.len(), large()) {
            (1, _) => input_gradient_by::<1, 4>(kernel, weights, places, dy, dx),
            (2, _) => input_gradient_by::<2, 4>(kernel, weights, places, dy, dx),
            (3, _) => input_gradient_by::<3, 2>(kernel, weights, places, dy, dx),
            (5, true) => input_gradient_by::<5, 2>(kernel, weights, places, dy, dx),
            (8.., true) => input_gradient_by::<8, 1>(kernel, weights, places, dy, dx),
            _ => input_gradient_by::<4, 2>(kernel, weights, places, dy, dx),
        }
    }
}

#[inline(always)]
fn input_gradient_by<const R: usize, const V: usize>(
    kernel: &Kernel,
    weights: &[f32],
    places: &[usize],
    dy: &[f32],
    dx: &mut [f32],
) {
    let mut next = 0;
    for first in tiles::<R>(places.len()) {
        // What another tile has added is not added again.
        let new = next - first..R;
        next = first + R;
        for i in 0..kernel.runs {
            for (j, many) in vectors::<V>(kernel.run) {
                let at = (first, new.clone(), i, j);
                if many {
                    input_gradient_tile::<R, V>(kernel, weights, places, dy, dx, at);
                } else {
                    input_gradient_tile::<R, 1>(kernel, weights, places, dy, dx, at);
                }
            }
        }
    }
}

/// `R` places, `V` vectors of run `i` from `j` on.
#[inline(always)]
fn input_gradient_tile<const R: usize, const V: usize>(
    kernel: &Kernel,
    weights: &[f32],
    places: &[usize],
    dy: &[f32],
    dx: &mut [f32],
    (first, new, i, j): (usize, std::ops::Range<usize>, usize, usize),
) {
    let (outputs, inputs) = (kernel.outputs, kernel.inputs());
    let mut rows = [&dy[..0]; R];
    for r in 0..R {
        rows[r] = &dy[(first + r) * outputs..][..outputs];
    }
    let mut sums = [[[0.0; LANES]; V]; R];
    for o in 0..outputs {
        let w = &weights[o * inputs + i * kernel.run + j..][..V * LANES];
        let mut vectors = [[0.0; LANES]; V];
        for v in 0..V {
            vectors[v] = load(&w[v * LANES..][..LANES]);
        }
        for r in 0..R {
            for v in 0..V {
                add_product(&mut sums[r][v], rows[r][o], &vectors[v]);
            }
        }
    }
    for r in new {
        let dx = &mut dx[places[first + r] + i * kernel.pitch + j..][..V * LANES];
        dx.iter_mut().zip(sums[r].as_flattened()).for_each(|(dx, s)| *dx += s);
    }
}

widest! {
    /// The weights' gradient, `[outputs, inputs]`: `dw = Σ dy·x` over all places, added to what `dw` holds, or
    /// in its stead.
    pub(super) fn weight_gradient(kernel: &Kernel, places: &[usize], x: &[f32], dy: &[f32], dw: &mut [f32], add: bool) {
        if large() {
            weight_gradient_by::<4, 2>(kernel, places, x, dy, dw, add);
        } else {
            weight_gradient_by::<4, 1>(kernel, places, x, dy, dw, add);
        }
    }
}

#[inline(always)]
fn weight_gradient_by<const C: usize, const V: usize>(
    kernel: &Kernel,
    places: &[usize],
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    add: bool,
) {
    for i in 0..kernel.runs {
        for (j, many) in vectors::<V>(kernel.run) {
            for o in (0..kernel.outputs).step_by(C) {
                if many {
                    weight_gradient_tile::<C, V>(kernel, places, x, dy, dw, add, (o, i, j));
                } else {
                    weight_gradient_tile::<C, 1>(kernel, places, x, dy, dw, add, (o, i, j));
                }
            }
        }
    }
}

/// `C` outputs, `V` vectors of run `i` from `j` on.
#[inline(always)]
fn weight_gradient_tile<const C: usize, const V: usize>(
    kernel: &Kernel,
    places: &[usize],
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    add: bool,
    (o, i, j): (usize, usize, usize),
) {
    let (outputs, inputs) = (kernel.outputs, kernel.inputs());
    let mut sums = [[[0.0; LANES]; V]; C];
    for (place, dy) in places.iter().zip(dy.chunks_exact(outputs)) {
        let dy: &[f32; C] = dy[o..o + C].try_into().expect("as many");
        let x = &x[place + i * kernel.pitch + j..][..V * LANES];
        for v in 0..V {
            let x = load(&x[v * LANES..][..LANES]);
            for c in 0..C {
                add_product(&mut sums[c][v], dy[c], &x);
            }
        }
    }
    for (c, sums) in sums.iter().enumerate() {
        put(sums.as_flattened(), &mut dw[(o + c) * inputs + i * kernel.run + j..][..V * LANES], add);
    }
}

widest! {
    /// The gradient before the rectifier, `to`, and that of the bias, which is added to `db` `[outputs]`: `y`, `dy` and `to`
    /// `[rows, outputs]`.
    pub(super) fn rectifier_gradient<T: Number>(y: &[T], dy: &[f32], to: &mut [T], db: &mut [f32]) {
        let n = db.len();
        for ((y, dy), to) in y.chunks_exact(n).zip(dy.chunks_exact(n)).zip(to.chunks_exact_mut(n)) {
            for (((y, dy), to), db) in y.iter().zip(dy).zip(to).zip(&mut *db) {
                let dy = if y.get() <= 0.0 { 0.0 } else { *dy };
                *db += dy;
                *to = T::of(dy);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Bf16;

    type Convolve = fn(&Kernel, &[Vector], &[f32], &[usize], &[f32], &mut [f32]);
    type InputGradient = fn(&Kernel, &[f32], &[usize], &[f32], &mut [f32]);

    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
    }

    fn close(actual: &[f32], expected: &[f32]) {
        assert_eq!(actual.len(), expected.len());
        for (a, e) in actual.iter().zip(expected) {
            assert!((a - e).abs() < 1e-4, "{a} is not {e}");
        }
    }

    /// What a kernel sees at a place, number by number.
    fn seen(kernel: &Kernel, place: usize) -> impl Iterator<Item = usize> + Clone {
        let Kernel { runs, run, pitch, .. } = *kernel;
        (0..runs).flat_map(move |i| (0..run).map(move |j| place + i * pitch + j))
    }

    /// An image of 7 × 13 with 16 channels, seen by 3 × 3 of it two rows and one column apart: 3 × 11 places that overlap,
    /// and runs of three vectors.
    fn convolution() -> (Kernel, Vec<usize>, Vec<f32>) {
        let kernel = Kernel { outputs: 24, runs: 3, run: 48, pitch: 13 * 16 };
        let places = (0..3).flat_map(|y| (0..11).map(move |x| (y * 2 * 13 + x) * 16)).collect();
        (kernel, places, numbers(7 * 13 * 16, 1))
    }

    #[test]
    fn tiles_of_every_size_equal_plain_loops() {
        let (kernel, all, x) = convolution();
        let (outputs, inputs) = (kernel.outputs, kernel.inputs());
        let (w, b) = (numbers(outputs * inputs, 2), numbers(outputs, 3));
        let mut packed = Vec::new();
        pack(&w, inputs, &mut packed);
        for count in [1, 2, 3, 4, 5, 8, 9, all.len()] {
            let places = &all[..count];
            let dy = numbers(count * outputs, 4);
            let (mut y, mut dx, mut dw) = (vec![0.0; dy.len()], vec![0.5; x.len()], vec![0.25; w.len()]);
            for (p, place) in places.iter().enumerate() {
                for o in 0..outputs {
                    let (w, dw) = (&w[o * inputs..][..inputs], &mut dw[o * inputs..][..inputs]);
                    let dot: f32 = seen(&kernel, *place).zip(w).map(|(i, w)| x[i] * w).sum();
                    y[p * outputs + o] = (dot + b[o]).max(0.0);
                    for ((i, w), dw) in seen(&kernel, *place).zip(w).zip(dw) {
                        dx[i] += dy[p * outputs + o] * w;
                        *dw += dy[p * outputs + o] * x[i];
                    }
                }
            }
            let forward = |by: Convolve| {
                let mut to = vec![0.0; y.len()];
                by(&kernel, &packed, &b, places, &x, &mut to);
                close(&to, &y);
            };
            if count >= 4 {
                forward(convolve_by::<4>);
            }
            if count >= PLACES {
                [convolve_by::<8>, convolve].into_iter().for_each(forward);
            }
            let backward = |by: InputGradient| {
                let mut to = vec![0.5; x.len()];
                by(&kernel, &w, places, &dy, &mut to);
                close(&to, &dx);
            };
            backward(input_gradient);
            if count >= 4 {
                backward(input_gradient_by::<4, 2>);
            }
            for by in [weight_gradient_by::<4, 2>, weight_gradient_by::<4, 1>, weight_gradient] {
                let mut to = vec![0.25; w.len()];
                by(&kernel, places, &x, &dy, &mut to, true);
                close(&to, &dw);
                to.fill(f32::NAN); // what is there must not matter
                by(&kernel, places, &x, &dy, &mut to, false);
                close(&to, &dw.iter().map(|w| w - 0.25).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn rows_are_connected_as_by_plain_loops() {
        let kernel = Kernel { outputs: 12, runs: 1, run: 80, pitch: 80 };
        let (w, b) = (numbers(12 * 80, 1), numbers(12, 2));
        for rows in [1, 2, 3, 4, 5, 6, 9] {
            let x = numbers(rows * 80, 3);
            let row = |x: &[f32]| -> Vec<f32> {
                let dot = |o: usize| -> f32 { x.iter().zip(&w[o * 80..]).map(|(x, w)| x * w).sum() };
                (0..12).map(|o| (dot(o) + b[o]).max(0.0)).collect()
            };
            let mut y = vec![0.0; rows * 12];
            connect(&kernel, &w, &b, &x, &mut y);
            close(&y, &x.chunks(80).flat_map(row).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_rectifier_stops_what_it_did_not_let_through() {
        assert!(rectified(f32::NAN).is_nan());
        assert_eq!([-1.0, 0.0, 2.0].map(rectified), [0.0, 0.0, 2.0]);
        let dy = [3.0, 4.0, 5.0, 6.0];
        let (mut to, mut db) = ([7.0; 4], [1.0, 2.0]);
        rectifier_gradient(&[0.0, 2.0, 1.0, -0.0], &dy, &mut to, &mut db);
        assert_eq!((to, db), ([0.0, 4.0, 5.0, 0.0], [6.0, 6.0]));
        let (mut to, y) = ([Bf16(7); 4], [0.0, 2.0, 1.0, -0.0].map(Bf16::of));
        rectifier_gradient(&y, &dy, &mut to, &mut db);
        assert_eq!((to.map(|x| x.get()), db), ([0.0, 4.0, 5.0, 0.0], [11.0, 10.0]));
    }
}
