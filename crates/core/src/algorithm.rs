//! Algorithms: a typed interface for those who write or call one, and an erased one for registries and command lines.
//!
//! An algorithm is a type that implements [`Algorithm`]: a configuration, a training loop, and a way to load its policy. In Rust
//! one builds the configuration and calls [`Algorithm::train`]; no TOML is involved. A configuration file is parsed, checked and
//! resolved once, by an [`Entry`], into a [`Configured`] algorithm.

use crate::{EnvFactory, EnvSpec, Error, Policy, Result, Run, Schedule, Snapshot};
use serde::{Serialize, de::DeserializeOwned};

/// A reinforcement learning algorithm.
pub trait Algorithm: Sized + 'static {
    /// Its name: the value of `algorithm` in a configuration file, and the name of its section there.
    const NAME: &'static str;

    /// One line for the list of algorithms.
    const ABOUT: &'static str;

    /// Why it does not train in several processes ([`Run::group`]), and what to use instead; `None` where it does.
    const SINGLE_PROCESS: Option<&'static str> =
        Some("it does not combine the gradients of several processes; use one");

    /// Its hyperparameters. [`Default`] holds the published values. Fields named [`SHARED`] are at the top level of a
    /// configuration file, all others in the section [`NAME`](Self::NAME).
    type Config: Clone + Default + Serialize + DeserializeOwned + 'static;

    /// The defaults of a configuration that makes the choices of `chosen`: some choices, another optimizer for example, have
    /// published values of their own.
    fn defaults(_chosen: &Self::Config) -> Self::Config {
        Self::Config::default()
    }

    /// Rejects values that cannot work, as far as they can be judged without an environment.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key and its bounds.
    fn check(config: &Self::Config) -> Result<()>;

    /// Returns the configuration with its automatic values (threads, device, horizons of schedules) resolved for a run of `steps`
    /// agent steps in `envs`. Resolving twice changes nothing.
    ///
    /// # Errors
    /// [`Error::Config`] naming a value that cannot work, and its bounds.
    fn resolve(config: &Self::Config, steps: u64, envs: &dyn EnvFactory) -> Result<Self::Config>;

    /// The resolved configuration of a run of `from` steps, changed for a run that is extended to `to`: schedules that span the
    /// whole run span the longer one.
    fn extend(config: &Self::Config, _from: u64, _to: u64) -> Self::Config {
        config.clone()
    }

    /// Trains until the run ends and returns the policy.
    ///
    /// # Errors
    /// Where the configuration, an environment or the disk fails, and [`Error::Diverged`] where training does.
    fn train(config: &Self::Config, envs: &dyn EnvFactory, run: &mut Run) -> Result<Box<dyn Policy>>;

    /// Loads the policy of a checkpoint for evaluation.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where the checkpoint is of another network, [`Error::Config`] where the device is missing.
    fn load(config: &Self::Config, spec: &EnvSpec, snapshot: &Snapshot) -> Result<Box<dyn Policy>>;
}

/// Fields of an algorithm's configuration that mean the same for every algorithm. A configuration file has them at its top level.
pub const SHARED: [&str; 2] = ["device", "network"];

/// An [`Algorithm`] in a registry.
#[derive(Clone, Copy)]
pub struct Entry {
    /// [`Algorithm::NAME`].
    pub name: &'static str,
    /// [`Algorithm::ABOUT`].
    pub about: &'static str,
    parse: fn(&toml::Table) -> Result<Box<dyn Configured>>,
}

impl Entry {
    /// The entry of `A`.
    pub const fn of<A: Algorithm>() -> Self {
        Self { name: A::NAME, about: A::ABOUT, parse: |table| Ok(Box::new(Typed::<A>::parse(table)?)) }
    }

    /// The algorithm with the configuration of an experiment's top-level `table`: its own section and the [`SHARED`] keys, laid
    /// over the defaults.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown key, a value of another type, or one that cannot work.
    pub fn parse(&self, table: &toml::Table) -> Result<Box<dyn Configured>> {
        (self.parse)(table)
    }
}

