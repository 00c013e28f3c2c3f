//! Two CSV files: metrics over time, and every episode.
//!
//! Every cell is a number or empty. A number reads back exactly.

use csv::{ReaderBuilder, StringRecord, Writer};
use playfield_core::files::{self, Output};
use playfield_core::metrics::{EpisodeRow, Row, Sink, position};
use playfield_core::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// `progress.csv`: one row per report, flushed at once. Its columns are the tags that were reported: first those of
/// [`METRICS`](playfield_core::metrics::METRICS) in that order, then others in order of arrival. A row with a new tag
/// replaces the file once by one with more columns; earlier rows have empty cells there.
#[derive(Debug)]
pub struct Progress {
    table: Table,
}

impl Progress {
    /// Creates the file, or opens the file of a run that resumes from step `resumed_at` and cuts it back to there.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be written, or exists although the run is new.
    pub fn open(path: &Path, resumed_at: Option<u64>) -> Result<Self> {
        let columns = ["time/total_timesteps", "time/time_elapsed"];
        Ok(Self { table: Table::open(path, &columns, |header| header.starts_with(&columns), resumed_at)? })
    }
}

impl Sink for Progress {
    fn scalars(&mut self, row: &Row) -> Result<()> {
        let mut columns = self.table.columns.clone();
        for (tag, _) in &row.values {
            if !columns.iter().any(|column| column == tag) {
                columns.push(tag.to_string());
            }
        }
        if columns.len() > self.table.columns.len() {
            // Stable: tags without a description keep their order.
            columns.sort_by_key(|tag| position(tag));
            self.table.widen(columns)?;
        }
        let cell = |tag: &String| row.get(tag).filter(|v| v.is_finite()).map(|v| v.to_string()).unwrap_or_default();
        let cells: Vec<_> = self.table.columns.iter().map(cell).collect();
        self.table.write(cells)?;
        self.table.flush()
    }

    fn flush(&mut self) -> Result<()> {
        self.table.sync()
    }
}

/// `episodes.csv`: `step,time,return,length`, one row per finished episode; `time` in seconds, the return raw.
#[derive(Debug)]
pub struct Episodes {
    table: Table,
}

impl Episodes {
    /// Creates the file, or opens the file of a run that resumes from step `resumed_at` and cuts it back to there.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be written, or exists although the run is new.
    pub fn open(path: &Path, resumed_at: Option<u64>) -> Result<Self> {
        let columns = ["step", "time", "return", "length"];
        Ok(Self { table: Table::open(path, &columns, |header| header == columns, resumed_at)? })
    }
}

impl Sink for Episodes {
    fn scalars(&mut self, _row: &Row) -> Result<()> {
        self.table.flush()
    }

    fn episode(&mut self, row: &EpisodeRow) -> Result<()> {
        let (step, time, end) = (row.step, row.elapsed.as_secs_f64(), row.end);
        self.table.write([
            step.to_string(),
            format!("{time:.3}"),
            end.episode_return.to_string(),
            end.length.to_string(),
        ])
    }

    fn flush(&mut self) -> Result<()> {
        self.table.sync()
    }
}

/// The first cell of a row.
fn step(row: &StringRecord) -> Option<u64> {
    row.get(0)?.parse().ok()
}

/// A CSV file whose first column is the step.
#[derive(Debug)]
struct Table {
    path: PathBuf,
    columns: Vec<String>,
    writer: Writer<Output>,
}

impl Table {
    /// `is_header`: whether a file with these columns is one of this kind.
    fn open(
        path: &Path,
        columns: &[&str],
        is_header: impl Fn(&[&str]) -> bool,
        resumed_at: Option<u64>,
    ) -> Result<Self> {
        if resumed_at.is_none() {
            Output::create_new(path).map_err(Error::io("create", path))?;
        }
        let header = |header: &StringRecord| match header.is_empty() {
            true => columns.iter().map(|column| column.to_string()).collect(),
            false => header.iter().map(String::from).collect(),
        };
        Self::replace(path, header, is_header, |row| step(row).is_some_and(|step| Some(step) <= resumed_at))
    }

    /// Replaces the file by one with `columns`. The cost is linear in the size of the file.
    fn widen(&mut self, columns: Vec<String>) -> Result<()> {
        self.flush()?;
        *self = Self::replace(&self.path, |_| columns, |_| true, |_| true)?;
        Ok(())
    }

