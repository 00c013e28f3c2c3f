//! playfield: reinforcement learning in Rust, on one machine.
//!
//! The program `playfield` trains agents from configuration files. With this library you write your own program: [`Registry`]
//! provides the command line and adds your environments and algorithms, which implement the interfaces in [`core`]
//! ([`core::Env`], [`core::Algorithm`]). [`load_policy`] loads the trained policy of a run:
//!
//! ```ignore
//! let mut policy = playfield::load_policy("runs/ppo-cartpole-1")?;
//! policy.begin_episode();
//! let action = policy.act(ObsRef::F32(&observation))?; // the newest frame or vector; greedy
//! ```

pub use playfield_a3c as a3c;
pub use playfield_classic as classic;
pub use playfield_cli::{Registry, TrainedPolicy};
pub use playfield_collect as collect;
pub use playfield_core as core;
pub use playfield_distributed as distributed;
pub use playfield_dqn as dqn;
pub use playfield_export as export;
#[cfg(feature = "python")]
pub use playfield_gymnasium as gymnasium;
pub use playfield_lab as lab;
pub use playfield_log as log;
pub use playfield_losses as losses;
pub use playfield_nn as nn;
pub use playfield_paac as paac;
pub use playfield_ppo as ppo;
pub use playfield_replay as replay;
pub use playfield_report as report;
pub use playfield_tricks as tricks;
pub use playfield_wrappers as wrappers;

/// The policy of the run in the folder `run`, from its latest checkpoint. For a run in an environment or with an algorithm of your own:
/// [`Registry::load_policy`].
///
/// # Errors
/// Where the folder has no run or no undamaged checkpoint, or its environment cannot be created.
pub fn load_policy(run: impl AsRef<std::path::Path>) -> core::Result<TrainedPolicy> {
    Registry::standard().load_policy(run)
}
