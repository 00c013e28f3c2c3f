//! The tile registers of AMX: the operations that the kernels use, by the real instructions ([`Amx`]) and in plain Rust (`Emulated`).
//!
//! There are eight registers, tmm0 to tmm7. All are configured to 16 rows of 64 bytes; a row holds 16 `f32` or 32 bf16.

use super::{DEPTH, SIDE};
use half::bf16;

/// An operand in memory, 1 KiB: 16 rows of 16 pairs of bf16, the first element of a pair in the low half of a word.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Tile(pub [[u32; SIDE]; SIDE]);

/// A pair as the processor reads it from memory.
#[inline(always)]
pub(crate) fn word(first: bf16, second: bf16) -> u32 {
    u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16
}

/// Tile operations. A `const` parameter is the number of a register.
///
/// # Panics
/// [`load_strided`](Self::load_strided) and [`store`](Self::store) panic if the slice is shorter than the tile.
pub(crate) trait Tiles {
    /// Configures the registers of this thread. They are released when the value is dropped.
    fn configure() -> Self;

    /// Sets a register to zero.
    fn zero<const TO: usize>(&mut self);

    /// Loads an operand.
    fn load<const TO: usize>(&mut self, from: &Tile);

    /// Loads 16 rows of 32 elements, `stride` elements apart.
    fn load_strided<const TO: usize>(&mut self, from: &[bf16], stride: usize);

    /// `sums[m][n] += Σ rows[m][2k]·columns[k][2n] + rows[m][2k + 1]·columns[k][2n + 1]` over the pairs `k` from 0 to 15.
    fn dot<const SUMS: usize, const ROWS: usize, const COLUMNS: usize>(&mut self);

    /// Stores 16 rows of 16 sums, `stride` elements apart.
    fn store<const FROM: usize>(&self, to: &mut [f32], stride: usize);
}

/// Elements from the first to the last one of 16 rows of `len` elements, `stride` elements apart.
fn extent(stride: usize, len: usize) -> usize {
    (SIDE - 1) * stride + len
}

/// The registers of the processor.
///
/// The compiler neither reads nor writes tile registers, because the crate is compiled without the target feature `amx-tile`, and it
/// keeps the order of `asm!` blocks without the option `pure`: registers hold their values from one block to the next. Another library
/// may configure the registers of the same thread in its own way (libtorch's oneDNN does): a value of this type lives no longer than one
/// call of a kernel.
#[cfg(target_arch = "x86_64")]
pub(crate) struct Amx {
    /// The configuration belongs to the thread: `!Send`.
    _thread: std::marker::PhantomData<*const ()>,
}

/// The operand of `ldtilecfg`.
#[cfg(target_arch = "x86_64")]
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row, of each register; 8 to 15 do not exist.
    row_bytes: [u16; 16],
    /// Rows of each register.
    rows: [u8; 16],
}

#[cfg(target_arch = "x86_64")]
static CONFIGURATION: Configuration = {
    let (mut row_bytes, mut rows, mut register) = ([0; 16], [0; 16], 0);
    while register < 8 {
        (row_bytes[register], rows[register]) = (2 * DEPTH as u16, SIDE as u8);
        register += 1;
    }
    Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
};