    /// Replaces the file at `path` by one with `columns(header)`, which holds the rows that `keep` accepts, or by an empty one
    /// where there is none. What is damaged (a header that `is_header` refuses, with its rows; a row with a cell that is not a number, or
    /// with another number of cells) is left out, and the file as it was is kept beside the new one, as `<name>.damaged`. Atomic: whenever the process ends, the file is the old one or the new one.
    fn replace(
        path: &Path,
        columns: impl FnOnce(&StringRecord) -> Vec<String>,
        is_header: impl Fn(&[&str]) -> bool,
        keep: impl Fn(&StringRecord) -> bool,
    ) -> Result<Self> {
        let bytes = match files::read(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes.map_err(Error::io("read", path))?,
        };
        let text = String::from_utf8_lossy(&bytes);
        // A process that was killed may have left part of a row.
        let complete = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let mut reader = ReaderBuilder::new().flexible(true).from_reader(complete.as_bytes());
        let unreadable = |error: csv::Error| Error::io("read", path)(error.into());
        let mut header = reader.headers().map_err(unreadable)?.clone();
        let is_number = |cell: &str| cell.is_empty() || cell.parse::<f64>().is_ok();
        let is_tag = |cell: &str| !cell.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER);
        let names: Vec<&str> = header.iter().collect();
        let is_distinct = names.iter().enumerate().all(|(i, name)| !names[..i].contains(name));
        let is_right = names.is_empty() || (is_header(&names) && is_distinct && names.iter().all(|name| is_tag(name)));
        let mut is_damaged = !is_right;
        if is_damaged {
            header.clear();
        }
        let columns = columns(&header);
        let sources: Vec<_> = columns.iter().map(|column| header.iter().position(|old| old == column)).collect();

