//! The frames of a ring on disk: segments that are only ever appended.
//!
//! A frame never changes once it is written, so a save writes only what came since the last one, and a frame is written
//! once however often a run is saved. Segments are LZ4 frame files (which bring their own checksums), streamed: saving and
//! loading need no second copy of the memory.
//!
//! ```text
//! replay/000000050000.lz4    positions  0..50 000     removed once the ring has overwritten them all
//!        000000100000.lz4    positions  50 000..100 000, and so on: named for how many were ever written
//! ```
//!
//! A file is written under another name, flushed and renamed. What the last save needs stays until the next one is whole,
//! so the last two checkpoints always have their frames.

use crate::frame_ring::FrameRing;
use lz4_flex::frame::{FrameDecoder, FrameEncoder, FrameInfo};
use playfield_core::{Error, ObsRef, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// The segments of one ring, in the order of time.
#[derive(Clone, Debug)]
pub struct Segments {
    dir: PathBuf,
    list: Vec<Segment>,
    /// The oldest positions that the save before needs, one per lane.
    before: Vec<u64>,
}

/// One file: of each lane in turn, the frames at positions `from..to`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Its name in the folder.
    pub file: String,
    /// The first position of each lane.
    pub from: Vec<u64>,
    /// The position after the last.
    pub to: Vec<u64>,
}

impl Segments {
    /// No segment yet, in the folder `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), list: Vec::new(), before: Vec::new() }
    }

    /// What a checkpoint keeps of them.
    pub fn list(&self) -> &[Segment] {
        &self.list
    }

    /// Writes the frames that `ring` got since the last call.
    ///
    /// # Errors
    /// [`Error::Io`] where the disk refuses: what was there before is untouched then.
    pub fn append(&mut self, ring: &FrameRing) -> Result<()> {
        let (oldest, to) = ring.extent();
        let from = match self.list.last() {
            Some(last) => last.to.iter().zip(&oldest).map(|(&a, &b)| a.max(b)).collect(),
            None => oldest,
        };
        let segment = Segment { file: format!("{:012}.lz4", to.iter().sum::<u64>()), from, to };
        if segment.from == segment.to {
            return Ok(());
        }
        fs::create_dir_all(&self.dir).map_err(Error::io("create", &self.dir))?;
        let (temporary, path) = (self.dir.join(".writing"), self.dir.join(&segment.file));
        let written = write(&temporary, ring, &segment);
        if written.is_err() {
            // Best effort: the reason for the failure is worth more than the remains.
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(Error::io("write", &path))?;
        fs::rename(&temporary, &path).map_err(Error::io("write", &path))?;
        let flushed = File::open(&self.dir).and_then(|d| d.sync_all());
        flushed.map_err(Error::io("flush", &self.dir))?;
        self.list.push(segment);
        Ok(())
    }

    /// Removes the files that neither this save nor the one before needs: to be called once this one is whole.
    ///
    /// # Errors
    /// [`Error::Io`] where one cannot be removed.
    pub fn prune(&mut self, ring: &FrameRing) -> Result<()> {
        let before = std::mem::replace(&mut self.before, ring.extent().0);
        self.list.retain(|s| before.is_empty() || s.to.iter().zip(&before).any(|(to, oldest)| to > oldest));
        for entry in fs::read_dir(&self.dir).map_err(Error::io("read", &self.dir))? {
            let path = entry.map_err(Error::io("read", &self.dir))?.path();
            let kept = self.list.iter().any(|s| Some(s.file.as_ref()) == path.file_name());
            if !kept && path.extension().is_some_and(|e| e == "lz4") {
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Reads the frames that `ring`, whose account is restored already, had when `list` was kept.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the file that is missing, cut short, changed or of another memory.
    pub fn restore(&mut self, ring: &mut FrameRing, list: Vec<Segment>) -> Result<()> {
        let (oldest, newest) = ring.extent();
        let mut reached = oldest.clone();
        for segment in &list {
            let path = self.dir.join(&segment.file);
            if segment.from.len() != oldest.len() || segment.to.len() != oldest.len() {
                return Err(Error::checkpoint(&path, "belongs to another number of environments"));
            }
            if segment.to.iter().zip(&oldest).any(|(to, oldest)| to > oldest) {
                let gap = segment.from.iter().zip(&reached).any(|(from, reached)| from > reached);
                let said = |what: String| Error::checkpoint(&path, what);
                if gap || segment.to.iter().zip(&newest).any(|(to, newest)| to > newest) {
                    return Err(said("does not follow the segment before it".into()));
                }
                read(&path, ring, segment, &oldest).map_err(|e| said(format!("is not what was written: {e}")))?;
                // A lane whose part here is overwritten already stays at its oldest frame.
                reached.iter_mut().zip(&segment.to).for_each(|(reached, &to)| *reached = to.max(*reached));
            }
        }
        if reached != newest {
            return Err(Error::checkpoint(&self.dir, "the newest frames of the replay are missing"));
        }
        (self.list, self.before) = (list, oldest);
        Ok(())
    }
}

fn write(path: &Path, ring: &FrameRing, segment: &Segment) -> std::io::Result<()> {
    let file = BufWriter::new(File::create(path)?);
    let info = FrameInfo::new().block_checksums(true).content_checksum(true);
    let mut encoder = FrameEncoder::with_frame_info(info, file);
    let mut bytes = Vec::new();
    for (lane, (&from, &to)) in segment.from.iter().zip(&segment.to).enumerate() {
        for position in from..to {
            bytes.clear();
            ring.frame_bytes(lane, position, &mut bytes);
            encoder.write_all(&bytes)?;
        }
    }
    encoder.finish()?.into_inner()?.sync_all()
}

fn read(path: &Path, ring: &mut FrameRing, segment: &Segment, oldest: &[u64]) -> std::io::Result<()> {
    let mut decoder = FrameDecoder::new(BufReader::new(File::open(path)?));
    let mut bytes = vec![0; ring.frame_byte_len()];
    for (lane, (&from, &to)) in segment.from.iter().zip(&segment.to).enumerate() {
        for position in from..to {
            decoder.read_exact(&mut bytes)?;
            if position >= oldest[lane] {
                ring.restore_frame(lane, position, &bytes);
            }
        }
    }
    // The end carries the checksum of it all.
    match decoder.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(std::io::Error::other("it is longer")),
    }
}

/// The bytes of a frame, little-endian.
pub(crate) fn put_bytes(frame: ObsRef<'_>, bytes: &mut Vec<u8>) {
    match frame {
        ObsRef::U8(v) => bytes.extend_from_slice(v),
        ObsRef::F32(v) => v.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes())),
    }
}
