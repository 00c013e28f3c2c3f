//! Snapshots: the complete state of a run in memory, as arrays and JSON values.

use crate::{Dtype, Error, Obs, Result};
use serde::Serialize;
use std::collections::BTreeMap;

pub use safetensors::Dtype as ArrayType;

/// The file of a checkpoint with the arrays other than parameters.
pub(crate) const ARRAYS: &str = "state.safetensors";
/// The file of a checkpoint with the JSON values.
pub(crate) const STATE: &str = "state.json";

/// An array: little-endian, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// The element type.
    pub dtype: ArrayType,
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// An element type of [`Array`].
pub trait Number: Sized + Copy {
    /// Its name in a safetensors file.
    const TYPE: ArrayType;
    /// Appends the bytes of the element, little-endian.
    fn put(self, bytes: &mut Vec<u8>);
    /// The element of these bytes.
    fn take(bytes: &[u8]) -> Self;
}

macro_rules! numbers {
    ($($number:ty = $name:ident),*) => {$(
        impl Number for $number {
            const TYPE: ArrayType = ArrayType::$name;
            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
            fn take(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("chunks of this size"))
            }
        }
    )*};
}

numbers!(u8 = U8, i32 = I32, u64 = U64, f32 = F32, f64 = F64);

impl Array {
    /// An array of `shape` that holds `values`.
    pub fn new<T: Number>(shape: &[usize], values: &[T]) -> Self {
        let mut data = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|v| v.put(&mut data));
        Self { dtype: T::TYPE, shape: shape.to_vec(), data }
    }

    /// Its elements, or `None` where it has another type.
    pub fn values<T: Number>(&self) -> Option<Vec<T>> {
        (self.dtype == T::TYPE).then(|| self.data.chunks_exact(size_of::<T>()).map(T::take).collect())
    }

    /// Whether every element is finite.
    pub fn is_finite(&self) -> bool {
        match self.dtype {
            ArrayType::F32 => self.data.chunks_exact(4).all(|bytes| f32::take(bytes).is_finite()),
            ArrayType::F64 => self.data.chunks_exact(8).all(|bytes| f64::take(bytes).is_finite()),
            _ => true,
        }
    }

    /// The array of a buffer of observations.
    pub fn from_obs(obs: &Obs) -> Self {
        match obs {
            Obs::U8(v) => Self::new(&[v.len()], v),
            Obs::F32(v) => Self::new(&[v.len()], v),
        }
    }

    /// The observations of [`from_obs`](Self::from_obs), or `None` where type or length differ.
    pub fn to_obs(&self, dtype: Dtype, len: usize) -> Option<Obs> {
        let obs = match (dtype, self.dtype) {
            (Dtype::U8, ArrayType::U8) => Obs::U8(self.data.clone()),
            (Dtype::F32, ArrayType::F32) => Obs::F32(self.values()?),
            _ => return None,
        };
        (obs.len() == len).then_some(obs)
    }
}

impl safetensors::View for &Array {
    fn dtype(&self) -> ArrayType {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        (&self.data).into()
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// The parts of names, between dots, of arrays that updates compute.
const LEARNED: [&str; 3] = ["optimizer", "statistics", "target"];

fn is_learned(name: &str) -> bool {
    name.split('.').any(|part| LEARNED.contains(&part))
}

pub(crate) fn pack(arrays: &BTreeMap<String, Array>) -> Result<Vec<u8>> {
    safetensors::serialize(arrays, None).map_err(Error::other)
}

pub(crate) fn unpack(bytes: &[u8]) -> Result<BTreeMap<String, Array>> {
    let tensors = safetensors::SafeTensors::deserialize(bytes).map_err(Error::other)?;
    let array = |t: safetensors::tensor::TensorView<'_>| Array {
        dtype: t.dtype(),
        shape: t.shape().to_vec(),
        data: t.data().to_vec(),
    };
    Ok(tensors.tensors().into_iter().map(|(name, t)| (name, array(t))).collect())
}

/// The complete state of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Agent steps so far.
    pub step: u64,
    /// The network's parameters.
    pub params: BTreeMap<String, Array>,
    /// Other arrays: optimizer state, current observations.
    pub arrays: BTreeMap<String, Array>,
    /// Counters, random streams, environments, statistics.
    pub state: serde_json::Map<String, serde_json::Value>,
}

