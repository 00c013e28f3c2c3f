//! One file a command.

mod doctor;
mod envs;
mod eval;
mod train;
mod watch;

pub use doctor::doctor;
pub use envs::envs;
pub use eval::eval;
pub use train::train;
pub use watch::watch;
