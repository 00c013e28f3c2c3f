//! The storage of frames: one slot each, plain or compressed.
//!
//! LZ4 is chosen for its speed: a frame is decompressed several times as often as it is compressed, in the learner's critical
//! path. Each frame is compressed separately, so that a sample decompresses only its own frames.

use lz4_flex::block;
use playfield_core::{Dtype, Error, Obs, ObsRef, Result};

/// A fixed number of slots, each of one frame or vector.
///
/// The memory is reserved at once and committed by the system as slots are written.
#[derive(Clone, Debug)]
pub struct Frames {
    store: Store,
    dtype: Dtype,
    len: usize,
}

#[derive(Clone, Debug)]
enum Store {
    Plain(Obs),
    /// One compressed block per slot; `work` is the buffer of the compressor.
    Lz4 {
        slots: Vec<Box<[u8]>>,
        work: Vec<u8>,
    },
}

/// The decompressed frames of one transition, each decompressed once.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    slots: Vec<usize>,
    data: Vec<u8>,
}

impl Scratch {
    /// Removes all frames and keeps the allocation.
    pub fn clear(&mut self) {
        self.slots.clear();
    }
}

impl Frames {
    /// `slots` slots for frames of `len` elements.
    ///
    /// # Errors
    /// [`Error::Config`] for compression of `f32` vectors, whose bits LZ4 does not compress.
    pub fn new(dtype: Dtype, len: usize, slots: usize, compress: bool) -> Result<Self> {
        let store = match (compress, dtype) {
            (false, _) => Store::Plain(Obs::zeros(dtype, slots * len)),
            (true, Dtype::U8) => {
                let work = vec![0; block::get_maximum_output_size(len)];
                Store::Lz4 { slots: vec![Box::default(); slots], work }
            }
            (true, Dtype::F32) => {
                return Err(Error::config(
                    "a replay buffer of vectors cannot be compressed: set `buffer_compression` = false",
                ));
            }
        };
        Ok(Self { store, dtype, len })
    }

    /// The element type of a frame.
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
                let ObsRef::U8(frame) = frame else { panic!("a compressed replay buffer holds u8 frames") };
                assert_eq!(frame.len(), self.len, "the frame has another length");
                let size = block::compress_into(frame, work).expect("`work` has the maximum size");
                slots[slot] = work[..size].into();
            }
        }
    }

    /// Decompresses the frame of `slot`, if necessary, for [`read`](Self::read).
    pub fn load(&self, slot: usize, scratch: &mut Scratch) {
        if let Store::Lz4 { slots, .. } = &self.store
            && !scratch.slots.contains(&slot)
        {
            let start = scratch.slots.len() * self.len;
            scratch.slots.push(slot);
            scratch.data.resize(scratch.data.len().max(start + self.len), 0);
            let size = block::decompress_into(&slots[slot], &mut scratch.data[start..start + self.len]);
            assert_eq!(size.ok(), Some(self.len), "the slot was not written");
        }
    }

    /// The frame of a slot that [`load`](Self::load) put into `scratch`.
    ///
    /// # Panics
    /// If it was not loaded: a bug of the caller.
    pub fn read<'a>(&'a self, slot: usize, scratch: &'a Scratch) -> ObsRef<'a> {
        match &self.store {
            Store::Plain(data) => data.slice(slot * self.len, self.len),
            Store::Lz4 { .. } => {
                let place = scratch.slots.iter().position(|&s| s == slot).expect("the frame was loaded");
                ObsRef::U8(&scratch.data[place * self.len..(place + 1) * self.len])
            }
        }
    }

    /// The memory of the stored frames, in bytes (plain ones: that of all slots).
    pub fn resident_bytes(&self) -> u64 {
        match &self.store {
            Store::Plain(data) => Self::bytes(self.dtype, data.len(), 1),
            Store::Lz4 { slots, .. } => slots.iter().map(|s| (s.len() + size_of::<Box<[u8]>>()) as u64).sum(),
        }
    }

    /// The size of `slots` plain frames of `len` elements, in bytes.
    pub fn bytes(dtype: Dtype, len: usize, slots: usize) -> u64 {
        let element = match dtype {
            Dtype::U8 => 1,
            Dtype::F32 => 4,
        };
        element * (len as u64) * (slots as u64)
    }
}
