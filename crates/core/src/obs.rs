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
        match self {
            Self::U8(_) => Dtype::U8,
            Self::F32(_) => Dtype::F32,
        }
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
}

impl<'a> ObsRef<'a> {
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