impl Snapshot {
    /// The name of the first parameter, or array of an optimizer or target network, with an element that is not finite. Other
    /// arrays (observations, rewards) come from the environment and are not checked.
    pub fn non_finite(&self) -> Option<&str> {
        let arrays = self.arrays.iter().filter(|(name, _)| is_learned(name));
        self.params.iter().chain(arrays).find(|(_, array)| !array.is_finite()).map(|(name, _)| name.as_str())
    }

    /// Puts `value` into [`state`](Self::state).
    ///
    /// # Panics
    /// If `value` has no JSON form (a map whose keys are not strings): a bug of the caller.
    pub fn put<T: Serialize>(&mut self, key: &str, value: &T) {
        self.state.insert(key.into(), serde_json::to_value(value).expect("a value with a JSON form"));
    }

    /// Reads a value of [`state`](Self::state).
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is missing or of another form.
    pub fn get<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T> {
        let value = self.state.get(key).ok_or_else(|| Error::checkpoint(STATE, format!("'{key}' is missing")))?;
        T::deserialize(value).map_err(|e| Error::checkpoint(STATE, format!("'{key}': {e}")))
    }

    /// This rank's own part in a run in several processes: without what is the same on every rank, the arrays that updates compute.
    #[must_use]
    pub fn own_part(&self) -> Self {
        let own = self.arrays.iter().filter(|(name, _)| !is_learned(name));
        Self {
            step: self.step,
            params: BTreeMap::new(),
            arrays: own.map(|(name, array)| (name.clone(), array.clone())).collect(),
            state: self.state.clone(),
        }
    }

    /// The snapshot of another rank with this [`own_part`](Self::own_part), and the common arrays of `self`.
    #[must_use]
    pub fn with_part(&self, part: &Self) -> Self {
        let common = self.arrays.iter().filter(|(name, _)| is_learned(name));
        let own = part.arrays.iter();
        Self {
            step: self.step,
            params: self.params.clone(),
            arrays: common.chain(own).map(|(name, array)| (name.clone(), array.clone())).collect(),
            state: part.state.clone(),
        }
    }

