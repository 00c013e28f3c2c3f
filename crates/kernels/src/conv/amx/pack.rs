//! Packing of operands: rows of 32 elements, or pairs of elements in 16 columns.

use super::super::{row_offsets, shape::LayerShape};
use super::tiles::{Tile, word};
use super::{DEPTH, SIDE, ZEROS};
use crate::simd::{SimdLevel, level, multiversion};
use half::bf16;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m512i, _mm512_permutex2var_epi32};

/// The first `n` tiles of a buffer, which grows if needed.
pub(super) fn buffer(tiles: &mut Vec<Tile>, n: usize) -> &mut [Tile] {
    tiles.resize(n.max(tiles.len()), ZEROS);
    &mut tiles[..n]
}

/// The shape that reads a row of `len` adjacent elements.
pub(super) fn row_of(len: usize) -> LayerShape {
    LayerShape { outputs: 0, kernel_rows: 1, row_len: len, row_stride: len }
}

multiversion! {
    /// Packs what a kernel reads at each position as a row of tiles, `[positions / 16][inputs / 32]`. A kernel row that is no multiple
    /// of 32 elements is padded with zeros.
    pub(super) fn gather(shape: &LayerShape, positions: &[usize], x: &[bf16], to: &mut [Tile]) {
        let &LayerShape { kernel_rows, row_len, row_stride, .. } = shape;
        let depth = kernel_rows * row_len.div_ceil(DEPTH);
        for (p, position) in positions.iter().enumerate() {
            let mut to = to[p / SIDE * depth..][..depth].iter_mut().map(|tile| &mut tile.0[p % SIDE]);
            for i in 0..kernel_rows {
                let (whole, rest) = x[position + i * row_stride..][..row_len].as_chunks();
                for (from, to) in whole.iter().zip(to.by_ref()) {
                    *to = words(*from);
                }
                if !rest.is_empty() {
                    let mut padded = [bf16::ZERO; DEPTH];
                    padded[..rest.len()].copy_from_slice(rest);
                    *to.next().expect("a tile per 32 elements") = words(padded);
                }
            }
        }
    }
}

/// The pairs of adjacent elements.
#[inline(always)]
fn words(elements: [bf16; DEPTH]) -> [u32; SIDE] {
    std::array::from_fn(|i| word(elements[2 * i], elements[2 * i + 1]))
}

/// Packs the columns of `x` `[n, outputs]` as rows of tiles, `[outputs / 16][n / 32]`, padded with zeros.
pub(super) fn gather_transposed<'a>(outputs: usize, n: usize, x: &[bf16], to: &'a mut Vec<Tile>) -> &'a [Tile] {
    let (depth, positions) = (n.div_ceil(DEPTH), row_offsets(n, outputs));
    let to = buffer(to, outputs / SIDE * depth);
    for (block, tiles) in to.chunks_exact_mut(depth).enumerate() {
        pair(&positions, &x[block * SIDE..], tiles);
    }
    transpose(to);
    to
}

multiversion! {
    /// Pairs the elements at neighboring positions, in 16 columns from each position: one row of a tile per pair, padded with zeros.
    pub(super) fn pair(positions: &[usize], x: &[bf16], to: &mut [Tile]) {
        let read = |position: usize| *x[position..].first_chunk::<SIDE>().expect("16 columns");
        let rows = to.iter_mut().flat_map(|tile| &mut tile.0);
        let mut pairs = positions.chunks(2);
        for row in rows {
            let (first, second) = match pairs.next() {
                Some([first, second]) => (read(*first), read(*second)),
                Some([first]) => (read(*first), [bf16::ZERO; SIDE]),
                _ => ([bf16::ZERO; SIDE], [bf16::ZERO; SIDE]),
            };
            *row = std::array::from_fn(|n| word(first[n], second[n]));
        }
    }
}

/// Transposes each tile, as a matrix of 16 × 16 pairs.
pub(super) fn transpose(tiles: &mut [Tile]) {
    #[cfg(target_arch = "x86_64")]
    if !matches!(level(), SimdLevel::Avx2 | SimdLevel::Baseline) {
        // SAFETY: `level` detected these instructions.
        return unsafe { tiles.iter_mut().for_each(|tile| transpose_avx512(tile)) };
    }
    tiles.iter_mut().for_each(transpose_baseline);
}

fn transpose_baseline(Tile(rows): &mut Tile) {
    let from = *rows;
    for (c, row) in rows.iter_mut().enumerate() {
        row.iter_mut().zip(&from).for_each(|(to, from)| *to = from[c]);
    }
}

/// In four steps: step `D` exchanges the two `D` × `D` blocks off the diagonal in each block of 2`D` × 2`D`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn transpose_avx512(Tile(rows): &mut Tile) {
    // SAFETY of both: the types have equal sizes, and every bit pattern is valid.
    let mut registers = unsafe { std::mem::transmute::<[[u32; SIDE]; SIDE], [__m512i; SIDE]>(*rows) };
    exchange::<8>(&mut registers);
    exchange::<4>(&mut registers);
    exchange::<2>(&mut registers);
    exchange::<1>(&mut registers);
    *rows = unsafe { std::mem::transmute::<[__m512i; SIDE], [[u32; SIDE]; SIDE]>(registers) };
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn exchange<const D: usize>(rows: &mut [__m512i; SIDE]) {
    // Column `c` of the upper row of a block is that of the upper row, or column `c − D` of the lower row (16 and more: of the second
    // operand).
    let upper: [u32; SIDE] = std::array::from_fn(|c| (if c & D == 0 { c } else { SIDE + c - D }) as u32);
    let lower: [u32; SIDE] = std::array::from_fn(|c| (if c & D == 0 { c + D } else { SIDE + c }) as u32);
    // SAFETY: the types have equal sizes, and every bit pattern is valid.
    let [upper, lower] = unsafe { std::mem::transmute::<[[u32; SIDE]; 2], [__m512i; 2]>([upper, lower]) };
    for r in 0..SIDE {
        if r & D == 0 {
            let (first, second) = (rows[r], rows[r + D]);
            rows[r] = _mm512_permutex2var_epi32(first, upper, second);
            rows[r + D] = _mm512_permutex2var_epi32(first, lower, second);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_transposed() {
        let original: [[u32; SIDE]; SIDE] = std::array::from_fn(|r| std::array::from_fn(|c| (r * SIDE + c) as u32));
        let transposed: [[u32; SIDE]; SIDE] = std::array::from_fn(|r| std::array::from_fn(|c| (c * SIDE + r) as u32));
        let (mut one, mut two) = (Tile(original), [Tile(original); 2]);
        transpose_baseline(&mut one);
        transpose(&mut two);
        assert_eq!((one.0, two.map(|tile| tile.0)), (transposed, [transposed; 2]));
    }
}
