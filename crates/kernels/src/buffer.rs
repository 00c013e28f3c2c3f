//! Buffers that are aligned to cache lines.

use aligned_vec::{AVec, ConstAlign};
use std::ops::{Deref, DerefMut};

/// A vector that is aligned to 64 bytes. A load of a whole register that crosses two cache lines takes twice as long; the rows of most layers
/// are multiples of a line, so that no load from an aligned buffer crosses two.
#[derive(Debug)]
pub struct Buffer<T>(AVec<T, ConstAlign<64>>);

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        // The alignment is that of the type.
        Self(AVec::new(0))
    }
}

impl<T: Copy + Default> Buffer<T> {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let mut buffer = Self::default();
        buffer.fill_with_zeros(len);
        buffer
    }

    /// Replaces the elements by `len` zeros.
    pub fn fill_with_zeros(&mut self, len: usize) {
        self.resize(len, T::default());
        self.fill(T::default());
    }
}

impl<T> Deref for Buffer<T> {
    type Target = AVec<T, ConstAlign<64>>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned() {
        let mut buffer = Buffer::zeros(3);
        for len in [3, 50, 5_000, 7, 100_000] {
            buffer.resize(len, 2_u16);
            assert!(buffer.as_ptr().addr().is_multiple_of(64) && buffer.len() == len);
        }
        assert_eq!(buffer[..8], [0, 0, 0, 2, 2, 2, 2, 2]);
        buffer.fill_with_zeros(5);
        assert_eq!(buffer[..], [0; 5]);
    }
}
