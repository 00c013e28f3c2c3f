//! Checkpoints: folders that are complete or do not exist.
//!
//! ```text
//! checkpoints/000001600000/model.safetensors   parameters, canonical (PyTorch) names and layout
//!                          state.safetensors   other arrays: optimizer, observations
//!                          state.json          counters, random streams, environments
//!                          manifest.json       sizes and SHA-256 of the others, the step, the score, and their SHA-256
//! ```
//!
//! A run in several processes adds `rank-N.safetensors` and `rank-N.json` for each rank N > 0: its random streams and environments.
//! What all ranks have in common (parameters, optimizer) is in the files of rank 0.
//!
//! A checkpoint is written [atomically](crate::files), so a run that is killed at any instruction keeps its last complete one.
//! Reading safetensors and JSON executes no code.

use crate::files::{self, REPLACED, atomic_write_folder, remove_folder, write_synced};
use crate::snapshot::{ARRAYS, STATE, Snapshot, pack, unpack};
use crate::{Error, Result};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

mod renames;

const MODEL: &str = "model.safetensors";
const MANIFEST: &str = "manifest.json";
/// The format of new checkpoints. Format 1 has the old names of [renamed keys](renames).
const FORMAT: u32 = 2;

/// The files of rank `rank` > 0.
fn part_names(rank: usize) -> [String; 2] {
    [format!("rank-{rank}.safetensors"), format!("rank-{rank}.json")]
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    step: u64,
    /// The score passed to [`Checkpoints::save`].
    score: Option<f64>,
    files: BTreeMap<String, FileEntry>,
    /// The [`checksum`](Manifest::checksum); earlier versions of playfield wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

impl Manifest {
    /// The SHA-256 of the compact JSON of all other fields.
    fn checksum(&self) -> Result<String> {
        let Self { format, step, score, files, .. } = self;
        let fields = serde_json::to_vec(&(format, step, score, files)).map_err(Error::other)?;
        Ok(HEXLOWER.encode(&Sha256::digest(fields)))
    }
}

#[derive(Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    bytes: u64,
    sha256: String,
}

/// The folder of a run's checkpoints. The last few and the best are kept.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    keep: usize,
}

/// A loaded checkpoint, and the better ones that are damaged.
#[derive(Debug)]
pub struct Loaded {
    /// Its content.
    pub snapshot: Snapshot,
    /// Its folder.
    pub path: PathBuf,
    /// The score that it was saved with.
    pub score: Option<f64>,
    /// The damaged checkpoints that were skipped, with the reason: report them to the user.
    pub skipped: Vec<(PathBuf, String)>,
}

impl Checkpoints {
    /// The checkpoints in `dir`, of which the last `keep` and the best are kept.
    pub fn new(dir: impl Into<PathBuf>, keep: usize) -> Self {
        Self { dir: dir.into(), keep: keep.max(1) }
    }

    /// The folder of the checkpoints.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of the checkpoint of `step`, which may not exist.
    pub fn path(&self, step: u64) -> PathBuf {
        self.dir.join(format!("{step:012}"))
    }

    /// Writes a checkpoint and removes those that are no longer kept. Returns its folder. The best checkpoint is the one with
    /// the highest `score`; `None`: not evaluated.
    ///
    /// # Errors
    /// [`Error::Io`] where the file system fails: earlier checkpoints are untouched then.
    pub fn save(&self, snapshot: &Snapshot, score: Option<f64>) -> Result<PathBuf> {
        self.save_with_parts(snapshot, &[], score)
    }

    /// The same of a run in several processes: `parts` are the [own parts](Snapshot::own_part) of ranks 1, 2, ….
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn save_with_parts(&self, snapshot: &Snapshot, parts: &[Snapshot], score: Option<f64>) -> Result<PathBuf> {
        let path = self.path(snapshot.step);
        fs::create_dir_all(&self.dir).map_err(Error::io("create", &self.dir))?;
        atomic_write_folder(&path, |dir| self.write(dir, snapshot, parts, score))?;
        self.prune()?;
        Ok(path)
    }

