//! Each setting of each configuration in `configs/` has extreme values, under a limit of memory. The other settings are those of a short
//! training that makes updates: with the published ones, no update would come within seconds.

use crate::campaign::{Class, Finding, Group, LIMIT, Running, Size};
use crate::common::file;
use playfield::report::run::CsvTable;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use toml::{Table, Value};

/// The address space of a process, in KiB: libtorch maps some gigabytes.
const MEMORY: u64 = 16 << 20;

/// A program that trains for longer, its start excluded, is interrupted, and must then stop.
const PATIENCE: Duration = Duration::from_secs(15);

fn values() -> [Value; 8] {
    [
        Value::Integer(0),
        Value::Integer(-1),
        Value::Integer(1_000_000_000),
        Value::Integer(i64::MAX),
        Value::Float(f64::NAN),
        Value::Float(1e300),
        Value::String(String::new()),
        Value::Array(vec![Value::Boolean(true)]),
    ]
}

/// The row of the table.
pub fn class(size: Size) -> Vec<Class> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tried = BTreeSet::new();
    let configs = configurations(&root.join("configs")).into_iter().map(|path| {
        let table: Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        let algorithm = table["algorithm"].as_str().unwrap().to_string();
        let mut keys = Vec::new();
        leaves(&table, &mut Vec::new(), &mut keys);
        // Once for each algorithm: many configurations set the same.
        keys.retain(|key| tried.insert((algorithm.clone(), key.clone())));
        (path, table, keys)
    });
    let needs_python = |table: &Table| !is_built_in(table["env"]["id"].as_str().unwrap());
    let configs =
        configs.filter(move |(_, table, _)| cfg!(feature = "python") && size == Size::Full || !needs_python(table));
    let groups = configs.flat_map(move |(path, table, keys)| {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let (stride, offset) = (if size == Size::Full { 1 } else { 29 }, name.len());
        keys.into_iter().enumerate().map(move |(k, key)| {
            let table = table.clone();
            Group::new(format!("{name}: {}", key.join(".")), move |folder, tally| {
                let tries = values().into_iter().enumerate();
                for (_, value) in tries.filter(|(i, _)| (k * values().len() + i + offset).is_multiple_of(stride)) {
                    tally.add(format!("{value}"), train(folder, &table, &key, value));
                }
            })
        })
    });
    vec![Class { name: "a setting has an extreme value", groups: groups.collect() }]
}

fn is_built_in(id: &str) -> bool {
    playfield::classic::sources().iter().any(|(name, ..)| *name == id)
}

fn configurations(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(configurations(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

fn leaves(table: &Table, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    for (key, value) in table {
        path.push(key.clone());
        match value {
            Value::Table(table) => leaves(table, path, found),
            _ => found.push(path.clone()),
        }
        path.pop();
    }
}

fn set(table: &mut Table, key: &[String], value: Value) {
    let (last, sections) = key.split_last().unwrap();
    let table = sections.iter().fold(table, |table, section| {
        table.entry(section).or_insert_with(|| Table::new().into()).as_table_mut().unwrap()
    });
    table.insert(last.clone(), value);
}

/// Settings with which every algorithm makes several updates in 64 steps, of a network that takes milliseconds.
fn small(algorithm: &str) -> Table {
    let own = match algorithm {
        "ppo" => "rollout_steps = 8, minibatch_size = 8, epochs = 1",
        "dqn" => "learning_starts = 16, batch_size = 8, buffer_size = 2000, target_update_interval = 16",
        _ => "rollout_steps = 5",
    };
    format!("run = {{ log_steps = 8 }}\nenv = {{ num_envs = 2 }}\n{algorithm} = {{ {own} }}").parse().unwrap()
}

/// Trains for 64 steps with `value` at `key`; where that is the number of steps, until an update is logged.
fn train(folder: &Path, config: &Table, key: &[String], value: Value) -> Finding {
    let (mut table, mut keys) = (config.clone(), Vec::new());
    let small = small(config["algorithm"].as_str().unwrap());
    leaves(&small, &mut Vec::new(), &mut keys);
    for key in keys {
        let value = key.iter().fold(&Value::Table(small.clone()), |at, part| &at[part.as_str()]).clone();
        set(&mut table, &key, value);
    }
    let torso = config.get("network").and_then(|network| network.get("torso")).and_then(Value::as_str);
    if torso.is_some_and(|torso| ["nature", "nips"].contains(&torso)) {
        set(&mut table, &["network".into(), "torso".into()], "small".into());
    }
    set(&mut table, &["steps".into()], 64.into());
    set(&mut table, key, value);

    file(folder, "a.toml", &table.to_string());
    let _ = std::fs::remove_dir_all(folder.join("run"));
    let mut bash = Command::new("env");
    let program = env!("CARGO_BIN_EXE_playfield");
    let line = format!("ulimit -v {MEMORY}; exec {program} train a.toml --run-dir run");
    bash.arg("--default-signal=INT").args(["bash", "-c", &line]).current_dir(folder);
    let (mut running, start, run) = (Running::start(folder, bash), Instant::now(), folder.join("run"));
    // On a busy machine the program may need longer to start than to train.
    let mut trains = None;
    let is_long = |trains: Option<Instant>| {
        trains.is_some_and(|since| since.elapsed() > PATIENCE || key == ["steps"] && has_updated(&run))
    };
    while running.is_running() && !is_long(trains) && start.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(10));
        trains = trains.or_else(|| run.join("config.toml").exists().then(Instant::now));
    }
    let is_long = running.is_running();
    if is_long {
        running.signal("INT");
    }
    running.wait(Duration::from_secs(45)).has_code(if is_long { &[0, 2, 130] } else { &[0, 2] })
}

/// Whether `progress.csv` has an update.
fn has_updated(run: &Path) -> bool {
    let progress = CsvTable::read(&run.join("progress.csv")).unwrap_or_default();
    progress.cells("train/n_updates").into_iter().flatten().any(|updates| updates > 0.0)
}
