//! Networks: observations to policies and values.
//!
//! ```text
//! observations ─ input ─ torso ─ features ┬ [lstm] ─ policy head, value head     ActorCritic
//!               └── feature extractor ──┘ └ [hidden] ─ Q                         QNetwork
//! ```
//!
//! The [feature extractor](feature_extractor) is the boundary between kernels, threads and autograd: what a network computes from the
//! features is recorded by autograd; how the features are computed, forward and backward, is decided behind it.

pub mod actor_critic;
mod captured;
pub mod config;
pub mod dispatch;
pub mod distribution;
pub mod evaluated_actions;
mod feature_extractor;
pub mod heads;
mod impala;
pub mod input;
mod own_kernels;
mod parts;
pub mod q_network;
pub(crate) mod summary;
pub mod timing;
pub mod torso;
