//! A run on disk: what it leaves, how it stops, how it goes on.

mod common;

use common::{CARTPOLE, checkpoints, file, playfield, refuses, stderr, succeeds};
use playfield::core::checkpoint::read;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// The rows of a CSV file of a run, without the columns that are times.
fn rows(run: &Path, name: &str) -> Vec<String> {
    let text = fs::read_to_string(run.join(name)).unwrap();
    let header: Vec<_> = text.lines().next().unwrap().split(',').collect();
    let timed = |column: &str| column == "time" || (column.starts_with("time/") && column != "time/total_timesteps");
    let untimed = |line: &str| {
        let cells = line.split(',').zip(&header).filter(|(_, column)| !timed(column));
        cells.map(|(cell, _)| cell).collect::<Vec<_>>().join(",")
    };
    text.lines().map(untimed).collect()
}

#[test]
fn a_run_leaves_what_it_promises() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "pole.toml", CARTPOLE);
    let said = succeeds(dir, &["train", "pole.toml"]);
    let run = dir.join("runs/paac-pole-1");
    for part in ["4000 of 4000", "steps/s", "mean of the last", "runs/paac-pole-1", "playfield eval runs/paac-pole-1"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let config: toml::Table = fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap();
    assert_eq!(config["paac"]["t_max"].as_integer(), Some(5), "defaults are written out");
    assert!(fs::read_to_string(run.join("command.txt")).unwrap().contains("train pole.toml"));
    assert!(fs::read_dir(&run).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().contains("tfevents")));

    let episodes = fs::read_to_string(run.join("episodes.csv")).unwrap();
    assert!(episodes.starts_with("step,time,return,length\n"));
    for line in episodes.lines().skip(1) {
        let cells: Vec<f64> = line.split(',').map(|c| c.parse().unwrap()).collect();
        assert_eq!(cells[2], cells[3], "an episode of CartPole returns as much as it is long: {line}");
    }
    let lengths = episodes.lines().skip(1).map(|l| l.rsplit(',').next().unwrap().parse::<u64>().unwrap());
    let total: u64 = lengths.sum();
    assert!(
        (4000 - 4 * 500..=4000).contains(&total),
        "finished episodes fill the run but for the running ones: {total}"
    );

    let progress = fs::read_to_string(run.join("progress.csv")).unwrap();
    assert!(progress.starts_with("time/total_timesteps,time/time_elapsed,"), "{progress}");
    assert!(progress.lines().last().unwrap().starts_with("4000"), "a row at the end: {progress}");

    succeeds(dir, &["train", "pole.toml"]);
    assert!(dir.join("runs/paac-pole-2/config.toml").exists(), "a second run gets a folder of its own");

    let json = succeeds(dir, &["eval", "runs/paac-pole-1", "--episodes", "5", "--deterministic", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    let mut keys: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort();
    let expected = ["episodes", "max_return", "mean_length", "mean_return", "min_return", "returns", "std_return"];
    assert_eq!(keys, expected);
    assert_eq!(report["returns"].as_array().unwrap().len(), 5);
    let again = succeeds(dir, &["eval", "runs/paac-pole-1", "--episodes", "5", "--deterministic", "--json"]);
    assert_eq!(json, again, "the same seed plays the same episodes");
}

/// The same seed twice: the same weights, bit for bit, and the same episodes; another seed: others.
#[test]
fn the_seed_decides_everything() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    for (run, seed) in [("one", "7"), ("same", "7"), ("other", "8")] {
        succeeds(dir, &["train", "a.toml", "--seed", seed, "--run-dir", run]);
    }
    let weights = |run: &str| read(checkpoints(&dir.join(run)).last().unwrap()).unwrap().params;
    assert_eq!(weights("one"), weights("same"));
    assert_ne!(weights("one"), weights("other"));
    assert_eq!(rows(&dir.join("one"), "episodes.csv"), rows(&dir.join("same"), "episodes.csv"));
}

