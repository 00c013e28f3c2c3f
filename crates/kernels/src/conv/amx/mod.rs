//! bf16 kernels for AMX, whose instruction `tdpbf16ps` multiplies two tiles: over [`Tiles`], so that tests run them on every processor.
//!
//! # Tiles
//!
//! A tile register has 16 rows of 64 bytes. One instruction adds to 16 × 16 `f32` sums the products of 16 rows of 32 bf16 elements
//! with 16 columns of 32:
//!
//! ```text
//!                       columns: 16 pairs deep, 16 wide
//!                      ┌ (0,1) (0,1) … (0,1) ┐   elements 0 and 1 of each column
//!                      │ (2,3) (2,3) … (2,3) │
//!                      └   …               … ┘
//!   ┌ 0 1 2 3 … 31 ┐   ┌                     ┐
//!   │ 0 1 2 3 … 31 │ · │     16 × 16 sums    │   sums[m][n] += Σ rows[m][k]·columns[k][n]
//!   └ …            ┘   └                     ┘
//!    rows: 16 × 32
//! ```
//!
//! A row of the second operand holds a *pair* of neighbors along the summed dimension for each of the 16 columns (Intel calls it the VNNI
//! format). A tile of such pairs is the transpose of a tile of rows whose elements are pairs ([`pack::transpose`]).
//!
//! # Blocks
//!
//! [`multiply`] computes 2 × 2 tiles of sums in registers, and uses each loaded tile twice:
//!
//! ```text
//!                 tmm6   tmm7    columns
//!               ┌──────┬──────┐
//!   rows   tmm4 │ tmm0 │ tmm1 │
//!               ├──────┼──────┤
//!          tmm5 │ tmm2 │ tmm3 │
//!               └──────┴──────┘
//! ```
//!
//! Four loads of 1 KiB feed four products. On one core of an Intel Xeon (Sapphire Rapids class, 2026-11-27), products alone ran at
//! 2,050 GFLOP/s, and with these loads from the first-level cache at 1,300. The block then stores its 32 × 32 sums in 4 KiB, and a
//! loop over these adds the bias and rectifies, or adds to a gradient.
//!
//! # Operands
//!
//! | result | rows | columns | summed over |
//! |---|---|---|---|
//! | convolution | inputs at the positions | weights, packed once | inputs of an output |
//! | its input gradient | output gradients | weights, packed once | outputs |
//! | its weight gradient | output gradients, transposed | inputs at the positions, in pairs | positions |
//! | fully connected | weights, where they lie | inputs, transposed | inputs |
//! | its input gradient | output gradients | weights, in pairs | outputs |
//! | its weight gradient | output gradients, transposed | inputs, in pairs | batch rows |
//!
//! **Positions in a row of outputs** are a constant stride apart, so that tiles can be loaded from the image. The last tile of a row
//! overlaps the one before. In the first layer of `nature` a row has 20 positions, and 63 % of the 32 rows of a block are new. The rows of
//! the later layers (9 and 7 positions) do not fill a tile: their positions are gathered from the whole image, 32 at a time. That is 32 to
//! 37 KiB, which the first-level cache of 48 KiB holds, written once and read by all outputs. Gathering copies 64 bytes for each row of
//! a tile, about as much work as the product of a tile: the first layer, whose positions overlap most and have 2 tiles of outputs, would
//! spend more time on it than the 60 % more products cost (an estimate from instruction counts). This holds for whole frames; distinct windows
//! (`conv_net/distinct.rs`) are images of their own, which lie one after the other.
//!
//! **Fully connected weights stay where they lie.** They are most of the parameters (3.2 MB of 3.4 in `nature`), and packing them moves
//! twice that. As *rows* they need no packing; the batch is transposed instead, 6 KB a row of `nature`. The input gradient sums over
//! outputs, so that there the weights become columns: a block of 32 columns is paired (32 KB for 512 outputs), and used by all batch rows.
//!
//! Rows of 32 elements and tiles of 16 outputs are required ([`supports`]); positions and batch rows may have any number. The rows of
//! tiles that are left over hold values of earlier calls: their sums are not read.

mod pack;
mod tiles;

use super::fp32::{at_least, put, tiles as tiles_of};
use super::row_offsets;
use super::shape::LayerShape;
use crate::Element;
use crate::simd::multiversion;
use half::bf16;
use pack::{buffer, gather, gather_transposed, pair, row_of, transpose};

#[cfg(target_arch = "x86_64")]
pub(crate) use tiles::Amx;
use tiles::Tile;
pub(crate) use tiles::Tiles;

