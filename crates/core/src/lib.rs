//! What an environment, a policy and a run are: the vocabulary that every other crate of playfield shares.
//!
//! This crate knows nobody: no libtorch, no Python, no console. Observations are plain buffers (`u8` frames or `f32`
//! vectors) that the caller owns and environments write in place, so that a frame is copied once on its way from the
//! emulator to the learner. What crosses a crate's edge is a trait object ([`Env`], [`VecEnv`], [`Policy`], [`Sink`]),
//! because games, algorithms and networks arrive as strings in a configuration file; inside a crate things are concrete.
//!
//! | module | answers |
//! |---|---|
//! | [`space`], [`spec`] | what is observed, what can be done |
//! | [`step`], [`env`] | what an environment does, alone or as a batch |
//! | [`config`] | what the `[env]` section of a configuration says |
//! | [`frame_stack`], [`rollout`] | how the last frames become one observation, and a few steps one update |
//! | [`policy`], [`algorithm`] | how actions are selected, how a policy is trained |
//! | [`run`], [`metrics`], [`checkpoint`], [`files`] | what training leaves on disk |
//! | [`schedule`], [`rng`] | numbers that change over a run, and random ones |
//! | [`json`] | how infinity and NaN are written into a state |

pub mod algorithm;
pub mod checkpoint;
pub mod config;
pub mod env;
mod error;
pub mod files;
pub mod frame_stack;
pub mod json;
pub mod metrics;
pub mod normalize;
pub mod policy;
pub mod resume;
pub mod rng;
pub mod rollout;
pub mod run;
pub mod schedule;
pub mod space;
pub mod spec;
pub mod step;

pub use algorithm::{Algorithm, Configured};
pub use checkpoint::{Array, Checkpoints, Snapshot};
pub use config::EnvConfig;
pub use env::{Env, EnvFactory, EnvSource, Image, State, VecEnv};
pub use error::{Error, Result};
pub use frame_stack::FrameStack;
pub use metrics::Sink;
pub use normalize::Normalizer;
pub use policy::{Mode, Outputs, Policy, RolloutPolicy};
pub use rollout::Rollout;
pub use run::{Persist, Run};
pub use schedule::Schedule;
pub use space::{Action, ActionSpace, Actions, Dtype, Obs, ObsMut, ObsRef};
pub use spec::EnvSpec;
pub use step::{EpisodeEnd, Step, StepBatch};
