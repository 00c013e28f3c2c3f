//! Where frames lie: one slot each, plain or compressed.
//!
//! LZ4 is chosen for its speed: a frame is decompressed several times as often as it is compressed, on the learner's way.
//! Each frame stands alone, so that a draw touches only what it needs.

use lz4_flex::block;
use playfield_core::{Dtype, Error, Obs, ObsRef, Result};

/// A fixed number of slots, each of one frame or vector.
///
/// Memory is asked of the system at once and used as slots are written: what is never written costs nothing.
#[derive(Clone, Debug)]
pub struct Frames {
    store: Store,
    dtype: Dtype,
    len: usize,
}

#[derive(Clone, Debug)]
enum Store {
    Plain(Obs),
    /// One block a slot; `work` is where the next is made.
    Lz4 {
        slots: Vec<Box<[u8]>>,
        work: Vec<u8>,
    },
}

/// Frames that were decompressed for one draw: no frame is decompressed twice for it.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    slots: Vec<usize>,
    data: Vec<u8>,
}

impl Scratch {
    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.slots.clear();
    }
}

impl Frames {
    /// `slots` slots for frames of `len` numbers.
    ///
    /// # Errors
    /// [`Error::Config`] where vectors are to be compressed: LZ4 finds nothing in their bits.
    pub fn new(dtype: Dtype, len: usize, slots: usize, compress: bool) -> Result<Self> {
        let store = match (compress, dtype) {
            (false, _) => Store::Plain(Obs::zeros(dtype, slots * len)),
            (true, Dtype::U8) => {
                let work = vec![0; block::get_maximum_output_size(len)];
                Store::Lz4 { slots: vec![Box::default(); slots], work }
            }
            (true, Dtype::F32) => {
                return Err(Error::config(
                    "a replay of vectors cannot be compressed: set `buffer_compression` = false",
                ));
            }
        };
        Ok(Self { store, dtype, len })
    }

    /// The type of a frame's numbers.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Writes a frame.
    ///
    /// # Panics
    /// If it is of another type or length: a bug of the caller.
    pub fn write(&mut self, slot: usize, frame: ObsRef<'_>) {
        match &mut self.store {
            Store::Plain(data) => data.slice_mut(slot * self.len, self.len).copy_from(frame),
            Store::Lz4 { slots, work } => {
                let ObsRef::U8(frame) = frame else { panic!("a compressed replay holds u8 frames") };
                assert_eq!(frame.len(), self.len, "a frame of another length");
                let size = block::compress_into(frame, work).expect("room for what cannot be compressed");
                slots[slot] = work[..size].into();
            }
        }
    }

    /// Makes the frame of `slot` readable through [`read`](Self::read).
    pub fn load(&self, slot: usize, scratch: &mut Scratch) {
        if let Store::Lz4 { slots, .. } = &self.store
            && !scratch.slots.contains(&slot)
        {
            let start = scratch.slots.len() * self.len;
            scratch.slots.push(slot);
            scratch.data.resize(scratch.data.len().max(start + self.len), 0);
            let size = block::decompress_into(&slots[slot], &mut scratch.data[start..start + self.len]);
            assert_eq!(size.ok(), Some(self.len), "a slot that was written");
        }
    }

    /// The frame of a slot that was [loaded](Self::load) into `scratch`.
    ///
    /// # Panics
    /// If it was not: a bug of the caller.
    pub fn read<'a>(&'a self, slot: usize, scratch: &'a Scratch) -> ObsRef<'a> {
        match &self.store {
            Store::Plain(data) => data.slice(slot * self.len, self.len),
            Store::Lz4 { .. } => {
                let place = scratch.slots.iter().position(|&s| s == slot).expect("a frame that was loaded");
                ObsRef::U8(&scratch.data[place * self.len..(place + 1) * self.len])
            }
        }
    }

    /// Bytes that the frames take now (plain ones: once every slot was written).
    pub fn resident_bytes(&self) -> u64 {
        match &self.store {
            Store::Plain(data) => Self::bytes(self.dtype, data.len(), 1),
            Store::Lz4 { slots, .. } => slots.iter().map(|s| (s.len() + size_of::<Box<[u8]>>()) as u64).sum(),
        }
    }

    /// Bytes of `slots` plain frames of `len` numbers.
    pub fn bytes(dtype: Dtype, len: usize, slots: usize) -> u64 {
        let number = match dtype {
            Dtype::U8 => 1,
            Dtype::F32 => 4,
        };
        number * (len as u64) * (slots as u64)
    }
}
