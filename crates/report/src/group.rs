//! Groups of runs that differ only in their seed.

use crate::RunFolder;
use std::collections::BTreeMap;
use toml::{Table, Value};

/// Runs of one experiment.
#[derive(Clone, Debug)]
pub struct Group {
    /// The name in legends and tables.
    pub name: String,
    /// The runs, at least one.
    pub runs: Vec<RunFolder>,
}

/// A setting that differs between groups, and its value in each; `None` where a group lacks it.
pub type Difference = (String, Vec<Option<String>>);

impl Group {
    /// A group of the given name.
    pub fn new(name: impl Into<String>, runs: Vec<RunFolder>) -> Self {
        Self { name: name.into(), runs }
    }

    /// A group named by the folder of its first run, without the number at the end if there are several runs.
    pub fn of(runs: Vec<RunFolder>) -> Self {
        Self { name: stem(&runs[0].name(), runs.len()), runs }
    }

    /// The name, with the number of seeds if there are several: `fast, 3 seeds`.
    pub fn label(&self) -> String {
        if self.runs.len() > 1 { format!("{}, {} seeds", self.name, self.runs.len()) } else { self.name.clone() }
    }

    fn settings(&self) -> BTreeMap<String, String> {
        let mut settings = BTreeMap::new();
        flatten("", &self.runs[0].config, &mut settings);
        settings.remove("seed");
        settings
    }
}

/// Groups runs whose settings differ only in the seed, in order of appearance, and names the groups: by the values of the settings
/// that differ if these are one or two of the same algorithm and environment, otherwise by the folder of the first run.
pub fn group(runs: Vec<RunFolder>) -> Vec<Group> {
    let settings = |run: &RunFolder| -> Table {
        let mut settings = run.config.clone();
        settings.remove("seed");
        settings
    };
    let mut groups: Vec<(Table, Vec<RunFolder>)> = Vec::new();
    for run in runs {
        let settings = settings(&run);
        match groups.iter_mut().find(|(of, _)| *of == settings) {
            Some((_, runs)) => runs.push(run),
            None => groups.push((settings, vec![run])),
        }
    }
    let mut groups: Vec<_> = groups.into_iter().map(|(_, runs)| Group::new("", runs)).collect();
    let names = names(&groups);
    groups.iter_mut().zip(names).for_each(|(group, name)| group.name = name);
    groups
}

fn names(groups: &[Group]) -> Vec<String> {
    let differences = differences(&groups.iter().collect::<Vec<_>>());
    let is_one_algorithm = !differences.iter().any(|(key, _)| key == "algorithm" || key == "env.id");
    if groups.len() > 1 && is_one_algorithm && (1..=2).contains(&differences.len()) {
        let algorithm = format!("{}.", groups[0].runs[0].algorithm);
        let name = |i: usize| {
            let value = |(key, values): &Difference| {
                let key = key.strip_prefix(&algorithm).unwrap_or(key);
                format!("{key} = {}", values[i].as_deref().unwrap_or("–"))
            };
            differences.iter().map(value).collect::<Vec<_>>().join(", ")
        };
        return (0..groups.len()).map(name).collect();
    }
    let folders: Vec<String> = groups.iter().map(|group| group.runs[0].name()).collect();
    let stems = groups.iter().zip(&folders).map(|(group, folder)| stem(folder, group.runs.len()));
    let paths = groups.iter().map(|group| group.runs[0].path.display().to_string());
    let unique =
        |names: &Vec<String>| names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1);
    [stems.collect(), folders.clone()].into_iter().find(unique).unwrap_or_else(|| paths.collect())
}

/// The name of a folder, without the number at its end if that counts several runs.
fn stem(folder: &str, runs: usize) -> String {
    match folder.rsplit_once('-') {
        Some((stem, n)) if runs > 1 && n.parse::<u64>().is_ok() => stem.to_string(),
        _ => folder.to_string(),
    }
}

