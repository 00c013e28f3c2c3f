//! What stands between a bare environment and a learner.
//!
//! What must happen *inside* one environment wraps an [`Env`](playfield_core::Env); a [`Pool`] makes a batch of such
//! environments, on threads; and what is arithmetic on a batch is a [`Rule`] in an [`Over`], written once for pools and
//! for batches that come ready-made (Atari's C++ threads). [`Factory`] puts together what the `[env]` section of a
//! configuration asks for, innermost first:
//!
//! | inside one environment | | over a batch | |
//! |---|---|---|---|
//! | [`StickyAction`] | repeats the previous action at random | [`Finite`] | refuses NaN and infinities |
//! | [`FireReset`] | presses FIRE at a game's start | [`ScaleActions`] | maps continuous actions into the action space |
//! | [`NoOp`] | a random number of no-ops after that | [`Statistics`] | return and length of finished episodes, raw |
//! | [`FrameSkip`] | one action, several frames, their maximum | [`FireOnLifeLoss`] | presses FIRE after a lost life |
//! | [`TimeLimit`] | truncates | [`LifeLoss`] | whether a lost life ends an episode for the learner |
//! | [`Resize`] | gray, smaller | [`Normalize`] | running mean and variance |
//! | | | [`ClipReward`] | the reward that the learner sees |
//!
//! The order inside is that of the Arcade Learning Environment's vector environment, and the stream of frames is the
//! same. FrameStack is no wrapper: whoever consumes frames stacks them (`playfield_core::history`).
//!
//! Every part saves its state where the environment underneath can save its own: then a resumed run equals an
//! uninterrupted one bit for bit.

mod clip_reward;
mod factory;
mod finite;
mod fire_on_life_loss;
mod fire_reset;
mod frame_skip;
mod life_loss;
mod no_op;
mod normalize;
mod over;
mod pool;
mod resize;
mod saved;
mod scale_actions;
mod statistics;
mod sticky_action;
mod time_limit;
mod workers;

pub use clip_reward::ClipReward;
pub use factory::Factory;
pub use finite::Finite;
pub use fire_on_life_loss::FireOnLifeLoss;
pub use fire_reset::FireReset;
pub use frame_skip::FrameSkip;
pub use life_loss::LifeLoss;
pub use no_op::NoOp;
pub use normalize::Normalize;
pub use over::{Over, Rule};
pub use pool::Pool;
pub use resize::Resize;
pub use scale_actions::ScaleActions;
pub use statistics::Statistics;
pub use sticky_action::StickyAction;
pub use time_limit::TimeLimit;
