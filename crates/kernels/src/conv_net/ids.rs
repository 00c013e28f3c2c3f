//! Ids that are equal where windows of frames are equal.

use super::image::Image;
use rustc_hash::FxHasher;
use std::hash::Hasher as _;

/// Identifies the content of a cell of a frame, or of a window.
pub(super) type Id = u32;

/// The least number of slots.
const MIN_SLOTS: usize = 1 << 10;

/// The largest side of a window: keys have a constant length, so that they are compared without branches.
const MAX_SIDE: usize = 4;

/// Bytes of a word.
const WORD: usize = 8;

/// Gives equal keys of one length equal ids: from 0, in the order in which keys first occur.
#[derive(Debug)]
pub(super) struct Interner<K> {
    /// Elements of a key.
    key_len: usize,
    /// `[ids, key_len]`
    keys: Vec<K>,
    len: usize,
    /// A hash table: the id of a key, plus 1, in the first slot from its hash on that is not another's; 0 in free slots, which are at
    /// least half. Their number is a power of two.
    slots: Vec<Id>,
}

impl<K: Copy + Eq + Into<u64>> Interner<K> {
    /// Of keys of `key_len` elements; none yet.
    pub fn new(key_len: usize) -> Self {
        Self { key_len, keys: Vec::new(), len: 0, slots: vec![0; MIN_SLOTS] }
    }

    /// The id of `key`.
    pub fn intern(&mut self, key: &[K]) -> Id {
        let mut slot = self.first_slot(key);
        while self.slots[slot] > 0 {
            let id = self.slots[slot] - 1;
            // Keys are short: element by element is faster than a call that compares memory.
            if self.key(id).iter().eq(key) {
                return id;
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.keys.extend_from_slice(key);
        self.len += 1;
        self.slots[slot] = self.len as Id;
        if 2 * self.len > self.slots.len() {
            self.double_slots();
        }
        self.len as Id - 1
    }

    /// Calls `set` with the index of each of `keys` and its id.
    pub fn intern_all<const N: usize>(&mut self, keys: &[[K; N]], mut set: impl FnMut(usize, Id)) {
        debug_assert_eq!(N, self.key_len);
        // Most keys are known, in their first slot. Each step is made for all keys before the next, so that the processor reads the memory of
        // many at once.
        let slots: Vec<_> = keys.iter().map(|key| self.first_slot(key)).collect();
        let mut found: Vec<_> = slots.into_iter().map(|slot| self.slots[slot].checked_sub(1)).collect();
        for (found, key) in found.iter_mut().zip(keys) {
            let same = |id: Id| self.key(id).iter().zip(key).fold(true, |same, (a, b)| same & (a == b));
            *found = found.filter(|&id| same(id));
        }
        for (i, (found, key)) in found.into_iter().zip(keys).enumerate() {
            set(i, found.unwrap_or_else(|| self.intern(key)));
        }
    }

    /// The key of an id.
    pub fn key(&self, id: Id) -> &[K] {
        &self.keys[id as usize * self.key_len..][..self.key_len]
    }

    fn first_slot(&self, key: &[K]) -> usize {
        let mut hasher = FxHasher::default();
        let (pairs, rest) = key.as_chunks::<2>();
        pairs.iter().for_each(|&[a, b]| hasher.write_u64(a.into().rotate_left(32) ^ b.into()));
        rest.iter().for_each(|&last| hasher.write_u64(last.into()));
        hasher.finish() as usize & (self.slots.len() - 1)
    }

    fn double_slots(&mut self) {
        let len = 2 * self.slots.len();
        self.slots.clear();
        self.slots.resize(len, 0);
        for id in 0..self.len as Id {
            let mut slot = self.first_slot(self.key(id));
            while self.slots[slot] > 0 {
                slot = (slot + 1) & (len - 1);
            }
            self.slots[slot] = id + 1;
        }
    }

    /// How many keys have an id.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Forgets all keys. There are slots for as many again.
    pub fn forget(&mut self) {
        let slots = (2 * self.len).next_power_of_two().max(MIN_SLOTS);
        self.keys.clear();
        self.len = 0;
        self.slots.clear();
        self.slots.resize(slots, 0);
    }
}

/// The ids of a frame's cells or windows, of up to 64 columns.
#[derive(Debug)]
pub(super) struct Grid {
    /// Rows and columns.
    pub size: [usize; 2],
    /// `[rows, columns]`
    pub ids: Vec<Id>,
    /// A bit for each column of each row, the first the lowest: whether its id is another than in the last frame.
    changed: Vec<u64>,
}

impl Grid {
    /// `None` for more columns than supported.
    fn new(size @ [rows, columns]: [usize; 2]) -> Option<Self> {
        (columns <= u64::BITS as usize).then(|| Self { size, ids: vec![0; rows * columns], changed: vec![0; rows] })
    }

    fn rows_mut(&mut self) -> impl Iterator<Item = (&mut [Id], &mut u64)> {
        self.ids.chunks_exact_mut(self.size[1]).zip(&mut self.changed)
    }
}

/// The columns whose bits are set.
fn columns(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let column = bits.trailing_zeros() as usize;
        bits &= bits.wrapping_sub(1);
        (column < u64::BITS as usize).then_some(column)
    })
}

