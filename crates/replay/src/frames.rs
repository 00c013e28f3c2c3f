//! Where frames lie: one slot each, plain.

use playfield_core::{Dtype, Obs, ObsRef};

/// A fixed number of slots, each of one frame or vector.
///
/// Memory is asked of the system at once and used as slots are written: what is never written costs nothing.
#[derive(Clone, Debug)]
pub struct Frames {
    data: Obs,
    len: usize,
}

impl Frames {
    /// `slots` slots for frames of `len` numbers.
    pub fn new(dtype: Dtype, len: usize, slots: usize) -> Self {
        Self { data: Obs::zeros(dtype, slots * len), len }
    }

    /// Writes a frame.
    pub fn write(&mut self, slot: usize, frame: ObsRef<'_>) {
        self.data.slice_mut(slot * self.len, self.len).copy_from(frame);
    }

    /// The frame of a slot.
    pub fn read(&self, slot: usize) -> ObsRef<'_> {
        self.data.slice(slot * self.len, self.len)
    }

    /// Bytes of `slots` frames of `len` numbers.
    pub fn bytes(dtype: Dtype, len: usize, slots: usize) -> u64 {
        let number = match dtype {
            Dtype::U8 => 1,
            Dtype::F32 => 4,
        };
        number * (len as u64) * (slots as u64)
    }
}
