//! Paths as they were meant: relative to the folder in which the program was started.
//!
//! Environments are other people's code, and some change the working directory of the process. So every path is made
//! absolute before the first of them is imported or made, and no relative path is used after that.

use playfield_core::{Error, Result};
use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

static START: OnceLock<PathBuf> = OnceLock::new();

/// To be called before anything but this program's own code runs: remembers the working directory.
///
/// # Errors
/// [`Error::Io`] where there is none, because it was removed.
pub fn remember_start() -> Result<()> {
    let start = env::current_dir().map_err(Error::io("find", "the working directory"))?;
    START.get_or_init(|| start);
    Ok(())
}

/// The folder in which the program was started.
pub fn start() -> &'static Path {
    START.get().map_or(Path::new(""), PathBuf::as_path)
}

/// `path`, seen from there.
pub fn absolute(path: impl AsRef<Path>) -> PathBuf {
    start().join(path)
}

/// An absolute path as a person in that folder would write it.
pub fn shown(path: &Path) -> String {
    let inside = path.strip_prefix(start()).ok().filter(|rest| !rest.as_os_str().is_empty());
    inside.unwrap_or(path).display().to_string()
}