/// Rows of a tile, and sums of its rows.
const SIDE: usize = 16;

/// Elements along the summed dimension of a tile.
const DEPTH: usize = 32;

/// Rows and columns of a block of 2 × 2 tiles.
const BLOCK: usize = 2 * SIDE;

/// Batch rows of a fully connected layer that are transposed at a time: 0.8 MB of `nature`'s, which a second-level cache of 2 MB holds
/// beside the weights of a block.
const BATCH: usize = 128;

/// Rows of an operand.
#[derive(Clone, Copy)]
enum Rows<'a> {
    /// `[rows / 16][summed dimension / 32]`.
    Packed(&'a [Tile]),
    /// Adjacent elements of rows that start `stride` elements apart.
    Strided(&'a [bf16], usize),
    /// What a kernel reads of an image `x`, at 16 positions from each of two, `stride` elements apart.
    Image { shape: &'a LayerShape, x: &'a [bf16], positions: [usize; 2], stride: usize },
}

const ZEROS: Tile = Tile([[0; SIDE]; SIDE]);

/// The sums of a block.
#[derive(Debug)]
#[repr(align(64))]
struct Sums([[f32; BLOCK]; BLOCK]);

impl Sums {
    const ZERO: Self = Self([[0.0; BLOCK]; BLOCK]);
}

/// A layer's packed weights, and buffers. Tiles are ordered `[rows or columns / 16][summed dimension / 32]`.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    /// For [`convolve`]: columns are outputs.
    weights: Vec<Tile>,
    /// For [`input_gradient`]: columns are inputs.
    transposed: Vec<Tile>,
    rows: Vec<Tile>,
    columns: Vec<Tile>,
}

/// The fewest rows for which [`suits`] is true. A product takes as long for one row as for 16. Counting instructions, these kernels and
/// those for AVX-512 BF16 break even at about two rows of a fully connected layer; for up to four rows the latter read the weights
/// once, as these do, and reading them takes most of the time. An estimate, not a measurement.
const MIN_ROWS: usize = 5;

/// Whether the kernels support `shape`.
pub(crate) fn supports(shape: &LayerShape) -> bool {
    shape.row_len.is_multiple_of(DEPTH) && shape.outputs.is_multiple_of(SIDE)
}

/// Whether the kernels should compute a layer for `rows` rows of a batch, or positions of an image, where a processor has AVX-512 BF16, too.
pub(crate) fn suits(shape: &LayerShape, rows: usize) -> bool {
    rows >= MIN_ROWS && supports(shape)
}

/// Packs weights `[outputs, inputs]` for [`convolve`].
pub(crate) fn pack(shape: &LayerShape, weights: &[bf16], packed: &mut Packed) {
    let inputs = shape.inputs();
    packed.weights.resize(shape.outputs / SIDE * (inputs / DEPTH), ZEROS);
    gather(&row_of(inputs), &row_offsets(shape.outputs, inputs), weights, &mut packed.weights);
    transpose(&mut packed.weights);
}

/// Packs weights `[outputs, inputs]` for [`input_gradient`].
pub(crate) fn pack_transposed(shape: &LayerShape, weights: &[bf16], packed: &mut Packed) {
    let (inputs, depth) = (shape.inputs(), shape.outputs.div_ceil(DEPTH));
    packed.transposed.resize(inputs / SIDE * depth, ZEROS);
    let outputs = row_offsets(shape.outputs, inputs);
    for (block, tiles) in packed.transposed.chunks_exact_mut(depth).enumerate() {
        pair(&outputs, &weights[block * SIDE..], tiles);
    }
}

