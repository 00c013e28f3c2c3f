//! A run folder, read from its files: settings, episodes, metrics, and the state of the run.
//!
//! A process may still write to the folder, or may have been killed while it wrote: a row that is not complete is ignored.

use csv::{ReaderBuilder, StringRecord};
use playfield_core::metrics::Window;
use playfield_core::{Checkpoints, EpisodeEnd, Error, Result, files};
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The columns of `progress.csv` that every run has.
const STEPS: &str = "time/total_timesteps";
const SECONDS: &str = "time/time_elapsed";

/// What [`find`] recognizes a run folder by.
const FILES: [&str; 5] = [".lock", "command.txt", "progress.csv", "episodes.csv", "checkpoints"];

/// The content of a run folder.
#[derive(Clone, Debug)]
pub struct RunFolder {
    /// The folder.
    pub path: PathBuf,
    /// Every setting: `config.toml`.
    pub config: Table,
    /// The name of the algorithm.
    pub algorithm: String,
    /// The id of the environment.
    pub env: String,
    /// The seed.
    pub seed: u64,
    /// The number of agent steps to train.
    pub total_steps: u64,
    /// What the run is doing.
    pub state: State,
    /// Every finished episode.
    pub episodes: Vec<Episode>,
    /// The metrics over time.
    pub progress: CsvTable,
    /// Agent steps so far, as far as they are saved or logged.
    pub step: u64,
}

/// The state of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// A process trains in the folder.
    Running,
    /// All steps are done.
    Finished,
    /// It ended before its last step and can be resumed.
    Stopped,
    /// It ended before its first row of metrics and its first checkpoint.
    NotStarted,
}

impl State {
    /// The state in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::NotStarted => "not started",
        }
    }
}

/// A row of `episodes.csv`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Episode {
    /// Agent steps at its end, over all environments.
    pub step: u64,
    /// Wall time at its end.
    pub seconds: f64,
    /// Its raw return and length.
    pub end: EpisodeEnd,
}

/// A CSV file of numbers.
#[derive(Clone, Debug, Default)]
pub struct CsvTable {
    /// The names of the columns: in `progress.csv` the tags.
    pub columns: Vec<String>,
    /// The rows, with one cell per column; empty cells are `None`.
    pub rows: Vec<Vec<Option<f64>>>,
}

impl CsvTable {
    /// The header and the complete rows of the file `path`; empty if there is no file.
    ///
    /// # Errors
    /// [`Error::Config`] if it is damaged; [`Error::Io`] if it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let text = match files::read(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            text => text.map_err(Error::io("read", path))?,
        };
        let complete = &text[..text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)];
        let mut reader = ReaderBuilder::new().from_reader(complete);
        let damaged = |what: String| Error::config(format!("{}: {what}", path.display()));
        let unreadable = |error: csv::Error| damaged(error.to_string());
        let columns: Vec<String> = reader.headers().map_err(unreadable)?.iter().map(str::to_string).collect();
        let (mut rows, mut row) = (Vec::new(), StringRecord::new());
        while reader.read_record(&mut row).map_err(unreadable)? {
            let cell = |text: &str| match text {
                "" => Ok(None),
                text => text
                    .parse()
                    .map(Some)
                    .map_err(|_| damaged(format!("row {}: '{text}' is not a number", rows.len() + 1))),
            };
            let cells = row.iter().map(cell).collect::<Result<Vec<_>>>()?;
            rows.push(cells);
        }
        Ok(Self { columns, rows })
    }

    /// The cells of a column, one per row: `None` where a cell is empty, and everywhere if there is no such column.
    pub fn cells(&self, tag: &str) -> Vec<Option<f64>> {
        let place = self.columns.iter().position(|column| column == tag);
        self.rows.iter().map(|row| place.and_then(|place| row[place])).collect()
    }

    /// The values of a column of `progress.csv` with the agent steps and seconds of their rows; `None` if there is no such column.
    pub fn column(&self, tag: &str) -> Option<Vec<Point>> {
        let [steps, seconds, column] = [STEPS, SECONDS, tag].map(|tag| self.columns.iter().position(|c| c == tag));
        let (steps, seconds, column) = (steps?, seconds?, column?);
        let point =
            |row: &Vec<Option<f64>>| Some(Point { step: row[steps]?, seconds: row[seconds]?, value: row[column]? });
        Some(self.rows.iter().filter_map(point).collect())
    }
}