    fn write(&self, dir: &Path, snapshot: &Snapshot, parts: &[Snapshot], score: Option<f64>) -> Result<()> {
        let mut files = vec![
            (MODEL.to_string(), pack(&snapshot.params)?),
            (ARRAYS.to_string(), pack(&snapshot.arrays)?),
            (STATE.to_string(), snapshot.state_json()?),
        ];
        for (rank, part) in (1..).zip(parts) {
            let [arrays, state] = part_names(rank);
            files.extend([(arrays, pack(&part.arrays)?), (state, part.state_json()?)]);
        }
        let mut entries = BTreeMap::new();
        for (name, bytes) in files {
            put(&dir.join(&name), &bytes)?;
            entries.insert(name, entry(&bytes));
        }
        let mut manifest = Manifest { format: FORMAT, step: snapshot.step, score, files: entries, sha256: None };
        manifest.sha256 = Some(manifest.checksum()?);
        put(&dir.join(MANIFEST), &serde_json::to_vec_pretty(&manifest).map_err(Error::other)?)
    }

    /// Removes what killed processes left: temporary folders, and replaced checkpoints whose replacement is undamaged.
    ///
    /// # Errors
    /// [`Error::Io`] where one cannot be removed.
    pub fn remove_unfinished(&self) -> Result<()> {
        files::remove_unfinished(&self.dir)?;
        for path in self.list()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.strip_suffix(REPLACED).is_some_and(|current| read(&path.with_file_name(current)).is_ok()) {
                remove_folder(&path)?;
            }
        }
        Ok(())
    }

    /// The folders of all checkpoints, oldest first. Their content is not checked.
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
            let (digits, is_current) = name.strip_suffix(REPLACED).map_or((&*name, true), |digits| (digits, false));
            if let (12.., true, Ok(step)) = (digits.len(), digits.bytes().all(|b| b.is_ascii_digit()), digits.parse()) {
                found.push((step, is_current, path));
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_step, _is_current, path): (u64, bool, _)| path).collect())
    }

    /// Loads the newest undamaged checkpoint.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where all are damaged, with the reason for the newest.
    pub fn latest(&self) -> Result<Loaded> {
        let mut all = self.list()?;
        all.reverse();
        self.first(all)
    }

    /// Loads the undamaged checkpoint with the best score; the newest where none has a score.
    ///
    /// # Errors
    /// As [`latest`](Self::latest).
    pub fn best(&self) -> Result<Loaded> {
        self.first(self.ranked()?)
    }

    /// Loads the first undamaged checkpoint of `paths`.
    fn first(&self, paths: Vec<PathBuf>) -> Result<Loaded> {
        let mut skipped = Vec::new();
        for path in paths {
            match read(&path) {
                Ok(snapshot) => return Ok(Loaded { snapshot, score: score(&path), path, skipped }),
                Err(e) => skipped.push((path, e.to_string())),
            }
        }
        let what = match skipped.first() {
            None => "no checkpoint yet: a run saves one every `run.checkpoint_seconds`, and at its end".into(),
            Some((_, reason)) => format!("no complete checkpoint: {reason}"),
        };
        Err(Error::checkpoint(&self.dir, what))
    }

    /// All checkpoints by descending score, then by descending step.
    fn ranked(&self) -> Result<Vec<PathBuf>> {
        let mut all: Vec<_> = self.list()?.into_iter().rev().map(|path| (score(&path), path)).collect();
        all.sort_by(|(a, _), (b, _)| match (a, b) {
            (Some(a), Some(b)) => b.total_cmp(a),
            _ => b.is_some().cmp(&a.is_some()),
        });
        Ok(all.into_iter().map(|(_, path)| path).collect())
    }

    /// Removes all but the last few and the best undamaged checkpoints, and what killed processes left.
    fn prune(&self) -> Result<()> {
        self.remove_unfinished()?;
        let (all, undamaged) = (self.list()?, |path: &&PathBuf| read(path).is_ok());
        let mut kept: Vec<_> = all.iter().rev().filter(undamaged).take(self.keep).cloned().collect();
        kept.extend(self.ranked()?.iter().find(undamaged).cloned());
        all.iter().filter(|path| !kept.contains(path)).try_for_each(|path| remove_folder(path))
    }
}