/// `y[position] = max(floor, Σ x·w + b)` at the `positions` of an image `x`, after [`pack`]. `y` `[positions, outputs]`.
pub(crate) fn convolve<T: Tiles>(
    shape: &LayerShape,
    packed: &mut Packed,
    (bias, floor): (&[bf16], f32),
    positions: &[usize],
    x: &[bf16],
    y: &mut [bf16],
) {
    let (outputs, depth) = (shape.outputs, shape.inputs() / DEPTH);
    let Packed { weights, rows: gathered, .. } = packed;
    let gathered = buffer(gathered, 2 * depth);
    let (mut tiles, mut sums) = (T::configure(), Sums::ZERO);
    // The first `n` rows, whose first 16 are those of `y[starts[0]]` and whose others are those of `y[starts[1]]`.
    let mut block = |n: usize, rows: Rows<'_>, starts: [usize; 2], y: &mut [bf16]| {
        for (columns, o) in weights.chunks(2 * depth).zip((0..outputs).step_by(BLOCK)) {
            multiply(&mut tiles, n, rows, columns, depth, &mut sums);
            let bias = &bias[o..outputs.min(o + BLOCK)];
            for (sums, start) in sums.0[..n].chunks(SIDE).zip(starts) {
                finish(sums, bias, floor, outputs, &mut y[start * outputs + o..]);
            }
        }
    };
    if let Some((len, stride)) = runs(positions) {
        for (positions, y) in positions.chunks(len).zip(y.chunks_mut(len * outputs)) {
            let mut starts = tiles_of::<SIDE>(len);
            while let Some(start) = starts.next() {
                let next = starts.next();
                let (n, starts) = (if next.is_some() { BLOCK } else { SIDE }, [start, next.unwrap_or(start)]);
                block(n, Rows::Image { shape, x, positions: starts.map(|p| positions[p]), stride }, starts, y);
            }
        }
    } else {
        for (positions, y) in positions.chunks(BLOCK).zip(y.chunks_mut(BLOCK * outputs)) {
            gather(shape, positions, x, gathered);
            block(positions.len(), Rows::Packed(gathered), [0, SIDE], y);
        }
    }
}

/// The length of runs of positions with a constant stride, and the stride, if all runs are equally long and fill a tile.
fn runs(positions: &[usize]) -> Option<(usize, usize)> {
    let stride = positions.get(1)? - positions[0];
    let follows = |pair: &[usize]| pair[1].checked_sub(pair[0]) == Some(stride);
    let len = 1 + positions.windows(2).take_while(|pair| follows(pair)).count();
    let equal = positions.chunks(len).all(|run| run.len() == len && run.windows(2).all(follows));
    (len >= SIDE && equal).then_some((len, stride))
}

/// The gradient of an image: `dx += Σ dy·w` at its `positions`, after [`pack_transposed`]. `dy` `[positions, outputs]`.
pub(crate) fn input_gradient<T: Tiles>(
    shape: &LayerShape,
    packed: &mut Packed,
    positions: &[usize],
    dy: &[bf16],
    dx: &mut [f32],
) {
    let &LayerShape { outputs, row_len, row_stride, .. } = shape;
    let depth = outputs.div_ceil(DEPTH);
    let Packed { transposed, rows, .. } = packed;
    let rows = buffer(rows, positions.len().div_ceil(SIDE) * depth);
    gather(&row_of(outputs), &row_offsets(positions.len(), outputs), dy, rows);
    let (mut tiles, mut sums) = (T::configure(), Sums::ZERO);
    for (columns, column) in transposed.chunks_exact(2 * depth).zip((0..).step_by(BLOCK)) {
        // A block of columns lies in one row of the kernel.
        let offset = column / row_len * row_stride + column % row_len;
        for (rows, positions) in rows.chunks(2 * depth).zip(positions.chunks(BLOCK)) {
            multiply(&mut tiles, positions.len(), Rows::Packed(rows), columns, depth, &mut sums);
            scatter(&sums, positions, &mut dx[offset..]);
        }
    }
}

/// The weight gradient of a convolution, `[outputs, inputs]`: `dw += Σ dy·x` over all positions. `dy` `[positions, outputs]`.
pub(crate) fn weight_gradient<T: Tiles>(
    shape: &LayerShape,
    packed: &mut Packed,
    positions: &[usize],
    x: &[bf16],
    dy: &[bf16],
    dw: &mut [f32],
) {
    let Packed { rows, columns, .. } = packed;
    let rows = gather_transposed(shape.outputs, positions.len(), dy, rows);
    multiply_pairs::<T, f32>(shape, positions, x, shape.outputs, rows, columns, dw, true);
}

