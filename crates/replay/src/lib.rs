//! Replay buffers. They do not depend on libtorch.
//!
//! - Storage: [`ReplayBuffer`] stores each frame once, as `u8`, although it is part of several stacked observations and
//!   transitions. Frames can be compressed.
//! - n-step transitions `(s, a, r, γ, s')` are computed when they are sampled: `r = Σ γᵏ rₖ` over the next n rewards, and the
//!   discount of the value of `s'` is γⁿ. A termination within the n steps makes that discount 0. At a truncation `s'` is the
//!   final observation of the episode, and its value is bootstrapped.
//! - Sampling: [`uniform::sample`], or [`Prioritized`] with probabilities `pᵢ^α / Σ p^α`, where pᵢ is the TD error of the last
//!   update (or 1/rank), and importance weights `(N · P(i))^−β`. A [`ReplayBuffer`] reports the [`Changes`] of its transitions,
//!   which [`Prioritized::apply`] processes.
//! - Checkpoints: [`Lost, Segments`] append the frames to files, each frame once.

mod frames;
pub mod prioritized;
mod ranks;
pub mod replay_buffer;
mod segments;
mod sum_tree;
pub mod uniform;

pub use prioritized::{Prioritized, PriorityConfig};
pub use replay_buffer::{Changes, ReplayBuffer, ReplayConfig, Transitions};
pub use segments::{Lost, Segment, Segments};
pub use sum_tree::SumTree;
