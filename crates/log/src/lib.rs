//! The destinations of a run's metrics: TensorBoard, two CSV files, the console. Each is a [`Sink`]. And [`video`]: GIF and MP4.
//!
//! TensorBoard's event files are encoded here and not by `tensorboard-rs`, which only writes them, too: its `SummaryWriter`
//! panics on a full disk and overwrites the file of a second writer in the same second, and it depends on crates that are no
//! longer maintained (`protobuf` 2, `image` 0.23). TensorBoard's own reader checks these files in the tests.
//!
//! A resumed run continues in the same folder. The CSV files are first cut back to the checkpoint, so that no step appears
//! twice; an event tells TensorBoard to drop what earlier sessions wrote beyond it.

mod console;
mod csv;
mod dashboard;
pub mod gif;
pub mod mp4;
mod tensorboard;
pub mod video;

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