/// Squares of pixels that tile a frame, as wide as the stride of a convolution, whose windows are squares of cells.
#[derive(Debug)]
pub(super) struct Cells {
    /// Side in pixels.
    pub side: usize,
    frame: Image,
    /// Of pixels as words of 8 bytes.
    known: Interner<u64>,
    /// The frame that was [kept](Self::keep), empty without one.
    last: Vec<u8>,
    pub grid: Grid,
}

impl Cells {
    /// `None` for frames of more columns of cells than supported.
    pub fn new(frame: Image, side: usize) -> Option<Self> {
        let grid = Grid::new([frame.height / side, frame.width / side])?;
        let known = Interner::new((side * side * frame.channels).div_ceil(WORD));
        Some(Self { side, frame, known, last: Vec::new(), grid })
    }

    /// Elements of a line of a cell.
    pub fn line_len(&self) -> usize {
        self.side * self.frame.channels
    }

    /// Sets `grid` to the cells of a frame of pixels, `[height, width, channels]`, after those of the frame `before`, or of the one that was kept.
    /// `new` gets the pixels of each that has not occurred before.
    pub fn set(&mut self, before: Option<&[u8]>, pixels: &[u8], mut new: impl FnMut(&[u8])) {
        let len = self.line_len();
        let Self { side, frame, known, last, grid } = self;
        let last = before.unwrap_or(last);
        let row_len = frame.row_len();
        let all = u64::MAX >> (u64::BITS as usize - grid.size[1]);
        let is_first = last.is_empty();
        let (mut cell, mut key) = (Vec::new(), Vec::new());
        for (row, (pixels, (ids, changed))) in pixels.chunks_exact(*side * row_len).zip(grid.rows_mut()).enumerate() {
            let lines = || pixels.chunks_exact(row_len);
            *changed = if is_first {
                all
            } else {
                let last = last[row * pixels.len()..].chunks_exact(row_len);
                all & lines().zip(last).fold(0, |changed, (a, b)| changed | !equal(a, b, len))
            };
            for column in columns(*changed) {
                cell.clear();
                lines().for_each(|line| cell.extend_from_slice(&line[column * len..][..len]));
                key.clear();
                push_words(&cell, &mut key);
                let len = known.len();
                ids[column] = known.intern(&key);
                if known.len() > len {
                    new(&cell);
                }
            }
        }
    }

    /// Keeps the frame that was set last.
    pub fn keep(&mut self, pixels: &[u8]) {
        self.last.clear();
        self.last.extend_from_slice(pixels);
    }

    /// Forgets all cells.
    pub fn forget(&mut self) {
        self.known.forget();
        self.last.clear();
    }
}

/// Appends bytes as words, the last padded with zeros.
fn push_words(bytes: &[u8], words: &mut Vec<u64>) {
    let (whole, rest) = bytes.as_chunks::<WORD>();
    words.extend(whole.iter().copied().map(u64::from_ne_bytes));
    if !rest.is_empty() {
        words.push(rest.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)));
    }
}

/// A bit for each block of `len` bytes, the first the lowest: whether it is equal in both lines.
fn equal(a: &[u8], b: &[u8], len: usize) -> u64 {
    fn blocks<const N: usize>(a: &[u8], b: &[u8]) -> u64 {
        let blocks = a.as_chunks::<N>().0.iter().zip(b.as_chunks::<N>().0).take(u64::BITS as usize);
        blocks.rev().fold(0, |bits, (a, b)| bits << 1 | u64::from(a == b))
    }
    match len {
        _ if a == b => u64::MAX,
        // Comparisons of a constant length take one instruction.
        4 => blocks::<4>(a, b),
        8 => blocks::<8>(a, b),
        16 => blocks::<16>(a, b),
        48 => blocks::<48>(a, b),
        _ => {
            let blocks = a.chunks_exact(len).zip(b.chunks_exact(len)).take(u64::BITS as usize);
            blocks.enumerate().fold(0, |bits, (i, (a, b))| bits | u64::from(a == b) << i)
        }
    }
}

