//! Checkpoints whose checksums are valid and whose content is not: every number of `state.json` and every array of
//! `state.safetensors` has other values, types and sizes. Training resumes in this process: a panic in any thread is a failure.

use crate::campaign::{Class, Finding, Group, Size, copy, random};
use playfield::core::{Array, Checkpoints, Configured, EnvConfig, EnvFactory, Run, Snapshot, algorithm::Entry};
use playfield::wrappers::Factory;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// Small runs that together have every kind of state: the end of their `[env]` section, and other sections.
const RUNS: [(&str, &str); 11] = [
    (
        "ppo",
        "[env]\nid = 'CartPole'\nnormalize_obs = true\nnormalize_reward = true\n[ppo]\nrollout_steps = 8\nminibatch_size = 8\nepochs = 1\nlearning_rate_target_kl = 0.01\n",
    ),
    ("ppo", "[env]\nid = 'Recall'\n[network]\nlstm = 4\n[ppo]\nrollout_steps = 8\nminibatch_size = 8\nepochs = 1\n"),
    ("ppo", "[env]\nid = 'Pendulum'\n[ppo]\nrollout_steps = 8\nminibatch_size = 8\nepochs = 1\n"),
    ("paac", "[env]\nid = 'TicTacToe'\nnormalize_obs = true\n[network]\nnorm = 'batch'\n"),
    ("paac", "[env]\nid = 'Acrobot'\nframe_stack = 2\nmax_episode_steps = 7\n"),
    ("paac", "[env]\nid = 'IdentityMultiDiscrete'\nrepeat_action_probability = 0.5\n"),
    ("a3c", "[env]\nid = 'MountainCar'\n[a3c]\nnum_threads = 2\nshared_statistics = false\n"),
    ("a3c", "[env]\nid = 'Catch'\n[a3c]\nnum_threads = 1\nmethod = 'one_step_sarsa'\n"),
    ("dqn", "[env]\nid = 'CartPole'\nnormalize_obs = true\n[dqn]\nprioritized = true\nn_step = 2\noverlap = false\n"),
    (
        "dqn",
        "[env]\nid = 'Catch'\nframe_stack = 2\n[dqn]\nprioritized = true\npriority.by = 'rank'\nnoisy_sigma = 0.5\nbuffer_compression = true\n",
    ),
    ("dqn", "[env]\nid = 'TicTacToe'\n[dqn]\noverlap = false\ndistribution = 'categorical'\natoms = 3\n"),
];

/// Steps of the saved run, and of the resumed one.
const STEPS: [u64; 2] = [120, 160];

/// A resumed run that takes longer does not end.
const LIMIT: Duration = Duration::from_secs(60);

/// The row of the table.
pub fn class(size: Size) -> Vec<Class> {
    let groups = RUNS.iter().enumerate().map(move |(number, (algorithm, text))| {
        Group::new(format!("{algorithm} {text:?}"), move |folder, tally| {
            let text = text.to_string();
            let folder = folder.to_path_buf();
            let (sender, findings) = mpsc::channel();
            let algorithm = *algorithm;
            let thread = std::thread::spawn(move || {
                let run = Experiment::new(algorithm, &text);
                run.train(&folder.join("saved"), None, STEPS[0]).unwrap().unwrap();
                let snapshot = Checkpoints::new(folder.join("saved"), 1).latest().unwrap().snapshot;
                let all = mutations(&snapshot, number);
                let every = if size == Size::Full { 1 } else { 29 };
                for (name, mutated) in all.into_iter().skip(number).step_by(every) {
                    if sender.send((name, None)).is_err() {
                        return;
                    }
                    let _ = std::fs::remove_dir_all(folder.join("run"));
                    let (frames, copied) = (folder.join("saved/replay"), folder.join("run/replay"));
                    if frames.exists() {
                        copy(&frames, &copied);
                    }
                    let finding = run.resume(&folder.join("run"), mutated);
                    let _ = sender.send((String::new(), Some(finding)));
                }
            });
            let mut current = String::new();
            loop {
                match findings.recv_timeout(LIMIT) {
                    Ok((name, None)) => current = name,
                    Ok((_, Some(finding))) => tally.add(&*current, finding),
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                    Err(mpsc::RecvTimeoutError::Timeout) => return tally.add(&*current, Err("it does not end".into())),
                }
            }
            thread.join().expect("no panic outside of a try");
        })
    });
    vec![Class { name: "a checkpoint with valid checksums is hostile", groups: groups.collect() }]
}

struct Experiment {
    factory: Factory,
    configured: Box<dyn Configured>,
}

impl Experiment {
    fn new(algorithm: &str, text: &str) -> Self {
        let mut table: toml::Table = text.parse().unwrap();
        let section = |table: &mut toml::Table, name: &str| -> toml::Table {
            table.remove(name).map(|value| value.try_into().unwrap()).unwrap_or_default()
        };
        let mut env = section(&mut table, "env");
        env.insert("num_envs".into(), 2.into());
        let mut network = section(&mut table, "network");
        network.insert("hidden".into(), vec![toml::Value::Integer(4)].into());
        let mut own = section(&mut table, algorithm);
        if algorithm == "dqn" {
            let small = toml::toml! { buffer_size = 60 batch_size = 4 learning_starts = 20 num_threads = 1 };
            own.extend(small);
        }
        table.insert("network".into(), network.into());
        table.insert(algorithm.into(), own.into());
        let id = env["id"].as_str().unwrap().to_string();
        let (_, _, source) = playfield::classic::sources().into_iter().find(|(name, ..)| *name == id).unwrap();
        let env = EnvConfig::resolve(&env, source.defaults()).unwrap();
        let factory = Factory::new(source, env).unwrap();
        let mut configured = entry(algorithm).parse(&table).unwrap();
        configured.resolve(STEPS[1], &factory).unwrap();
        Self { factory, configured }
    }

