//! Each setting of each configuration in `configs/` has extreme values, under a limit of memory.

use crate::campaign::{Class, Finding, Group, Running, Size};
use crate::common::file;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use toml::{Table, Value};

/// The address space of a process, in KiB: libtorch maps some gigabytes.
const MEMORY: u64 = 16 << 20;

/// A program that trains for longer is interrupted, and must then stop.
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
    let groups = configs.map(move |(path, table, keys)| {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        Group::new(name.clone(), move |folder, tally| {
            let tries = keys.iter().flat_map(|key| values().map(|value| (key, value)));
            let stride = if size == Size::Full { 1 } else { 29 };
            for (_, (key, value)) in tries.enumerate().filter(|(i, _)| (i + name.len()) % stride == 0) {
                let mut table = table.clone();
                set(&mut table, key, value.clone());
                tally.add(format!("{} = {value}", key.join(".")), train(folder, &table));
            }
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
    let table = sections.iter().fold(table, |table, section| table[section].as_table_mut().unwrap());
    table.insert(last.clone(), value);
}

/// Trains for a few steps, or until it has shown that it can be interrupted.
fn train(folder: &Path, table: &Table) -> Finding {
    file(folder, "a.toml", &table.to_string());
    let _ = std::fs::remove_dir_all(folder.join("run"));
    let mut arguments = String::from("train a.toml --run-dir run");
    let is_short = |steps: &Value| steps.as_integer().is_some_and(|steps| steps > 100);
    // The setting under test may be `steps`.
    if table.get("steps").is_some_and(is_short) && table["steps"].as_integer() < Some(100_000_000) {
        arguments += " --steps 64";
    }
    let mut bash = Command::new("env");
    let line = format!("ulimit -v {MEMORY}; exec {} {arguments}", env!("CARGO_BIN_EXE_playfield"));
    bash.arg("--default-signal=INT").args(["bash", "-c", &line]).current_dir(folder);
    let (mut running, start) = (Running::start(folder, bash), Instant::now());
    while running.is_running() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    let is_long = running.is_running();
    if is_long {
        running.signal("INT");
    }
    running.wait(Duration::from_secs(45)).has_code(if is_long { &[0, 2, 130] } else { &[0, 2] })
}
