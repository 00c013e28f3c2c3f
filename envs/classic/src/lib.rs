//! Small environments in pure Rust: to try an algorithm with in seconds, and to test it with.
//!
//! | id | what it asks of an agent | source |
//! |---|---|---|
//! | `CartPole`, `MountainCar`, `Acrobot`, `Pendulum` | the field's classic control problems | Gymnasium 1.4.0, whose dynamics these are, number for number |
//! | `Catch` | to catch a falling ball, in frames | bsuite (Osband et al. 2020) |
//! | `Recall` | to remember | the T-maze of Bakker 2002; bsuite's `memory_len` |
//! | `Identity`, `IdentityBox` | to repeat what it sees | Stable-Baselines3's tests: whoever cannot solve these is broken |
//!
//! None of them knows how long an episode may last: the limit that belongs to it is a default of `[env]`
//! (`max_episode_steps`, see [`sources`]), kept by a wrapper. All of them save their state exactly, so that a resumed run
//! equals an uninterrupted one.

mod acrobot;
mod cart_pole;
mod catch;
mod identity;
mod mountain_car;
mod pendulum;
mod recall;
mod sources;
mod support;

pub use acrobot::Acrobot;
pub use cart_pole::CartPole;
pub use catch::{Catch, CatchConfig};
pub use identity::{Identity, IdentityBox, IdentityConfig};
pub use mountain_car::{MountainCar, MountainCarConfig};
pub use pendulum::{Pendulum, PendulumConfig};
pub use recall::{Recall, RecallConfig};
pub use sources::sources;