// SAFETY of every block below: `configure` has found that this process may use AMX, and configured the registers. Addresses lie inside
// slices whose lengths are checked.
#[cfg(target_arch = "x86_64")]
impl Tiles for Amx {
    fn configure() -> Self {
        assert!(crate::simd::level() == crate::simd::SimdLevel::Amx, "this processor has no AMX");
        unsafe {
            std::arch::asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION, options(nostack, preserves_flags, readonly));
        }
        Self { _thread: std::marker::PhantomData }
    }

    #[inline(always)]
    fn zero<const TO: usize>(&mut self) {
        unsafe { std::arch::asm!("tilezero tmm{to}", to = const TO, options(nostack, preserves_flags, nomem)) };
    }

    #[inline(always)]
    fn load<const TO: usize>(&mut self, Tile(rows): &Tile) {
        unsafe { load::<TO>(rows.as_ptr().cast(), size_of_val(&rows[0])) };
    }

    #[inline(always)]
    fn load_strided<const TO: usize>(&mut self, from: &[bf16], stride: usize) {
        assert!(from.len() >= extent(stride, DEPTH));
        unsafe { load::<TO>(from.as_ptr().cast(), stride * size_of::<bf16>()) };
    }

    #[inline(always)]
    fn dot<const SUMS: usize, const ROWS: usize, const COLUMNS: usize>(&mut self) {
        unsafe {
            std::arch::asm!(
                "tdpbf16ps tmm{sums}, tmm{rows}, tmm{columns}",
                sums = const SUMS,
                rows = const ROWS,
                columns = const COLUMNS,
                options(nostack, preserves_flags, nomem),
            );
        }
    }

    #[inline(always)]
    fn store<const FROM: usize>(&self, to: &mut [f32], stride: usize) {
        assert!(to.len() >= extent(stride, SIDE));
        unsafe {
            std::arch::asm!(
                "tilestored [{to} + {stride} * 1], tmm{from}",
                from = const FROM,
                to = in(reg) to.as_mut_ptr(),
                stride = in(reg) stride * size_of::<f32>(),
                options(nostack, preserves_flags),
            );
        }
    }
}

