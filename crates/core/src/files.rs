//! Reading regular files only, and atomic replacement of files and folders: a process killed at any instruction leaves the old version or the new one.
//!
//! The new version is written under a temporary name in the same folder, flushed to disk and renamed; then the folder itself
//! is flushed, so that the rename survives a power failure, too. A temporary name begins with [`TEMPORARY`].

use crate::faults::{self, Outcome};
use crate::{Error, Result};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The first characters of a temporary name. What is left under such a name was not finished and can be removed.
pub const TEMPORARY: &str = ".writing-";

/// The last characters of a folder's name while [`atomic_write_folder`] replaces it.
pub const REPLACED: &str = ".replaced";

/// Opens a file of a run folder for reading. Such a folder may come from somebody else, so a FIFO (which would block), a device (which
/// may be endless) and a symbolic link (which may lead anywhere) are errors.
///
/// # Errors
/// Those of the operating system, and one that names what is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let check = |kind: fs::FileType| match kind.is_file() {
        true => Ok(()),
        false if kind.is_symlink() => Err(io::Error::other("it is a symbolic link, and must be a file")),
        false => Err(io::Error::other("it is not a regular file")),
    };
    check(fs::symlink_metadata(path)?.file_type())?;
    let file = File::open(path)?;
    check(file.metadata()?.file_type())?;
    Ok(file)
}

/// The bytes of a file of a run folder: see [`open`].
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (mut file, mut bytes) = (open(path)?, Vec::new());
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file that is being written.
#[derive(Debug)]
pub struct Output(File);

