//! Checkpoints: folders that are either whole or not there.
//!
//! ```text
//! checkpoints/000001600000/model.safetensors   parameters, canonical (PyTorch) names and layout
//!                          state.safetensors   everything else that has bulk: optimiser, observations
//!                          state.json          counters, random streams, environments
//!                          manifest.json       sizes and SHA-256 of the three, the step, the score
//! ```
//!
//! A checkpoint is written under a name that loading never looks at, flushed to disk, renamed, and its folder flushed:
//! a run killed at any byte keeps its last whole one. safetensors and JSON cannot execute anything when they are read.

use crate::{Dtype, Error, Obs, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

pub use safetensors::Dtype as ArrayType;

const MODEL: &str = "model.safetensors";
const ARRAYS: &str = "state.safetensors";
const STATE: &str = "state.json";
const MANIFEST: &str = "manifest.json";
const FORMAT: u32 = 1;

/// A named piece of memory: little-endian, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// The type of its numbers.
    pub dtype: ArrayType,
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// A type of numbers that an [`Array`] can hold.
pub trait Number: Sized + Copy {
    /// Its name in a safetensors file.
    const TYPE: ArrayType;
    /// Appends the number's bytes, little-endian.
    fn put(self, bytes: &mut Vec<u8>);
    /// The number of these bytes.
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

    /// Its numbers, or `None` where it holds another type.
    pub fn values<T: Number>(&self) -> Option<Vec<T>> {
        (self.dtype == T::TYPE).then(|| self.data.chunks_exact(size_of::<T>()).map(T::take).collect())
    }

    /// A buffer of observations.
    pub fn from_obs(obs: &Obs) -> Self {
        match obs {
            Obs::U8(v) => Self::new(&[v.len()], v),
            Obs::F32(v) => Self::new(&[v.len()], v),
        }
    }

    /// The observations that [`from_obs`](Self::from_obs) kept, or `None` where type or number differ.
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

/// Everything a run needs to go on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Agent steps so far.
    pub step: u64,
    /// The network's parameters.
    pub params: BTreeMap<String, Array>,
    /// Bulk that is no parameter: optimiser statistics, current observations.
    pub arrays: BTreeMap<String, Array>,
    /// Counters, random streams, environments, statistics.
    pub state: serde_json::Map<String, serde_json::Value>,
}

impl Snapshot {
    /// Puts `value` into [`state`](Self::state).
    ///
    /// # Panics
    /// If `value` has no JSON form (a map with keys that are no strings): a bug of the caller.
    pub fn put<T: Serialize>(&mut self, key: &str, value: &T) {
        self.state.insert(key.into(), serde_json::to_value(value).expect("a value with a JSON form"));
    }

    /// Takes a value out of [`state`](Self::state).
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is missing or of another form.
    pub fn get<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T> {
        let value = self.state.get(key).ok_or_else(|| Error::checkpoint(STATE, format!("'{key}' is missing")))?;
        T::deserialize(value).map_err(|e| Error::checkpoint(STATE, format!("'{key}': {e}")))
    }

    /// Adds what `part` holds beside parameters, under names of its own: for what there are several of.
    pub fn nest(&mut self, name: &str, part: Self) {
        let under = |key: String| format!("{name}.{key}");
        self.state.extend(part.state.into_iter().map(|(key, value)| (under(key), value)));
        self.arrays.extend(part.arrays.into_iter().map(|(key, array)| (under(key), array)));
    }

    /// What [`nest`](Self::nest) added under `name`; empty where there is nothing.
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

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    step: u64,
    /// Mean raw return over the last 100 training episodes, by which the best checkpoint is kept.
    score: Option<f64>,
    files: BTreeMap<String, FileEntry>,
}

#[derive(Serialize, Deserialize, PartialEq)]
struct FileEntry {
    bytes: u64,
    sha256: String,
}

/// The folder of a run's checkpoints: the last few are kept, and the best.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    keep: usize,
}

/// A checkpoint that was read, and the newer ones that were not whole.
#[derive(Debug)]
pub struct Loaded {
    /// What it holds.
    pub snapshot: Snapshot,
    /// Where it lies.
    pub path: PathBuf,
    /// Newer checkpoints that are not whole, with the reason: a user should hear of them.
    pub skipped: Vec<(PathBuf, String)>,
}

impl Checkpoints {
    /// The checkpoints in `dir`, of which the last `keep` and the best stay.
    pub fn new(dir: impl Into<PathBuf>, keep: usize) -> Self {
        Self { dir: dir.into(), keep: keep.max(1) }
    }

