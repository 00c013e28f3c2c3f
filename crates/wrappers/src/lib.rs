//! Wrappers between an environment and a learner, and a thread pool.
//!
//! A wrapper *inside* one environment is an [`EnvWrapper`] in a [`WrappedEnv`]; a [`Pool`] makes a batch of such environments on
//! threads; a wrapper *over* a batch is a [`VecEnvWrapper`] in a [`WrappedVecEnv`], implemented once for pools and for batches
//! that step themselves (ALE's C++ threads). [`Factory`] combines them as the `[env]` section of a configuration says, innermost
//! first:
//!
//! | inside one environment | | over a batch | |
//! |---|---|---|---|
//! | [`StickyAction`] | repeats the previous action at random | [`CheckFinite`] | refuses NaN and infinities |
//! | [`FireReset`] | presses FIRE at the start of an episode | [`ScaleActions`] | maps continuous actions into the action space |
//! | [`NoopReset`] | a random number of no-ops after that | [`RecordEpisodeStatistics`] | return and length of finished episodes, raw |
//! | [`FrameSkip`] | repeats each action, max-pools frames | [`FireOnLifeLoss`] | presses FIRE after a lost life |
//! | [`TimeLimit`] | truncates | [`EpisodicLife`] | whether a lost life ends an episode for the learner |
//! | [`Resize`] | gray, smaller | [`Normalize`] | running mean and variance |
//! | | | [`ClipReward`] | the reward that the learner receives |
//!
//! The order inside is that of ALE's vector environment, and so is the stream of frames. Frame stacking is no wrapper: the
//! consumer of frames stacks them ([`playfield_core::frame_stack`]).
//!
//! Every wrapper saves its state. Where the environment saves its own, too, a resumed run equals an uninterrupted one bit for
//! bit.

mod check;
mod check_action_mask;
mod check_finite;
mod clip_reward;
mod env_wrapper;
mod episode_statistics;
mod episodic_life;
mod factory;
mod fire_on_life_loss;
mod fire_reset;
mod frame_skip;
mod noop_reset;
mod normalize;
mod pool;
mod resize;
mod saved;
mod scale_actions;
mod sticky_action;
mod time_limit;
mod vec_env_wrapper;
mod workers;

pub use check::check_env;
pub use check_action_mask::CheckActionMask;
pub use check_finite::CheckFinite;
pub use clip_reward::ClipReward;
pub use env_wrapper::{EnvWrapper, WrappedEnv};
pub use episode_statistics::RecordEpisodeStatistics;
pub use episodic_life::EpisodicLife;
pub use factory::Factory;
pub use fire_on_life_loss::FireOnLifeLoss;
pub use fire_reset::FireReset;
pub use frame_skip::FrameSkip;
pub use noop_reset::NoopReset;
pub use normalize::Normalize;
pub use pool::Pool;
pub use resize::Resize;
pub use scale_actions::ScaleActions;
pub use sticky_action::StickyAction;
pub use time_limit::TimeLimit;
pub use vec_env_wrapper::{VecEnvWrapper, WrappedVecEnv};
