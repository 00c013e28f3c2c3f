//! Observations and actions as plain buffers.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The type of one number of an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// A pixel, 0 to 255. It becomes a float on the network's device and nowhere else.
    U8,
    /// A number of a vector observation.
    F32,
}

/// A buffer of observations, owned by whoever consumes them. Rows lie one after the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Obs {
    /// Frames.
    U8(Vec<u8>),
    /// Vectors.
    F32(Vec<f32>),
}

/// A borrowed observation (or several, one after the other).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ObsRef<'a> {
    /// Frames.
    U8(&'a [u8]),
    /// Vectors.
    F32(&'a [f32]),
}

/// Where an environment writes an observation.
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

    /// How many numbers the buffer holds.
    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    /// Whether the buffer holds no number.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of its numbers.
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::U8(_) => Dtype::U8,
            Self::F32(_) => Dtype::F32,
        }
    }

    /// All of it, borrowed.
    pub fn as_ref(&self) -> ObsRef<'_> {
        match self {
            Self::U8(v) => ObsRef::U8(v),
            Self::F32(v) => ObsRef::F32(v),
        }
    }

    /// All of it, to write.
    pub fn as_mut(&mut self) -> ObsMut<'_> {
        match self {
            Self::U8(v) => ObsMut::U8(v),
            Self::F32(v) => ObsMut::F32(v),
        }
    }

    /// Numbers `start..start + len`, borrowed.
    pub fn slice(&self, start: usize, len: usize) -> ObsRef<'_> {
        self.as_ref().slice(start, len)
    }

    /// Numbers `start..start + len`, to write.
    pub fn slice_mut(&mut self, start: usize, len: usize) -> ObsMut<'_> {
        match self {
            Self::U8(v) => ObsMut::U8(&mut v[start..start + len]),
            Self::F32(v) => ObsMut::F32(&mut v[start..start + len]),
        }
    }
}

impl<'a> ObsRef<'a> {
    /// How many numbers.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::F32(v) => v.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers `start..start + len`.
    pub fn slice(self, start: usize, len: usize) -> Self {
        match self {
            Self::U8(v) => Self::U8(&v[start..start + len]),
            Self::F32(v) => Self::F32(&v[start..start + len]),
        }
    }

    /// The pixels of what is known to be [`Dtype::U8`].
    ///
    /// # Panics
    /// If it holds `f32`: a bug of the caller.
    pub fn u8(self) -> &'a [u8] {
        match self {
            Self::U8(v) => v,
            Self::F32(_) => panic!("the observation is f32, not u8"),
        }
    }

    /// The numbers of what is known to be [`Dtype::F32`].
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
    /// The same destination for a shorter while (as `&mut *x` does for a reference).
    pub fn reborrow(&mut self) -> ObsMut<'_> {
        match self {
            Self::U8(v) => ObsMut::U8(v),
            Self::F32(v) => ObsMut::F32(v),
        }
    }

    /// Copies an observation of the same type and length.
    ///
    /// # Panics
    /// If type or length differ: that is a bug of the caller, as an [`EnvSpec`](crate::EnvSpec) states both.
    pub fn copy_from(&mut self, from: ObsRef<'_>) {
        match (self, from) {
            (Self::U8(to), ObsRef::U8(from)) => to.copy_from_slice(from),
            (Self::F32(to), ObsRef::F32(from)) => to.copy_from_slice(from),
            _ => panic!("observations of different types"),
        }
    }

    /// The pixels, for an environment whose spec says [`Dtype::U8`].
    ///
    /// # Panics
    /// If the destination holds `f32`: a bug of the caller.
    pub fn u8(&mut self) -> &mut [u8] {
        match self {
            Self::U8(v) => v,
            Self::F32(_) => panic!("the observation is f32, not u8"),
        }
    }

    /// The numbers, for an environment whose spec says [`Dtype::F32`].
    ///
    /// # Panics
    /// If the destination holds `u8`: a bug of the caller.
    pub fn f32(&mut self) -> &mut [f32] {
        match self {
            Self::F32(v) => v,
            Self::U8(_) => panic!("the observation is u8, not f32"),
        }
    }
}

/// What can be done in an environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActionSpace {
    /// One of `n` actions, 0 to `n - 1`.
    Discrete {
        /// How many actions there are.
        n: usize,
    },
    /// A vector, each number between its bounds.
    Box {
        /// Lower bounds, one per dimension.
        low: Vec<f32>,
        /// Upper bounds, one per dimension.
        high: Vec<f32>,
    },
}

/// One action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action<'a> {
    /// The number of a discrete action.
    Discrete(usize),
    /// A continuous action, one number per dimension.
    Continuous(&'a [f32]),
}

/// One action for each environment of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Actions {
    /// Numbers of discrete actions.
    Discrete(Vec<i64>),
    /// Continuous actions, `dim` numbers each, one after the other.
    Continuous {
        /// The numbers, row by row.
        values: Vec<f32>,
        /// How many numbers an action has.
        dim: usize,
    },
}

impl Actions {
    /// `n` actions of `space`, all zero.
    pub fn zeros(space: &ActionSpace, n: usize) -> Self {
        match space {
            ActionSpace::Discrete { .. } => Self::Discrete(vec![0; n]),
            ActionSpace::Box { low, .. } => Self::Continuous { values: vec![0.0; n * low.len()], dim: low.len() },
        }
    }

    /// How many environments they are for.
    pub fn len(&self) -> usize {
        match self {
            Self::Discrete(a) => a.len(),
            Self::Continuous { values, dim } => values.len() / dim,
        }
    }

    /// Whether they are for none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The action for environment `i`.
    pub fn row(&self, i: usize) -> Action<'_> {
        match self {
            Self::Discrete(a) => Action::Discrete(a[i] as usize),
            Self::Continuous { values, dim } => Action::Continuous(&values[i * dim..(i + 1) * dim]),
        }
    }

    /// Refuses actions that are not of `space`, before an environment could hang or crash on them.
    ///
    /// # Errors
    /// [`Error::Config`] naming the row and the action.
    pub fn check(&self, space: &ActionSpace, n: usize) -> Result<()> {
        if self.len() != n {
            return Err(Error::config(format!("{} actions for {n} environments", self.len())));
        }
        match (self, space) {
            (Self::Discrete(actions), ActionSpace::Discrete { n: k }) => {
                match actions.iter().position(|&a| a < 0 || a as usize >= *k) {
                    None => Ok(()),
                    Some(i) => Err(Error::config(format!(
                        "action {} for environment {i}: the space has actions 0 to {}",
                        actions[i],
                        k - 1
                    ))),
                }
            }
            (Self::Continuous { values, dim }, ActionSpace::Box { low, .. }) if *dim == low.len() => {
                match values.iter().position(|a| !a.is_finite()) {
                    None => Ok(()),
                    Some(i) => Err(Error::config(format!("action {} for environment {}", values[i], i / dim))),
                }
            }
            _ => Err(Error::config(format!("actions of another kind than the space {space:?}"))),
        }
    }
}
