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

use playfield_core::{Checkpoints, Error, Result};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A run's folder that this process trains in: nobody else does, while this lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// A folder for a new run: `path`, which must be empty or not exist, or else the next free `runs/<name>-<n>`.
    ///
    /// # Errors
    /// [`Error::Config`] where something is there already; [`Error::Io`] where it cannot be made.
    pub fn create(path: Option<&Path>, name: &str) -> Result<Self> {
        let path = match path {
            Some(path) => {
                fs::create_dir_all(path).map_err(Error::io("create", path))?;
                path.to_path_buf()
            }
            None => next_free(Path::new("runs"), name)?,
        };
        let folder = Self::lock(path)?;
        let path = &folder.path;
        let mut entries = fs::read_dir(path).map_err(Error::io("read", path))?;
        if path.join("config.toml").exists() {
            let path = path.display();
            return Err(Error::config(format!(
                "{path} already holds a run: go on with it (playfield train --resume {path}), or choose another --run-dir"
            )));
        }
        if entries.any(|e| e.is_ok_and(|e| e.file_name() != ".lock")) {
            return Err(Error::config(format!("{} is not empty: choose another --run-dir", path.display())));
        }
        Ok(folder)
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
            Ok(()) => Ok(Self { path, _lock: file }),
            Err(TryLockError::WouldBlock) => Err(Error::config(format!(
                "another process trains in {}: wait for it, stop it, or choose another --run-dir",
                path.display()
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
        let line: Vec<_> = std::env::args().map(|a| quote(&a)).collect();
        let name = self.path.join("command.txt");
        let file = OpenOptions::new().create(true).append(true).open(&name);
        file.and_then(|mut f| writeln!(f, "{}", line.join(" "))).map_err(Error::io("write", &name))
    }

    /// Removes the folder of a run that failed before it reported anything, so that nothing is left to clean up.
    pub fn discard_if_untouched(self) {
        let reported = |name: &str| fs::read_to_string(self.path.join(name)).is_ok_and(|t| t.lines().count() > 1);
        if !self.path.join("checkpoints").exists() && !reported("progress.csv") && !reported("episodes.csv") {
            // Best effort: the failure itself is what the user has to hear of.
            let _ = fs::remove_dir_all(&self.path);
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
        .map_err(|e: toml::de::Error| Error::config(format!("{}: {}", path.display(), e.to_string().trim_end())))
}

fn check(path: &Path) -> Result<()> {
    match path.join("config.toml").is_file() {
        true => Ok(()),
        false => Err(Error::config(format!("{} holds no run: it has no config.toml", path.display()))),
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