    /// The snapshot as bytes, for another process.
    ///
    /// # Errors
    /// If it has no such form.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let parts = [self.step.to_le_bytes().to_vec(), pack(&self.params)?, pack(&self.arrays)?, self.state_json()?];
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part);
        }
        Ok(bytes)
    }

    /// The snapshot of [`to_bytes`](Self::to_bytes).
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the bytes are not complete.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self> {
        let damaged = || Error::checkpoint("snapshot", "the bytes of another process are not complete");
        let mut next = || {
            let (len, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
            let (part, rest) = rest.split_at_checked(u64::from_le_bytes(*len) as usize).ok_or_else(damaged)?;
            bytes = rest;
            Ok::<_, Error>(part)
        };
        let step = u64::from_le_bytes(next()?.try_into().map_err(|_| damaged())?);
        let (params, arrays) = (unpack(next()?)?, unpack(next()?)?);
        let state = serde_json::from_slice(next()?).map_err(|_| damaged())?;
        Ok(Self { step, params, arrays, state })
    }

    pub(crate) fn state_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.state).map_err(Error::other)
    }

    /// Adds everything that `part` holds.
    pub fn extend(&mut self, part: Self) {
        self.params.extend(part.params);
        self.arrays.extend(part.arrays);
        self.state.extend(part.state);
    }

    /// Adds everything in `part` except its parameters, with names that begin with `name`: for objects of which a run has several.
    pub fn nest(&mut self, name: &str, part: Self) {
        let under = |key: String| format!("{name}.{key}");
        self.state.extend(part.state.into_iter().map(|(key, value)| (under(key), value)));
        self.arrays.extend(part.arrays.into_iter().map(|(key, array)| (under(key), array)));
    }

    /// The snapshot that [`nest`](Self::nest) added under `name`; empty if there is none.
    pub fn nested(&self, name: &str) -> Self {
        let own = |key: &String| Some(key.strip_prefix(name)?.strip_prefix('.')?.to_string());
        Self {
            step: self.step,
            params: BTreeMap::new(),
            arrays: self.arrays.iter().filter_map(|(key, array)| Some((own(key)?, array.clone()))).collect(),
            state: self.state.iter().filter_map(|(key, value)| Some((own(key)?, value.clone()))).collect(),
        }
    }

    /// An array of [`arrays`](Self::arrays).
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is missing.
    pub fn array(&self, key: &str) -> Result<&Array> {
        self.arrays.get(key).ok_or_else(|| Error::checkpoint(ARRAYS, format!("'{key}' is missing")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_read_as_the_type_that_it_has() {
        let array = Array::new(&[3], &[1.5_f32, -2.0, 0.0]);
        assert_eq!((array.values(), array.values::<f64>()), (Some(vec![1.5_f32, -2.0, 0.0]), None));
        assert_eq!(Array::new(&[2], &[u64::MAX, 7]).values(), Some(vec![u64::MAX, 7]));
        assert_eq!(array.to_obs(Dtype::F32, 3), Some(Obs::F32(vec![1.5, -2.0, 0.0])));
        assert_eq!((array.to_obs(Dtype::U8, 3), array.to_obs(Dtype::F32, 2)), (None, None));
        let bytes = Array::from_obs(&Obs::U8(vec![1, 2]));
        assert_eq!(bytes.to_obs(Dtype::U8, 2), Some(Obs::U8(vec![1, 2])));
        assert!(array.is_finite() && bytes.is_finite());
        assert!(!Array::new(&[2], &[0.0_f32, f32::NAN]).is_finite() && !Array::new(&[1], &[f64::INFINITY]).is_finite());
    }

    /// Parameters, arrays and state keep their names below that of an object, and bytes keep everything.
    #[test]
    fn a_snapshot_is_nested_sent_and_divided_into_parts() {
        let mut own = Snapshot { step: 5, ..Snapshot::default() };
        own.put("rng", &3);
        own.arrays.insert("observations".into(), Array::new(&[1], &[4_u64]));
        own.arrays.insert("optimizer.m".into(), Array::new(&[1], &[1.0_f32]));
        let mut all = Snapshot { step: 5, ..Snapshot::default() };
        all.nest("learner", own.clone());
        assert_eq!(all.state["learner.rng"], 3);
        assert_eq!((all.nested("learner"), all.nested("learn").arrays.len()), (own.clone(), 0));
        own.params.insert("w".into(), Array::new(&[1], &[2.0_f32]));
        assert_eq!(Snapshot::from_bytes(&own.to_bytes().unwrap()).unwrap(), own);
        let bytes = own.to_bytes().unwrap();
        assert!((0..bytes.len()).all(|n| Snapshot::from_bytes(&bytes[..n]).is_err()), "cut anywhere");
        // A part has no parameters and no optimizer state; with those of the whole it is the whole again.
        let part = own.own_part();
        assert!(part.params.is_empty() && part.arrays.keys().eq(["observations"]));
        assert_eq!(own.with_part(&part), own);
        let mut extended = part;
        extended.extend(own.clone());
        assert_eq!(extended, own);
        assert_eq!(own.get::<u64>("rng").unwrap(), 3);
        assert!(own.get::<bool>("rng").unwrap_err().to_string().contains("'rng'"));
        assert!(own.get::<u64>("x").unwrap_err().to_string().contains("'x' is missing"));
        assert!(own.array("x").unwrap_err().to_string().contains("'x' is missing"));
        own.arrays.insert("target".into(), Array::new(&[1], &[f32::NAN]));
        assert_eq!(own.non_finite(), Some("target"));
    }
}
