//! TensorBoard's event file.

use playfield_core::metrics::{Row, Sink};
use playfield_core::{Error, Result};
use protobuf::Message;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tensorboard_proto::event::{Event, SessionLog, SessionLog_SessionStatus};
use tensorboard_proto::summary::{Summary, Summary_Value};
use tensorboard_rs::record_writer::RecordWriter;

/// Scalars for TensorBoard, x = agent steps.
pub struct TensorBoard {
    path: PathBuf,
    records: RecordWriter<BufWriter<File>>,
}

impl TensorBoard {
    /// A new event file in `folder`. Where the run goes on from step `resumed_at`, TensorBoard is told to forget what
    /// earlier sessions reported beyond it.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be written.
    pub fn create(folder: &Path, resumed_at: Option<u64>) -> Result<Self> {
        let (path, file) = create_new(folder)?;
        let mut board = Self { path, records: RecordWriter::new(BufWriter::new(file)) };
        let mut version = event(0);
        version.set_file_version("brain.Event:2".into());
        board.write(&version)?;
        if let Some(step) = resumed_at {
            let mut session = SessionLog::new();
            session.set_status(SessionLog_SessionStatus::START);
            // Everything at this step and later is dropped: the checkpoint's own step stays.
            let mut start = event(step + 1);
            start.set_session_log(session);
            board.write(&start)?;
        }
        board.flush()?;
        Ok(board)
    }

    fn summary(&mut self, step: u64, values: impl Iterator<Item = (String, f64)>) -> Result<()> {
        let mut summary = Summary::new();
        for (tag, value) in values {
            let mut scalar = Summary_Value::new();
            scalar.set_tag(tag);
            scalar.set_simple_value(value as f32);
            summary.mut_value().push(scalar);
        }
        let mut event = event(step);
        event.set_summary(summary);
        self.write(&event)
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        let bytes = event.write_to_bytes().map_err(Error::other)?;
        self.records.write(&bytes).map_err(Error::io("write", &self.path))
    }
}

impl Sink for TensorBoard {
    fn scalars(&mut self, row: &Row) -> Result<()> {
        self.summary(row.step, row.values.iter().map(|(tag, value)| (tag.to_string(), *value)))?;
        self.flush()
    }

    fn each(&mut self, step: u64, tag: &str, values: &[Option<f64>]) -> Result<()> {
        let values = values.iter().enumerate().filter_map(|(i, value)| Some((format!("{tag}/{i}"), (*value)?)));
        self.summary(step, values)
    }

    fn flush(&mut self) -> Result<()> {
        self.records.flush().map_err(Error::io("write", &self.path))
    }
}

fn event(step: u64) -> Event {
    let mut event = Event::new();
    event.set_wall_time(now());
    event.set_step(step as i64);
    event
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

/// A file that did not exist, named as TensorBoard expects: its files are read in the order of their names.
fn create_new(folder: &Path) -> Result<(PathBuf, File)> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "localhost".into());
    for n in 0.. {
        let (time, pid) = (now() as u64, std::process::id());
        let path = folder.join(format!("events.out.tfevents.{time:010}.{}.{pid}.{n}", host.trim()));
        match File::create_new(&path) {
            Ok(file) => return Ok((path, file)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io("create", &path)(e)),
        }
    }
    unreachable!("one of the numbers is free")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    fn row(step: u64, value: f64) -> Row {
        Row { step, elapsed: Duration::ZERO, values: vec![("train/loss", value), ("time/fps", value * 2.0)] }
    }

    /// TensorBoard's own reader, from two sessions of which the second starts before the first one's end.
    #[test]
    fn tensorboard_reads_the_tags_and_drops_what_was_undone() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = TensorBoard::create(dir.path(), None).unwrap();
        for step in [10, 20, 30] {
            first.scalars(&row(step, step as f64 / 8.0)).unwrap();
        }
        first.each(10, "async/return", &[Some(1.0), None, Some(3.0)]).unwrap();
        drop(first);
        let mut second = TensorBoard::create(dir.path(), Some(20)).unwrap();
        second.scalars(&row(25, 100.0)).unwrap();
        drop(second);
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python");
        let script = "import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1]).Reload()
for tag in sorted(events.Tags()['scalars']):
    print(tag, [(e.step, e.value) for e in events.Scalars(tag)])";
        let output = Command::new(python).arg("-c").arg(script).arg(dir.path()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(
            said,
            "async/return/0 [(10, 1.0)]\nasync/return/2 [(10, 3.0)]\ntime/fps [(10, 2.5), (20, 5.0), (25, 200.0)]\ntrain/loss [(10, 1.25), (20, 2.5), (25, 100.0)]\n"
        );
    }

    #[test]
    fn two_writers_in_one_second_have_a_file_each() {
        let dir = tempfile::tempdir().unwrap();
        let boards: Vec<_> = (0..3).map(|_| TensorBoard::create(dir.path(), None).unwrap()).collect();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), boards.len());
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let mut board = TensorBoard { path: "/dev/full".into(), records: RecordWriter::new(BufWriter::new(file)) };
        assert!(board.scalars(&row(1, 1.0)).unwrap_err().to_string().contains("cannot write /dev/full"));
    }
}
