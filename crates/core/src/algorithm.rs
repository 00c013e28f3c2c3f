//! One static row per algorithm: how the command line finds, configures, trains and reloads it.

use crate::{EnvFactory, EnvSpec, Error, Policy, Result, Run, Snapshot};
use serde::{Serialize, de::DeserializeOwned};

/// An algorithm, as a row of the registry.
pub struct Algorithm {
    /// Its name: the value of `algorithm` in a configuration, and the name of its section there.
    pub name: &'static str,
    /// One line for the list of algorithms.
    pub about: &'static str,
    /// Fills in defaults and refuses what is unknown or cannot work: what comes back is the complete setting.
    pub resolve: fn(&Settings) -> Result<Settings>,
    /// Trains until the run says stop and returns the policy.
    pub train: Train,
    /// Rebuilds the policy of a checkpoint.
    pub load: fn(&Settings, &EnvSpec, &Snapshot) -> Result<Box<dyn Policy>>,
}

/// A training loop, from its settings, what makes its environments, and the run it reports to.
pub type Train = fn(&Settings, &dyn EnvFactory, &mut Run) -> Result<Box<dyn Policy>>;

/// What an algorithm is told: its own section and the network's, both still as tables, and what is common to all.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How many environments step together.
    pub num_envs: usize,
    /// Where the network lives: `cpu`, `cuda`, `cuda:N` or `auto`.
    pub device: String,
    /// `[network]`.
    pub network: toml::Table,
    /// The algorithm's own section.
    pub section: toml::Table,
}

/// Reads a section into its struct, which fills in defaults and refuses unknown keys.
///
/// # Errors
/// [`Error::Config`] with serde's account of the key.
pub fn parse_section<C: DeserializeOwned>(name: &str, table: &toml::Table) -> Result<C> {
    table.clone().try_into().map_err(|e: toml::de::Error| Error::config(format!("[{name}]: {}", e.message())))
}

/// The complete table of a section, defaults included.
///
/// # Errors
/// [`Error::Config`] where a value has no TOML form.
pub fn write_section<C: Serialize>(name: &str, config: &C) -> Result<toml::Table> {
    toml::Table::try_from(config).map_err(|e| Error::config(format!("[{name}]: {e}")))
}

/// Refuses the first of `values` of a section that does not lie between 0 and 1.
///
/// # Errors
/// [`Error::Config`] naming it.
pub fn check_shares(section: &str, values: &[(&str, f64)]) -> Result<()> {
    let wrong = values.iter().find(|(_, value)| !(0.0..=1.0).contains(value));
    wrong.map_or(Ok(()), |(key, value)| {
        Err(Error::config(format!("[{section}]: `{key}` = {value} must lie between 0 and 1")))
    })
}

/// Refuses the first of `values` of a section that is negative or not finite.
///
/// # Errors
/// [`Error::Config`] naming it.
pub fn check_sizes(section: &str, values: &[(&str, f64)]) -> Result<()> {
    let wrong = values.iter().find(|(_, value)| !(*value >= 0.0 && value.is_finite()));
    wrong.map_or(Ok(()), |(key, value)| {
        Err(Error::config(format!("[{section}]: `{key}` = {value} must not be negative")))
    })
}

/// Refuses the first of `values` of a section that is 0.
///
/// # Errors
/// [`Error::Config`] naming it.
pub fn check_counts(section: &str, values: &[(&str, u64)]) -> Result<()> {
    let wrong = values.iter().find(|(_, value)| *value == 0);
    wrong.map_or(Ok(()), |(key, _)| Err(Error::config(format!("[{section}]: `{key}` must be at least 1"))))
}