    /// Their folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a checkpoint, then removes the ones that are no longer kept. Returns its folder.
    ///
    /// # Errors
    /// [`Error::Io`] where the disk refuses; earlier checkpoints are untouched then.
    pub fn save(&self, snapshot: &Snapshot, score: Option<f64>) -> Result<PathBuf> {
        let name = format!("{:012}", snapshot.step);
        let (temporary, path) = (self.dir.join(format!(".writing-{name}")), self.dir.join(&name));
        fs::create_dir_all(&self.dir).map_err(Error::io("create", &self.dir))?;
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(Error::io("remove", &temporary))?;
        }
        let written = self.write(&temporary, snapshot, score);
        if written.is_err() {
            // Best effort: the reason for the failure is worth more than the remains.
            let _ = fs::remove_dir_all(&temporary);
        }
        written?;
        if path.exists() {
            fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
        }
        fs::rename(&temporary, &path).map_err(Error::io("rename to", &path))?;
        sync(&self.dir)?;
        self.prune()?;
        Ok(path)
    }

    fn write(&self, dir: &Path, snapshot: &Snapshot, score: Option<f64>) -> Result<()> {
        fs::create_dir(dir).map_err(Error::io("create", dir))?;
        let pack = |arrays: &BTreeMap<String, Array>| safetensors::serialize(arrays, None).map_err(Error::other);
        let files = [
            (MODEL, pack(&snapshot.params)?),
            (ARRAYS, pack(&snapshot.arrays)?),
            (STATE, serde_json::to_vec(&snapshot.state).map_err(Error::other)?),
        ];
        let mut entries = BTreeMap::new();
        for (name, bytes) in &files {
            write_synced(&dir.join(name), bytes)?;
            entries.insert((*name).to_string(), entry(bytes));
        }
        let manifest = Manifest { format: FORMAT, step: snapshot.step, score, files: entries };
        write_synced(&dir.join(MANIFEST), &serde_json::to_vec_pretty(&manifest).map_err(Error::other)?)?;
        sync(dir)
    }

    /// The folders of complete-looking checkpoints, oldest first.
    ///
    /// # Errors
    /// [`Error::Io`] where the folder exists and cannot be read.
    pub fn list(&self) -> Result<Vec<PathBuf>> {
        if !self.dir.exists() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(Error::io("read", &self.dir))? {
            let path = entry.map_err(Error::io("read", &self.dir))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.len() == 12 && name.bytes().all(|b| b.is_ascii_digit()) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// The newest whole checkpoint.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where none is whole, naming what is wrong with the newest.
    pub fn latest(&self) -> Result<Loaded> {
        let mut skipped = Vec::new();
        for path in self.list()?.into_iter().rev() {
            match read(&path) {
                Ok(snapshot) => return Ok(Loaded { snapshot, path, skipped }),
                Err(e) => skipped.push((path, e.to_string())),
            }
        }
        let reason = skipped.first().map_or("there is none".into(), |(_, reason)| reason.clone());
        Err(Error::checkpoint(&self.dir, format!("no whole checkpoint to go on from: {reason}")))
    }

    /// The whole checkpoint with the best score, by its manifest; the newest where none has a score.
    ///
    /// # Errors
    /// As [`latest`](Self::latest).
    pub fn best(&self) -> Result<Loaded> {
        let mut scored: Vec<_> = self.list()?.into_iter().filter_map(|p| Some((score(&p)?, p))).collect();
        scored.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (_, path) in scored.into_iter().rev() {
            if let Ok(snapshot) = read(&path) {
                return Ok(Loaded { snapshot, path, skipped: Vec::new() });
            }
        }
        self.latest()
    }

    fn prune(&self) -> Result<()> {
        let all = self.list()?;
        let best = all.iter().filter_map(|p| Some((score(p)?, p))).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, p)| p);
        let old = &all[..all.len().saturating_sub(self.keep)];
        for path in old.iter().filter(|p| Some(*p) != best) {
            fs::remove_dir_all(path).map_err(Error::io("remove", path))?;
        }
        Ok(())
    }
}

