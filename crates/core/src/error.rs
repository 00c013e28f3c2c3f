use std::path::{Path, PathBuf};

/// What can go wrong, as a person should read it: each message is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that is unknown or cannot work.
    #[error("{0}")]
    Config(String),
    /// An environment that cannot be made or has failed.
    #[error("{id}: {message}")]
    Env {
        /// The environment's id.
        id: String,
        /// What happened, in one sentence.
        message: String,
        /// Where it happened (a Python traceback, for example): shown only when asked for.
        detail: Option<String>,
    },
    /// A file or folder that cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted: "write", "read", "create".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own reason.
        source: std::io::Error,
    },
    /// A checkpoint that is not whole, or belongs to something else.
    #[error("{}: {message}", path.display())]
    Checkpoint {
        /// The checkpoint, or the folder of them.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Training that produced a number which is not finite.
    #[error("{0}")]
    Diverged(String),
    /// An error of a library underneath.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

/// A result with playfield's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A setting that cannot work: `message` says which, and what to write instead.
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

    /// For `map_err`: names the attempted action and the path beside the system's reason.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// Wraps an error of another library.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }
}