/// A run that is stopped and resumed equals one that never stopped, bit for bit, where environments save their state:
/// networks, optimisers, random streams, replay memories and priorities.
#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    for env in [
        "id = 'CartPole'",
        "id = 'Pendulum'\nnormalise_obs = true\nnormalise_reward = true",
        "id = 'Catch'\nhistory = 3",
    ] {
        // The schedule must not depend on where a session ends.
        resumed_equals_whole(&(CARTPOLE.replace("id = 'CartPole'", env) + "anneal_steps = 4000\n"));
    }
    for (env, network, method) in [
        ("CartPole", "lstm = 8", "actor_critic"),
        ("Pendulum", "", "actor_critic"),
        ("Catch", "", "n_step_q"),
        ("CartPole", "", "one_step_sarsa"),
    ] {
        resumed_equals_whole(&format!(
            "algorithm = 'a3c'\nsteps = 4000\n[env]\nid = '{env}'\nnum_envs = 2\n[network]\nhidden = [16]\n{network}\n[a3c]\nthreads = 1\nmethod = '{method}'\nanneal_steps = 4000\ntarget_every_steps = 300\nexploration.anneal_steps = 2000\n"
        ));
    }
    for (env, settings) in [
        ("id = 'CartPole'", "prioritized = true\nbeta_steps = 4000\n"),
        (
            "id = 'Catch'\nhistory = 3",
            "replay_compression = true\nn_step = 3\nnoisy_sigma = 0.5\nprioritized = true\nbeta_steps = 4000\npriority.by = 'rank'\n",
        ),
    ] {
        let text = format!(
            "algorithm = 'dqn'\nsteps = 4000\n[env]\nnum_envs = 2\n{env}\n[network]\nhidden = [16]\n[dqn]\nthreads = 1\noverlap = false\nlearning_starts = 200\nreplay_capacity = 1000\ntarget_every_steps = 50\n{settings}"
        );
        resumed_equals_whole(&text);
    }
}

/// So it does with batch norm, whose running statistics are no parameters: of the network, and of its target.
#[test]
fn a_resumed_run_equals_an_uninterrupted_one_with_batch_norm() {
    for (algorithm, settings) in [
        ("paac", "anneal_steps = 4000"),
        ("a3c", "anneal_steps = 4000"),
        ("a3c", "anneal_steps = 4000\nmethod = 'n_step_q'\ntarget_every_steps = 300"),
        ("dqn", "overlap = false\nlearning_starts = 200\nreplay_capacity = 1000\ntarget_every_steps = 50"),
    ] {
        resumed_equals_whole(&format!(
            "algorithm = '{algorithm}'\nsteps = 4000\n[env]\nid = 'CartPole'\nnum_envs = 2\n[network]\nhidden = [16, 16]\nnorm = 'batch'\n[{algorithm}]\nthreads = 1\n{settings}\n"
        ));
    }
}

fn resumed_equals_whole(text: &str) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", text);
    succeeds(dir, &["train", "a.toml", "--run-dir", "whole"]);
    succeeds(dir, &["train", "a.toml", "--run-dir", "parts", "--steps", "1500"]);
    succeeds(dir, &["train", "--resume", "parts", "--steps", "2700"]);
    succeeds(dir, &["train", "--resume", "parts", "--steps", "4000"]);
    let [whole, parts] = ["whole", "parts"].map(|run| read(checkpoints(&dir.join(run)).last().unwrap()).unwrap());
    assert_eq!(whole.step, parts.step, "{text}");
    assert_eq!(whole.params, parts.params, "{text}");
    assert_eq!(whole.arrays, parts.arrays, "{text}");
    let (mut a, mut b) = (whole.state, parts.state);
    assert!(a.remove("run.elapsed_seconds") != b.remove("run.elapsed_seconds"));
    // Frames lie in as many files as there were saves.
    assert_eq!(a.remove("replay.segments").is_some(), b.remove("replay.segments").is_some());
    assert_eq!(a, b, "{text}");
    assert_eq!(rows(&dir.join("whole"), "episodes.csv"), rows(&dir.join("parts"), "episodes.csv"), "{text}");
    let commands = fs::read_to_string(dir.join("parts/command.txt")).unwrap();
    assert_eq!(commands.lines().count(), 3);
}