impl Output {
    /// Creates the file `path`, or empties it.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn create(path: &Path) -> io::Result<Self> {
        faults::next(false).apply()?;
        File::create(path).map(Self)
    }

    /// Creates the file `path`, which must not exist.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn create_new(path: &Path) -> io::Result<Self> {
        faults::next(false).apply()?;
        File::create_new(path).map(Self)
    }

    /// Flushes the content to the disk.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn sync(&self) -> io::Result<()> {
        faults::next(false).apply()?;
        self.0.sync_all()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let outcome = faults::next(false);
        if outcome != Outcome::Proceed {
            self.0.write_all(&bytes[..bytes.len() / 2])?;
            outcome.apply()?;
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Seek for Output {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// Creates the file `path`, or replaces it, with what `write` writes.
///
/// # Errors
/// [`Error::Io`] where `write` or the file system fails: the old version is untouched then.
pub fn atomic_write(path: &Path, write: impl FnOnce(&mut Output) -> io::Result<()>) -> Result<()> {
    let temporary = temporary(path);
    let write_and_rename = || {
        write_synced(&temporary, write)?;
        rename(&temporary, path)
    };
    let written = write_and_rename();
    if written.is_err() {
        // Best effort: the first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(Error::io("write", path))?;
    sync_folder(folder_of(path))
}

/// Writes the file `path` in place and flushes it to the disk: for a file in a folder that is written as a whole.
///
/// # Errors
/// Those of the operating system, or what `write` returns.
pub fn write_synced(path: &Path, write: impl FnOnce(&mut Output) -> io::Result<()>) -> io::Result<()> {
    let mut file = Output::create(path)?;
    write(&mut file)?;
    file.sync()
}

/// Renames a file or folder.
///
/// # Errors
/// Those of the operating system.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    faults::next(false).apply()?;
    fs::rename(from, to)
}

/// Creates the folder `path`, or replaces it, with the files that `write` writes into the folder that it is given.
///
/// A folder cannot be renamed over another one. The old one first gets a name that ends with [`REPLACED`], and is removed
/// once the new one is in place: a reader looks for both names.
///
/// # Errors
/// What `write` returns, and [`Error::Io`] where the file system fails: the old version is untouched then.
pub fn atomic_write_folder(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let (temporary, mut replaced) = (temporary(path), path.to_path_buf().into_os_string());
    replaced.push(REPLACED);
    let replaced = PathBuf::from(replaced);
    remove_folder(&temporary)?;
    let create = || faults::next(false).apply().and_then(|()| fs::create_dir(&temporary));
    create().map_err(Error::io("create", &temporary))?;
    let written = write(&temporary).and_then(|()| sync_folder(&temporary));
    if written.is_err() {
        // Best effort: the first error is the one to report.
        let _ = fs::remove_dir_all(&temporary);
    }
    written?;
    if path.exists() {
        remove_folder(&replaced)?;
        rename(path, &replaced).map_err(Error::io("rename to", &replaced))?;
    }
    rename(&temporary, path).map_err(Error::io("rename to", path))?;
    sync_folder(folder_of(path))?;
    remove_folder(&replaced)
}

/// Removes a folder and its files, if it exists.
///
/// # Errors
/// [`Error::Io`] where it exists and cannot be removed.
pub fn remove_folder(path: &Path) -> Result<()> {
    match faults::next(true).apply().and_then(|()| fs::remove_dir_all(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a file.
///
/// # Errors
/// [`Error::Io`] where it cannot be removed.
pub fn remove_file(path: &Path) -> Result<()> {
    faults::next(true).apply().and_then(|()| fs::remove_file(path)).map_err(Error::io("remove", path))
}

/// Removes what killed processes left in `folder` under temporary names. A folder that does not exist has nothing to remove.
///
/// # Errors
/// [`Error::Io`] where `folder` cannot be read, or an entry cannot be removed.
pub fn remove_unfinished(folder: &Path) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io("read", folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(Error::io("read", folder))?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => remove_folder(&entry.path())?,
                false => remove_file(&entry.path())?,
            }
        }
    }
    Ok(())
}

/// The temporary name of the file or folder `path` while it is written.
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(TEMPORARY);
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn sync_folder(path: &Path) -> Result<()> {
    let sync = || faults::next(false).apply().and_then(|()| File::open(path)?.sync_all());
    sync().map_err(Error::io("flush", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "text").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        let fifo = std::process::Command::new("mkfifo").arg(path("fifo")).status().unwrap();
        assert!(fifo.success());
        assert_eq!(read(&path("file")).unwrap(), b"text");
        assert!(read(&path("link")).unwrap_err().to_string().contains("symbolic link"));
        for other in [path("fifo"), dir.path().to_path_buf(), "/dev/zero".into()] {
            assert!(read(&other).unwrap_err().to_string().contains("not a regular file"), "{other:?}");
        }
        assert_eq!(read(&path("missing")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        for text in ["first, and longer", "second"] {
            atomic_write(&path, |file| file.write_all(text.as_bytes())).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let failed = atomic_write(&path, |file| file.write_all(b"half").and(Err(io::Error::other("disk full"))));
        let message = failed.unwrap_err().to_string();
        assert!(message.contains("cannot write") && message.contains("a.txt: disk full"), "{message}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(names(dir.path()), ["a.txt"], "no temporary file is left");
        assert!(atomic_write(&dir.path().join("missing/b.txt"), |_| Ok(())).is_err());
    }

    #[test]
    fn a_folder_is_replaced_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let write = |name: &'static str| {
            move |folder: &Path| fs::write(folder.join(name), name).map_err(Error::io("write", folder))
        };
        for name in ["first", "second"] {
            atomic_write_folder(&path, write(name)).unwrap();
            assert_eq!(names(&path), [name]);
        }
        let failed = atomic_write_folder(&path, |folder| write("third")(folder).and(Err(Error::config("refused"))));
        assert_eq!(failed.unwrap_err().to_string(), "refused");
        assert_eq!((names(&path), names(dir.path())), (vec!["second".into()], vec!["a".to_string()]));
        // What a killed process left under the temporary name is no obstacle.
        fs::create_dir(dir.path().join(".writing-a")).unwrap();
        fs::write(dir.path().join(".writing-a/half"), "").unwrap();
        atomic_write_folder(&path, write("fourth")).unwrap();
        assert_eq!((names(&path), names(dir.path())), (vec!["fourth".into()], vec!["a".to_string()]));
    }

    #[test]
    fn unfinished_files_and_folders_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a.txt", ".writing-a.txt", ".other"] {
            fs::write(path(name), "").unwrap();
        }
        fs::create_dir(path(".writing-b")).unwrap();
        fs::write(path(".writing-b/half"), "").unwrap();
        remove_unfinished(dir.path()).unwrap();
        assert_eq!(names(dir.path()), [".other", "a.txt"]);
        remove_unfinished(&path("missing")).unwrap();
        assert!(remove_unfinished(&path("a.txt")).is_err());
    }

    /// A file without a folder lies in the working directory. What does not exist is removed already; a file is no folder.
    #[test]
    fn folders_and_their_removal() {
        let folder = |path: &str| folder_of(Path::new(path)).to_path_buf();
        assert_eq!([folder("a"), folder("a/b"), folder("/a")], [Path::new("."), Path::new("a"), Path::new("/")]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        remove_folder(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(remove_folder(&path).unwrap_err().to_string().contains("cannot remove"));
        assert!(sync_folder(&dir.path().join("missing")).is_err());
        assert!(atomic_write(&path, |file| file.seek(SeekFrom::Start(5)).map(|at| assert_eq!(at, 5))).is_ok());
        atomic_write(&path, |file| {
            file.write_all(b"12345")?;
            file.seek(SeekFrom::Start(1))?;
            file.write_all(b"x")
        })
        .unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1x345");
    }
}
