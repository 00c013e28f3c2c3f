//! Collecting experience: what every algorithm, every evaluation and every tool that steps a policy in environments shares.
//!
//! A [`Collector`] owns the environments, the frame stack, the actions and the episode accounting, and performs the one sequence
//! act, step, stack, record. It fills a [`Rollout`](playfield_core::Rollout) (on-policy algorithms), hands over each step (replay
//! buffers), or plays whole episodes ([`evaluate`]). An [`Evaluator`] does the last in training, in environments of its own.
//!
//! An algorithm's loop calls the collector, never the reverse: there are no callbacks, and the loop stays visible. The crate
//! depends on `playfield-core` alone, so policies need no libtorch.

mod collector;
mod evaluator;
mod split;

pub use collector::Collector;
pub use evaluator::{Evaluator, evaluate};
pub use split::{Experience, resolve_splits};