/// A run that was killed outright goes on from its checkpoint; its files are cut back to there first.
#[test]
fn a_killed_run_is_cut_back_to_its_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    succeeds(dir, &["train", "a.toml", "--run-dir", "run", "--steps", "2000"]);
    let run = dir.join("run");
    let (progress, episodes) = (rows(&run, "progress.csv"), rows(&run, "episodes.csv"));
    // As if it had been killed at step 3000, in the middle of a line.
    let append = |name: &str, text: &str| {
        let whole = fs::read_to_string(run.join(name)).unwrap();
        fs::write(run.join(name), whole + text).unwrap();
    };
    let header = fs::read_to_string(run.join("progress.csv")).unwrap();
    let more = header.lines().next().unwrap().matches(',').count() - 1;
    append("progress.csv", &format!("3000,9.0{}\n30", ",".repeat(more)));
    append("episodes.csv", "2600,1.5,11,11\n3000,1.6,1");
    succeeds(dir, &["train", "--resume", "run", "--steps", "2400"]);
    let (after_progress, after_episodes) = (rows(&run, "progress.csv"), rows(&run, "episodes.csv"));
    assert_eq!(after_progress[..progress.len()], progress);
    assert_eq!(after_episodes[..episodes.len()], episodes);
    let steps: Vec<u64> = after_episodes[1..].iter().map(|l| l.split(',').next().unwrap().parse().unwrap()).collect();
    assert!(steps.is_sorted() && steps.last().is_some_and(|s| *s <= 2400), "{steps:?}");
}

struct Running(Child);

impl Running {
    /// A run that would take for ever, once it trains.
    fn start(dir: &Path) -> Self {
        file(dir, "a.toml", CARTPOLE);
        let args = ["train", "a.toml", "--run-dir", "run", "--steps", "1000M"];
        let child = playfield(dir, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while !dir.join("run/progress.csv").exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(500));
        Self(child)
    }

    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

#[test]
fn a_signal_saves_and_says_how_to_go_on() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(dir.path());
        running.signal(signal);
        let output = running.0.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("playfield train --resume run"), "{said}");
        let saved = read(checkpoints(&dir.path().join("run")).last().unwrap()).unwrap();
        assert!(said.contains(&format!("{} of 1000000000", saved.step)), "{said}");
        let more = (saved.step + 1000).to_string();
        succeeds(dir.path(), &["train", "--resume", "run", "--steps", &more]);
    }
}

/// The second signal ends the program at once: here while the first one's update can never end, the process being stopped.
#[test]
fn a_second_signal_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path());
    // Stopped, it finds both signals waiting when it continues.
    running.signal("STOP");
    running.signal("INT");
    running.signal("TERM");
    running.signal("CONT");
    let output = running.0.wait_with_output().unwrap();
    assert!([Some(130), Some(143)].contains(&output.status.code()), "{:?}", output.status);
    assert!(checkpoints(&dir.path().join("run")).is_empty(), "nothing was saved");
}

/// A film of an Atari agent, in colours and twice its size; of an environment without pictures, a sentence.
#[test]
fn an_agent_is_filmed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "pole.toml", CARTPOLE);
    succeeds(dir, &["train", "pole.toml", "--run-dir", "pole"]);
    let said = refuses(dir, &["watch", "pole"]);
    assert!(said.contains("CartPole shows no pictures of itself"), "{said}");
    assert!(!dir.join("pole/videos").exists());
    if cfg!(feature = "python") {
        let pong =
            "algorithm = 'paac'\nsteps = 60\n[env]\nid = 'ALE/Pong-v5'\nnum_envs = 2\n[network]\ntorso = 'nips'\n";
        file(dir, "pong.toml", pong);
        let said = succeeds(dir, &["train", "pong.toml", "--run-dir", "pong", "--gif"]);
        assert!(said.contains("pong/videos/000000000060.gif"), "{said}");
        succeeds(dir, &["watch", "pong", "--gif", "short.gif", "--seconds", "2"]);
        let film = fs::read(dir.join("short.gif")).unwrap();
        assert_eq!(&film[..10], b"GIF89a\x40\x01\xa4\x01", "320 × 420");
        assert!(!dir.join("short.gif.part").exists());
    }
}
