//! Experiments: a TOML configuration file, overridden by `--set` and other options, and validated key by key.
//!
//! The known keys are those of the complete table of defaults. The algorithm provides this table, so a new setting needs no
//! change here.

use crate::registry::external;
use crate::renames::{last, renamed};
use crate::{Registry, args, paths, suggest};
use playfield_core::algorithm::{Entry, parse_section, write_section};
use playfield_core::group;
use playfield_core::run::{EvalConfig, Intervals};
use playfield_core::{Configured, EnvConfig, EnvSource, Error, Result, Schedule};
use std::sync::Arc;
use toml::{Table, Value};

/// A complete experiment, with a value for every setting.
pub struct Experiment {
    pub algorithm: Entry,
    pub steps: u64,
    pub seed: u64,
    pub intervals: Intervals,
    pub evaluation: EvalConfig,
    pub distributed: group::Config,
    pub env: EnvConfig,
    pub source: Arc<dyn EnvSource>,
    /// The algorithm with its configuration.
    pub configured: Box<dyn Configured>,
}

impl Experiment {
    /// The experiment of `table`, overridden by `sets` (`key=value` each).
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown key or name (with the closest known one), a value of the wrong type, or an invalid
    /// value.
    pub fn new(mut table: Table, sets: &[String], registry: &Registry) -> Result<Self> {
        let algorithm = algorithm(&table, sets, registry)?;
        let known = known(algorithm, &table, sets)?;
        for set in sets {
            apply(&mut table, &known, set)?;
        }
        let other = table.keys().find(|key| *key != algorithm.name && registry.find_algorithm(key).is_ok());
        if let Some(other) = other {
            return Err(Error::config(format!("[{other}] has settings of another algorithm than {}", algorithm.name)));
        }
        check("", &table, &known)?;

        let section = |name: &str| table.get(name).and_then(Value::as_table).cloned().unwrap_or_default();
        let (env, source) = environment(section("env"), registry)?;
        let configured = algorithm.parse(&table)?;
        let number = |key: &str, default: Option<i64>| {
            let value = table.get(key).and_then(Value::as_integer).or(default);
            let missing = || Error::config(format!("no `{key}`: give it in the file, or --{key} N"));
            u64::try_from(value.ok_or_else(missing)?)
                .map_err(|_| Error::config(format!("`{key}` must not be negative")))
        };
        let (steps, seed) = (number("steps", None)?, number("seed", Some(1))?);
        let intervals = parse_section::<Intervals>("run", &section("run"))?.resolve(steps);
        let evaluation: EvalConfig = parse_section("eval", &section("eval"))?;
        env.evaluation(&evaluation.env)?;
        let distributed = parse_section("distributed", &section("distributed"))?;
        let positive = |seconds: f64| seconds > 0.0;
        match () {
            () if steps == 0 => Err(Error::config("`steps` must be at least 1")),
            () if !positive(intervals.log_seconds) || !positive(intervals.checkpoint_seconds) => {
                Err(Error::config("[run]: `log_seconds` and `checkpoint_seconds` must be greater than 0"))
            }
            () if evaluation.episodes == 0 => Err(Error::config("[eval]: `episodes` must be at least 1")),
            () if evaluation.video && evaluation.every_steps == 0 => Err(Error::config(
                "[eval]: `video` needs an evaluation: set `every_steps`, the agent steps between two",
            )),
            () => Ok(Self { algorithm, steps, seed, intervals, evaluation, distributed, env, source, configured }),
        }
    }

    /// The name of a run: algorithm and environment, `ppo-pong` for example.
    pub fn name(&self) -> String {
        let part = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '-' };
        let env: String = suggest::stem(&self.env.id).chars().map(part).collect();
        format!("{}-{env}", self.algorithm.name)
    }

    /// Every setting, as saved in the folder of the run.
    ///
    /// # Errors
    /// [`Error::Config`] if TOML cannot represent a value.
    pub fn to_table(&self) -> Result<Table> {
        let mut table = self.configured.table()?;
        let integer =
            |n: u64| i64::try_from(n).map(Value::Integer).map_err(|_| Error::config(format!("{n} is too large")));
        table.insert("algorithm".into(), self.algorithm.name.into());
        table.insert("steps".into(), integer(self.steps)?);
        table.insert("seed".into(), integer(self.seed)?);
        table.insert("run".into(), write_section("run", &self.intervals)?.into());
        table.insert("eval".into(), write_section("eval", &self.evaluation)?.into());
        table.insert("distributed".into(), write_section("distributed", &self.distributed)?.into());
        table.insert("env".into(), write_section("env", &self.env)?.into());
        Ok(table)
    }
}

