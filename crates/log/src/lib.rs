//! Where a run reports: TensorBoard, two CSV files, the console. Each is a [`Sink`].
//!
//! TensorBoard's files are made of `tensorboard-rs`'s record format and `tensorboard-proto`'s messages, over a file of our
//! own: the `SummaryWriter` of that crate panics on a full disk, and a second one in the same second truncates the first.
//! Its rust-protobuf 2 is old and is known to overflow the stack on hostile input; here it only ever writes.
//!
//! A resumed run goes on in the same folder. The CSV files are first cut back to the checkpoint, so that no step appears
//! twice; TensorBoard is told where the new session starts and drops what lay beyond.

mod console;
mod csv;
mod tensorboard;

pub use console::Console;
pub use csv::{Episodes, Progress};
pub use tensorboard::TensorBoard;

use playfield_core::{Result, Sink};
use std::path::Path;

/// The sinks that write into a run's folder: `progress.csv`, `episodes.csv`, TensorBoard's event file. `resumed_at`: the
/// step of the checkpoint that a run goes on from.
///
/// # Errors
/// [`Error::Io`](playfield_core::Error::Io) where a file cannot be made, or exists although the run is new.
pub fn run_folder_sinks(folder: &Path, resumed_at: Option<u64>) -> Result<Vec<Box<dyn Sink>>> {
    Ok(vec![
        Box::new(Progress::open(&folder.join("progress.csv"), resumed_at)?),
        Box::new(Episodes::open(&folder.join("episodes.csv"), resumed_at)?),
        Box::new(TensorBoard::create(folder, resumed_at)?),
    ])
}
