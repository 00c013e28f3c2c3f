//! Interfaces and data types of environments, policies, algorithms and training runs, shared by all other crates.
//!
//! This crate depends on neither libtorch nor Python and prints nothing. Observations are plain buffers (`u8` frames or `f32`
//! vectors) that the caller owns and environments write in place, so each frame is copied once between emulator and learner.
//! Interfaces between crates are trait objects ([`Env`], [`VecEnv`], [`Policy`], [`Sink`]), because a configuration file selects
//! environments, algorithms and networks at run time; within a crate types are concrete.
//!
//! | module | content |
//! |---|---|
//! | [`obs`], [`space`], [`spec`] | observations, actions, and their spaces |
//! | [`step`], [`env`] | environments, single and batched |
//! | [`check`], [`calls`], [`notices`] | findings about an environment, its calls in progress, messages for the user |
//! | [`config`] | the `[env]` section of a configuration |
//! | [`frame_stack`], [`rollout`] | frame stacking, storage of on-policy experience |
//! | [`policy`], [`algorithm`] | action selection, training |
//! | [`group`] | processes that train together |
//! | [`graph`] | networks as graphs of operators, for export |
//! | [`run`], [`metrics`], [`checkpoint`], [`files`] | the training run and its files |
//! | [`schedule`], [`rng`] | schedules of coefficients, random streams |
//! | [`json`], [`text`] | infinity and NaN in JSON, numbers in messages |

pub mod algorithm;
pub mod calls;
pub mod check;
pub mod checkpoint;
pub mod config;
pub mod env;
mod error;
mod faults;
pub mod files;
pub mod frame_stack;
pub mod graph;
pub mod group;
pub mod json;
pub mod memory;
pub mod metrics;
pub mod normalize;
pub mod notices;
pub mod obs;
pub mod policy;
pub mod resume;
pub mod rng;
pub mod rollout;
pub mod run;
pub mod schedule;
pub mod snapshot;
pub mod space;
pub mod spec;
pub mod step;
pub mod text;

pub use algorithm::{Algorithm, Configured};
pub use checkpoint::Checkpoints;
pub use config::EnvConfig;
pub use env::{Env, EnvFactory, EnvSource, Image, State, VecEnv};
pub use error::{Error, Result};
pub use frame_stack::FrameStack;
pub use graph::Graph;
pub use group::Group;
pub use metrics::Sink;
pub use normalize::Normalizer;
pub use obs::{Dtype, Obs, ObsMut, ObsRef};
pub use policy::{Mode, Outputs, Policy, RolloutPolicy};
pub use rollout::Rollout;
pub use run::{Evaluation, Persist, Run};
pub use schedule::Schedule;
pub use snapshot::{Array, Snapshot};
pub use space::{Action, ActionSpace, Actions};
pub use spec::{EnvSpec, Part};
pub use step::{EpisodeEnd, Step, StepBatch};