/// The environment of the section `[env]`. The path of a Python file in its id becomes absolute.
///
/// # Errors
/// [`Error::Config`] for an unknown environment or an invalid setting.
pub fn environment(mut section: Table, registry: &Registry) -> Result<(EnvConfig, Arc<dyn EnvSource>)> {
    let id = section.get("id").and_then(Value::as_str);
    let id = id.ok_or_else(|| Error::config("no environment: give `id` in [env], or --env ID"))?;
    let id = external::absolute(id, paths::start());
    let source = registry.find_env(&id)?;
    section.insert("id".into(), id.into());
    Ok((EnvConfig::resolve(&section, source.defaults())?, source))
}

/// The environment `id` with the settings `sets` of `[env]` (`key=value` each).
///
/// # Errors
/// As [`environment`].
pub fn checked_environment(id: &str, sets: &[String], registry: &Registry) -> Result<(EnvConfig, Arc<dyn EnvSource>)> {
    let known: Table = [("env".to_string(), write_section("env", &EnvConfig::default())?.into())].into_iter().collect();
    let mut table: Table =
        [("env".to_string(), Table::from_iter([("id".to_string(), id.into())]).into())].into_iter().collect();
    sets.iter().try_for_each(|set| apply(&mut table, &known, set))?;
    check("", &table, &known)?;
    let section = table.remove("env").and_then(|env| env.try_into().ok()).unwrap_or_default();
    environment(section, registry)
}

/// The complete path of the setting `key` in a complete experiment, and its value; for a schedule, its start value.
///
/// # Errors
/// [`Error::Config`] if `key` is unknown or ambiguous.
pub fn setting(table: &Table, key: &str, registry: &Registry) -> Result<(String, Value)> {
    let path = find(key, &known(algorithm(table, &[], registry)?, table, &[])?)?;
    let value = path.split('.').try_fold(&Value::Table(table.clone()), |at, part| at.get(part)).cloned();
    let value = value.ok_or_else(|| Error::config(format!("`{path}` has no value")))?;
    let start = if is_schedule(&value) { value["start"].clone() } else { value };
    Ok((path, start))
}

/// The algorithm of `--set algorithm=…`, else of the file.
fn algorithm(table: &Table, sets: &[String], registry: &Registry) -> Result<Entry> {
    let set = sets.iter().rev().find_map(|s| s.strip_prefix("algorithm=")).map(|name| name.trim_matches(['"', '\'']));
    let name = set.or_else(|| table.get("algorithm").and_then(Value::as_str));
    registry.find_algorithm(name.ok_or_else(|| Error::config("the file names no `algorithm` (paac, for example)"))?)
}

/// All known keys with their defaults; those of the optimizer depend on the rule in `table` or `sets`.
fn known(algorithm: Entry, table: &Table, sets: &[String]) -> Result<Table> {
    let mut chosen = Table::new();
    if let Some(rule) = optimizer_rule(algorithm.name, table, sets) {
        let optimizer = Table::from_iter([("rule".to_string(), rule)]);
        chosen.insert(algorithm.name.into(), Table::from_iter([("optimizer".to_string(), optimizer.into())]).into());
    }
    let mut known = algorithm.parse(&chosen)?.table()?;
    known.insert("algorithm".into(), "".into());
    known.insert("steps".into(), 0.into());
    known.insert("seed".into(), 0.into());
    known.insert("run".into(), write_section("run", &Intervals::default())?.into());
    known.insert("eval".into(), write_section("eval", &EvalConfig::default())?.into());
    known.insert("distributed".into(), write_section("distributed", &group::Config::default())?.into());
    known.insert("env".into(), write_section("env", &EnvConfig::default())?.into());
    Ok(known)
}

/// The `rule` of the algorithm's optimizer, if `table` or `sets` set it.
fn optimizer_rule(algorithm: &str, table: &Table, sets: &[String]) -> Option<Value> {
    let path = format!("{algorithm}.optimizer.rule");
    let set = sets.iter().rev().filter_map(|set| set.split_once('='));
    let set = set.filter(|(key, _)| path == key.trim() || path.ends_with(&format!(".{}", key.trim())));
    let named = || table.get(algorithm)?.get("optimizer")?.get("rule").cloned();
    set.map(|(_, rule)| typed(rule, None)).next().or_else(named)
}

