//! Output: results to stdout ([`out!`]), messages to stderr ([`note!`]).
//!
//! Stdout contains only results, with `--json` one JSON object. Environments also print: by Python's `print`, C's `printf`, or
//! in child processes. [`claim_stdout`] moves stdout to a private descriptor that no child process inherits, and redirects
//! descriptor 1 to stderr.
//!
//! Printing never panics. After a reader closes the pipe (`| head -1`), further output is dropped. [`finish`] returns other
//! write errors of stdout, for example of a full disk. Write errors of stderr are ignored, so they cannot interrupt training.

use playfield_core::{Error, Result};
use std::fmt::Arguments;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _};
use std::sync::{Mutex, PoisonError};

/// The columns of the narrowest usual terminal.
const WIDTH: usize = 80;

/// The destination of results.
struct Stdout {
    /// The stdout of the process when it started; `None` before [`claim_stdout`].
    file: Option<File>,
    /// The first write error; later output is dropped.
    failure: Option<io::Error>,
}

static STDOUT: Mutex<Stdout> = Mutex::new(Stdout { file: None, failure: None });

/// Reserves stdout for [`out!`]. Call this before any environment code runs.
///
/// # Errors
/// [`Error::Io`] if the descriptor cannot be duplicated.
pub fn claim_stdout() -> Result<()> {
    // SAFETY: both calls take descriptor numbers; only `File` owns the new descriptor.
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

/// Prints a line of messages to stderr.
macro_rules! note {
    ($($arg:tt)*) => { $crate::output::print_message(format_args!($($arg)*)) };
}

pub(crate) use {note, out};

/// See [`out!`].
pub fn print(line: Arguments<'_>) {
    STDOUT.lock().unwrap_or_else(PoisonError::into_inner).print(&format!("{line}\n"));
}

/// Writes text to stdout, without a line break.
pub fn write(text: &str) {
    STDOUT.lock().unwrap_or_else(PoisonError::into_inner).print(text);
}

/// Whether results go to a terminal.
pub fn is_terminal() -> bool {
    STDOUT.lock().unwrap_or_else(PoisonError::into_inner).with(|stdout| stdout.is_terminal())
}

/// The size of that terminal, in characters.
pub fn terminal_size() -> Option<(terminal_size::Width, terminal_size::Height)> {
    STDOUT.lock().unwrap_or_else(PoisonError::into_inner).with(|stdout| terminal_size::terminal_size_of(stdout))
}

/// `head`, then `text` in lines of at most 80 characters, which continue below the start of `text`.
pub fn hanging(head: &str, text: &str) -> String {
    let indent = head.chars().count();
    let (mut lines, mut width) = (head.to_string(), indent);
    for word in text.split(' ') {
        let len = word.chars().count();
        if width == indent {
            width += len;
        } else if width + 1 + len <= WIDTH {
            lines.push(' ');
            width += 1 + len;
        } else {
            lines.push_str(&format!("\n{:indent$}", ""));
            width = indent + len;
        }
        lines.push_str(word);
    }
    lines
}

/// See [`note!`].
pub fn print_message(line: Arguments<'_>) {
    // One write per line, so that lines of several threads do not mix. Errors cannot be reported anywhere, so they are ignored.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Returns the first write error of stdout. Call this last. A closed pipe is not an error.
///
/// # Errors
/// [`Error::Io`] if writing to stdout failed.
pub fn finish() -> Result<()> {
    match STDOUT.lock().unwrap_or_else(PoisonError::into_inner).failure.take() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::io("write", "stdout")(error)),
        _ => Ok(()),
    }
}

impl Stdout {
    /// Calls `of` with the descriptor of stdout.
    fn with<T>(&self, of: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        match &self.file {
            Some(file) => of(file.as_fd()),
            None => of(io::stdout().as_fd()),
        }
    }

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
    fn long_text_continues_below_its_start() {
        assert_eq!(hanging("name  ", "short text"), "name  short text");
        let (text, word) = ("word ".repeat(30), "x".repeat(90));
        let lines = hanging("name  ", text.trim_end());
        assert!(lines.lines().all(|line| line.chars().count() <= WIDTH), "{lines}");
        assert!(lines.lines().skip(1).all(|line| line.starts_with("      word")), "{lines}");
        assert_eq!(lines.split_whitespace().count(), 31);
        assert_eq!(hanging("ab ", &format!("c {word} d")), format!("ab c\n   {word}\n   d"));
    }

    #[test]
    fn the_first_write_error_is_kept_and_later_output_dropped() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let mut stdout = Stdout { file: Some(file), failure: None };
        stdout.print("a");
        stdout.print("b");
        assert_eq!(stdout.failure.unwrap().kind(), ErrorKind::StorageFull);
    }
}
