//! Two CSV files: metrics over time, and every episode.
//!
//! Every cell is a number or empty, so nothing needs quoting. A number reads back as the one that was written.

use playfield_core::metrics::{EpisodeRow, Row, Sink};
use playfield_core::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The columns of `progress.csv`, the same for every algorithm: the tags of Stable-Baselines3 and ours.
const COLUMNS: &[&str] = &[
    "time/total_timesteps",
    "time/time_elapsed",
    "time/fps",
    "rollout/ep_rew_mean",
    "rollout/ep_len_mean",
    "rollout/exploration_rate",
    "train/loss",
    "train/policy_loss",
    "train/value_loss",
    "train/entropy_loss",
    "train/explained_variance",
    "train/learning_rate",
    "train/grad_norm",
    "train/n_updates",
    "train/q_mean",
    "train/td_error",
    "train/per_beta",
    "train/replay_size",
    "eval/mean_reward",
    "eval/mean_ep_length",
    "time/phase_act_ms",
    "time/phase_env_ms",
    "time/phase_learn_ms",
    "async/policy_lag",
    "async/updates_per_second",
];

/// `progress.csv`: one row per report, flushed at once.
#[derive(Debug)]
pub struct Progress {
    table: Table,
}

impl Progress {
    /// A new file, or the file of a run that goes on from step `resumed_at`, cut back to there.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be written, or exists although the run is new.
    pub fn open(path: &Path, resumed_at: Option<u64>) -> Result<Self> {
        Ok(Self { table: Table::open(path, &COLUMNS.join(","), resumed_at)? })
    }
}

impl Sink for Progress {
    fn scalars(&mut self, row: &Row) -> Result<()> {
        if let Some((tag, _)) = row.values.iter().find(|(tag, _)| !COLUMNS.contains(tag)) {
            return Err(Error::config(format!("progress.csv has no column '{tag}': every tag must be in its list")));
        }
        let value = |column: &str| row.values.iter().find(|(tag, _)| *tag == column).map(|(_, value)| *value);
        let cell = |column: &&str| value(column).filter(|v| v.is_finite()).map(|v| v.to_string()).unwrap_or_default();
        self.table.write(&COLUMNS.iter().map(cell).collect::<Vec<_>>().join(","))?;
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
    /// A new file, or the file of a run that goes on from step `resumed_at`, cut back to there.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be written, or exists although the run is new.
    pub fn open(path: &Path, resumed_at: Option<u64>) -> Result<Self> {
        Ok(Self { table: Table::open(path, "step,time,return,length", resumed_at)? })
    }
}

impl Sink for Episodes {
    fn scalars(&mut self, _row: &Row) -> Result<()> {
        self.table.flush()
    }

    fn episode(&mut self, row: &EpisodeRow) -> Result<()> {
        let (step, time, end) = (row.step, row.elapsed.as_secs_f64(), row.end);
        self.table.write(&format!("{step},{time:.3},{},{}", end.reward, end.length))
    }

    fn flush(&mut self) -> Result<()> {
        self.table.sync()
    }
}

/// A CSV file whose first column is the step.
#[derive(Debug)]
struct Table {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Table {
    fn open(path: &Path, header: &str, resumed_at: Option<u64>) -> Result<Self> {
        match resumed_at {
            None => {
                let file = File::create_new(path).map_err(Error::io("create", path))?;
                let mut table = Self { path: path.to_path_buf(), file: BufWriter::new(file) };
                table.write(header)?;
                table.flush()?;
                Ok(table)
            }
            Some(step) => {
                cut_back(path, header, step)?;
                let file = OpenOptions::new().append(true).open(path).map_err(Error::io("write", path))?;
                Ok(Self { path: path.to_path_buf(), file: BufWriter::new(file) })
            }
        }
    }

    fn write(&mut self, line: &str) -> Result<()> {
        writeln!(self.file, "{line}").map_err(Error::io("write", &self.path))
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io("write", &self.path))
    }

    /// On disk, not only with the system.
    fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.file.get_ref().sync_data().map_err(Error::io("write", &self.path))
    }
}

/// Keeps the header and the whole lines up to `step`, in one step: the file is either as it was or cut. A file that is
/// missing or empty starts anew.
fn cut_back(path: &Path, header: &str, step: u64) -> Result<()> {
    let text = match fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text.map_err(Error::io("read", path))?,
    };
    // A killed run may have left half a line.
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    let mut lines = whole.lines();
    let mut kept = lines.next().unwrap_or(header).to_string() + "\n";
    let early = |line: &&str| line.split(',').next().and_then(|s| s.parse::<u64>().ok()).is_some_and(|s| s <= step);
    for line in lines.filter(early) {
        kept.push_str(line);
        kept.push('\n');
    }
    let new = path.with_extension("csv.new");
    let mut file = File::create(&new).map_err(Error::io("create", &new))?;
    file.write_all(kept.as_bytes()).and_then(|()| file.sync_all()).map_err(Error::io("write", &new))?;
    fs::rename(&new, path).map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::EpisodeEnd;
    use std::time::Duration;

    fn row(step: u64, values: &[(&'static str, f64)]) -> Row {
        let first = [("time/total_timesteps", step as f64), ("time/time_elapsed", 0.25)];
        let all = first.iter().chain(values);
        Row { step, elapsed: Duration::from_millis(250), values: all.copied().collect() }
    }

    fn episode(step: u64, reward: f64) -> EpisodeRow {
        EpisodeRow { step, elapsed: Duration::from_millis(1500), end: EpisodeEnd { reward, length: 7 } }
    }

    #[test]
    fn a_row_has_a_cell_per_column_and_numbers_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("progress.csv");
        let mut progress = Progress::open(&path, None).unwrap();
        progress.scalars(&row(10, &[("train/loss", 0.1 + 0.2), ("train/explained_variance", f64::NAN)])).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let cells: Vec<_> = text.lines().nth(1).unwrap().split(',').collect();
        assert_eq!(cells.len(), COLUMNS.len());
        let cell = |tag: &str| cells[COLUMNS.iter().position(|c| *c == tag).unwrap()];
        assert_eq!((cell("time/total_timesteps"), cell("time/time_elapsed")), ("10", "0.25"));
        assert_eq!(cell("train/loss").parse::<f64>().unwrap(), 0.1 + 0.2);
        assert_eq!((cell("train/explained_variance"), cell("train/q_mean")), ("", ""));
        assert!(progress.scalars(&row(11, &[("train/typo", 1.0)])).unwrap_err().to_string().contains("train/typo"));
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

    /// A run killed in the middle of a line after its last checkpoint.
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

    #[test]
    fn a_full_disk_is_an_error() {
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut progress = Progress { table: Table { path: "/dev/full".into(), file: BufWriter::new(file) } };
        let said = progress.scalars(&row(1, &[])).unwrap_err().to_string();
        assert!(said.starts_with("cannot write /dev/full: "), "{said}");
    }
}
