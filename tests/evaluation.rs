//! Evaluation in training, and the resolved configuration of a run.

use crate::common::{file, playfield, refuses, stderr, succeeds};
use std::fs;
use std::path::Path;

/// Sections of each algorithm under which a seed determines the run.
const ALGORITHMS: [(&str, &str); 4] = [
    ("ppo", "num_threads = 1\nrollout_steps = 16\nminibatch_size = 10"),
    ("paac", "num_threads = 1\nlearning_rate.start = 1e-3"),
    ("a3c", "num_threads = 1\nlearning_rate.start = 1e-3"),
    (
        "dqn",
        "num_threads = 1\noverlap = false\nlearning_rate = 1e-2\nlearning_starts = 200\nbuffer_size = 1000\nbatch_size = 16",
    ),
];

fn config(algorithm: &str, section: &str, eval: &str) -> String {
    format!(
        "algorithm = '{algorithm}'\nsteps = 2000\n[env]\nid = 'CartPole'\nnum_envs = 2\nnum_threads = 1\n[network]\nhidden = [16]\n\
         [run]\nlog_seconds = 1000.0\n[eval]\n{eval}\n[{algorithm}]\n{section}\n"
    )
}

/// The values of `column` in `progress.csv`, with their steps.
fn column(run: &Path, column: &str) -> Vec<(u64, f64)> {
    let text = fs::read_to_string(run.join("progress.csv")).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let at = |name: &str| {
        header.iter().position(|tag| *tag == name).unwrap_or_else(|| panic!("no column {name}: {header:?}"))
    };
    let (step, value) = (at("time/total_timesteps"), at(column));
    lines.filter_map(|cells| Some((cells[step].parse::<f64>().unwrap() as u64, cells[value].parse().ok()?))).collect()
}

fn parameters(run: &Path) -> Vec<u8> {
    let mut checkpoints: Vec<_> = fs::read_dir(run.join("checkpoints")).unwrap().map(|e| e.unwrap().path()).collect();
    checkpoints.retain(|path| path.join("model.safetensors").exists());
    fs::read(checkpoints.iter().max().unwrap().join("model.safetensors")).unwrap()
}

/// The policy is evaluated every 500 steps, and the run is the same, bit for bit, as one that is not evaluated. The best checkpoint is
/// the one with the best evaluation.
#[test]
fn evaluation_in_training_leaves_training_unchanged() {
    for (algorithm, section) in ALGORITHMS {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path(), "plain.toml", &config(algorithm, section, "every_steps = 0"));
        file(dir.path(), "eval.toml", &config(algorithm, section, "every_steps = 500\nepisodes = 3"));
        for run in ["plain", "eval"] {
            succeeds(dir.path(), &["train", &format!("{run}.toml"), "--run-dir", run]);
        }
        let [plain, eval] = ["plain", "eval"].map(|run| dir.path().join(run));
        assert!(parameters(&plain) == parameters(&eval), "{algorithm}");
        let returns = column(&eval, "eval/mean_reward");
        let due: Vec<u64> = returns.iter().map(|(step, _)| step / 500).collect();
        match algorithm {
            // Its thread runs on until it sees that an evaluation is due.
            "a3c" => assert!(due.is_sorted() && due.first() == Some(&1) && due.last() == Some(&4), "{returns:?}"),
            _ => assert_eq!(due, [1, 2, 3, 4], "{algorithm}: {returns:?}"),
        }
        assert!(returns.iter().all(|(_, mean)| (1.0..=500.0).contains(mean)), "{returns:?}");
        let best = returns.iter().map(|(_, mean)| *mean).fold(0.0, f64::max);
        let manifests = fs::read_dir(eval.join("checkpoints")).unwrap().filter_map(|e| {
            let text = fs::read_to_string(e.unwrap().path().join("manifest.json")).ok()?;
            serde_json::from_str::<serde_json::Value>(&text).unwrap()["score"].as_f64()
        });
        let scores: Vec<f64> = manifests.collect();
        assert!(scores.contains(&best), "{algorithm}: the best of {returns:?} is not among the scores {scores:?}");
    }
}

/// A training that diverges in the background, while an evaluation is due, ends with its error.
#[test]
fn a_diverged_training_is_an_error_where_an_evaluation_is_due() {
    let dir = tempfile::tempdir().unwrap();
    let wild = "num_threads = 2\noverlap = true\nlearning_starts = 200\nbuffer_size = 1000\nlearning_rate = 1e30\noptimizer = { rule = 'sgd' }";
    let text = config("dqn", wild, "every_steps = 2\nepisodes = 1");
    file(dir.path(), "a.toml", &text.replace("[network]", "[network]\nactivation = 'relu'"));
    let output = playfield(dir.path(), &["train", "a.toml", "--run-dir", "run"]).output().unwrap();
    let said = stderr(&output);
    assert!(said.contains("error: training diverged") && !said.contains("panicked"), "{}: {said}", output.status);
}