/// Reads one checkpoint and verifies every byte against its manifest.
///
/// # Errors
/// [`Error::Checkpoint`] where it is damaged, or has parameters that are not finite.
pub fn read(path: &Path) -> Result<Snapshot> {
    read_with_parts(path).map(|(snapshot, _)| snapshot)
}

/// The same with the [own parts](Snapshot::own_part) of ranks 1, 2, …, where the run had several processes.
///
/// # Errors
/// As [`read`].
pub fn read_with_parts(path: &Path) -> Result<(Snapshot, Vec<Snapshot>)> {
    let damaged = |what: String| Error::checkpoint(path, what);
    let manifest = manifest(path)?;
    if !(1..=FORMAT).contains(&manifest.format) {
        return Err(damaged(format!("written in format {}; this playfield reads 1 to {FORMAT}", manifest.format)));
    }
    let file = |name: &str| -> Result<Vec<u8>> {
        let bytes = files::read(&path.join(name)).map_err(|e| damaged(format!("{name}: {e}")))?;
        if manifest.files.get(name) != Some(&entry(&bytes)) {
            return Err(damaged(format!("{name} is damaged (truncated or changed)")));
        }
        Ok(bytes)
    };
    let arrays = |name: &str| unpack(&file(name)?).map_err(|e| damaged(format!("{name}: {e}")));
    let state = |name: &str| serde_json::from_slice(&file(name)?).map_err(|e| damaged(format!("{name}: {e}")));
    let step = manifest.step;
    let current = |mut snapshot: Snapshot| {
        if manifest.format == 1 {
            renames::rename_keys(&mut snapshot);
        }
        snapshot
    };
    let snapshot = current(Snapshot { step, params: arrays(MODEL)?, arrays: arrays(ARRAYS)?, state: state(STATE)? });
    let names = (1..).map(part_names).take_while(|names| manifest.files.contains_key(&names[0]));
    let part = |[own, own_state]: [String; 2]| {
        Ok(current(Snapshot { step, params: BTreeMap::new(), arrays: arrays(&own)?, state: state(&own_state)? }))
    };
    let parts = names.map(part).collect::<Result<_>>()?;
    match snapshot.non_finite() {
        Some(name) => Err(damaged(format!("'{name}' is not finite: training had diverged"))),
        None => Ok((snapshot, parts)),
    }
}

fn manifest(path: &Path) -> Result<Manifest> {
    let name = path.join(MANIFEST);
    let damaged = |what: String| Error::checkpoint(path, format!("{MANIFEST}: {what}"));
    let bytes = files::read(&name).map_err(|e| damaged(e.to_string()))?;
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    match &manifest.sha256 {
        Some(sha256) if *sha256 != manifest.checksum()? => Err(damaged("its checksum is wrong".into())),
        _ => Ok(manifest),
    }
}

fn score(path: &Path) -> Option<f64> {
    manifest(path).ok()?.score
}

