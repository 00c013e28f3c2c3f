//! The command line. Only this crate depends on all algorithms and environments, prints, and sets exit codes.
//!
//! The [`Registry`] maps names to algorithms and environments. The program `playfield` runs the standard registry; another
//! program can add its own entries and gets the same command line. A configuration file and the arguments form an
//! [`Experiment`](experiment::Experiment), validated key by key before any file is written. A run is stored in a
//! [`Folder`](folder::Folder). A [`TrainedPolicy`] acts for a run in a user's program. All messages are printed by `output`.

mod args;
mod commands;
mod experiment;
mod folder;
mod jobs;
mod machine;
mod output;
mod paths;
mod policy;
mod process;
mod ranks;
mod registry;
mod renames;
mod signals;
mod suggest;
mod terminal;
mod trust;

pub use policy::TrainedPolicy;
pub use registry::Registry;