        let new = files::temporary(path);
        let writer = Writer::from_writer(Output::create(&new).map_err(Error::io("create", &new))?);
        let mut table = Self { path: new, columns, writer };
        table.write(table.columns.clone())?;
        let mut row = StringRecord::new();
        while reader.read_record(&mut row).map_err(unreadable)? {
            let is_whole = row.len() == header.len() && row.iter().all(is_number) && step(&row).is_some();
            is_damaged |= !is_whole;
            if is_whole && keep(&row) {
                table.write(sources.iter().map(|i| i.and_then(|i| row.get(i)).unwrap_or("")))?;
            }
        }
        table.sync()?;
        if is_damaged {
            let kept = path.with_extension("csv.damaged");
            fs::copy(path, &kept).map_err(Error::io("write", &kept))?;
        }
        files::rename(&table.path, path).map_err(Error::io("write", path))?;
        Ok(Self { path: path.to_path_buf(), ..table })
    }

    fn write<T: AsRef<[u8]>>(&mut self, cells: impl IntoIterator<Item = T>) -> Result<()> {
        self.writer.write_record(cells).map_err(|error| Error::io("write", &self.path)(error.into()))
    }

    fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(Error::io("write", &self.path))
    }

    /// Flushes to the disk, not only to the operating system.
    fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.writer.get_ref().sync().map_err(Error::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::EpisodeEnd;
    use std::os::unix::fs::MetadataExt as _;
    use std::time::Duration;

    fn row(step: u64, values: &[(&'static str, f64)]) -> Row {
        Row::new(step, Duration::from_millis(250), values.iter().map(|(tag, value)| ((*tag).into(), *value)))
    }

    fn episode(step: u64, episode_return: f64) -> EpisodeRow {
        EpisodeRow { step, elapsed: Duration::from_millis(1500), end: EpisodeEnd { episode_return, length: 7 } }
    }

    #[test]
    fn the_columns_are_the_reported_tags_and_numbers_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("progress.csv");
        let mut progress = Progress::open(&path, None).unwrap();
        let read = || fs::read_to_string(&path).unwrap();
        assert_eq!(read(), "time/total_timesteps,time/time_elapsed\n");
        progress.scalars(&row(10, &[("train/loss", 0.1 + 0.2), ("train/explained_variance", f64::NAN)])).unwrap();
        let header = "time/total_timesteps,time/time_elapsed,train/loss,train/explained_variance";
        assert_eq!(read(), format!("{header}\n10,0.25,0.30000000000000004,\n"));
        assert_eq!("0.30000000000000004".parse::<f64>().unwrap(), 0.1 + 0.2);
    }

    /// Described tags stand in the order of their table and by index, others in order of arrival; the cells of a new column are
    /// empty in earlier rows. The file is replaced only where a tag is new.
    #[test]
    fn a_new_tag_adds_a_column_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("progress.csv");
        let mut progress = Progress::open(&path, None).unwrap();
        let inode = || fs::metadata(&path).unwrap().ino();
        progress.scalars(&row(1, &[("toy/b", 1.0), ("async/return/10", 2.0)])).unwrap();
        let before = inode();
        progress.scalars(&row(2, &[("async/return/10", 3.0)])).unwrap();
        assert_eq!(inode(), before);
        progress.scalars(&row(3, &[("toy/a, quoted", 4.0), ("async/return/2", 5.0), ("train/loss", 6.0)])).unwrap();
        assert_ne!(inode(), before);
        progress.scalars(&row(4, &[("toy/b", 7.0)])).unwrap();
        let expected = "time/total_timesteps,time/time_elapsed,train/loss,async/return/2,async/return/10,toy/b,\"toy/a, quoted\"\n\
                        1,0.25,,,2,1,\n2,0.25,,,3,,\n3,0.25,6,5,,,4\n4,0.25,,,,7,\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);

        // Resumed from step 2, with another tag.
        fs::write(&path, expected.to_string() + "5,0.2").unwrap();
        let mut progress = Progress::open(&path, Some(2)).unwrap();
        progress.scalars(&row(3, &[("toy/a, quoted", 8.0), ("eval/mean_reward", 9.0)])).unwrap();
        let expected = "time/total_timesteps,time/time_elapsed,train/loss,eval/mean_reward,async/return/2,async/return/10,toy/b,\"toy/a, quoted\"\n\
                        1,0.25,,,,2,1,\n2,0.25,,,,3,,\n3,0.25,,9,,,,8\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// A kill between the two steps of a replacement leaves the old file, and a temporary one that the next replacement overwrites.
    #[test]
    fn a_replacement_that_was_interrupted_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("progress.csv");
        Progress::open(&path, None).unwrap().scalars(&row(1, &[("train/loss", 1.0)])).unwrap();
        fs::write(files::temporary(&path), "time/total_ti").unwrap();
        let mut progress = Progress::open(&path, Some(1)).unwrap();
        progress.scalars(&row(2, &[("toy/a", 2.0)])).unwrap();
        let expected = "time/total_timesteps,time/time_elapsed,train/loss,toy/a\n1,0.25,1,\n2,0.25,,2\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn episodes_are_written_and_a_new_run_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("episodes.csv");
        let mut episodes = Episodes::open(&path, None).unwrap();
        episodes.episode(&episode(10, -20.5)).unwrap();
        episodes.flush().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "step,time,return,length\n10,1.500,-20.5,7\n");
        assert!(Episodes::open(&path, None).is_err());
        assert!(fs::read_to_string(&path).unwrap().contains("-20.5"));
    }

    /// A run that was killed while it wrote a row, after its last checkpoint.
    #[test]
    fn a_resumed_run_is_cut_back_to_its_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("episodes.csv");
        fs::write(&path, "step,time,return,length\n10,1.5,1,7\n20,1.6,2,7\n30,1.7,3,7\n4").unwrap();
        let mut episodes = Episodes::open(&path, Some(20)).unwrap();
        episodes.episode(&episode(25, 9.0)).unwrap();
        episodes.flush().unwrap();
        let expected = "step,time,return,length\n10,1.5,1,7\n20,1.6,2,7\n25,1.500,9,7\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        fs::remove_file(&path).unwrap();
        Episodes::open(&path, Some(20)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "step,time,return,length\n", "a lost file starts anew");
    }

    /// Bytes that are no text, cells that are no numbers, rows of another length: the other rows stay, and the damaged file does, too.
    #[test]
    fn damaged_rows_are_left_out_and_the_file_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("episodes.csv");
        let whole = b"step,time,return,length\n10,1.5,1,7\n20,1.6,2,7\n30,1.7,inf,7\n";
        let rows = ["10,1.5,1,7\n", "20,1.6,2,7\n", "30,1.7,inf,7\n"];
        let at = |text: &str| whole.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
        for (place, byte, left) in [
            (at("1.6") + 1, 0xff, [rows[0], rows[2]].concat()),
            (at("1.6") + 1, b'x', [rows[0], rows[2]].concat()),
            (at("1.6") + 1, b',', [rows[0], rows[2]].concat()),
            (at("20,"), b'-', [rows[0], rows[2]].concat()),
            (at("time"), 0xff, String::new()),
            (at("time"), b'l', String::new()),
        ] {
            let mut damaged = whole.to_vec();
            damaged[place] = byte;
            fs::write(&path, &damaged).unwrap();
            drop(Episodes::open(&path, Some(40)).unwrap());
            assert_eq!(
                fs::read_to_string(&path).unwrap(),
                format!("step,time,return,length\n{left}"),
                "{place} {byte}"
            );
            let kept = dir.path().join("episodes.csv.damaged");
            assert_eq!(fs::read(&kept).unwrap(), damaged);
            fs::remove_file(kept).unwrap();
        }
        fs::write(&path, whole).unwrap();
        drop(Episodes::open(&path, Some(40)).unwrap());
        assert_eq!((fs::read(&path).unwrap(), fs::read_dir(dir.path()).unwrap().count()), (whole.to_vec(), 1));
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let file = Output::create(Path::new("/dev/full")).unwrap();
        let columns = vec!["time/total_timesteps".into(), "time/time_elapsed".into()];
        let table = Table { path: "/dev/full".into(), columns, writer: Writer::from_writer(file) };
        let mut progress = Progress { table };
        let said = progress.scalars(&row(1, &[])).unwrap_err().to_string();
        assert!(said.starts_with("cannot write /dev/full: "), "{said}");
    }

    /// A file with the columns of another one, or with one twice, would take no row.
    #[test]
    fn a_header_of_another_file_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("progress.csv");
        for header in ["step,time,return,length", "time/time_elapsed", "time/total_timesteps,time/time_elapsed,a,a"] {
            fs::write(&path, format!("{header}\n1,2,3,4\n")).unwrap();
            let mut progress = Progress::open(&path, Some(100)).unwrap();
            progress.scalars(&row(100, &[])).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "time/total_timesteps,time/time_elapsed\n100,0.25\n");
            assert!(dir.path().join("progress.csv.damaged").exists());
        }
    }
}