fn entry(bytes: &[u8]) -> FileEntry {
    FileEntry { bytes: bytes.len() as u64, sha256: HEXLOWER.encode(&Sha256::digest(bytes)) }
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    write_synced(path, |file| file.write_all(bytes)).map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Array;

    fn snapshot(step: u64) -> Snapshot {
        let mut s = Snapshot { step, ..Snapshot::default() };
        s.params.insert("a.weight".into(), Array::new(&[2, 2], &[1.0, -2.5, f32::MIN_POSITIVE, 4.0]));
        s.arrays.insert("obs".into(), Array::new(&[3], &[1_u8, 2, 255]));
        s.put("x", &0.1_f64);
        s
    }

    #[test]
    fn the_last_and_the_best_are_kept_and_restored_exactly() {
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

    /// Truncates each file of the newest checkpoint at several places, or flips a bit of it.
    #[test]
    fn falls_back_to_the_last_undamaged_one_with_the_reason() {
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

    /// Whichever bit of the manifest flips, the step and the score are those that were saved, or the checkpoint is damaged. A manifest
    /// without a checksum, as earlier versions wrote it, loads.
    #[test]
    fn the_manifest_is_protected_by_its_checksum() {
        let dir = tempfile::tempdir().unwrap();
        let c = Checkpoints::new(dir.path(), 3);
        let name = c.save(&snapshot(1234), Some(56.5)).unwrap().join(MANIFEST);
        let whole = fs::read(&name).unwrap();
        let mut damaged = 0;
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&name, bytes).unwrap();
            match c.latest() {
                Ok(loaded) => assert_eq!((loaded.snapshot.step, loaded.score), (1234, Some(56.5)), "bit {bit}"),
                Err(_) => damaged += 1,
            }
        }
        assert!(damaged > 4 * whole.len(), "most flips are noticed: {damaged}");
        let mut manifest: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        manifest.as_object_mut().unwrap().remove("sha256");
        fs::write(&name, manifest.to_string()).unwrap();
        assert_eq!(c.latest().unwrap().snapshot, snapshot(1234));
    }

    /// Old keys get their new names in checkpoints of format 1, and only there.
    #[test]
    fn a_checkpoint_of_format_1_is_read_with_the_names_of_today() {
        let dir = tempfile::tempdir().unwrap();
        let c = Checkpoints::new(dir.path(), 3);
        let mut old = snapshot(5);
        old.arrays.insert("memory.h".into(), Array::new(&[1], &[1.0_f32]));
        old.put("player.rng", &7);
        let name = c.save(&old, None).unwrap().join(MANIFEST);
        assert_eq!(c.latest().unwrap().snapshot, old);
        let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&name).unwrap()).unwrap();
        manifest.as_object_mut().unwrap().remove("sha256");
        manifest["format"] = 1.into();
        fs::write(&name, manifest.to_string()).unwrap();
        let read = c.latest().unwrap().snapshot;
        assert!(read.arrays.contains_key("recurrent_state.h") && !read.arrays.contains_key("memory.h"));
        assert_eq!((read.state.contains_key("player.rng"), read.get::<u64>("actor.rng").unwrap()), (false, 7));
        assert_eq!((read.arrays["obs"].clone(), read.get::<f64>("x").unwrap()), (old.arrays["obs"].clone(), 0.1));
    }

    /// A checkpoint with parameters that are not finite counts as damaged.
    #[test]
    fn falls_back_past_parameters_that_are_not_finite() {
        let dir = tempfile::tempdir().unwrap();
        let c = Checkpoints::new(dir.path(), 3);
        let mut broken = snapshot(2);
        broken.params.insert("a.bias".into(), Array::new(&[2], &[1.0, f32::NAN]));
        let path = dir.path().join("000000000002");
        atomic_write_folder(&path, |dir| c.write(dir, &broken, &[], Some(9.0))).unwrap();
        assert!(c.latest().unwrap_err().to_string().contains("'a.bias' is not finite"));
        c.save(&snapshot(1), Some(1.0)).unwrap();
        atomic_write_folder(&path, |dir| c.write(dir, &broken, &[], Some(9.0))).unwrap();
        for loaded in [c.latest().unwrap(), c.best().unwrap()] {
            assert_eq!((loaded.snapshot.step, loaded.skipped.len()), (1, 1));
            assert!(loaded.skipped[0].1.contains("'a.bias' is not finite"), "{:?}", loaded.skipped);
        }
    }

    /// Damaged checkpoints are removed: they count neither as the last nor as the best.
    #[test]
    fn only_undamaged_checkpoints_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let c = Checkpoints::new(dir.path(), 2);
        let steps = || c.list().unwrap().iter().map(|p| p.file_name().unwrap().to_owned()).collect::<Vec<_>>();
        for (step, score) in [(1, Some(2.0)), (2, Some(1.0)), (3, None)] {
            c.save(&snapshot(step), score).unwrap();
        }
        assert_eq!(steps(), ["000000000001", "000000000002", "000000000003"]);
        fs::write(c.list().unwrap()[2].join(MODEL), "cut").unwrap();
        fs::write(c.list().unwrap()[0].join(STATE), "{}").unwrap();
        fs::create_dir(dir.path().join(".writing-000000000009")).unwrap();
        fs::create_dir(dir.path().join("replay")).unwrap();
        c.save(&snapshot(4), Some(0.0)).unwrap();
        assert_eq!(steps(), ["000000000002", "000000000004"]);
        assert_eq!(c.best().unwrap().snapshot.step, 2);
        assert!(!dir.path().join(".writing-000000000009").exists() && dir.path().join("replay").exists());
    }

    /// While a checkpoint is replaced, loading finds the old one or the new one: here a process killed between the two renames.
    #[test]
    fn a_checkpoint_that_is_replaced_is_never_lost() {
        let dir = tempfile::tempdir().unwrap();
        let c = Checkpoints::new(dir.path(), 1);
        let path = c.save(&snapshot(7), None).unwrap();
        fs::rename(&path, dir.path().join("000000000007.replaced")).unwrap();
        assert_eq!(c.latest().unwrap().snapshot, snapshot(7));
        assert_eq!(c.best().unwrap().snapshot, snapshot(7));

        let mut second = snapshot(7);
        second.put("x", &0.2);
        for _ in 0..2 {
            c.save(&second, None).unwrap();
            assert_eq!(c.latest().unwrap().snapshot, second);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    /// Names have at least twelve digits and are sorted by number.
    #[test]
    fn names_are_sorted_by_number() {
        let dir = tempfile::tempdir().unwrap();
        let c = Checkpoints::new(dir.path(), 9);
        for step in [999_999_999_999, 1_000_000_000_000, 2] {
            c.save(&snapshot(step), None).unwrap();
        }
        assert_eq!(c.latest().unwrap().snapshot.step, 1_000_000_000_000);
    }

    /// The parts of other ranks are saved and verified with the checkpoint; what is common is in it once.
    #[test]
    fn parts_of_ranks_are_restored() {
        let dir = tempfile::tempdir().unwrap();
        let c = Checkpoints::new(dir.path(), 3);
        let mut first = snapshot(1);
        first.arrays.insert("optimizer.square.a.weight".into(), Array::new(&[1], &[0.5_f32]));
        let mut second = first.clone();
        second.put("x", &0.2);
        second.arrays.insert("obs".into(), Array::new(&[3], &[7_u8, 8, 9]));
        let part = Snapshot::from_bytes(&second.own_part().to_bytes().unwrap()).unwrap();
        assert!(part.params.is_empty() && part.arrays.len() == 1);
        let path = c.save_with_parts(&first, &[part], None).unwrap();
        let (read_first, parts) = read_with_parts(&path).unwrap();
        assert_eq!((&read_first, parts.len()), (&first, 1));
        assert_eq!(first.with_part(&parts[0]), second);
        assert!(Snapshot::from_bytes(&second.to_bytes().unwrap()[..90]).is_err());
        fs::write(path.join("rank-1.json"), "{}").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("rank-1.json is damaged"));
    }

    #[test]
    fn without_an_undamaged_checkpoint_loading_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let c = Checkpoints::new(dir.path(), 3);
        assert!(c.latest().unwrap_err().to_string().contains("no checkpoint yet"));
        let path = c.save(&snapshot(1), None).unwrap();
        fs::remove_file(path.join(STATE)).unwrap();
        assert!(c.latest().unwrap_err().to_string().contains(STATE));
    }

    /// The keys of a checkpoint of format 1, which has no checksum of its manifest, get their new names; those of format 2 have them.
    #[test]
    fn keys_are_renamed_in_a_checkpoint_of_format_1() {
        let dir = tempfile::tempdir().unwrap();
        let mut snapshot = Snapshot { step: 7, ..Snapshot::default() };
        snapshot.put("player.rng", &3);
        let path = Checkpoints::new(dir.path(), 1).save(&snapshot, None).unwrap();
        let keys = || read(&path).unwrap().state.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(), ["player.rng"]);
        let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(path.join(MANIFEST)).unwrap()).unwrap();
        manifest["format"] = 1.into();
        manifest.as_object_mut().unwrap().remove("sha256");
        fs::write(path.join(MANIFEST), manifest.to_string()).unwrap();
        assert_eq!(keys(), ["actor.rng"]);
    }
}
