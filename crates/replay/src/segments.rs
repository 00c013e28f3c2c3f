//! The frames of a replay buffer on disk: append-only segments.
//!
//! A stored frame never changes, so a save writes only the frames since the last save, and each frame is written once. Segments
//! are LZ4 frame files, which contain checksums. They are streamed, so saving and loading need no copy of the buffer in memory.
//!
//! ```text
//! replay/000000050000.lz4    positions  0..50 000     removed once the buffer has overwritten all of them
//!        000000100000.lz4    positions  50 000..100 000, and so on: the name is the number of slots ever written
//! ```
//!
//! Files are written [atomically](playfield_core::files). The files of a save are kept until the next save is complete, so the
//! last two checkpoints always have their frames.

use crate::ReplayBuffer;
use lz4_flex::frame::{FrameDecoder, FrameEncoder, FrameInfo};
use playfield_core::files::{self, Output, atomic_write};
use playfield_core::{Error, ObsRef, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// The segments of one replay buffer, oldest first.
#[derive(Clone, Debug)]
pub struct Segments {
    dir: PathBuf,
    list: Vec<Segment>,
    /// The oldest position of each environment that the previous save needs.
    before: Vec<u64>,
}

/// One file: the frames at positions `from..to` of each environment, one environment after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Its name in the folder.
    pub file: String,
    /// The first position of each environment.
    pub from: Vec<u64>,
    /// The position after the last of each environment.
    pub to: Vec<u64>,
}

/// A segment that could not be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Lost {
    /// Its file, and the reason.
    pub message: String,
    /// Whether frames that the next observations stack are lost, so that new episodes must start.
    pub has_newest: bool,
}

impl Segments {
    /// An empty list of segments in the folder `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), list: Vec::new(), before: Vec::new() }
    }

    /// The list that a checkpoint stores.
    pub fn list(&self) -> &[Segment] {
        &self.list
    }

    /// Writes the frames that were added to `buffer` since the last call.
    ///
    /// # Errors
    /// [`Error::Io`] where the file system fails: earlier segments are untouched then.
    pub fn append(&mut self, buffer: &ReplayBuffer) -> Result<()> {
        let (oldest, to) = buffer.extent();
        let from = match self.list.last() {
            Some(last) => last.to.iter().zip(&oldest).map(|(&a, &b)| a.max(b)).collect(),
            None => oldest,
        };
        let segment = Segment { file: format!("{:012}.lz4", to.iter().sum::<u64>()), from, to };
        if segment.from == segment.to {
            return Ok(());
        }
        fs::create_dir_all(&self.dir).map_err(Error::io("create", &self.dir))?;
        atomic_write(&self.dir.join(&segment.file), |file| write(file, buffer, &segment))?;
        self.list.push(segment);
        Ok(())
    }

    /// Removes the files that neither this save nor the previous one needs. Call it once the checkpoint of this save is complete.
    ///
    /// # Errors
    /// [`Error::Io`] where one cannot be removed.
    pub fn prune(&mut self, buffer: &ReplayBuffer) -> Result<()> {
        let before = std::mem::replace(&mut self.before, buffer.extent().0);
        self.list.retain(|s| before.is_empty() || s.to.iter().zip(&before).any(|(to, oldest)| to > oldest));
        for entry in fs::read_dir(&self.dir).map_err(Error::io("read", &self.dir))? {
            let path = entry.map_err(Error::io("read", &self.dir))?.path();
            let kept = self.list.iter().any(|s| Some(s.file.as_ref()) == path.file_name());
            if !kept && path.extension().is_some_and(|e| e == "lz4") {
                files::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Restores the frames of `buffer` from the segments in `list`. Everything else in `buffer` must be restored before. Transitions whose
    /// frames a segment has lost (it is missing, truncated or changed) can no longer be sampled ([`ReplayBuffer::changes`]).
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the file that is of another buffer.
    pub fn restore(&mut self, buffer: &mut ReplayBuffer, list: Vec<Segment>) -> Result<Vec<Lost>> {
        let (oldest, newest) = buffer.extent();
        let mut lost = Vec::new();
        buffer.start_changes();
        let mut reached = oldest.clone();
        for segment in &list {
            let path = self.dir.join(&segment.file);
            if Path::new(&segment.file).file_name() != Some(segment.file.as_ref()) {
                return Err(Error::checkpoint(&path, "is not the name of a file in this folder"));
            }
            if segment.from.len() != oldest.len() || segment.to.len() != oldest.len() {
                return Err(Error::checkpoint(&path, "belongs to another number of environments"));
            }
            if segment.to.iter().zip(&oldest).any(|(to, oldest)| to > oldest) {
                let gap = segment.from.iter().zip(&reached).any(|(from, reached)| from > reached);
                let wrong = |what: String| Error::checkpoint(&path, what);
                if gap || segment.to.iter().zip(&newest).any(|(to, newest)| to > newest) {
                    return Err(wrong("does not follow the segment before it".into()));
                }
                if let Err(error) = read(&path, buffer, segment, &oldest) {
                    let mut has_newest = false;
                    for (env, (&from, &to)) in segment.from.iter().zip(&segment.to).enumerate() {
                        has_newest |= buffer.forget(env, from.max(oldest[env]), to);
                    }
                    lost.push(Lost { message: wrong(format!("is damaged: {error}")).to_string(), has_newest });
                }
                // Where all frames of this segment are overwritten, `reached` stays at the oldest frame.
                reached.iter_mut().zip(&segment.to).for_each(|(reached, &to)| *reached = to.max(*reached));
            }
        }
        if reached != newest {
            return Err(Error::checkpoint(&self.dir, "the newest frames of the replay buffer are missing"));
        }
        (self.list, self.before) = (list, oldest);
        Ok(lost)
    }
}

fn write(file: &mut Output, buffer: &ReplayBuffer, segment: &Segment) -> std::io::Result<()> {
    let info = FrameInfo::new().block_checksums(true).content_checksum(true);
    let mut encoder = FrameEncoder::with_frame_info(info, BufWriter::new(file));
    let mut bytes = Vec::new();
    for (env, (&from, &to)) in segment.from.iter().zip(&segment.to).enumerate() {
        for position in from..to {
            bytes.clear();
            buffer.frame_bytes(env, position, &mut bytes);
            encoder.write_all(&bytes)?;
        }
    }
    encoder.finish()?.flush()
}

fn read(path: &Path, buffer: &mut ReplayBuffer, segment: &Segment, oldest: &[u64]) -> std::io::Result<()> {
    let mut decoder = FrameDecoder::new(BufReader::new(files::open(path)?));
    let mut bytes = vec![0; buffer.frame_byte_len()];
    for (env, (&from, &to)) in segment.from.iter().zip(&segment.to).enumerate() {
        for position in from..to {
            decoder.read_exact(&mut bytes)?;
            if position >= oldest[env] {
                buffer.restore_frame(env, position, &bytes);
            }
        }
    }
    // The end of the file holds the checksum of its content.
    match decoder.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(std::io::Error::other("the file is longer")),
    }
}

/// Appends the elements of a frame, little-endian.
pub(crate) fn put_bytes(frame: ObsRef<'_>, bytes: &mut Vec<u8>) {
    match frame {
        ObsRef::U8(v) => bytes.extend_from_slice(v),
        ObsRef::F32(v) => v.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes())),
    }
}