    /// The result of training; `Err` with its message where it panicked.
    fn train(
        &self,
        folder: &Path,
        snapshot: Option<Snapshot>,
        steps: u64,
    ) -> Result<playfield::core::Result<()>, String> {
        let trained = catch_unwind(AssertUnwindSafe(|| {
            let mut run = Run::new(1, steps).with_checkpoints(Checkpoints::new(folder, 1), Default::default());
            if let Some(snapshot) = snapshot {
                run = run.with_resume(snapshot)?;
            }
            let factory: &dyn EnvFactory = &self.factory;
            self.configured.train(factory, &mut run).map(drop)
        }));
        trained.map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_string()
        })
    }

    fn resume(&self, folder: &Path, snapshot: Snapshot) -> Finding {
        match self.train(folder, Some(snapshot), STEPS[1]) {
            Err(panic) => Err(format!("a panic: {panic}")),
            Ok(Err(error)) if error.to_string().contains("panicked") => Err(error.to_string()),
            Ok(Err(error)) if error.to_string().lines().count() != 1 => Err(format!("several lines: {error}")),
            Ok(_) => Ok(()),
        }
    }
}

fn entry(algorithm: &str) -> Entry {
    match algorithm {
        "ppo" => Entry::of::<playfield::ppo::Ppo>(),
        "paac" => Entry::of::<playfield::paac::Paac>(),
        "a3c" => Entry::of::<playfield::a3c::A3c>(),
        _ => Entry::of::<playfield::dqn::Dqn>(),
    }
}

/// Each change of one value or array, with a name.
fn mutations(snapshot: &Snapshot, seed: usize) -> Vec<(String, Snapshot)> {
    let values = [
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(-1e300),
        json!("../x"),
        json!([]),
        json!({}),
    ];
    let mut all = Vec::new();
    let mut paths = Vec::new();
    leaves(&Value::Object(snapshot.state.clone()), &mut Vec::new(), &mut paths, seed);
    for path in &paths {
        for value in &values {
            let mut mutated = snapshot.clone();
            let mut state = Value::Object(std::mem::take(&mut mutated.state));
            *at(&mut state, path) = value.clone();
            mutated.state = state.as_object().unwrap().clone();
            all.push((format!("{} = {value}", path.join("/")), mutated));
        }
    }
    for key in snapshot.state.keys() {
        let mut mutated = snapshot.clone();
        mutated.state.remove(key);
        all.push((format!("{key} is removed"), mutated));
    }
    for (key, array) in snapshot.arrays.iter().chain(&snapshot.params) {
        for (what, changed) in arrays(array) {
            let mut mutated = snapshot.clone();
            let arrays = if mutated.arrays.contains_key(key) { &mut mutated.arrays } else { &mut mutated.params };
            match changed {
                Some(changed) => _ = arrays.insert(key.clone(), changed),
                None => _ = arrays.remove(key),
            }
            all.push((format!("{key} {what}"), mutated));
        }
    }
    all
}

/// The paths of the values in `value`; of a long list, two elements.
fn leaves(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>, seed: usize) {
    let mut descend = |key: String, value: &Value| {
        path.push(key);
        leaves(value, path, found, seed);
        path.pop();
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| descend(key.clone(), value)),
        Value::Array(list) if list.len() > 4 => {
            for i in [random("element", seed, list.len()), list.len() - 1] {
                descend(i.to_string(), &list[i]);
            }
        }
        Value::Array(list) => list.iter().enumerate().for_each(|(i, value)| descend(i.to_string(), value)),
        _ => {}
    }
    if !path.is_empty() {
        found.push(path.clone());
    }
}

fn at<'a>(value: &'a mut Value, path: &[String]) -> &'a mut Value {
    path.iter().fold(value, |value, key| match value {
        Value::Array(list) => &mut list[key.parse::<usize>().unwrap()],
        value => &mut value[key.as_str()],
    })
}

/// Other arrays in place of `array`; `None`: none.
fn arrays(array: &Array) -> Vec<(&'static str, Option<Array>)> {
    let filled = |byte: u8| Array { data: vec![byte; array.data.len()], ..array.clone() };
    let width = array.data.len() / array.shape.iter().product::<usize>().max(1);
    let resized = |n: usize| {
        let mut data = array.data.clone();
        data.resize(n * width, 0);
        Array { shape: vec![n], data, ..array.clone() }
    };
    let n = array.shape.iter().product::<usize>();
    vec![
        ("is removed", None),
        ("is empty", Some(resized(0))),
        ("is half as long", Some(resized(n / 2))),
        ("is twice as long", Some(resized(2 * n))),
        ("has another shape", Some(Array { shape: vec![1, n], ..array.clone() })),
        ("has other elements", Some(Array::new(&[n], &vec![0_u8; n]))),
        ("has elements of the bytes ff", Some(filled(0xff))),
        ("has elements of the bytes 7f", Some(filled(0x7f))),
        ("has elements of the bytes 80", Some(filled(0x80))),
        ("has elements of the bytes 01", Some(filled(0x01))),
    ]
}
