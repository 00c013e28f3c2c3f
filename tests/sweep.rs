//! Random search from the command line.

use crate::common::{file, playfield, refuses, succeeds};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const CONFIG: &str =
    "algorithm = 'paac'\nsteps = 6000\n[env]\nid = 'Identity'\nnum_envs = 4\n[paac]\nrollout_steps = 2\n";

const SWEEP: [&str; 5] = ["sweep", "a.toml", "--param", "learning_rate=1e-4..1e-1:log", "--param"];

/// Name, status and values of every trial.
fn trials(dir: &Path) -> Vec<(String, String, Vec<String>)> {
    let text = std::fs::read_to_string(dir.join("trials.csv")).unwrap();
    let row = |line: &str| {
        let cells: Vec<String> = line.split(',').map(String::from).collect();
        (cells[0].clone(), cells[1].clone(), cells[4..].to_vec())
    };
    text.lines().skip(1).map(row).collect()
}

#[test]
fn the_worst_trials_are_stopped_and_the_rest_trained() {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path(), "a.toml", CONFIG);
    let said = succeeds(dir.path(), &[&SWEEP[..], &["rollout_steps=1..8", "--trials", "6", "--steps", "60k"]].concat());
    let sweep = dir.path().join("sweeps/paac-identity-1");
    let trials = trials(&sweep);
    assert_eq!(trials.len(), 6);
    let count = |status| trials.iter().filter(|t| t.1 == status).count();
    assert!(count("done") >= 1 && count("done") + count("stopped") == 6, "{trials:?}");
    for (name, _, values) in &trials {
        let run = std::fs::read_to_string(sweep.join(name).join("config.toml")).unwrap();
        let run: toml::Table = run.parse().unwrap();
        assert_eq!(run["paac"]["learning_rate"].as_float().unwrap(), values[0].parse::<f64>().unwrap());
        assert_eq!(run["paac"]["rollout_steps"].as_integer().unwrap(), values[1].parse::<i64>().unwrap());
        let (rate, rollout_steps) =
            (run["paac"]["learning_rate"].as_float().unwrap(), run["paac"]["rollout_steps"].as_integer());
        assert!((1e-4..=1e-1).contains(&rate) && (1..=8).contains(&rollout_steps.unwrap()));
    }
    assert!(said.contains("best       sweeps/paac-identity-1/trial-"), "{said}");
    assert!(std::fs::read(sweep.join("sweep.png")).unwrap().starts_with(b"\x89PNG"));
    let best = said.lines().find_map(|l| l.strip_prefix("best       ")).unwrap();
    assert!(succeeds(dir.path(), &["eval", best, "--episodes", "2", "--json"]).contains("mean_return"));
}

/// Ctrl-C stops and saves the trials; the resumed sweep continues them, and adds further ones.
#[test]
fn an_interrupted_sweep_resumes() {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path(), "a.toml", CONFIG);
    let args =
        [&SWEEP[..], &["rollout_steps=1..8", "--trials", "3", "--steps", "60k", "--jobs", "1", "--dir", "s"]].concat();
    let mut child = playfield(dir.path(), &args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (sweep, start) = (dir.path().join("s"), Instant::now());
    while !sweep.join("trial-000/progress.csv").exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "no trial started");
        std::thread::sleep(Duration::from_millis(50));
    }
    // The id is valid: the child was not waited for yet.
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let before = trials(&sweep);
    assert!(before.iter().any(|t| t.1 == "open"), "{before:?}");
    assert!(sweep.join("trial-000/checkpoints").is_dir(), "unfinished trials are saved");

    succeeds(dir.path(), &["sweep", "--resume", "s", "--trials", "4"]);
    let after = trials(&sweep);
    assert_eq!(after.len(), 4);
    assert!(after.iter().all(|t| t.1 == "done" || t.1 == "stopped"), "{after:?}");
    assert!(before.iter().zip(&after).all(|(b, a)| b.2 == a.2), "the same values: {before:?}, {after:?}");
    let said = refuses(dir.path(), &args);
    assert!(said.contains("already contains a sweep") && said.contains("--resume s"), "{said}");
}