/// Square windows of a grid.
#[derive(Debug)]
pub(super) struct Windows {
    /// In cells of the grid that they cover.
    pub side: usize,
    stride: usize,
    /// A key is the ids in a window, row by row.
    known: Interner<Id>,
    pub grid: Grid,
}

impl Windows {
    /// Of a grid of `size`, rows and columns; `None` where it is smaller than a window, or a window larger than [`MAX_SIDE`].
    pub fn new([rows, columns]: [usize; 2], side: usize, stride: usize) -> Option<Self> {
        if !(1..=MAX_SIDE).contains(&side) {
            return None;
        }
        let windows = |len: usize| Some(len.checked_sub(side)? / stride + 1);
        let grid = Grid::new([windows(rows)?, windows(columns)?])?;
        Some(Self { side, stride, known: Interner::new(side * side), grid })
    }

    /// Sets `grid` to the windows of `input`, which has been set once since the last call.
    pub fn set(&mut self, input: &Grid) {
        match self.side {
            1 => self.set_by::<1, 1>(input),
            2 => self.set_by::<2, 4>(input),
            3 => self.set_by::<3, 9>(input),
            MAX_SIDE => self.set_by::<MAX_SIDE, 16>(input),
            _ => unreachable!("a supported side"),
        }
    }

    /// With windows of `S` rows and columns, `N` ids.
    fn set_by<const S: usize, const N: usize>(&mut self, input: &Grid) {
        let Self { stride, known, grid, .. } = self;
        let (width, columns_out) = (input.size[1], grid.size[1]);
        let (mut places, mut keys) = (Vec::with_capacity(grid.ids.len()), Vec::with_capacity(grid.ids.len()));
        for (y, changed) in grid.changed.iter_mut().enumerate() {
            let rows = y * *stride..y * *stride + S;
            let of_rows = input.changed[rows.clone()].iter().fold(0, |all, row| all | row);
            let of_columns = (0..S).fold(0, |covered, j| covered | of_rows >> j);
            *changed = (0..columns_out).fold(0, |bits, x| bits | (of_columns >> (x * *stride) & 1) << x);
            for x in columns(*changed) {
                let mut key = [0; N];
                for (to, row) in key.as_chunks_mut::<S>().0.iter_mut().zip(rows.clone()) {
                    to.copy_from_slice(&input.ids[row * width + x * *stride..][..S]);
                }
                places.push(y * columns_out + x);
                keys.push(key);
            }
        }
        known.intern_all(&keys, |i, id| grid.ids[places[i]] = id);
    }

    /// The ids in a window, `[rows, columns]`.
    pub fn taps(&self, window: Id) -> &[Id] {
        self.known.key(window)
    }

    /// How many different windows have occurred.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Forgets all windows.
    pub fn forget(&mut self) {
        self.known.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many keys at once get the ids that they get one by one: new ones, ones that come twice, known ones whose first slot is another's. The table
    /// grows meanwhile.
    #[test]
    fn ids_of_many_keys_are_those_of_each() {
        let (mut all, mut each) = (Interner::<Id>::new(4), Interner::new(4));
        let keys: Vec<[Id; 4]> = (0..3 * MIN_SLOTS as Id).map(|i| [i % 700, i / 2, 7, i % 3]).collect();
        let mut taken = 0;
        for keys in [&keys[..5], &keys, &keys[900..2_000], &[]] {
            let mut ids = vec![Id::MAX; keys.len()];
            all.intern_all(keys, |i, id| ids[i] = id);
            let expected: Vec<_> = keys.iter().map(|key| each.intern(key)).collect();
            assert_eq!(ids, expected);
            taken += keys.iter().zip(ids).filter(|(key, id)| all.slots[all.first_slot(&key[..])] != id + 1).count();
        }
        assert!(taken > 100 && all.len() == each.len() && all.len() > 2 * MIN_SLOTS, "{taken}, {}", all.len());
    }

    /// Against a list: many keys, of which some have equal hashes, some come again, once more after they were forgotten.
    #[test]
    fn ids_follow_the_order_of_keys() {
        for key_len in [1, 2, 9] {
            let mut interner = Interner::<u64>::new(key_len);
            for _ in 0..2 {
                for i in 0..3 * MIN_SLOTS as u64 {
                    for i in [i, i / 2] {
                        let key: Vec<u64> = (0..key_len as u64).map(|k| (i << 40) + k * i).collect();
                        assert_eq!(interner.intern(&key), i as Id);
                        assert_eq!(interner.key(i as Id), key);
                    }
                }
                assert_eq!(interner.len(), 3 * MIN_SLOTS);
                interner.forget();
                assert_eq!(interner.len(), 0);
            }
        }
    }
}