/// A value at one moment of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Agent steps so far.
    pub step: f64,
    /// Wall time so far, earlier sessions of a resumed run included.
    pub seconds: f64,
    /// The value.
    pub value: f64,
}

impl RunFolder {
    /// Reads the run in `path`.
    ///
    /// # Errors
    /// [`Error::Config`] if the folder contains no run or a file is damaged; [`Error::Io`] if a file cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.join("config.toml");
        let text = match files::read(&name) {
            Err(e) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&e.kind()) => {
                return Err(Error::config(format!("{} contains no run: config.toml is missing", path.display())));
            }
            bytes => bytes.map_err(Error::io("read", &name))?,
        };
        let text = String::from_utf8_lossy(&text);
        let damaged = |what: String| Error::config(format!("{}: {what}", name.display()));
        let config: Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            damaged(format!("line {line}: {}", e.message().replace('\n', "; ")))
        })?;
        let string = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_string);
        let number = |key: &str| config.get(key).and_then(Value::as_integer).and_then(|n| u64::try_from(n).ok());
        let missing = |key: &str| damaged(format!("not the settings of a run: `{key}` is missing"));
        let algorithm = string(config.get("algorithm")).ok_or_else(|| missing("algorithm"))?;
        let env = string(config.get("env").and_then(|env| env.get("id"))).ok_or_else(|| missing("env.id"))?;
        let seed = number("seed").ok_or_else(|| missing("seed"))?;
        let total_steps = number("steps").ok_or_else(|| missing("steps"))?;

        let episodes = episodes(&path.join("episodes.csv"))?;
        let progress = CsvTable::read(&path.join("progress.csv"))?;
        let checkpoints = Checkpoints::new(path.join("checkpoints"), 1).list()?;
        let saved = checkpoints.last().and_then(|path| path.file_name()?.to_str()?.get(..12)?.parse().ok());
        let logged = progress.column(STEPS).and_then(|column| Some(column.last()?.step as u64));
        let step = saved.max(logged).max(episodes.last().map(|e| e.step)).unwrap_or(0);
        let state = match step {
            _ if is_locked(&path.join(".lock")) => State::Running,
            0 => State::NotStarted,
            step if step >= total_steps => State::Finished,
            _ => State::Stopped,
        };
        let path = path.to_path_buf();
        Ok(Self { path, config, algorithm, env, seed, total_steps, state, episodes, progress, step })
    }

    /// The name of the folder.
    pub fn name(&self) -> String {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        // A path such as `.` has no name.
        let absolute = || fs::canonicalize(&self.path).ok();
        name(&self.path).or_else(|| name(&absolute()?)).unwrap_or_else(|| self.path.display().to_string())
    }

    /// Wall time of training so far.
    pub fn seconds(&self) -> f64 {
        let logged = self.progress.column(STEPS).and_then(|column| Some(column.last()?.seconds));
        logged.or(self.episodes.last().map(|e| e.seconds)).unwrap_or(0.0)
    }

    /// Agent steps per second, from start to end.
    pub fn steps_per_second(&self) -> Option<f64> {
        Some(self.step as f64 / self.seconds()).filter(|speed| speed.is_finite() && *speed > 0.0)
    }

    /// Mean raw return of the last 100 training episodes.
    pub fn mean_return(&self) -> Option<f64> {
        let mut window = Window::default();
        let last = self.episodes.len().saturating_sub(Window::LEN);
        self.episodes[last..].iter().for_each(|e| window.push(e.end));
        window.mean_reward()
    }

    /// The means of 100 training episodes, from the first 100 on: steps and mean.
    pub fn windows(&self) -> impl Iterator<Item = (u64, f64)> {
        let mut window = Window::default();
        self.episodes.iter().filter_map(move |episode| {
            window.push(episode.end);
            Some((episode.step, window.mean_reward().filter(|_| window.is_full())?))
        })
    }

    /// The mean return of the best evaluation in training, if there was one.
    pub fn best_evaluation(&self) -> Option<f64> {
        let evaluations = self.progress.column("eval/mean_reward")?;
        evaluations.iter().map(|point| point.value).reduce(f64::max)
    }

    /// The best evaluation, or without evaluations the mean return of the last 100 training episodes.
    pub fn score(&self) -> Option<f64> {
        self.best_evaluation().or_else(|| self.mean_return())
    }

    /// The machines that trained the run, one line each: `machine.txt`. Empty where an earlier version wrote the folder.
    pub fn machines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.lines("machine.txt");
        lines.dedup();
        lines
    }

    /// The command line of each session.
    pub fn commands(&self) -> Vec<String> {
        self.lines("command.txt")
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = files::read(&self.path.join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().filter(|line| !line.trim().is_empty()).map(str::to_string).collect()
    }

    /// The GIFs in `videos/`, oldest first.
    pub fn videos(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path.join("videos")).into_iter().flatten().flatten();
        let mut gifs: Vec<_> =
            entries.map(|e| e.path()).filter(|path| path.extension().is_some_and(|e| e == "gif")).collect();
        // Their names begin with the number of steps.
        gifs.sort();
        gifs
    }
}

