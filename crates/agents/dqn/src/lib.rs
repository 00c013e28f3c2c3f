//! DQN (Mnih et al. 2015, *Human-level control through deep reinforcement learning*) and its family.
//!
//! One loop, one update; every refinement is a setting:
//!
//! | refinement | setting | paper |
//! |---|---|---|
//! | double | `double` | van Hasselt, Guez and Silver 2016 |
//! | dueling | `dueling` | Wang et al. 2016 |
//! | n-step returns | `n_step` | Sutton 1988; Hessel et al. 2018 |
//! | prioritized replay | `prioritized`, `priority.*`, `beta` | Schaul et al. 2016 |
//! | distributional, C51 | `distribution = "categorical"` | Bellemare, Dabney and Munos 2017 |
//! | distributional, QR | `distribution = "quantile"` | Dabney et al. 2018 |
//! | noisy networks | `noisy_sigma` | Fortunato et al. 2018 |
//! | Rainbow | all of them | Hessel et al. 2018 |
//!
//! Read [`Dqn`]'s `train` top to bottom for the loop, [`learner`] for the update, [`worker`] for how the two overlap.

pub mod actor;
pub mod clock;
mod config;
pub mod learner;
pub mod replay;
mod train;
pub mod worker;

pub use config::{Config, Distribution, Loss};
pub use train::Dqn;