/// "; rule = \"adam\" has the keys …" if `known` is a table with a `rule`.
fn keys_of_rule(known: &Table) -> String {
    let keys = || known.keys().filter(|key| *key != "rule").map(String::as_str).collect::<Vec<_>>().join(", ");
    known.get("rule").map(|rule| format!("; rule = {rule} has the keys {}", keys())).unwrap_or_default()
}

/// Whether a default is a schedule, which a configuration writes as a number or as a table.
fn is_schedule(value: &Value) -> bool {
    value.as_table().is_some_and(|table| table.len() == 3 && Schedule::KEYS.iter().all(|key| table.contains_key(*key)))
}

/// Tables with arbitrary keys, which the environment and the evaluation validate.
const FREE: [&str; 2] = ["env.kwargs", "eval.env"];

/// Rejects keys that are not in `known` and values of another type.
fn check(path: &str, table: &Table, known: &Table) -> Result<()> {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let Some(expected) = known.get(key) else {
            let mut paths = Vec::new();
            leaves(path.rsplit_once('.').map_or("", |(section, _)| section), known, &mut paths);
            if let Some(name) = renamed(&path, &paths) {
                return Err(Error::config(format!("unknown key `{path}`: it is called `{name}`")));
            }
            let hint = suggest::hint(key, known.keys().map(String::as_str));
            return Err(Error::config(format!("unknown key `{path}`{hint}{}", keys_of_rule(known))));
        };
        match (expected, value) {
            (Value::Table(_), Value::Table(_)) if FREE.contains(&path.as_str()) => {}
            (Value::Table(known), Value::Table(table)) => check(&path, table, known)?,
            (Value::Float(_), Value::Integer(_)) => {}
            // A number sets a constant schedule; a table is validated when it is parsed.
            (schedule, Value::Float(_) | Value::Integer(_)) if is_schedule(schedule) => {}
            (Value::Float(_), Value::Table(table))
                if table.keys().all(|key| Schedule::KEYS.contains(&key.as_str())) => {}
            (expected, value) if expected.same_type(value) => {}
            (expected, value) => {
                let wanted = match expected {
                    schedule if is_schedule(schedule) => "a number, or { start = 1.0, end = 0.1, steps = 1000 }",
                    Value::Integer(_) => "a whole number",
                    Value::Float(_) => "a number",
                    Value::Boolean(_) => "true or false",
                    Value::String(_) => "a string in quotes",
                    Value::Array(_) => "a list, [a, b]",
                    Value::Table(_) => "a section",
                    Value::Datetime(_) => "a date",
                };
                return Err(Error::config(format!("`{path}` = {value} must be {wanted}")));
            }
        }
    }
    Ok(())
}

/// Applies one `key=value` to `table`.
fn apply(table: &mut Table, known: &Table, set: &str) -> Result<()> {
    let Some((key, value)) = set.split_once('=') else {
        return Err(Error::config(format!("--set {set}: write it as key=value")));
    };
    let path = find(key.trim(), known)?;
    let (sections, last) = path.rsplit_once('.').unwrap_or(("", &path));
    let mut at = table;
    for section in sections.split('.').filter(|s| !s.is_empty()) {
        let entry = at.entry(section).or_insert_with(|| Value::Table(Table::new()));
        if entry.is_float() || entry.is_integer() {
            // Replaces a constant schedule of the file by a table, to set its start or end.
            *entry = Value::Table(Table::new());
        }
        at = entry.as_table_mut().ok_or_else(|| Error::config(format!("`{section}` must be a section")))?;
    }
    at.insert(last.into(), typed(value, default(known, &path)));
    Ok(())
}

/// The default of the setting at `path`, if it has one.
fn default<'a>(known: &'a Table, path: &str) -> Option<&'a Value> {
    let mut parts = path.split('.');
    let first = known.get(parts.next()?)?;
    parts.try_fold(first, |at, part| at.get(part))
}

/// Parses the value of a setting with this `default`: a number (also `.001`, `1e6`, `4M`), another TOML value, or else a string
/// without quotes.
fn typed(text: &str, default: Option<&Value>) -> Value {
    let parsed = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let number = match default {
        Some(Value::Integer(_)) if !matches!(parsed, Some(Value::Integer(_))) => {
            args::whole(text).and_then(|n| i64::try_from(n).ok()).map(Value::Integer)
        }
        Some(Value::Float(_) | Value::Table(_)) if parsed.is_none() => {
            text.trim().replace('_', "").parse().ok().map(Value::Float)
        }
        _ => None,
    };
    number.or(parsed).unwrap_or_else(|| text.into())
}

