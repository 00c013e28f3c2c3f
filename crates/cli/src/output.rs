//! Everything that this program prints: results to stdout ([`out!`]), everything else to stderr ([`note!`]).
//!
//! Stdout holds results and nothing else, one JSON object with `--json`. Environments print, too: Python's `print`, C's
//! `printf`, simulators in processes of their own. [`claim_stdout`] moves stdout to a descriptor that only this module
//! knows and no child inherits, and has descriptor 1 lead to stderr.
//!
//! Printing never panics. A reader that has seen enough (`| head -1`) closes the pipe: what follows is dropped. Where
//! stdout cannot be written for another reason, a full disk for example, [`finish`] says so. A message that stderr does
//! not take is dropped: no training ends for it.

use playfield_core::{Error, Result};
use std::fmt::Arguments;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::FromRawFd as _;
use std::sync::{Mutex, PoisonError};

/// Where results go.
struct Stdout {
    /// What was stdout when the program started; before [`claim_stdout`], stdout itself.
    file: Option<File>,
    /// Why it takes no more, once it does not.
    failure: Option<io::Error>,
}

static STDOUT: Mutex<Stdout> = Mutex::new(Stdout { file: None, failure: None });

/// To be called before anything but this program's own code runs: from now on only [`out!`] writes to stdout.
///
/// # Errors
/// [`Error::Io`] where the system refuses another descriptor.
pub fn claim_stdout() -> Result<()> {
    // SAFETY: both calls take numbers of descriptors; the new one is owned here alone.
    let file = unsafe {
        let private = libc::fcntl(libc::STDOUT_FILENO, libc::F_DUPFD_CLOEXEC, 3);
        if private < 0 || libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO) < 0 {
            return Err(Error::io("redirect", "stdout")(io::Error::last_os_error()));
        }
        File::from_raw_fd(private)
    };
    STDOUT.lock().unwrap_or_else(PoisonError::into_inner).file = Some(file);
    Ok(())
}

/// Prints a line of results to stdout.
macro_rules! out {
    ($($arg:tt)*) => { $crate::output::print(format_args!($($arg)*)) };
}

/// Prints a line for whoever watches to stderr.
macro_rules! note {
    ($($arg:tt)*) => { $crate::output::tell(format_args!($($arg)*)) };
}

pub(crate) use {note, out};

/// See [`out!`].
pub fn print(line: Arguments<'_>) {
    STDOUT.lock().unwrap_or_else(PoisonError::into_inner).print(&format!("{line}\n"));
}

/// See [`note!`].
pub fn tell(line: Arguments<'_>) {
    // One write a line: lines of several threads do not mix. Failures are ignored: there is nowhere to report them.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// To be called last: whether everything that was printed to stdout arrived, or nobody reads on.
///
/// # Errors
/// [`Error::Io`] where stdout could not be written.
pub fn finish() -> Result<()> {
    match STDOUT.lock().unwrap_or_else(PoisonError::into_inner).failure.take() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::io("write", "stdout")(error)),
        _ => Ok(()),
    }
}

impl Stdout {
    fn print(&mut self, text: &str) {
        if self.failure.is_none() {
            let written = match &mut self.file {
                Some(file) => file.write_all(text.as_bytes()),
                None => io::stdout().write_all(text.as_bytes()),
            };
            self.failure = written.err();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_device_is_remembered_and_nothing_more_is_written() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let mut stdout = Stdout { file: Some(file), failure: None };
        stdout.print("a");
        stdout.print("b");
        assert_eq!(stdout.failure.unwrap().kind(), ErrorKind::StorageFull);
    }
}