/// Loads 16 rows of 64 bytes, `stride` bytes apart.
///
/// # Safety
/// The registers are configured, and the rows lie in memory that may be read.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn load<const TO: usize>(from: *const u8, stride: usize) {
    unsafe {
        std::arch::asm!(
            "tileloadd tmm{to}, [{from} + {stride} * 1]",
            to = const TO,
            from = in(reg) from,
            stride = in(reg) stride,
            options(nostack, preserves_flags, readonly),
        );
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for Amx {
    fn drop(&mut self) {
        // SAFETY: `configure` has found that this process may use AMX.
        unsafe { std::arch::asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}

/// The same operations in plain Rust, for tests on every processor.
///
/// `dot` follows the operation of TDPBF16PS in Intel's manual: from zero, the products of the first elements of the pairs and those of
/// the second elements are summed apart, in the order of the pairs, by fused multiply-adds; then both sums are added, then the register.
/// Each step rounds to nearest even. A subnormal operand counts as zero, and a result that is subnormal after rounding becomes zero. All
/// results are exact but one: which NaN a NaN is.
#[cfg(test)]
pub(crate) struct Emulated {
    /// Words: the bits of an `f32`, or a pair.
    registers: [[[u32; SIDE]; SIDE]; 8],
}

#[cfg(test)]
impl Tiles for Emulated {
    fn configure() -> Self {
        Self { registers: [[[u32::MAX; SIDE]; SIDE]; 8] } // NaN: a register that is used before it is set shows
    }

    fn zero<const TO: usize>(&mut self) {
        self.registers[TO] = [[0; SIDE]; SIDE];
    }

    fn load<const TO: usize>(&mut self, Tile(rows): &Tile) {
        self.registers[TO] = *rows;
    }

    fn load_strided<const TO: usize>(&mut self, from: &[bf16], stride: usize) {
        assert!(from.len() >= extent(stride, DEPTH));
        for (row, from) in self.registers[TO].iter_mut().zip(from.chunks(stride)) {
            row.iter_mut().zip(from.as_chunks().0).for_each(|(to, [first, second])| *to = word(*first, *second));
        }
    }

    fn dot<const SUMS: usize, const ROWS: usize, const COLUMNS: usize>(&mut self) {
        let [rows, columns] = [ROWS, COLUMNS].map(|i| self.registers[i]);
        dot(&mut self.registers[SUMS], &rows, &columns);
    }

    fn store<const FROM: usize>(&self, to: &mut [f32], stride: usize) {
        assert!(to.len() >= extent(stride, SIDE));
        for (row, to) in self.registers[FROM].iter().zip(to.chunks_mut(stride)) {
            to.iter_mut().zip(row).for_each(|(to, bits)| *to = f32::from_bits(*bits));
        }
    }
}

#[cfg(test)]
crate::simd::multiversion! {
    fn dot(sums: &mut [[u32; SIDE]; SIDE], rows: &[[u32; SIDE]; SIDE], columns: &[[u32; SIDE]; SIDE]) {
        let [low, high] = [|pair: u32| f32::from_bits(pair << 16), |pair: u32| f32::from_bits(pair & 0xffff_0000)];
        for (sums, row) in sums.iter_mut().zip(rows) {
            let (mut first, mut second) = ([0.0; SIDE], [0.0; SIDE]);
            for (x, column) in row.iter().zip(columns) {
                for n in 0..SIDE {
                    first[n] = multiply_add(low(*x), low(column[n]), first[n]);
                    second[n] = multiply_add(high(*x), high(column[n]), second[n]);
                }
            }
            for n in 0..SIDE {
                let sum = flushed(first[n] + second[n]);
                sums[n] = flushed(flushed(f32::from_bits(sums[n])) + sum).to_bits();
            }
        }
    }
}

/// Zero, with the sign of `x`, in place of a subnormal.
#[cfg(test)]
#[inline(always)]
fn flushed(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0_f32.copysign(x) } else { x }
}

/// `x·w + sum`, rounded once. `mul_add` rounds below the smallest normal number 2⁻¹²⁶ to multiples of 2⁻¹⁴⁹. The instruction rounds to
/// 24 bits, multiples of 2⁻¹⁵⁰ there, and then decides whether the result is subnormal: from 2⁻¹²⁶ − 2⁻¹⁵⁰ up to 2⁻¹²⁶ − 2⁻¹⁵¹ it is,
/// whereas `mul_add` returns 2⁻¹²⁶. `f64` has bits enough to tell.
#[cfg(test)]
#[inline(always)]
fn multiply_add(x: f32, w: f32, sum: f32) -> f32 {
    let (x, w) = (flushed(x), flushed(w));
    let result = flushed(x.mul_add(w, sum));
    let exact = f64::from(x) * f64::from(w) + f64::from(sum);
    let least = f64::from(f32::MIN_POSITIVE) * (1.0 - f64::from(f32::EPSILON) / 4.0);
    if result.abs() == f32::MIN_POSITIVE && exact.abs() < least { 0.0_f32.copysign(result) } else { result }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Element;

    fn pair([first, second]: [f32; 2]) -> u32 {
        word(bf16::narrow(first), bf16::narrow(second))
    }

    /// A tile of zeros but for the first pairs of its first row.
    fn row(pairs: &[[f32; 2]]) -> Tile {
        let mut tile = Tile([[0; SIDE]; SIDE]);
        tile.0[0].iter_mut().zip(pairs).for_each(|(to, x)| *to = pair(*x));
        tile
    }

    /// A tile of zeros but for the first pairs of its first column.
    fn column(pairs: &[[f32; 2]]) -> Tile {
        let mut tile = Tile([[0; SIDE]; SIDE]);
        tile.0.iter_mut().zip(pairs).for_each(|(to, x)| to[0] = pair(*x));
        tile
    }

    /// `start + Σ x·w` in the first element of a tile.
    fn product(start: &[[f32; 2]; 2], x: &[[f32; 2]], w: &[[f32; 2]]) -> f32 {
        let mut tiles = Emulated::configure();
        tiles.zero::<0>();
        for (x, w) in [(&start[..1], &start[1..]), (x, w)] {
            tiles.load::<4>(&row(x));
            tiles.load::<6>(&column(w));
            tiles.dot::<0, 4, 6>();
        }
        let mut sums = [f32::NAN; SIDE * SIDE];
        tiles.store::<0>(&mut sums, SIDE);
        assert!(sums[1..].iter().all(|sum| *sum == 0.0));
        sums[0]
    }

    /// The order of the sums, by terms that a rounding loses or keeps. 2⁻²⁴ is half of the last bit of 1.
    #[test]
    fn sums_follow_the_order_of_the_manual() {
        let (none, half) = ([[0.0; 2]; 2], 2.0_f32.powi(-24));
        let one = [[1.0, 0.0], [1.0, 0.0]];
        let w = [[1.0, 1.0]; 2];
        assert_eq!(product(&none, &[[1.0, half], [0.0, half]], &w), 1.0 + f32::EPSILON); // the second elements have a sum of their own
        assert_eq!(product(&none, &[[1.0, 0.0], [half, 0.0]], &w), 1.0); // the first elements one by one
        assert_eq!(product(&one, &[[half, 0.0], [half, 0.0]], &w), 1.0 + f32::EPSILON); // the register last
    }

    #[test]
    fn subnormal_numbers_are_zero() {
        let (none, least) = ([[0.0; 2]; 2], f32::MIN_POSITIVE);
        assert_eq!(product(&none, &[[least / 2.0, 0.0]], &[[1.0, 1.0]]), 0.0); // an operand
        assert_eq!(product(&none, &[[least, 0.0]], &[[0.5, 1.0]]), 0.0); // a product
        assert_eq!(product(&none, &[[least, -1.5 * least]], &[[1.0, 1.0]]), 0.0); // a sum
        assert_eq!(product(&none, &[[least, 0.0]], &[[1.0, 1.0]]), least);
        // 2⁻¹²⁶ − 2⁻¹⁵⁰ has 24 bits and is subnormal; 2⁻¹²⁶ − 2⁻¹⁵¹ rounds to 2⁻¹²⁶, whose last bit is even.
        let tiny = 2.0_f32.powi(-75);
        assert_eq!(product(&none, &[[least, 0.0], [-tiny, 0.0]], &[[1.0, 0.0], [tiny, 0.0]]), 0.0);
        assert_eq!(product(&none, &[[least, 0.0], [-tiny, 0.0]], &[[1.0, 0.0], [tiny / 2.0, 0.0]]), least);
    }

    /// The processor's results equal the emulation's, bit for bit: of random bits, of numbers near 1 and of numbers near the
    /// smallest normal one.
    #[test]
    #[cfg(target_arch = "x86_64")]
    #[allow(clippy::print_stderr)]
    fn the_emulation_equals_the_processor() {
        if crate::simd::level() < crate::simd::SimdLevel::Amx {
            eprintln!("skipped: this processor has no AMX");
            return;
        }
        fn sums<T: Tiles>(operands: &[(Vec<bf16>, Tile)], stride: usize) -> Vec<u32> {
            let mut tiles = T::configure();
            tiles.zero::<3>();
            for (rows, columns) in operands {
                tiles.load_strided::<5>(rows, stride);
                tiles.load::<7>(columns);
                tiles.dot::<3, 5, 7>();
            }
            let mut sums = vec![0.0; extent(stride, SIDE)];
            tiles.store::<3>(&mut sums, stride);
            sums.iter().map(|sum| if sum.is_nan() { f32::NAN.to_bits() } else { sum.to_bits() }).collect()
        }
        let mut state = 1_u64;
        let mut random = |low: u16, exponents: u16| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bits = (state >> 33) as u16;
            bf16::from_bits(bits & 0x807f | (low + (state >> 50) as u16 % exponents) << 7)
        };
        // All exponents, those near 1, those whose products are near the smallest normal number, and the smallest.
        for (low, exponents) in [(0, 256), (120, 14), (60, 8), (0, 70)] {
            for stride in [DEPTH, DEPTH + 6] {
                let mut operands = || {
                    let rows = (0..extent(stride, DEPTH)).map(|_| random(low, exponents)).collect();
                    let mut pair = |_| word(random(low, exponents), random(low, exponents));
                    (rows, Tile([(); SIDE].map(|()| std::array::from_fn(&mut pair))))
                };
                for _ in 0..10 {
                    let operands: Vec<_> = (0..5).map(|_| operands()).collect();
                    assert_eq!(
                        sums::<Amx>(&operands, stride),
                        sums::<Emulated>(&operands, stride),
                        "exponents from {low}"
                    );
                }
            }
        }
    }
}