/// The complete path of a dotted key or of its unambiguous last part.
fn find(key: &str, known: &Table) -> Result<String> {
    if FREE.iter().any(|free| key.strip_prefix(free).is_some_and(|rest| rest.starts_with('.'))) {
        return Ok(key.into());
    }
    let mut paths = Vec::new();
    leaves("", known, &mut paths);
    if paths.iter().any(|p| p == key) {
        return Ok(key.into());
    }
    let found: Vec<_> = paths.iter().filter(|p| p.ends_with(key) && p[..p.len() - key.len()].ends_with('.')).collect();
    match found[..] {
        [path] => Ok(path.clone()),
        [] => {
            if let Some(name) = renamed(key, &paths) {
                return Err(Error::config(format!("--set {key}: unknown key: it is called `{name}`")));
            }
            let optimizer = known.values().find_map(|section| section.get("optimizer")?.as_table());
            if let Some(optimizer) = optimizer.filter(|_| key.contains("optimizer.")) {
                return Err(Error::config(format!("--set {key}: unknown key{}", keys_of_rule(optimizer))));
            }
            // A key of a section is compared with that section's keys.
            let section = key.rsplit_once('.').map(|(section, _)| format!("{section}."));
            let section = section.filter(|section| paths.iter().any(|path| path.starts_with(section)));
            let (word, candidates): (&str, Vec<_>) = match &section {
                Some(section) => (last(key), paths.iter().filter_map(|path| path.strip_prefix(section)).collect()),
                None if key.contains('.') => (key, paths.iter().map(String::as_str).collect()),
                None => (key, paths.iter().map(|path| last(path)).collect()),
            };
            Err(Error::config(format!("--set {key}: unknown key{}", suggest::hint(word, candidates))))
        }
        _ => {
            let all = found.iter().map(|p| p.as_str()).collect::<Vec<_>>().join(" or ");
            Err(Error::config(format!("--set {key}: ambiguous key; write {all}")))
        }
    }
}

