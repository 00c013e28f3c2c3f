//! Observations as plain buffers.

use serde::{Deserialize, Serialize};

/// The element type of an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// A byte. In an image (two or three axes) it is a pixel, which the network divides by 255; in a vector it is not scaled.
    /// It is converted to a float only on the network's device.
    U8,
    /// An element of a vector.
    F32,
}

/// A buffer of observations, owned by their consumer: row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Obs {
    /// Frames.
    U8(Vec<u8>),
    /// Vectors.
    F32(Vec<f32>),
}

/// A borrowed observation (or several consecutive ones).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ObsRef<'a> {
    /// Frames.
    U8(&'a [u8]),
    /// Vectors.
    F32(&'a [f32]),
}

/// The buffer into which an environment writes an observation.
#[derive(Debug, PartialEq)]
pub enum ObsMut<'a> {
    /// Frames.
    U8(&'a mut [u8]),
    /// Vectors.
    F32(&'a mut [f32]),
}

/// No elements.
impl Default for Obs {
    fn default() -> Self {
        Self::U8(Vec::new())
    }
}

impl Obs {
    /// `len` zeros.
    pub fn zeros(dtype: Dtype, len: usize) -> Self {
        match dtype {
            Dtype::U8 => Self::U8(vec![0; len]),
            Dtype::F32 => Self::F32(vec![0.0; len]),
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        self.as_ref().dtype()
    }

    /// Borrows all elements.
    pub fn as_ref(&self) -> ObsRef<'_> {
        match self {
            Self::U8(v) => ObsRef::U8(v),
            Self::F32(v) => ObsRef::F32(v),
        }
    }

    /// Borrows all elements mutably.
    pub fn as_mut(&mut self) -> ObsMut<'_> {
        match self {
            Self::U8(v) => ObsMut::U8(v),
            Self::F32(v) => ObsMut::F32(v),
        }
    }

    /// Borrows elements `start..start + len`.
    pub fn slice(&self, start: usize, len: usize) -> ObsRef<'_> {
        self.as_ref().slice(start, len)
    }

    /// Borrows elements `start..start + len` mutably.
    pub fn slice_mut(&mut self, start: usize, len: usize) -> ObsMut<'_> {
        match self {
            Self::U8(v) => ObsMut::U8(&mut v[start..start + len]),
            Self::F32(v) => ObsMut::F32(&mut v[start..start + len]),
        }
    }

    /// Replaces the elements with the observations `indices` of `from`, of `len` elements each: `[indices, len]`. A buffer of the same size is
    /// kept: fresh memory costs as much as the copy.
    ///
    /// # Panics
    /// If `from` has fewer observations than an index needs: a bug of the caller.
    pub fn gather(&mut self, from: ObsRef<'_>, len: usize, indices: &[usize]) {
        if self.len() != indices.len() * len || self.dtype() != from.dtype() {
            *self = Self::zeros(from.dtype(), indices.len() * len);
        }
        for (k, &i) in indices.iter().enumerate() {
            self.slice_mut(k * len, len).copy_from(from.slice(i * len, len));
        }
    }
}

/// Appends the elements of a vector to `values`, from its bytes ([`ObsMut::write_parts`]) in a stack of `frames` observations,
/// where the bytes of the frames alternate: `[elements, frames]`.
pub fn read_vector(bytes: &[u8], frames: usize, values: &mut Vec<f32>) {
    for element in bytes.chunks_exact(size_of::<f32>() * frames) {
        let of_frame = |frame| f32::from_le_bytes(std::array::from_fn(|byte| element[byte * frames + frame]));
        values.extend((0..frames).map(of_frame));
    }
}

impl<'a> ObsRef<'a> {
    /// The element type.
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::U8(_) => Dtype::U8,
            Self::F32(_) => Dtype::F32,
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::F32(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements `start..start + len`.
    pub fn slice(self, start: usize, len: usize) -> Self {
        match self {
            Self::U8(v) => Self::U8(&v[start..start + len]),
            Self::F32(v) => Self::F32(&v[start..start + len]),
        }
    }

    /// The pixels of an observation of [`Dtype::U8`].
    ///
    /// # Panics
    /// If it holds `f32`: a bug of the caller.
    pub fn u8(self) -> &'a [u8] {
        match self {
            Self::U8(v) => v,
            Self::F32(_) => panic!("the observation is f32, not u8"),
        }
    }

    /// The elements of an observation of [`Dtype::F32`].
    ///
    /// # Panics
    /// If it holds `u8`: a bug of the caller.
    pub fn f32(self) -> &'a [f32] {
        match self {
            Self::F32(v) => v,
            Self::U8(_) => panic!("the observation is u8, not f32"),
        }
    }

    /// An owned copy.
    pub fn to_obs(self) -> Obs {
        match self {
            Self::U8(v) => Obs::U8(v.to_vec()),
            Self::F32(v) => Obs::F32(v.to_vec()),
        }
    }
}