/// `y[row] = max(floor, Σ x·w + b)` of a fully connected layer: `x` `[rows, inputs]`, `weights` `[outputs, inputs]`, `y`
/// `[rows, outputs]`.
pub(crate) fn linear<T: Tiles>(
    shape: &LayerShape,
    packed: &mut Packed,
    weights: &[bf16],
    (bias, floor): (&[bf16], f32),
    x: &[bf16],
    y: &mut [bf16],
) {
    let (outputs, inputs) = (shape.outputs, shape.inputs());
    let depth = inputs / DEPTH;
    let (mut tiles, mut sums) = (T::configure(), Sums::ZERO);
    for (x, y) in x.chunks(BATCH * inputs).zip(y.chunks_mut(BATCH * outputs)) {
        let n = x.len() / inputs;
        let columns = buffer(&mut packed.columns, n.div_ceil(SIDE) * depth);
        gather(&row_of(inputs), &row_offsets(n, inputs), x, columns);
        transpose(columns);
        for o in (0..outputs).step_by(BLOCK) {
            let bias = &bias[o..outputs.min(o + BLOCK)];
            let rows = Rows::Strided(&weights[o * inputs..], inputs);
            for (columns, y) in columns.chunks(2 * depth).zip(y.chunks_mut(BLOCK * outputs)) {
                multiply(&mut tiles, bias.len(), rows, columns, depth, &mut sums);
                finish_transposed(&sums, bias, floor, outputs, y, o);
            }
        }
    }
}

/// The input gradient of a fully connected layer, `[rows, inputs]`: `dx = Σ dy·w`. `dy` `[rows, outputs]`.
pub(crate) fn linear_input_gradient<T: Tiles>(
    shape: &LayerShape,
    packed: &mut Packed,
    weights: &[bf16],
    dy: &[bf16],
    dx: &mut [f32],
) {
    let (outputs, n) = (shape.outputs, dy.len() / shape.outputs);
    let Packed { rows, columns, .. } = packed;
    let rows = buffer(rows, n.div_ceil(SIDE) * outputs.div_ceil(DEPTH));
    gather(&row_of(outputs), &row_offsets(n, outputs), dy, rows);
    let outputs = row_offsets(outputs, shape.inputs());
    multiply_pairs::<T, f32>(shape, &outputs, weights, n, rows, columns, dx, false);
}

/// The weight gradient of a fully connected layer, `[outputs, inputs]`: `dw = Σ dy·x` over all rows. `dy` `[rows, outputs]`.
pub(crate) fn linear_weight_gradient<T: Tiles>(
    shape: &LayerShape,
    packed: &mut Packed,
    x: &[bf16],
    dy: &[bf16],
    dw: &mut [bf16],
) {
    let n = dy.len() / shape.outputs;
    let Packed { rows, columns, .. } = packed;
    let rows = gather_transposed(shape.outputs, n, dy, rows);
    let positions = row_offsets(n, shape.inputs());
    multiply_pairs::<T, bf16>(shape, &positions, x, shape.outputs, rows, columns, dw, false);
}

/// `to = Σ rows·x` over the `positions` of `x`, or `to += …` where `add`: `rows` `[n, positions]`, packed; `to` `[n, inputs]`.
#[allow(clippy::too_many_arguments)]
fn multiply_pairs<T: Tiles, E: Element>(
    shape: &LayerShape,
    positions: &[usize],
    x: &[bf16],
    n: usize,
    rows: &[Tile],
    columns: &mut Vec<Tile>,
    to: &mut [E],
    add: bool,
) {
    let (inputs, depth) = (shape.inputs(), positions.len().div_ceil(DEPTH));
    let columns = buffer(columns, 2 * depth);
    let (mut tiles, mut sums) = (T::configure(), Sums::ZERO);
    for i in 0..shape.kernel_rows {
        for j in (0..shape.row_len).step_by(BLOCK) {
            let x = &x[i * shape.row_stride + j..];
            let (left, right) = columns.split_at_mut(depth);
            pair(positions, x, left);
            pair(positions, &x[SIDE..], right);
            for (rows, first) in rows.chunks(2 * depth).zip((0..n).step_by(BLOCK)) {
                let n = BLOCK.min(n - first);
                multiply(&mut tiles, n, Rows::Packed(rows), columns, depth, &mut sums);
                put_rows(&sums, n, inputs, &mut to[first * inputs + i * shape.row_len + j..], add);
            }
        }
    }
}

/// `sums = Σ rows·columns` over `depth` tiles, of `n` rows. `columns` `[1 or 2][depth]`.
fn multiply<T: Tiles>(tiles: &mut T, n: usize, rows: Rows<'_>, columns: &[Tile], depth: usize, sums: &mut Sums) {
    match (n.div_ceil(SIDE), columns.len() / depth) {
        (1, 1) => multiply_by::<T, 1, 1>(tiles, rows, columns, depth, sums),
        (1, _) => multiply_by::<T, 1, 2>(tiles, rows, columns, depth, sums),
        (_, 1) => multiply_by::<T, 2, 1>(tiles, rows, columns, depth, sums),
        _ => multiply_by::<T, 2, 2>(tiles, rows, columns, depth, sums),
    }
}

