//! PPO: proximal policy optimization (Schulman et al. 2017, *Proximal Policy Optimization Algorithms*).
//!
//! n environments step together under one policy; each rollout is then used for several epochs of minibatch updates. The clipped
//! objective keeps the new policy near the one that acted, which is what makes the repeated use sound. Everything but the update is
//! shared with PAAC. Read [`train`](mod@train) top to bottom for the loop, [`learner`] for the update.
//!
//! Defaults are those of RL Baselines3 Zoo for Atari games; what the paper has instead is said at each field of [`Config`].

mod config;
pub mod learner;
mod train;

pub use config::Config;
pub use train::Ppo;
