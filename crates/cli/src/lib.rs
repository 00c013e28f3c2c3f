//! The command line: the one place that knows every algorithm and environment, prints, and decides exit codes.
//!
//! Everything hangs on the [`Registry`]: rows of algorithms and environments by name. The program `playfield` runs the
//! standard one; a user's own program adds its rows and gets the same command line. What a person typed becomes an
//! [`Experiment`](experiment::Experiment), checked key by key before anything is made; a run lives in a
//! [`Folder`](folder::Folder). All that it prints passes through `output`.

mod args;
mod commands;
mod experiment;
mod folder;
mod output;
mod paths;
mod process;
mod registry;
mod renames;
mod signals;
mod suggest;

pub use registry::Registry;
