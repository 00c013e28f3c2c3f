//! Videos as files: the format follows from the name.

use crate::gif::{self, Gif};
use crate::mp4::{self, Mp4};
use playfield_core::{Image, Result};
use std::io::{Seek, Write};
use std::path::Path;

/// A format of videos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An animated GIF: exact colors up to 256 per frame, shown by every browser and by TensorBoard.
    Gif,
    /// H.264 in an MP4 file: many times smaller for large frames.
    Mp4,
}

impl Format {
    /// The format of a file's name, by its ending.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "gif" => Some(Self::Gif),
            "mp4" => Some(Self::Mp4),
            _ => None,
        }
    }

    /// Rejects a frame of a size that the format does not support.
    ///
    /// # Errors
    /// [`Error::Config`](playfield_core::Error::Config) with the size and the bounds.
    pub fn check_size(self, frame: &Image) -> Result<()> {
        match self {
            Self::Gif => gif::check_size(frame),
            Self::Mp4 => mp4::check_size(frame),
        }
    }
}

/// A video being written.
pub enum Video<W: Write + Seek> {
    /// As GIF.
    Gif(Gif<W>),
    /// As MP4.
    Mp4(Box<Mp4<W>>),
}

impl<W: Write + Seek> Video<W> {
    /// Begins a video of frames of the size of `first` at `fps` frames per second.
    ///
    /// # Errors
    /// As [`Format::check_size`], and where `writer` fails.
    pub fn new(format: Format, writer: W, first: &Image, fps: f64) -> Result<Self> {
        Ok(match format {
            Format::Gif => Self::Gif(Gif::new(writer, first, fps, 1)?),
            Format::Mp4 => Self::Mp4(Box::new(Mp4::new(writer, first, fps)?)),
        })
    }

    /// Appends a frame.
    ///
    /// # Errors
    /// [`Error::Config`](playfield_core::Error::Config) for a frame of another size than the first, and where the writer fails.
    pub fn push(&mut self, frame: &Image) -> Result<()> {
        match self {
            Self::Gif(gif) => gif.push(frame),
            Self::Mp4(mp4) => mp4.push(frame),
        }
    }

    /// Ends the video and returns the writer.
    ///
    /// # Errors
    /// Where the writer fails.
    pub fn finish(self) -> Result<W> {
        match self {
            Self::Gif(gif) => gif.finish(),
            Self::Mp4(mp4) => mp4.finish(),
        }
    }
}
