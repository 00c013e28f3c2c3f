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

/// Reads a table without nested sections into its struct. Unknown keys are refused.
///
/// # Errors
/// [`Error::Config`] with serde's account of the key.
pub fn parse_section<C: DeserializeOwned>(name: &str, table: &toml::Table) -> Result<C> {
    table.clone().try_into().map_err(|e: toml::de::Error| Error::config(format!("[{name}]: {}", e.message())))
}

/// Reads a section into its struct: `table` over `defaults`, key by key, inside nested tables too. A key that is not named
/// keeps its default, whatever else is named beside it. Unknown keys are refused.
///
/// # Errors
/// [`Error::Config`] with serde's account of the key.
pub fn parse_section_over<C>(name: &str, table: &toml::Table, defaults: &C) -> Result<C>
where
    C: DeserializeOwned + Serialize,
{
    let mut merged = write_section(name, defaults)?;
    merge(&mut merged, table);
    parse_section(name, &merged)
}

/// Lays `table` over `under`.
fn merge(under: &mut toml::Table, table: &toml::Table) {
    for (key, value) in table {
        match (under.get_mut(key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(table)) => merge(under, table),
            _ => _ = under.insert(key.clone(), value.clone()),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        a: f64,
        inner: Inner,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        b: f64,
        c: bool,
        list: Vec<i64>,
    }

    /// What is not named stays, inside a nested table too; a list is replaced as a whole.
    #[test]
    fn a_partial_table_is_laid_over_the_defaults() {
        let defaults = || Outer { a: 1.0, inner: Inner { b: 2.0, c: true, list: vec![1, 2] } };
        let parse = |text: &str| parse_section_over("outer", &text.parse().unwrap(), &defaults());
        assert_eq!(parse("").unwrap(), defaults());
        let inner = Inner { b: 5.0, list: vec![3], ..defaults().inner };
        assert_eq!(parse("inner = { b = 5.0, list = [3] }").unwrap(), Outer { inner, ..defaults() });
        let unknown = parse("inner = { d = 5.0 }").unwrap_err().to_string();
        assert!(unknown.contains("[outer]") && unknown.contains('d'), "{unknown}");
    }
}
