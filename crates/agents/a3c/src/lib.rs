//! A3C, asynchronous advantage actor-critic, and asynchronous Q-learning and Sarsa (Mnih et al. 2016, *Asynchronous Methods for
//! Deep Reinforcement Learning*).
//!
//! Every actor-learner is a thread with environments and a copy of the parameters of its own. It plays a few steps, computes
//! the gradient of what it saw, applies it to the parameters that all share, takes their new values, and plays on. Nobody
//! waits for anybody: a gradient may be a few updates old when it is applied, and that is logged (`async/policy_lag`). What
//! the threads see is so different that no replay memory is needed.
//!
//! Read [`actor_learner`] top to bottom for the algorithm, [`train`](mod@train) for how the threads are started, heard, saved
//! and stopped; [`learner`] is what a method has to do, and [`q_learner`] the three methods that learn values of actions. How they share parameters without a data race is `playfield-hogwild`'s matter; what an actor-critic's loss is,
//! `playfield-actor-critic`'s.
//!
//! Two runs from one seed differ, as the order of the threads' updates does; with `num_threads = 1` they are the same, bit for bit.

pub mod actor_learner;
mod config;
pub mod learner;
pub mod q_learner;
mod train;

pub use config::{Config, Exploration, Method};
pub use train::{ALGORITHM, train};