/// Reads one checkpoint and checks every byte of it against its manifest.
///
/// # Errors
/// [`Error::Checkpoint`] where it is not whole.
pub fn read(path: &Path) -> Result<Snapshot> {
    let damaged = |what: String| Error::checkpoint(path, what);
    let manifest = manifest(path)?;
    if manifest.format != FORMAT {
        return Err(damaged(format!("written in format {}; this playfield reads {FORMAT}", manifest.format)));
    }
    let file = |name: &str| -> Result<Vec<u8>> {
        let bytes = fs::read(path.join(name)).map_err(|e| damaged(format!("{name}: {e}")))?;
        if manifest.files.get(name) != Some(&entry(&bytes)) {
            return Err(damaged(format!("{name} is not what was written (cut short or changed)")));
        }
        Ok(bytes)
    };
    let unpack = |name: &str| -> Result<BTreeMap<String, Array>> {
        let bytes = file(name)?;
        let tensors = safetensors::SafeTensors::deserialize(&bytes).map_err(|e| damaged(format!("{name}: {e}")))?;
        let array = |t: safetensors::tensor::TensorView<'_>| Array {
            dtype: t.dtype(),
            shape: t.shape().to_vec(),
            data: t.data().to_vec(),
        };
        Ok(tensors.tensors().into_iter().map(|(name, t)| (name, array(t))).collect())
    };
    Ok(Snapshot {
        step: manifest.step,
        params: unpack(MODEL)?,
        arrays: unpack(ARRAYS)?,
        state: serde_json::from_slice(&file(STATE)?).map_err(|e| damaged(format!("{STATE}: {e}")))?,
    })
}

fn manifest(path: &Path) -> Result<Manifest> {
    let name = path.join(MANIFEST);
    let bytes = fs::read(&name).map_err(|e| Error::checkpoint(path, format!("{MANIFEST}: {e}")))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::checkpoint(path, format!("{MANIFEST}: {e}")))
}

fn score(path: &Path) -> Option<f64> {
    manifest(path).ok()?.score
}

fn entry(bytes: &[u8]) -> FileEntry {
    let sha256 = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    FileEntry { bytes: bytes.len() as u64, sha256 }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = fs::File::create(path).map_err(Error::io("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::io("write", path))
}

fn sync(dir: &Path) -> Result<()> {
    fs::File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io("flush", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(step: u64) -> Snapshot {
        let mut s = Snapshot { step, ..Snapshot::default() };
        s.params.insert("a.weight".into(), Array::new(&[2, 2], &[1.0, -2.5, f32::MIN_POSITIVE, 4.0]));
        s.arrays.insert("obs".into(), Array::new(&[3], &[1_u8, 2, 255]));
        s.put("x", &0.1_f64);
        s
    }

    #[test]
    fn comes_back_as_it_was_saved_and_the_last_and_best_stay() {
        let dir = tempfile::tempdir().unwrap();
        let c = Checkpoints::new(dir.path().join("checkpoints"), 2);
        for (step, score) in [(1, 0.0), (2, 9.0), (3, 1.0), (4, 2.0), (5, 3.0)] {
            c.save(&snapshot(step), Some(score)).unwrap();
        }
        let steps: Vec<_> = c.list().unwrap().iter().map(|p| read(p).unwrap().step).collect();
        assert_eq!(steps, [2, 4, 5]);
        assert_eq!(c.latest().unwrap().snapshot, snapshot(5));
        assert_eq!(c.best().unwrap().snapshot.step, 2);
    }

    /// A run killed at any byte: cut each file of the newest checkpoint at several places, or flip a bit of it.
    #[test]
    fn falls_back_to_the_last_whole_one_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let c = Checkpoints::new(dir.path(), 3);
        c.save(&snapshot(1), None).unwrap();
        let newest = c.save(&snapshot(2), None).unwrap();
        for name in [MODEL, ARRAYS, STATE, MANIFEST] {
            let whole = fs::read(newest.join(name)).unwrap();
            let mut flipped = whole.clone();
            flipped[whole.len() / 2] ^= 1;
            let cut = [0, 1, whole.len() / 2, whole.len() - 1].map(|n| whole[..n].to_vec());
            for damaged in cut.into_iter().chain((name != MANIFEST).then_some(flipped)) {
                fs::write(newest.join(name), damaged).unwrap();
                let loaded = c.latest().unwrap();
                assert_eq!((loaded.snapshot.step, loaded.skipped.len()), (1, 1), "{name}");
            }
            fs::write(newest.join(name), whole).unwrap();
        }
        assert_eq!(c.latest().unwrap().snapshot.step, 2);
    }

    #[test]
    fn none_whole_is_an_error_that_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let c = Checkpoints::new(dir.path(), 3);
        assert!(c.latest().unwrap_err().to_string().contains("no whole checkpoint"));
        let path = c.save(&snapshot(1), None).unwrap();
        fs::remove_file(path.join(STATE)).unwrap();
        assert!(c.latest().unwrap_err().to_string().contains(STATE));
    }
}