/// As [`multiply`], of `R` × `C` tiles.
fn multiply_by<T: Tiles, const R: usize, const C: usize>(
    tiles: &mut T,
    rows: Rows<'_>,
    columns: &[Tile],
    depth: usize,
    Sums(sums): &mut Sums,
) {
    tiles.zero::<0>();
    tiles.zero::<1>();
    tiles.zero::<2>();
    tiles.zero::<3>();
    for k in 0..depth {
        rows.load::<T, 4>(tiles, 0, k, depth);
        tiles.load::<6>(&columns[k]);
        tiles.dot::<0, 4, 6>();
        if C == 2 {
            tiles.load::<7>(&columns[depth + k]);
            tiles.dot::<1, 4, 7>();
        }
        if R == 2 {
            rows.load::<T, 5>(tiles, 1, k, depth);
            tiles.dot::<2, 5, 6>();
        }
        if R == 2 && C == 2 {
            tiles.dot::<3, 5, 7>();
        }
    }
    let sums = sums.as_flattened_mut();
    tiles.store::<0>(sums, BLOCK);
    if C == 2 {
        tiles.store::<1>(&mut sums[SIDE..], BLOCK);
    }
    if R == 2 {
        tiles.store::<2>(&mut sums[SIDE * BLOCK..], BLOCK);
    }
    if R == 2 && C == 2 {
        tiles.store::<3>(&mut sums[SIDE * BLOCK + SIDE..], BLOCK);
    }
}

impl Rows<'_> {
    /// Loads tile `k` of the `r`-th 16 rows.
    #[inline(always)]
    fn load<T: Tiles, const TO: usize>(self, tiles: &mut T, r: usize, k: usize, depth: usize) {
        match self {
            Self::Packed(rows) => tiles.load::<TO>(&rows[r * depth + k]),
            Self::Strided(rows, stride) => tiles.load_strided::<TO>(&rows[r * SIDE * stride + k * DEPTH..], stride),
            Self::Image { shape: LayerShape { row_len, row_stride, .. }, x, positions, stride } => {
                let (row, column) = (k * DEPTH / row_len, k * DEPTH % row_len);
                tiles.load_strided::<TO>(&x[positions[r] + row * row_stride + column..], stride);
            }
        }
    }
}

multiversion! {
    /// `y = max(floor, sums + bias)`: rows `stride` elements apart, of as many columns as `bias` has: 16 or 32.
    fn finish(sums: &[[f32; BLOCK]], bias: &[bf16], floor: f32, stride: usize, y: &mut [bf16]) {
        for (sums, y) in sums.iter().zip(y.chunks_mut(stride)) {
            let outputs = bias.len();
            for ((y, sum), bias) in y[..outputs].iter_mut().zip(&sums[..outputs]).zip(bias) {
                *y = bf16::narrow(at_least(floor, sum + bias.widen()));
            }
        }
    }
}

multiversion! {
    /// `y = max(floor, sums + bias)`, where `sums` has a row per output and a column per row of `y`: into columns from `first`.
    fn finish_transposed(sums: &Sums, bias: &[bf16], floor: f32, stride: usize, y: &mut [bf16], first: usize) {
        for (n, y) in y.chunks_exact_mut(stride).enumerate() {
            let y = y[first..].as_chunks_mut::<SIDE>().0.iter_mut();
            for ((sums, bias), y) in sums.0.as_chunks::<SIDE>().0.iter().zip(bias.as_chunks::<SIDE>().0).zip(y) {
                for o in 0..SIDE {
                    y[o] = bf16::narrow(at_least(floor, sums[o][n] + bias[o].widen()));
                }
            }
        }
    }
}

multiversion! {
    /// Adds the first rows of `sums` to `to` at the positions.
    fn scatter(sums: &Sums, positions: &[usize], to: &mut [f32]) {
        for (sums, position) in sums.0.iter().zip(positions) {
            let to = to[*position..].first_chunk_mut::<BLOCK>().expect("a block of columns");
            put(sums, to, true);
        }
    }
}

multiversion! {
    /// Stores the first `n` rows of `sums` in `to`, `stride` elements apart, or adds them to it.
    fn put_rows<T: Element>(sums: &Sums, n: usize, stride: usize, to: &mut [T], add: bool) {
        for (sums, to) in sums.0.iter().zip(to.chunks_mut(stride)).take(n) {
            put(sums, to.first_chunk_mut::<BLOCK>().expect("a block of columns"), add);
        }
    }
}

#[cfg(test)]
mod tests;