impl ObsMut<'_> {
    /// The same buffer with a shorter lifetime (as `&mut *x` for a reference).
    pub fn reborrow(&mut self) -> ObsMut<'_> {
        match self {
            Self::U8(v) => ObsMut::U8(v),
            Self::F32(v) => ObsMut::F32(v),
        }
    }

    /// Copies an observation of the same type and length.
    ///
    /// # Panics
    /// If type or length differ: a bug of the caller, as an [`EnvSpec`](crate::EnvSpec) has both.
    pub fn copy_from(&mut self, from: ObsRef<'_>) {
        match (self, from) {
            (Self::U8(to), ObsRef::U8(from)) => to.copy_from_slice(from),
            (Self::F32(to), ObsRef::F32(from)) => to.copy_from_slice(from),
            _ => panic!("the observations have different dtypes"),
        }
    }

    /// Writes the parts of an observation, in the order of [`EnvSpec::parts`](crate::EnvSpec::parts): pixels as they are, four
    /// bytes (little-endian) for each element of a vector.
    ///
    /// # Panics
    /// If the buffer has another number of bytes: a bug of the caller.
    pub fn write_parts(&mut self, parts: &[ObsRef<'_>]) {
        let mut rest = self.u8();
        for part in parts {
            let bytes = part.len() * if part.dtype() == Dtype::F32 { size_of::<f32>() } else { 1 };
            let (to, after) = rest.split_at_mut(bytes);
            match part {
                ObsRef::U8(pixels) => to.copy_from_slice(pixels),
                ObsRef::F32(values) => {
                    to.chunks_exact_mut(size_of::<f32>())
                        .zip(*values)
                        .for_each(|(to, v)| to.copy_from_slice(&v.to_le_bytes()));
                }
            }
            rest = after;
        }
        assert!(rest.is_empty(), "{} bytes of the observation have no part", rest.len());
    }

    /// The pixels, for an environment with [`Dtype::U8`].
    ///
    /// # Panics
    /// If the buffer holds `f32`: a bug of the caller.
    pub fn u8(&mut self) -> &mut [u8] {
        match self {
            Self::U8(v) => v,
            Self::F32(_) => panic!("the observation is f32, not u8"),
        }
    }

    /// The elements, for an environment with [`Dtype::F32`].
    ///
    /// # Panics
    /// If the buffer holds `u8`: a bug of the caller.
    pub fn f32(&mut self) -> &mut [f32] {
        match self {
            Self::F32(v) => v,
            Self::U8(_) => panic!("the observation is u8, not f32"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ActionSpace, EnvSpec, FrameStack, Part, StepBatch};

    /// Two stacked observations of an image of three pixels, and vectors before and after it.
    #[test]
    fn parts_are_read_as_they_were_written_also_from_a_stack() {
        let parts = vec![Part::vector("a", 1), Part::image("b", 1, 3, 1), Part::vector("c", 2)];
        let spec = EnvSpec::of_parts("t", parts, ActionSpace::Discrete { n: 2 }).with_frame_stack(2);
        assert_eq!((spec.dtype, &spec.shape[..], spec.obs_len()), (Dtype::U8, &[15][..], 30));
        assert_eq!(spec.observation_text(), "a f32[1] + b u8[1, 3] + c f32[2]");
        let mut batch = StepBatch::new(&spec, 1);
        let mut stack = FrameStack::new(&spec, 1);
        let frames = [(1.5, [0, 128, 255], [-0.0, f32::MIN_POSITIVE]), (f32::MAX, [7, 8, 9], [3.25, -1e-3])];
        for (t, (a, b, c)) in frames.iter().enumerate() {
            batch.obs.as_mut().write_parts(&[ObsRef::F32(&[*a]), ObsRef::U8(b), ObsRef::F32(c)]);
            if t == 0 { stack.reset(&batch) } else { stack.push(&batch) }
        }
        let bytes = stack.observations().as_ref().u8();
        let ranges: Vec<_> = spec.part_ranges().map(|(_, range)| 2 * range.start..2 * range.end).collect();
        let [mut first, mut last] = [Vec::new(), Vec::new()];
        read_vector(&bytes[ranges[0].clone()], 2, &mut first);
        read_vector(&bytes[ranges[2].clone()], 2, &mut last);
        let [(a0, b0, c0), (a1, b1, c1)] = frames;
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&first), bits(&[a0, a1]));
        assert_eq!(bits(&last), bits(&[c0[0], c1[0], c0[1], c1[1]]));
        let pixels: Vec<u8> = b0.into_iter().zip(b1).flat_map(|(old, new)| [old, new]).collect();
        assert_eq!(bytes[ranges[1].clone()], pixels);
    }

    #[test]
    fn buffers_of_both_types_are_read_and_written() {
        let (bytes, floats) = (Obs::U8(vec![1, 2, 3]), Obs::F32(vec![0.5, -1.0]));
        assert_eq!((bytes.is_empty(), Obs::zeros(Dtype::U8, 0).is_empty()), (false, true));
        assert_eq!((bytes.as_ref().is_empty(), bytes.as_ref().slice(1, 0).is_empty()), (false, true));
        assert_eq!((bytes.as_ref().u8(), floats.as_ref().f32()), ([1, 2, 3].as_slice(), [0.5, -1.0].as_slice()));
        for from in [bytes, floats] {
            let mut to = Obs::zeros(from.dtype(), from.len());
            to.as_mut().copy_from(from.as_ref());
            assert_eq!(to, from);
        }
        let mut floats = Obs::zeros(Dtype::F32, 2);
        floats.as_mut().f32()[1] = 7.0;
        assert_eq!(floats, Obs::F32(vec![0.0, 7.0]));
    }
}
