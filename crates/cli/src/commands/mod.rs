//! The commands, one file each.

pub(crate) mod agent;
mod board;
mod check;
mod distill;
mod doctor;
mod embed;
mod envs;
mod eval;
mod export;
mod plot;
mod report;
mod runs;
mod seeds;
mod selection;
mod shell;
mod sweep;
mod train;
mod trick;
mod watch;

pub use board::board;
pub use check::check;
pub use distill::distill;
pub use doctor::doctor;
pub use embed::embed;
pub use envs::envs;
pub use eval::eval;
pub use export::export;
pub use plot::plot;
pub use report::report;
pub use runs::{SortKey, runs};
pub use shell::{completions, man};
pub use sweep::{advice, sweep};
pub use train::train;
pub use trick::trick;
pub use watch::watch;
