//! A run on disk.
//!
//! ```text
//! runs/paac-pong-1/config.toml     every setting, defaults included: what --resume and eval read
//!                  command.txt     what was typed, one line a session
//!                  progress.csv    metrics over time; episodes.csv: every episode
//!                  events.out.…    the metrics for TensorBoard
//!                  checkpoints/
//!                  .lock           held while a process trains here
//! ```

use crate::paths;
use playfield_core::{Checkpoints, Error, Result};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A run's folder that this process trains in: nobody else does, while this lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
    /// The folders that were made for it, the innermost first.
    made: Vec<PathBuf>,
}

impl Folder {
    /// A folder for a new run: `path`, which must be empty or not exist, or else the next free `<beside>/<name>-<n>`.
    ///
    /// # Errors
    /// [`Error::Config`] where something is there already; [`Error::Io`] where it cannot be made.
    pub fn create(path: Option<&Path>, beside: &Path, name: &str) -> Result<Self> {
        let (path, made) = match path {
            Some(path) => {
                let made = path.ancestors().take_while(|folder| !folder.exists()).map(Path::to_path_buf).collect();
                fs::create_dir_all(path).map_err(Error::io("create", path))?;
                // Before anything is written there; and again once the lock is held.
                if let Err(error) = Self::check_empty(path) {
                    if path.join(".lock").exists() {
                        Self::lock(path.to_path_buf())?;
                    }
                    return Err(error);
                }
                (path.to_path_buf(), made)
            }
            None => next_free(beside, name).map(|path| (path.clone(), vec![path]))?,
        };
        let folder = Self { made, ..Self::lock(path)? };
        Self::check_empty(&folder.path)?;
        Ok(folder)
    }

    fn check_empty(path: &Path) -> Result<()> {
        let mut entries = fs::read_dir(path).map_err(Error::io("read", path))?;
        if path.join("config.toml").exists() {
            let path = paths::shown(path);
            return Err(Error::config(format!(
                "{path} already holds a run: resume it (playfield train --resume {path}), or choose another --run-dir"
            )));
        }
        if entries.any(|e| e.is_ok_and(|e| e.file_name() != ".lock")) {
            return Err(Error::config(format!("{} is not empty: choose another --run-dir", paths::shown(path))));
        }
        Ok(())
    }

    /// The folder of a run to go on with.
    ///
    /// # Errors
    /// [`Error::Config`] where there is no run, or another process trains there.
    pub fn open(path: &Path) -> Result<Self> {
        check(path)?;
        Self::lock(path.to_path_buf())
    }

    fn lock(path: PathBuf) -> Result<Self> {
        let name = path.join(".lock");
        let file = OpenOptions::new().create(true).append(true).open(&name).map_err(Error::io("write", &name))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, _lock: file, made: Vec::new() }),
            Err(TryLockError::WouldBlock) => Err(Error::config(format!(
                "another process trains in {}: wait for it, stop it, or choose another --run-dir",
                paths::shown(&path)
            ))),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", &name)(e)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its checkpoints, of which the last `keep` and the best stay.
    pub fn checkpoints(&self, keep: usize) -> Checkpoints {
        checkpoints(&self.path, keep)
    }

    /// Keeps the complete settings of the run, replacing earlier ones in one step.
    ///
    /// # Errors
    /// [`Error::Io`] where the disk refuses.
    pub fn write_config(&self, settings: &toml::Table) -> Result<()> {
        let version = env!("CARGO_PKG_VERSION");
        let text = format!("# Every setting of this run, defaults included (playfield {version}).\n{settings}");
        let (new, name) = (self.path.join(".config.toml.new"), self.path.join("config.toml"));
        fs::write(&new, text).map_err(Error::io("write", &new))?;
        fs::rename(&new, &name).map_err(Error::io("write", &name))
    }

    /// Notes what was typed.
    ///
    /// # Errors
    /// [`Error::Io`] where the disk refuses.
    pub fn note_command(&self) -> Result<()> {
        let line: Vec<_> = std::env::args_os().map(|a| quote(&a.to_string_lossy())).collect();
        let name = self.path.join("command.txt");
        let file = OpenOptions::new().create(true).append(true).open(&name);
        file.and_then(|mut f| writeln!(f, "{}", line.join(" "))).map_err(Error::io("write", &name))
    }

    /// Removes what a run left that failed before it reported or saved anything: its files, and the folders that were made for
    /// it. A folder that was there before is left as it was: empty.
    pub fn discard_if_untouched(self) {
        // Beyond step 0.
        let later = |text: String| text.lines().skip(1).any(|line| !line.starts_with("0,"));
        let reported = |name: &str| fs::read_to_string(self.path.join(name)).is_ok_and(later);
        let saved = self.checkpoints(1).list().is_ok_and(|all| !all.is_empty());
        if saved || reported("progress.csv") || reported("episodes.csv") {
            return;
        }
        // Best effort: the original error is the one to report.
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
            let _ = if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        }
        for folder in &self.made {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// The complete settings of the run in `path`.
///
/// # Errors
/// [`Error::Config`] where there is no run or its settings cannot be read.
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
/// [`Error::Io`] where it cannot be read, [`Error::Config`] with the line where it is no TOML.
pub fn read_toml(path: &Path) -> Result<toml::Table> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    text.parse()
        .map_err(|e: toml::de::Error| Error::config(format!("{}: {}", paths::shown(path), e.to_string().trim_end())))
}

fn check(path: &Path) -> Result<()> {
    match path.join("config.toml").is_file() {
        true => Ok(()),
        false => Err(Error::config(format!("{} holds no run: it has no config.toml", paths::shown(path)))),
    }
}

/// Makes the first `parent/<name>-<n>` that does not exist. Two processes never get the same.
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
    unreachable!("one of the numbers is free")
}

/// As a shell would need it.
fn quote(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) { arg.into() } else { format!("'{}'", arg.replace('\'', r"'\''")) }
}