/// An algorithm with its configuration, whatever its type.
pub trait Configured {
    /// The complete configuration, as an experiment's top-level table: the algorithm's section and the [`SHARED`] keys.
    ///
    /// # Errors
    /// [`Error::Config`] where a value has no TOML form.
    fn table(&self) -> Result<toml::Table>;

    /// [`Algorithm::resolve`].
    ///
    /// # Errors
    /// As that.
    fn resolve(&mut self, steps: u64, envs: &dyn EnvFactory) -> Result<()>;

    /// [`Algorithm::extend`].
    fn extend(&mut self, from: u64, to: u64);

    /// [`Algorithm::train`].
    ///
    /// # Errors
    /// As that, and [`Error::Config`] for several processes where it trains in one.
    fn train(&self, envs: &dyn EnvFactory, run: &mut Run) -> Result<Box<dyn Policy>>;

    /// [`Algorithm::load`].
    ///
    /// # Errors
    /// As that.
    fn load(&self, spec: &EnvSpec, snapshot: &Snapshot) -> Result<Box<dyn Policy>>;
}

struct Typed<A: Algorithm>(A::Config);

impl<A: Algorithm> Typed<A> {
    fn parse(table: &toml::Table) -> Result<Self> {
        let default = A::Config::default();
        let shared = write_section(A::NAME, &default)?;
        let mut section = match table.get(A::NAME) {
            Some(toml::Value::Table(section)) => section.clone(),
            _ => toml::Table::new(),
        };
        for key in SHARED {
            if let (true, Some(value)) = (shared.contains_key(key), table.get(key)) {
                section.insert(key.into(), value.clone());
            }
        }
        let chosen: A::Config = parse_section_over(A::NAME, &section, &default)?;
        let config = parse_section_over(A::NAME, &section, &A::defaults(&chosen))?;
        A::check(&config)?;
        Ok(Self(config))
    }
}

impl<A: Algorithm> Configured for Typed<A> {
    fn table(&self) -> Result<toml::Table> {
        let mut section = write_section(A::NAME, &self.0)?;
        let mut table = toml::Table::new();
        for key in SHARED {
            table.extend(section.remove(key).map(|value| (key.to_string(), value)));
        }
        table.insert(A::NAME.into(), section.into());
        Ok(table)
    }

    fn resolve(&mut self, steps: u64, envs: &dyn EnvFactory) -> Result<()> {
        self.0 = A::resolve(&self.0, steps, envs)?;
        Ok(())
    }

    fn extend(&mut self, from: u64, to: u64) {
        self.0 = A::extend(&self.0, from, to);
    }

    fn train(&self, envs: &dyn EnvFactory, run: &mut Run) -> Result<Box<dyn Policy>> {
        match A::SINGLE_PROCESS.filter(|_| run.group().is_distributed()) {
            None => A::train(&self.0, envs, run),
            Some(why) => Err(Error::config(format!("algorithm = \"{}\" trains in one process: {why}", A::NAME))),
        }
    }

    fn load(&self, spec: &EnvSpec, snapshot: &Snapshot) -> Result<Box<dyn Policy>> {
        A::load(&self.0, spec, snapshot)
    }
}

/// Reads a table without nested sections into its struct. Unknown keys are refused.
///
/// # Errors
/// [`Error::Config`] with the key, its value and what it must be.
pub fn parse_section<C: DeserializeOwned>(name: &str, table: &toml::Table) -> Result<C> {
    table.clone().try_into().map_err(|e: toml::de::Error| {
        // The second line names the key.
        let text = e.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        Error::config(sentence(name, &text).unwrap_or_else(|| format!("[{name}]: {text}")))
    })
}

/// serde's message about a value of section `section` as a sentence of playfield's, where it is of a known form.
fn sentence(section: &str, message: &str) -> Option<String> {
    let (what, key) = message.strip_suffix('`')?.rsplit_once(" in `")?;
    let (section, key) = key.split_once('.').filter(|(first, _)| SHARED.contains(first)).unwrap_or((section, key));
    let (found, expected) = what.split_once("`, expected ")?;
    if let Some(name) = found.strip_prefix("unknown variant `") {
        return Some(format!("[{section}]: `{key}` = {name:?} must be {}", expected.replace('`', "")));
    }
    let number = found.strip_prefix("invalid value: integer `")?;
    (number.starts_with('-') && expected.starts_with('u'))
        .then(|| format!("[{section}]: `{key}` = {number} must be 0 or more"))
}

