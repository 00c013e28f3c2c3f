//! PAAC: parallel advantage actor-critic (Clemente, Castejón and Chandra 2017, *Efficient Parallel Methods for Deep
//! Reinforcement Learning*).
//!
//! n_e environments step together under one policy; after rollout_steps steps one synchronous update is made on all n_e · rollout_steps
//! transitions. Compared with A3C there is one set of parameters and no stale gradient, and the network sees large batches,
//! which is what processors are good at. Read [`train`](mod@train) top to bottom for the loop, [`learner`] for the update.
//!
//! Defaults are those of the authors' repository; what the paper has instead is said at each field of [`Config`].

mod config;
pub mod learner;
mod train;

pub use config::Config;
pub use train::Paac;
