//! The commands, one file each.

pub mod agent;
mod distill;
mod doctor;
mod embed;
mod envs;
mod eval;
mod export;
mod sweep;
mod train;
mod trick;
mod watch;

pub use distill::distill;
pub use doctor::doctor;
pub use embed::embed;
pub use envs::envs;
pub use eval::eval;
pub use export::export;
pub use sweep::{advice, sweep};
pub use train::train;
pub use trick::trick;
pub use watch::watch;
