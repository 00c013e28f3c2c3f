//! Paths relative to the initial working directory.
//!
//! Third-party environments may change the working directory of the process. Every path is therefore made absolute before any
//! environment is imported or created.

use playfield_core::{Error, Result};
use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

static START: OnceLock<PathBuf> = OnceLock::new();

/// Stores the working directory of the first call. Call this before any environment code runs.
///
/// # Errors
/// [`Error::Io`] if the working directory no longer exists.
pub fn store_start() -> Result<()> {
    let start = env::current_dir().map_err(Error::io("find", "the working directory"))?;
    START.get_or_init(|| start);
    Ok(())
}

/// The initial working directory.
pub fn start() -> &'static Path {
    START.get().map_or(Path::new(""), PathBuf::as_path)
}

/// `path`, made absolute relative to the initial working directory.
pub fn absolute(path: impl AsRef<Path>) -> PathBuf {
    start().join(path)
}

/// This program as the user started it, for messages that contain a command line.
pub fn program() -> String {
    let name = env::args_os().next().map(PathBuf::from).unwrap_or_else(|| "playfield".into());
    let name = match name.strip_prefix(start()) {
        Ok(inside) if name.is_absolute() => Path::new(".").join(inside),
        _ => name,
    };
    let name = name.display().to_string();
    shlex::try_quote(&name).map_or(name.clone(), |quoted| quoted.into_owned())
}

/// An absolute path for display: relative to the initial working directory if it lies inside.
pub fn shown(path: &Path) -> String {
    let inside = path.strip_prefix(start()).ok().filter(|rest| !rest.as_os_str().is_empty());
    inside.unwrap_or(path).display().to_string()
}