/// A sweep without a best trial fails with the reason.
#[test]
fn a_sweep_without_a_best_trial_fails() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "broken.toml", &CONFIG.replace("[paac]", "[network]\ntorso = 'nature'\n[paac]"));
    let args = ["sweep", "broken.toml", "--param", "learning_rate=1e-4..1e-3", "--trials", "2"];
    let said = refuses(dir, &args);
    assert!(said.contains("2 of 2 trials failed") && said.contains("torso"), "{said}");

    let long = CONFIG.replace("'Identity'", "'Pendulum'").replace("6000", "400");
    file(dir, "long.toml", &long);
    let args = ["sweep", "long.toml", "--param", "learning_rate=1e-4..1e-3", "--trials", "2"];
    let output = playfield(dir, &args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("no episode ended in any of the 2 trials"), "{said}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("best"));
}

/// The processes whose command line names `folder`.
#[cfg(target_os = "linux")]
fn processes(folder: &Path) -> Vec<String> {
    let name = folder.display().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.map(|e| e.file_name().to_string_lossy().into_owned()).filter(|pid| pid.parse::<u32>().is_ok());
    let line = |pid: &str| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.filter(|pid| String::from_utf8_lossy(&line(pid)).contains(&name)).collect()
}

/// Trials run on the cores of the sweep, and end with it even if it is killed; a resumed sweep uses their checkpoints.
#[cfg(target_os = "linux")]
#[test]
fn trials_use_the_sweeps_cores_and_end_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CONFIG);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = |status: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap();
        line.trim().to_string()
    };
    // The last core that this test may use.
    let core = allowed(&status).rsplit([',', '-']).next().unwrap().to_string();
    let args = ["sweep", "a.toml", "--param", "learning_rate=1e-4..1e-1:log", "--trials", "3", "--jobs", "2"];
    let mut command = std::process::Command::new("taskset");
    command.args(["-c", &core, env!("CARGO_BIN_EXE_playfield")]).args(args).args(["--steps", "100M", "--dir", "s"]);
    command.current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
    let mut sweep = command.spawn().unwrap();
    let (folder, start) = (dir.join("s"), Instant::now());
    let trials = || processes(&folder.join("trial-"));
    let trains = |trial: &str| {
        let episodes = std::fs::read_to_string(folder.join(trial).join("episodes.csv")).unwrap_or_default();
        episodes.lines().count() > 1
    };
    while !trains("trial-000") || !trains("trial-001") {
        assert!(start.elapsed() < Duration::from_secs(60), "no trials began");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(trials().len(), 2);
    for pid in trials() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert_eq!(allowed(&status), core);
    }
    sweep.kill().unwrap();
    sweep.wait().unwrap();
    let start = Instant::now();
    while !trials().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(30), "trials still run without their sweep: {:?}", trials());
        std::thread::sleep(Duration::from_millis(50));
    }
    for trial in ["trial-000", "trial-001"] {
        assert!(!crate::common::checkpoints(&folder.join(trial)).is_empty(), "unfinished trials are saved");
    }
}

#[test]
fn invalid_search_spaces_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path(), "a.toml", CONFIG);
    for (param, expected) in [
        ("learning_rat=0..1", "did you mean 'learning_rate'?"),
        ("gamma=1..0.9", "1..0.9: the first bound must be less"),
        ("gamma=0.5..1.5", "`gamma` = 1.5 must lie between 0 and 1"),
        ("learning_rate=0..1:log", "greater than 0"),
        ("rollout_steps=1.5..3", "whole number"),
        ("torso=0..1", "is not a number"),
        ("gamma", "KEY=LOW..HIGH"),
    ] {
        let said = refuses(dir.path(), &["sweep", "a.toml", "--param", param]);
        assert!(said.contains(expected), "{param}: {said}");
    }
    assert!(!dir.path().join("sweeps").exists(), "nothing was created");
    refuses(dir.path(), &["sweep", "--resume", "nowhere"]);
}
