//! The folder of a run.
//!
//! ```text
//! runs/paac-pong-1/config.toml     every setting, defaults included: what --resume and eval read
//!                  command.txt     the command line of each session; machine.txt: its machine
//!                  progress.csv    metrics over time; episodes.csv: every episode
//!                  events.out.…    the metrics for TensorBoard
//!                  checkpoints/
//!                  .lock           held while a process trains here
//! ```

use crate::{machine, paths, suggest};
use playfield_core::{Checkpoints, Error, Result, files};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The folder of a run, locked by this process until the value is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
    /// The folders created for the run, innermost first.
    created: Vec<PathBuf>,
}

impl Folder {
    /// Creates the folder of a new run: `path`, which must be empty or not exist, or else the first unused `<parent>/<name>-<n>`.
    ///
    /// # Errors
    /// [`Error::Config`] if the folder is not empty; [`Error::Io`] if it cannot be created.
    pub fn create(path: Option<&Path>, parent: &Path, name: &str) -> Result<Self> {
        let (path, created) = match path {
            Some(path) => {
                let created = path.ancestors().take_while(|folder| !folder.exists()).map(Path::to_path_buf).collect();
                fs::create_dir_all(path).map_err(Error::io("create", path))?;
                // Before the lock file is written; checked again after the lock is acquired.
                if let Err(error) = Self::check_empty(path) {
                    if path.join(".lock").exists() {
                        Self::lock(path.to_path_buf())?;
                    }
                    return Err(error);
                }
                (path.to_path_buf(), created)
            }
            None => next_free(parent, name).map(|path| (path.clone(), vec![path]))?,
        };
        let folder = Self { created, ..Self::lock(path)? };
        Self::check_empty(&folder.path)?;
        Ok(folder)
    }

    fn check_empty(path: &Path) -> Result<()> {
        let mut entries = fs::read_dir(path).map_err(Error::io("read", path))?;
        if path.join("config.toml").exists() {
            let path = paths::shown(path);
            return Err(Error::config(format!(
                "{path} already contains a run: resume it ({} train --resume {path}), or choose another --run-dir",
                paths::program()
            )));
        }
        if entries.any(|e| e.is_ok_and(|e| e.file_name() != ".lock")) {
            return Err(Error::config(format!("{} is not empty: choose another --run-dir", paths::shown(path))));
        }
        Ok(())
    }

    /// Opens the folder of a run to resume, and removes files that a killed process left unfinished.
    ///
    /// # Errors
    /// [`Error::Config`] if the folder contains no run, or another process trains in it; [`Error::Io`] if a file cannot be removed.
    pub fn open(path: &Path) -> Result<Self> {
        check(path)?;
        let folder = Self::lock(path.to_path_buf())?;
        for name in ["", "videos", "checkpoints/replay"] {
            files::remove_unfinished(&path.join(name))?;
        }
        folder.checkpoints(1).remove_unfinished()?;
        Ok(folder)
    }

    fn lock(path: PathBuf) -> Result<Self> {
        let name = path.join(".lock");
        let file = OpenOptions::new().create(true).append(true).open(&name).map_err(Error::io("write", &name))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, _lock: file, created: Vec::new() }),
            Err(TryLockError::WouldBlock) => Err(Error::config(format!(
                "another process trains in {}: wait for it, stop it, or choose another --run-dir",
                paths::shown(&path)
            ))),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", &name)(e)),
        }
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The checkpoints of the run, of which the last `keep` and the best are kept.
    pub fn checkpoints(&self, keep: usize) -> Checkpoints {
        checkpoints(&self.path, keep)
    }

    /// Writes the complete settings of the run, atomically replacing earlier ones.
    ///
    /// # Errors
    /// [`Error::Io`] if writing fails.
    pub fn write_config(&self, settings: &toml::Table) -> Result<()> {
        let version = env!("CARGO_PKG_VERSION");
        let text = format!("# Every setting of this run, defaults included (playfield {version}).\n{settings}");
        files::atomic_write(&self.path.join("config.toml"), |file| file.write_all(text.as_bytes()))
    }

    /// Appends the command line of this process to `command.txt`, and its machine to `machine.txt`.
    ///
    /// # Errors
    /// [`Error::Io`] if writing fails.
    pub fn append_session(&self) -> Result<()> {
        let line: Vec<_> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
        // No argument of a process contains a NUL, the only thing that cannot be quoted.
        let line = shlex::Quoter::new().allow_nul(true).join(line.iter().map(String::as_str)).unwrap_or_default();
        for (name, line) in [("command.txt", line), ("machine.txt", machine::describe())] {
            let name = self.path.join(name);
            let file = OpenOptions::new().create(true).append(true).open(&name);
            file.and_then(|mut f| writeln!(f, "{line}")).map_err(Error::io("write", &name))?;
        }
        Ok(())
    }

    /// [Discards](Self::discard) a run that failed before its first report or checkpoint.
    pub fn discard_if_untouched(self) {
        // Rows after step 0.
        let later = |text: String| text.lines().skip(1).any(|line| !line.starts_with("0,"));
        let reported = |name: &str| fs::read_to_string(self.path.join(name)).is_ok_and(later);
        let saved = self.checkpoints(1).list().is_ok_and(|all| !all.is_empty());
        if !(saved || reported("progress.csv") || reported("episodes.csv")) {
            self.discard();
        }
    }

    /// Removes the files of the run and the folders created for it. A folder that existed before remains, empty.
    pub fn discard(self) {
        // Best effort: the original error is the one to report.
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
            let _ = if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        }
        for folder in &self.created {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// The complete settings of the run in `path`.
///
/// # Errors
/// [`Error::Config`] if the folder contains no run or its settings cannot be read.
pub fn settings(path: &Path) -> Result<toml::Table> {
    check(path)?;
    read_toml(&path.join("config.toml"))
}

/// The checkpoints of the run in `path`.
pub fn checkpoints(path: &Path, keep: usize) -> Checkpoints {
    Checkpoints::new(path.join("checkpoints"), keep)
}

/// Reads a TOML file.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::Config`] with the line if it is not valid TOML.
pub fn read_toml(path: &Path) -> Result<toml::Table> {
    let bytes = files::read(path).map_err(Error::io("read", path))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::config(format!("{}: it is not text (UTF-8)", paths::shown(path))))?;
    text.parse()
        .map_err(|e: toml::de::Error| Error::config(format!("{}: {}", paths::shown(path), e.to_string().trim_end())))
}

/// Whether `path` holds the runs of several seeds.
pub fn is_group(path: &Path) -> bool {
    path.join("seeds.toml").is_file()
}

fn check(path: &Path) -> Result<()> {
    match path.join("config.toml").is_file() {
        true => Ok(()),
        false if !path.exists() => {
            let hint = suggest::neighbor(path, |path| path.join("config.toml").is_file());
            Err(Error::config(format!("{} contains no run: there is no such folder{hint}", paths::shown(path))))
        }
        false if is_group(path) => Err(Error::config(format!(
            "{} contains runs of several seeds: give the folder of one of them",
            paths::shown(path)
        ))),
        false => Err(Error::config(format!("{} contains no run: config.toml is missing", paths::shown(path)))),
    }
}

/// Creates the first `parent/<name>-<n>` that does not exist. Concurrent processes get different folders.
pub fn next_free(parent: &Path, name: &str) -> Result<PathBuf> {
    fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    for n in 1.. {
        let path = parent.join(format!("{name}-{n}"));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io("create", &path)(e)),
        }
    }
    unreachable!("some number is unused")
}
