//! A3C, asynchronous advantage actor-critic, and asynchronous Q-learning and Sarsa (Mnih et al. 2016, *Asynchronous Methods for
//! Deep Reinforcement Learning*).
//!
//! Every actor-learner is a thread with its own environments and its own copy of the parameters. It collects a rollout, computes
//! the gradient, applies it to the shared parameters, and copies their new values. Threads never synchronize: a gradient may be a
//! few updates old when it is applied, which is logged as `async/policy_lag`. They explore different parts of the environment,
//! so their data is decorrelated and no replay buffer is needed.
//!
//! Read [`actor_learner`] top to bottom for the algorithm, [`A3c`]'s `train` for how threads are started, supervised, saved and
//! stopped; [`learner`] is the interface of a method, [`q_learner`] the three methods that learn action values. How threads share
//! parameters without a data race is in `playfield-hogwild`, the loss of an actor-critic in `playfield-actor-critic`.
//!
//! Two runs from one seed differ, as the order of the threads' updates does; with `num_threads = 1` they are identical, bit for
//! bit.

pub mod actor_learner;
mod config;
pub mod learner;
pub mod q_learner;
mod train;

pub use config::{Config, Exploration, Method};
pub use train::A3c;