/// The run folders in `path` and its subfolders, up to three levels deep, sorted by name and the number at its end. Run folders
/// are not searched.
///
/// # Errors
/// [`Error::Io`] if `path` cannot be read. Subfolders that cannot be read are skipped.
pub fn find(path: &Path) -> Result<Vec<PathBuf>> {
    fn descend(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let path = entry.path();
            // A link may lead to a run, but is not followed further: it may lead in circles.
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            match is_run(&path) {
                true => found.push(path),
                false if is_folder && depth > 1 => _ = descend(&path, depth - 1, found),
                false => {}
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    descend(path, 3, &mut found).map_err(Error::io("read", path))?;
    // `pong-2` before `pong-10`.
    found.sort_by_cached_key(|path| {
        let name = path.to_string_lossy().into_owned();
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        (stem.to_string(), name[stem.len()..].parse::<u64>().unwrap_or(0), name.clone())
    });
    Ok(found)
}

/// Whether a folder looks like that of a run, even a damaged one. The folder of a sweep, which contains those of its trials, does not.
fn is_run(path: &Path) -> bool {
    !path.join("sweep.toml").exists() && FILES.iter().any(|name| path.join(name).exists())
}

/// The disk space of everything in a folder, in bytes. Links are not followed; what cannot be read counts as empty.
pub fn disk_usage(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_usage(&entry.path()),
        // In units of 512 bytes, whatever the block size of the file system.
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Whether another process holds the lock of a run. The shared lock of this test lasts for microseconds.
fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn episodes(path: &Path) -> Result<Vec<Episode>> {
    let CsvTable { columns, rows } = CsvTable::read(path)?;
    let damaged = |what: String| Error::config(format!("{}: {what}", path.display()));
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    let place = |name: &str| {
        let place = columns.iter().position(|column| column == name);
        place.ok_or_else(|| damaged(format!("the column `{name}` is missing")))
    };
    let [step, seconds, episode_return, length] = [place("step")?, place("time")?, place("return")?, place("length")?];
    let episode = |(i, row): (usize, Vec<Option<f64>>)| {
        let cell = |place: usize| row[place].ok_or_else(|| damaged(format!("a cell of row {} is empty", i + 1)));
        let end = EpisodeEnd { episode_return: cell(episode_return)?, length: cell(length)? as u64 };
        Ok(Episode { step: cell(step)? as u64, seconds: cell(seconds)?, end })
    };
    rows.into_iter().enumerate().map(episode).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes a run folder: `returns` of episodes of 10 steps and 0.5 seconds each, in one environment.
    pub(crate) fn write(path: &Path, settings: &str, returns: &[f64]) {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("config.toml"), settings).unwrap();
        let mut episodes = "step,time,return,length\n".to_string();
        let mut progress = format!("{STEPS},{SECONDS},train/loss,eval/mean_reward\n");
        for (i, value) in returns.iter().enumerate() {
            let (step, seconds) = (10 * (i + 1), 0.5 * (i + 1) as f64);
            episodes += &format!("{step},{seconds},{value},10\n");
            progress += &format!("{step},{seconds},{},\n", 1.0 / step as f64);
        }
        fs::write(path.join("episodes.csv"), episodes).unwrap();
        fs::write(path.join("progress.csv"), progress).unwrap();
    }

    pub(crate) fn settings(algorithm: &str, env: &str, seed: u64, rate: f64) -> String {
        format!(
            "algorithm = '{algorithm}'\nseed = {seed}\nsteps = 1000\n[env]\nid = '{env}'\n[{algorithm}]\nrate = {rate:?}\n"
        )
    }

    #[test]
    fn a_run_is_read_up_to_its_last_complete_row() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a-1");
        let returns: Vec<f64> = (0..150).map(f64::from).collect();
        write(&path, &settings("ppo", "Toy", 7, 0.1), &returns);
        let append = |name: &str, text: &str| {
            let before = fs::read_to_string(path.join(name)).unwrap();
            fs::write(path.join(name), before + text).unwrap();
        };
        append("episodes.csv", "1510,75.5,");
        append("progress.csv", "1500,75,,4.5\n1500,75,,2.5\n15");
        let run = RunFolder::read(&path).unwrap();
        assert_eq!((&*run.algorithm, &*run.env, run.seed, run.total_steps), ("ppo", "Toy", 7, 1000));
        assert_eq!(
            (run.name(), run.step, run.seconds(), run.steps_per_second()),
            ("a-1".into(), 1500, 75.0, Some(20.0))
        );
        assert_eq!(run.mean_return(), Some(99.5), "of 50 to 149");
        assert_eq!((run.best_evaluation(), run.score()), (Some(4.5), Some(4.5)));
        let windows: Vec<_> = run.windows().collect();
        assert_eq!((windows.len(), windows[0], windows[50]), (51, (1000, 49.5), (1500, 99.5)));
        assert_eq!(run.progress.column("train/loss").unwrap().len(), 150, "empty cells are no points");
        assert!(run.progress.column("train/los").is_none());
    }

    #[test]
    fn the_state_follows_from_steps_and_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let state = || RunFolder::read(&path).unwrap().state;
        write(&path, &settings("ppo", "Toy", 1, 0.1), &[]);
        assert_eq!(state(), State::NotStarted);
        let lock = File::create(path.join(".lock")).unwrap();
        lock.try_lock().unwrap();
        assert_eq!(state(), State::Running);
        drop(lock);
        write(&path, &settings("ppo", "Toy", 1, 0.1), &[1.0; 99]);
        assert_eq!(state(), State::Stopped);
        fs::create_dir_all(path.join("checkpoints/000000001000")).unwrap();
        assert_eq!(state(), State::Finished);
    }

    #[test]
    fn damaged_files_are_one_sentence_that_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let settings = settings("ppo", "Toy", 1, 0.1);
        let error = || {
            let message = RunFolder::read(&path).unwrap_err().to_string();
            assert!(!message.contains('\n'), "{message}");
            message
        };
        assert!(error().ends_with("a contains no run: config.toml is missing"), "{}", error());
        for (config, episodes, expected) in [
            ("seed = [1\nx", "", "config.toml: line 2: "),
            ("seed = 1", "", "config.toml: not the settings of a run: `algorithm` is missing"),
            (&settings, "step,time,return,length\n1,2,3\n", "episodes.csv: CSV error: record 1"),
            (&settings, "step,time,return,length\n1,2,3,4\n1,2,x,4\n", "episodes.csv: row 2: 'x' is not a number"),
            (&settings, "step,time,return,length\n1,,3,4\n", "episodes.csv: a cell of row 1 is empty"),
            (&settings, "step,time,length\n", "episodes.csv: the column `return` is missing"),
        ] {
            write(&path, config, &[]);
            fs::write(path.join("episodes.csv"), episodes).unwrap();
            assert!(error().contains(expected), "{expected}: {}", error());
        }
        fs::write(path.join("episodes.csv"), [0xff, 0xfe, b'\n']).unwrap();
        assert!(error().contains("episodes.csv: "), "{}", error());
    }

    #[test]
    fn runs_are_found_below_sweeps_and_other_folders() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for path in [
            "b-1/checkpoints",
            "b-1/videos",
            "b-10/checkpoints",
            "b-2/checkpoints",
            "sweep/trial-000/checkpoints",
            "other/deep/run",
            "a/b/c/too-deep",
        ] {
            fs::create_dir_all(dir.join(path)).unwrap();
        }
        for file in [
            "sweep/sweep.toml",
            "sweep/config.toml",
            "other/config.toml",
            "other/deep/run/.lock",
            "a/b/c/too-deep/.lock",
            "file",
        ] {
            fs::write(dir.join(file), "").unwrap();
        }
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, dir.join(name)).unwrap();
        link(dir, "circle");
        link(&dir.join("b-1"), "link");
        let found: Vec<_> = find(dir).unwrap().iter().map(|p| p.strip_prefix(dir).unwrap().to_path_buf()).collect();
        assert_eq!(found, ["b-1", "b-2", "b-10", "link", "other/deep/run", "sweep/trial-000"].map(PathBuf::from));
        assert!(find(&dir.join("missing")).is_err());
        fs::write(dir.join("b-1/videos/x"), [0; 10_000]).unwrap();
        assert!((10_000..30_000).contains(&disk_usage(&dir.join("b-1"))), "{}", disk_usage(&dir.join("b-1")));
    }
}
