//! The destinations of a run's metrics: TensorBoard, two CSV files, the console. Each is a [`Sink`].
//!
//! TensorBoard's files are written with the record format of `tensorboard-rs` and the messages of `tensorboard-proto`, but not with
//! its `SummaryWriter`: that panics on a full disk, and a second writer in the same second truncates the first one's file.
//! rust-protobuf 2 is old and known to overflow the stack on hostile input; here it only writes.
//!
//! A resumed run continues in the same folder. The CSV files are first cut back to the checkpoint, so that no step appears
//! twice; an event tells TensorBoard to drop what earlier sessions wrote beyond it.

mod console;
mod csv;
mod dashboard;
pub mod gif;
mod tensorboard;

pub use console::{Console, duration};
pub use csv::{Episodes, Progress};
pub use tensorboard::TensorBoard;

use playfield_core::{Result, Sink};
use std::path::Path;

/// The sinks that write into a run's folder: `progress.csv`, `episodes.csv`, TensorBoard's event file. `resumed_at`: the
/// step of the checkpoint that the run resumes from.
///
/// # Errors
/// [`Error::Io`](playfield_core::Error::Io) where a file cannot be created, or exists although the run is new.
pub fn run_folder_sinks(folder: &Path, resumed_at: Option<u64>) -> Result<Vec<Box<dyn Sink>>> {
    Ok(vec![
        Box::new(Progress::open(&folder.join("progress.csv"), resumed_at)?),
        Box::new(Episodes::open(&folder.join("episodes.csv"), resumed_at)?),
        Box::new(TensorBoard::create(folder, resumed_at)?),
    ])
}