/// Reads a section into its struct: `table` over `defaults`, key by key, inside nested tables too. A key that is not named
/// keeps its default, whatever else is named beside it. Unknown keys are refused.
///
/// # Errors
/// As [`parse_section`].
pub fn parse_section_over<C>(name: &str, table: &toml::Table, defaults: &C) -> Result<C>
where
    C: DeserializeOwned + Serialize,
{
    let mut merged = write_section(name, defaults)?;
    merge(&mut merged, table);
    parse_section(name, &merged)
}

/// Lays `table` over `under`. A nested table with another `rule` (of an optimizer) replaces the one below: their keys differ.
fn merge(under: &mut toml::Table, table: &toml::Table) {
    let same_rule = |a: &toml::Table, b: &toml::Table| b.get("rule").is_none_or(|rule| a.get("rule") == Some(rule));
    for (key, value) in table {
        match (under.get_mut(key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(table)) if same_rule(under, table) => {
                merge(under, table)
            }
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

/// The largest number of a setting. It is converted to fp32, whose largest number is 3·10³⁸, and multiplied there.
pub const LARGEST_SIZE: f64 = 1e30;

/// Refuses the first of `values` of a section that is negative, larger than 10³⁰, or not finite.
///
/// # Errors
/// [`Error::Config`] naming it.
pub fn check_sizes(section: &str, values: &[(&str, f64)]) -> Result<()> {
    let wrong = values.iter().find(|(_, value)| !(0.0..=LARGEST_SIZE).contains(value));
    wrong.map_or(Ok(()), |(key, value)| {
        Err(Error::config(match *value > 0.0 {
            true => format!("[{section}]: `{key}` = {value:e} must be at most {LARGEST_SIZE:e}"),
            false => format!("[{section}]: `{key}` = {value} must not be negative"),
        }))
    })
}

/// Refuses the first of the schedules of a section that does not stay between 0 and 1.
///
/// # Errors
/// [`Error::Config`] naming it.
pub fn check_share_schedules(section: &str, values: &[(&str, Schedule)]) -> Result<()> {
    values.iter().try_for_each(|(key, schedule)| check_shares(section, &schedule.range().map(|value| (*key, value))))
}

/// Refuses the first of the schedules of a section that is negative, larger than 10³⁰, or not finite somewhere.
///
/// # Errors
/// [`Error::Config`] naming it.
pub fn check_size_schedules(section: &str, values: &[(&str, Schedule)]) -> Result<()> {
    values.iter().try_for_each(|(key, schedule)| check_sizes(section, &schedule.range().map(|value| (*key, value))))
}

/// The largest count of a setting: larger ones are typing errors, and overflow where they are multiplied.
const LARGEST_COUNT: u64 = 1_000_000_000;

/// Refuses the first of `values` of a section that is 0 or larger than a billion.
///
/// # Errors
/// [`Error::Config`] naming it.
pub fn check_counts(section: &str, values: &[(&str, u64)]) -> Result<()> {
    let wrong = values.iter().find(|(_, value)| !(1..=LARGEST_COUNT).contains(value));
    wrong.map_or(Ok(()), |(key, value)| {
        let bound = if *value == 0 { "at least 1".into() } else { format!("at most {LARGEST_COUNT}") };
        Err(Error::config(format!("[{section}]: `{key}` must be {bound}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

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

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Choice {
        One,
        Other,
        Third,
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Values {
        #[serde(default)]
        n: usize,
        choice: Option<Choice>,
        network: Option<BTreeMap<String, Choice>>,
    }

    /// A value that its type does not allow is named with the section and key that a configuration file has.
    #[test]
    fn a_wrong_value_is_named_with_what_it_must_be() {
        for (text, expected) in [
            ("n = -4", "[ppo]: `n` = -4 must be 0 or more"),
            ("choice = 'two'", "[ppo]: `choice` = \"two\" must be one of one, other, third"),
            ("network.torso = 'two'", "[network]: `torso` = \"two\" must be one of one, other, third"),
        ] {
            let error = parse_section::<Values>("ppo", &text.parse().unwrap()).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
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

    /// Bounds belong to what is allowed; the first wrong value of several is named.
    #[test]
    fn values_out_of_bounds_are_named() {
        let said = |result: Result<()>| result.map_err(|error| error.to_string()).err().unwrap_or_default();
        assert_eq!(said(check_shares("a", &[("x", 0.0), ("y", 1.0)])), "");
        assert_eq!(said(check_sizes("a", &[("x", 0.0), ("y", LARGEST_SIZE)])), "");
        assert_eq!(said(check_counts("a", &[("x", 1), ("y", LARGEST_COUNT)])), "");
        for wrong in [-0.1, 1.1, f64::NAN] {
            let said = said(check_shares("a", &[("x", 0.5), ("y", wrong), ("z", 2.0)]));
            assert!(said.contains("[a]: `y`") && said.contains("between 0 and 1"), "{said}");
        }
        for (wrong, bound) in [
            (-1.0, "must not be negative"),
            (f64::NAN, "must not be negative"),
            (1.1e30, "must be at most 1e30"),
            (f64::INFINITY, "must be at most 1e30"),
        ] {
            let said = said(check_sizes("a", &[("x", 0.5), ("y", wrong), ("z", -2.0)]));
            assert!(said.contains("[a]: `y`") && said.contains(bound), "{said}");
        }
        for (wrong, bound) in [(0, "at least 1"), (LARGEST_COUNT + 1, "at most 1000000000")] {
            let said = said(check_counts("a", &[("x", 1), ("y", wrong)]));
            assert!(said.contains("[a]: `y`") && said.contains(bound), "{said}");
        }
    }

    #[test]
    fn schedules_stay_within_the_bounds_at_both_ends() {
        let said = |result: Result<()>| result.map_err(|error| error.to_string()).err().unwrap_or_default();
        let (share, size) = (Schedule::linear(1.0, 0.0, 10), Schedule::linear(0.0, 5.0, 10));
        assert_eq!(said(check_share_schedules("a", &[("x", share)])), "");
        assert_eq!(said(check_size_schedules("a", &[("x", size)])), "");
        for wrong in [Schedule::linear(1.1, 0.0, 10), Schedule::linear(0.0, -0.1, 10)] {
            assert!(said(check_share_schedules("a", &[("x", share), ("y", wrong)])).contains("`y`"));
        }
        for wrong in [Schedule::linear(-1.0, 0.0, 10), Schedule::linear(0.0, f64::INFINITY, 10)] {
            assert!(said(check_size_schedules("a", &[("x", size), ("y", wrong)])).contains("`y`"));
        }
    }

    /// A table with another `rule` replaces the one below it; without one, or with the same, it is laid over it.
    #[test]
    fn another_rule_replaces_the_table() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        for (over, expected) in [
            ("o = { rule = 'b', y = 2 }", "o = { rule = 'b', y = 2 }"),
            ("o = { rule = 'a', y = 2 }", "o = { rule = 'a', x = 1, y = 2 }"),
            ("o = { y = 2 }", "o = { rule = 'a', x = 1, y = 2 }"),
        ] {
            let mut under = table("o = { rule = 'a', x = 1 }");
            merge(&mut under, &table(over));
            assert_eq!(under, table(expected), "{over}");
        }
    }

    /// An algorithm with the shared key `device`, and a default that depends on a choice.
    struct Toy;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ToyConfig {
        device: String,
        large: bool,
        size: u64,
        horizon: u64,
    }

    impl Default for ToyConfig {
        fn default() -> Self {
            Self { device: "cpu".into(), large: false, size: 1, horizon: 0 }
        }
    }

    impl Algorithm for Toy {
        const NAME: &'static str = "toy";
        const ABOUT: &'static str = "an example";
        type Config = ToyConfig;

        fn defaults(chosen: &ToyConfig) -> ToyConfig {
            ToyConfig { size: if chosen.large { 100 } else { 1 }, ..ToyConfig::default() }
        }
        fn check(config: &ToyConfig) -> Result<()> {
            check_counts("toy", &[("size", config.size)])
        }
        fn resolve(config: &ToyConfig, steps: u64, _: &dyn EnvFactory) -> Result<ToyConfig> {
            Ok(ToyConfig { horizon: steps, ..config.clone() })
        }
        fn extend(config: &ToyConfig, from: u64, to: u64) -> ToyConfig {
            ToyConfig { horizon: if config.horizon == from { to } else { config.horizon }, ..config.clone() }
        }
        fn train(_: &ToyConfig, _: &dyn EnvFactory, _: &mut Run) -> Result<Box<dyn Policy>> {
            Err(Error::other("training"))
        }
        fn load(_: &ToyConfig, _: &EnvSpec, _: &Snapshot) -> Result<Box<dyn Policy>> {
            Err(Error::other("loading"))
        }
    }

    struct NoEnvs(EnvSpec);

    impl EnvFactory for NoEnvs {
        fn spec(&self) -> &EnvSpec {
            &self.0
        }
        fn num_envs(&self) -> usize {
            1
        }
        fn vec(&self, _: &[u64]) -> Result<Box<dyn crate::VecEnv>> {
            Err(Error::other("no environment"))
        }
    }

    /// From a file's table to the algorithm and back: shared keys at the top level, all others in the section, defaults by choice.
    #[test]
    fn an_entry_parses_resolves_and_extends_its_configuration() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let entry = Entry::of::<Toy>();
        let complete = |text: &str| entry.parse(&table(text)).unwrap().table().unwrap();
        let expected = table("device = 'cpu'\ntoy = { large = false, size = 1, horizon = 0 }");
        assert_eq!(complete("steps = 5"), expected);
        let expected = table("device = 'cuda'\ntoy = { large = true, size = 100, horizon = 0 }");
        assert_eq!(complete("device = 'cuda'\ntoy.large = true"), expected);
        assert!(complete("toy = { large = true, size = 7 }")["toy"].to_string().contains("size = 7"));
        for (wrong, expected) in [("toy.size = 0", "`size` must be at least 1"), ("toy.sice = 1", "sice")] {
            let message = entry.parse(&table(wrong)).map(drop).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let spec = EnvSpec::new("t", &[1], crate::Dtype::F32, crate::ActionSpace::Discrete { n: 2 });
        let mut toy = entry.parse(&table("")).unwrap();
        toy.resolve(50, &NoEnvs(spec.clone())).unwrap();
        assert_eq!(toy.table().unwrap()["toy"]["horizon"].as_integer(), Some(50));
        toy.extend(50, 80);
        assert_eq!(toy.table().unwrap()["toy"]["horizon"].as_integer(), Some(80));
        assert_eq!(toy.load(&spec, &Snapshot::default()).map(drop).unwrap_err().to_string(), "loading");
    }

    /// Without defaults by choice or schedules over the run, the configuration stays what it is.
    #[test]
    fn an_algorithm_without_choices_keeps_its_configuration() {
        struct Plain;
        impl Algorithm for Plain {
            const NAME: &'static str = "plain";
            const ABOUT: &'static str = "an example";
            type Config = ToyConfig;
            fn check(_: &ToyConfig) -> Result<()> {
                Ok(())
            }
            fn resolve(config: &ToyConfig, _: u64, _: &dyn EnvFactory) -> Result<ToyConfig> {
                Ok(config.clone())
            }
            fn train(_: &ToyConfig, _: &dyn EnvFactory, _: &mut Run) -> Result<Box<dyn Policy>> {
                Err(Error::other("training"))
            }
            fn load(_: &ToyConfig, _: &EnvSpec, _: &Snapshot) -> Result<Box<dyn Policy>> {
                Err(Error::other("loading"))
            }
        }
        let changed = ToyConfig { size: 5, horizon: 50, ..ToyConfig::default() };
        assert_eq!(Plain::defaults(&changed), ToyConfig::default());
        assert_eq!(Plain::extend(&changed, 50, 80), changed);
        assert!(Plain::SINGLE_PROCESS.is_some());
    }
}