fn leaves(path: &str, table: &Table, found: &mut Vec<String>) {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Table(table) if !FREE.contains(&path.as_str()) => {
                if is_schedule(value) {
                    found.push(path.clone());
                }
                leaves(&path, table, found);
            }
            _ => found.push(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "algorithm = 'paac'\nsteps = 10\n[env]\nid = 'CartPole'\n";

    fn experiment(text: &str, sets: &[&str]) -> Result<Experiment> {
        let sets: Vec<_> = sets.iter().map(|s| s.to_string()).collect();
        Experiment::new(text.parse().unwrap(), &sets, &Registry::standard())
    }

    fn refusal(text: &str, sets: &[&str]) -> String {
        experiment(text, sets).err().expect("an error").to_string()
    }

    #[test]
    fn a_saved_experiment_is_read_back_unchanged() {
        let first = experiment(FILE, &["learning_rate=1e-3", "env.num_envs=4", "optimizer.eps=1"]).unwrap();
        let table = first.to_table().unwrap();
        assert_eq!(table["paac"]["learning_rate"].as_float(), Some(1e-3));
        assert_eq!(table["paac"]["optimizer"]["eps"].as_float(), Some(1.0));
        assert_eq!((first.env.num_envs, table["env"]["max_episode_steps"].as_integer()), (4, Some(500)));
        let again = experiment(&table.to_string(), &[]).unwrap();
        assert_eq!(again.to_table().unwrap(), table);
    }

    #[test]
    fn an_error_suggests_the_closest_name() {
        for (text, sets, expected) in [
            (FILE, &["learning_rat=1"][..], "did you mean 'learning_rate'?"),
            (FILE, &["paac.gama=1"], "did you mean 'gamma'?"),
            (FILE, &["paac.ent_coef=1"], "it is called `paac.entropy_coefficient`"),
            ("algorithm = 'paac'\n[dqn]\n", &[], "[dqn] has settings of another algorithm than paac"),
            (FILE, &["env.id=Cartpoel"], "did you mean 'CartPole'?"),
            (FILE, &["algorithm=pacc"], "did you mean 'paac'?"),
            (FILE, &["rollout_steps"], "write it as key=value"),
            ("algorithm = 'paac'\n[envv]\n", &[], "unknown key `envv`; did you mean 'env'?"),
            (
                "algorithm = 'paac'\n[paac.optimizer]\nepz = 1\n",
                &[],
                "unknown key `paac.optimizer.epz`; did you mean 'eps'?",
            ),
            (
                "algorithm = 'paac'\n[paac]\nrollout_steps = 'five'\n",
                &[],
                "`paac.rollout_steps` = \"five\" must be a whole number",
            ),
            ("algorithm = 'paac'\nsteps = 1", &[], "no environment"),
            ("algorithm = 'paac'\n[env]\nid = 'CartPole'", &[], "no `steps`"),
            (FILE, &["steps=0"], "at least 1"),
            (FILE, &["seed=-1"], "must not be negative"),
            (FILE, &["activation=sine"], "sine"),
            (FILE, &["kwargs.x=1"], "unknown key"),
            (FILE, &["t_max=5"], "it is called `paac.rollout_steps`"),
            ("algorithm = 'paac'\n[env]\nwarp = [84, 84]\n", &[], "unknown key `env.warp`: it is called `env.resize`"),
            (FILE, &["checkpoint_seconds=0"], "greater than 0"),
            (FILE, &["eval.video=true"], "set `every_steps`"),
        ] {
            let message = refusal(text, sets);
            assert!(message.contains(expected), "{sets:?}: {message}");
        }
    }

    #[test]
    fn number_formats_are_parsed() {
        for (set, key, expected) in [
            ("learning_rate=.001", "paac.learning_rate", Value::Float(0.001)),
            ("learning_rate=1.", "paac.learning_rate", Value::Float(1.0)),
            ("learning_rate=1e-3", "paac.learning_rate", Value::Float(0.001)),
            ("learning_rate=+.5", "paac.learning_rate", Value::Float(0.5)),
            ("steps=4.1M", "steps", Value::Integer(4_100_000)),
            ("steps=1e6", "steps", Value::Integer(1_000_000)),
            ("steps=1_000", "steps", Value::Integer(1_000)),
            ("learning_rate.start=.5", "paac.learning_rate.start", Value::Float(0.5)),
            ("learning_rate={start=1, end=0.5}", "paac.learning_rate.end", Value::Float(0.5)),
            ("num_envs=8.", "env.num_envs", Value::Integer(8)),
            ("rollout_steps= 4 ", "paac.rollout_steps", Value::Integer(4)),
        ] {
            let table = experiment(FILE, &[set]).map_err(|e| format!("{set}: {e}")).unwrap().to_table().unwrap();
            let found = key.split('.').try_fold(&Value::Table(table.clone()), |at, part| at.get(part)).cloned();
            assert_eq!(found, Some(expected), "{set}");
        }
        for (set, expected) in [
            ("steps=4.1", "`steps` = 4.1 must be a whole number"),
            ("steps=many", "`steps` = \"many\" must be a whole number"),
            ("learning_rate=fast", "must be a number"),
            ("learning_rate=.", "must be a number"),
        ] {
            assert!(refusal(FILE, &[set]).contains(expected), "{set}: {}", refusal(FILE, &[set]));
        }
        // Values of `kwargs` are passed through unchanged.
        let e = experiment(FILE, &["env.kwargs.x=4M", "env.kwargs.y=.5"]).unwrap();
        assert_eq!((e.env.kwargs["x"].as_str(), e.env.kwargs["y"].as_str()), (Some("4M"), Some(".5")));
    }

    #[test]
    fn a_run_is_named_after_algorithm_and_environment() {
        for (id, expected) in [("CartPole", "paac-cartpole"), ("ALE/SpaceInvaders-v5", "paac-spaceinvaders")] {
            let mut e = experiment(FILE, &[]).unwrap();
            e.env.id = id.into();
            assert_eq!(e.name(), expected);
        }
        for (id, expected) in [("corridor:Corridor-v0", "paac-corridor"), ("my/envs.py:Tall Maze", "paac-tall-maze")] {
            let mut e = experiment(FILE, &[]).unwrap();
            e.env.id = id.into();
            assert_eq!(e.name(), expected);
        }
    }

    #[test]
    fn strings_need_no_quotes_and_kwargs_take_any_key() {
        let e = experiment(FILE, &["id=Catch", "env.kwargs.rows=7", "torso=mlp"]).unwrap();
        assert_eq!((e.env.id.as_str(), e.env.kwargs["rows"].as_integer()), ("Catch", Some(7)));
    }

    /// Every configuration of the repository, and of its examples in Rust, is a complete experiment with the keys of today. Its
    /// environment stands in for those that need Python.
    #[test]
    fn every_configuration_of_the_repository_is_valid() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        let files = |path: &std::path::Path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        let mut count = 0;
        for path in files(&folder).flat_map(|section| files(&section).collect::<Vec<_>>()) {
            let text = std::fs::read_to_string(&path).unwrap();
            experiment(&text, &["env.id=Catch"]).map_err(|e| format!("{}: {e}", path.display())).unwrap();
            count += 1;
        }
        assert!(count >= 28, "{count}");
    }

    /// A schedule whose default is constant may be a line, with or without a horizon; other tables are errors.
    #[test]
    fn a_constant_schedule_may_become_a_line() {
        let file = |value: &str| format!("{FILE}[paac]\nentropy_coefficient = {value}\n");
        let end = |value: &str| {
            let table = experiment(&file(value), &[]).unwrap().to_table().unwrap();
            table["paac"]["entropy_coefficient"]["end"].as_float().unwrap()
        };
        assert_eq!(end("{ start = 0.01, end = 0.0 }"), 0.0);
        assert_eq!(end("{ start = 0.01, end = 0.002, steps = 7 }"), 0.002);
        for value in ["{ begin = 0.01, end = 0.0 }", "{ end = 0.0 }"] {
            assert!(refusal(&file(value), &[]).contains("number"), "{}", refusal(&file(value), &[]));
        }
        // A number that is no schedule.
        assert!(refusal(&format!("{FILE}[paac]\ngamma = {{ start = 1.0, end = 0.0 }}\n"), &[]).contains("[paac]"));
    }

    /// Setting a key to its default changes nothing, in every section.
    #[test]
    fn any_key_set_to_its_default_changes_nothing() {
        for algorithm in ["ppo", "paac", "a3c", "dqn"] {
            let choose = format!("algorithm={algorithm}");
            let complete = experiment(FILE, &[&choose]).unwrap().to_table().unwrap();
            let mut keys = Vec::new();
            leaves("", &complete, &mut keys);
            assert!(keys.len() > 50, "{algorithm}: {keys:?}");
            for key in keys.iter().filter(|key| !FREE.contains(&key.as_str())) {
                let value = key.split('.').try_fold(&Value::Table(complete.clone()), |at, part| at.get(part)).cloned();
                let set = format!("{key}={}", value.unwrap());
                let again = experiment(FILE, &[&choose, &set]).unwrap().to_table().unwrap();
                assert_eq!(again, complete, "--set {set}");
            }
        }
    }

    /// A rule sets its published defaults, and keeps explicit settings.
    #[test]
    fn another_optimizer_rule_has_its_published_defaults() {
        for algorithm in ["paac", "a3c", "dqn"] {
            let sets = [&format!("algorithm={algorithm}"), "optimizer.rule=adam", "optimizer.weight_decay=1e-5"];
            let optimizer = experiment(FILE, &sets).unwrap().to_table().unwrap()[algorithm]["optimizer"].clone();
            let number = |key: &str| optimizer[key].as_float().unwrap();
            let found = ["beta1", "beta2", "eps", "weight_decay"].map(number);
            assert_eq!(found, [0.9, 0.999, 1e-8, 1e-5], "{algorithm}");
        }
    }

    /// The keys of the selected rule are known, in a file and on the command line; an error for another key lists them.
    #[test]
    fn an_optimizer_has_the_keys_of_its_rule() {
        let adam = format!("{FILE}[paac.optimizer]\nrule = 'adam'\nbeta1 = 0.5\n");
        let table = experiment(&adam, &["optimizer.beta2=.9"]).unwrap().to_table().unwrap();
        let optimizer = table["paac"]["optimizer"].as_table().unwrap();
        assert_eq!((optimizer["beta1"].as_float(), optimizer["beta2"].as_float()), (Some(0.5), Some(0.9)));
        assert!(!optimizer.contains_key("decay"));
        let again = experiment(&table.to_string(), &["rule=adam", "beta1=0.5"]).unwrap();
        assert_eq!(again.to_table().unwrap(), table);
        let rmsprop = format!("{FILE}[paac.optimizer]\nbeta1 = 0.5\n");
        for message in
            [refusal(&rmsprop, &[]), refusal(&adam, &["rule=rmsprop"]), refusal(FILE, &["optimizer.beta1=1"])]
        {
            let keys = ["beta1", "rule = \"rmsprop\" has the keys", "decay", "eps_inside_root", "centered"];
            assert!(keys.iter().all(|key| message.contains(key)), "{message}");
        }
        assert!(refusal(FILE, &["optimizer.rule=adan"]).contains("adan"));
    }
}
