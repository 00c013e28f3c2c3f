//! Small environments in pure Rust, for tests and for trying an algorithm in seconds.
//!
//! | id | task | source |
//! |---|---|---|
//! | `CartPole`, `MountainCar`, `Acrobot`, `Pendulum` | classic control | Gymnasium 1.4.0, with the same dynamics |
//! | `Catch` | catch a falling ball; the observation is a frame | bsuite (Osband et al. 2020) |
//! | `Recall` | recall a cue | the T-maze of Bakker 2002; bsuite's `memory_len` |
//! | `TicTacToe` | three in a row, with action masks | a game of the crate's own |
//! | `Identity`, `IdentityMultiDiscrete`, `IdentityBox` | repeat the observation | Stable-Baselines3's tests |
//!
//! `Recall` and `Identity…` do not render. None of them limits the length of an episode: the usual limit is a default of `[env]` (`max_episode_steps`, see
//! [`sources`]), implemented by a wrapper. All of them save their state exactly, so that a resumed run equals an uninterrupted
//! one.

mod acrobot;
mod canvas;
mod cart_pole;
mod catch;
mod identity;
mod mountain_car;
mod pendulum;
mod recall;
mod sources;
mod support;
mod tic_tac_toe;

pub use acrobot::Acrobot;
pub use cart_pole::CartPole;
pub use catch::{Catch, CatchConfig};
pub use identity::{Identity, IdentityBox, IdentityConfig};
pub use mountain_car::{MountainCar, MountainCarConfig};
pub use pendulum::{Pendulum, PendulumConfig};
pub use recall::{Recall, RecallConfig};
pub use sources::sources;
pub use tic_tac_toe::TicTacToe;