/// The settings in which the groups differ. A setting of one algorithm is compared between the groups of this algorithm only.
pub fn differences(groups: &[&Group]) -> Vec<Difference> {
    let settings: Vec<_> = groups.iter().map(|group| group.settings()).collect();
    let keys: std::collections::BTreeSet<&String> = settings.iter().flat_map(|settings| settings.keys()).collect();
    let algorithms: Vec<&str> = groups.iter().map(|group| &*group.runs[0].algorithm).collect();
    let values = |key: &String| -> Vec<Option<String>> { settings.iter().map(|s| s.get(key).cloned()).collect() };
    let differs = |(key, values): &Difference| {
        let section = key.split('.').next().unwrap_or_default();
        let is_of_algorithm = algorithms.contains(&section);
        let compared = values.iter().zip(&algorithms).filter(|(_, a)| !is_of_algorithm || **a == section);
        let compared: Vec<_> = compared.map(|(value, _)| value).collect();
        compared.windows(2).any(|pair| pair[0] != pair[1])
    };
    keys.into_iter().map(|key| (key.clone(), values(key))).filter(differs).collect()
}

/// The settings of a table by dotted key, as TOML.
fn flatten(prefix: &str, table: &Table, into: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(table) => flatten(&key, table, into),
            value => _ = into.insert(key, value.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::{settings, write};

    fn runs(of: &[(&str, String)]) -> Vec<Group> {
        let dir = tempfile::tempdir().unwrap();
        let read = |(path, settings): &(&str, String)| {
            let path = dir.path().join(path);
            write(&path, settings, &[]);
            RunFolder::read(&path).unwrap()
        };
        group(of.iter().map(read).collect())
    }

    fn labels(of: &[(&str, String)]) -> Vec<String> {
        runs(of).iter().map(Group::label).collect()
    }

    #[test]
    fn runs_that_differ_only_in_their_seed_are_one_group() {
        let ppo = |seed, rate| settings("ppo", "Toy", seed, rate);
        assert_eq!(labels(&[("a-1", ppo(1, 0.1)), ("a-2", ppo(2, 0.1))]), ["a, 2 seeds"]);
        assert_eq!(labels(&[("a-1", ppo(1, 0.1))]), ["a-1"]);
        let mixed = [("a-1", ppo(1, 0.1)), ("a-2", ppo(1, 0.5)), ("a-3", ppo(2, 0.1))];
        assert_eq!(labels(&mixed), ["rate = 0.1, 2 seeds", "rate = 0.5"]);
        let dqn = settings("dqn", "Toy", 1, 0.1);
        assert_eq!(labels(&[mixed[0].clone(), mixed[2].clone(), ("b-1", dqn.clone())]), ["a, 2 seeds", "b-1"]);
        // Names that would be equal.
        assert_eq!(labels(&[("a-1", ppo(1, 0.1)), ("a-3", ppo(2, 0.1)), ("a", dqn.clone())]), ["a-1, 2 seeds", "a"]);
        let same = labels(&[("x/a", ppo(1, 0.1)), ("y/a", dqn)]);
        assert!(same[0].ends_with("x/a") && same[1].ends_with("y/a"), "{same:?}");
    }

    #[test]
    fn settings_of_an_algorithm_are_compared_between_its_groups() {
        let of = |algorithm, rate| settings(algorithm, "Toy", 1, rate);
        let groups = runs(&[("a", of("ppo", 0.1)), ("b", of("dqn", 0.1)), ("c", of("dqn", 0.2))]);
        let differences = differences(&groups.iter().collect::<Vec<_>>());
        let keys: Vec<_> = differences.iter().map(|(key, _)| &**key).collect();
        assert_eq!(keys, ["algorithm", "dqn.rate"]);
        assert_eq!(differences[1].1, [None, Some("0.1".into()), Some("0.2".into())]);
    }
}
