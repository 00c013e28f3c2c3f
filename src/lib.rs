//! playfield: reinforcement learning in Rust, on one machine.
//!
//! The program `playfield` trains agents from configuration files. With this library you write your own program: [`Registry`]
//! provides the command line and adds your environments and algorithms, which implement the interfaces in [`core`]
//! ([`core::Env`], [`core::Algorithm`]).

pub use playfield_a3c as a3c;
pub use playfield_classic as classic;
pub use playfield_cli::Registry;
pub use playfield_collect as collect;
pub use playfield_core as core;
pub use playfield_dqn as dqn;
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
