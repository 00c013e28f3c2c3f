use std::path::{Path, PathBuf};

/// An error. Its message is one line that says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An unknown key or an invalid value of a setting.
    #[error("{0}")]
    Config(String),
    /// An environment that cannot be created or has failed.
    #[error("{id}: {message}")]
    Env {
        /// The environment's id.
        id: String,
        /// What is wrong, in one line.
        message: String,
        /// Details (a Python traceback, for example), shown with `--verbose`.
        detail: Option<String>,
    },
    /// A file or folder that cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The attempted action: "write", "read", "create".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A checkpoint that is damaged or belongs to another run.
    #[error("{}: {message}", path.display())]
    Checkpoint {
        /// The checkpoint, or the folder of them.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Training produced a value that is not finite.
    #[error("{0}")]
    Diverged(String),
    /// An operation between the processes of a group that failed.
    #[error("rank {rank}: {operation} failed: {message}")]
    Group {
        /// The rank of this process.
        rank: usize,
        /// The attempted operation: "all-reduce", "broadcast".
        operation: &'static str,
        /// What is wrong, and with which rank.
        message: String,
    },
    /// An error of another library.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

/// A result with playfield's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An invalid setting: `message` names the key and says what to write instead.
    pub fn config(message: impl Into<String>) -> Self {
        Self::Config(message.into())
    }

    /// A failure of environment `id`.
    pub fn env(id: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Env { id: id.into(), message: message.into(), detail: None }
    }

    /// A checkpoint at `path` that cannot be used.
    pub fn checkpoint(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.as_ref().to_path_buf(), message: message.into() }
    }

    /// For `map_err`: adds the attempted action and the path to the system's error.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// Wraps an error of another library.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }
}