/// An evaluation in training is that of the parameters of its step: `playfield eval` of the checkpoint has the same result.
#[test]
fn evaluation_in_training_equals_that_of_the_checkpoint() {
    let overlap =
        ALGORITHMS[3].1.replace("overlap = false", "overlap = true").replace("num_threads = 1", "num_threads = 2");
    let all = ALGORITHMS.iter().copied().chain([("dqn", &*overlap)]);
    for ((algorithm, section), precision) in all.flat_map(|a| ["fp32", "bf16"].map(|p| (a, p))) {
        let dir = tempfile::tempdir().unwrap();
        let text = config(algorithm, section, "every_steps = 2000\nepisodes = 20\nseed = 3\ndeterministic = false");
        file(dir.path(), "a.toml", &text.replace("[network]", &format!("[network]\nprecision = '{precision}'")));
        succeeds(dir.path(), &["train", "a.toml", "--run-dir", "run"]);
        let in_training = column(&dir.path().join("run"), "eval/mean_reward");
        let out = succeeds(dir.path(), &["eval", "run", "--episodes", "20", "--seed", "3", "--json"]);
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        let mean = report["mean_return"].as_f64().unwrap();
        let [(_, found)] = in_training[..] else { panic!("{algorithm}: {in_training:?}") };
        assert!((found - mean).abs() < 1e-4 * mean, "{algorithm}, {precision}: {found} in training, {mean} afterwards");
    }
}

/// The run folder holds the values that were used: no automatic threads, horizons, devices or feature extractors.
#[test]
fn the_configuration_of_a_run_is_resolved() {
    for (algorithm, section) in ALGORITHMS {
        let dir = tempfile::tempdir().unwrap();
        let automatic = section.replace("num_threads = 1\n", "");
        file(dir.path(), "a.toml", &config(algorithm, &automatic, "every_steps = 0"));
        succeeds(dir.path(), &["train", "a.toml", "--run-dir", "run"]);
        let text = fs::read_to_string(dir.path().join("run/config.toml")).unwrap();
        let run: toml::Table = text.parse().unwrap();
        assert_eq!((run["device"].as_str(), run["network"]["torso"].as_str()), (Some("cpu"), Some("mlp")), "{text}");
        assert_eq!(run["network"]["precision"].as_str(), Some("fp32"));
        assert!(run[algorithm]["num_threads"].as_integer().unwrap() > 0, "{text}");
        let schedule = if algorithm == "dqn" { "beta" } else { "learning_rate" };
        let horizon = run[algorithm][schedule]["steps"].as_integer().unwrap();
        assert_eq!(horizon, if algorithm == "dqn" { 1800 } else { 2000 }, "{text}");
        // A run that is extended extends the horizons that were the run's.
        succeeds(dir.path(), &["train", "--resume", "run", "--steps", "2500"]);
        let run: toml::Table = fs::read_to_string(dir.path().join("run/config.toml")).unwrap().parse().unwrap();
        let horizon = run[algorithm][schedule]["steps"].as_integer();
        assert_eq!(horizon, Some(if algorithm == "dqn" { 2300 } else { 2500 }));
    }
}

/// Evaluation may differ from training in keys of `[env]`, which are checked as any others.
#[test]
fn the_environments_of_evaluation_may_differ() {
    let dir = tempfile::tempdir().unwrap();
    let (algorithm, section) = ALGORITHMS[0];
    let eval = "every_steps = 1000\nepisodes = 2\nenv = { max_episode_steps = 7 }";
    file(dir.path(), "short.toml", &config(algorithm, section, eval));
    succeeds(dir.path(), &["train", "short.toml", "--run-dir", "run"]);
    let lengths = column(&dir.path().join("run"), "eval/mean_ep_length");
    assert!(!lengths.is_empty() && lengths.iter().all(|(_, length)| *length <= 7.0), "{lengths:?}");
    for (set, expected) in [
        ("eval.env.max_steps=7", "unknown field `max_steps`"),
        ("eval.episodes=0", "`episodes` must be at least 1"),
        ("eval.every=7", "unknown key"),
    ] {
        let said = refuses(dir.path(), &["train", "short.toml", "--set", set]);
        assert!(said.contains(expected), "{set}: {said}");
    }
}
