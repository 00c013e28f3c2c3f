//! Run folders: files, interruption, resuming.

use crate::common::{CARTPOLE, checkpoints, file, playfield, refuses, stderr, succeeds};
use playfield::core::Checkpoints;
use playfield::core::checkpoint::read;
use playfield::core::text::thousands;
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

/// An environment without images: refused before anything is trained, and no hint that fails.
#[test]
fn a_video_of_an_environment_that_does_not_render_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", &CARTPOLE.replace("CartPole", "Recall"));
    let eval = ["train", "a.toml", "--set", "eval.every_steps=1000", "--set", "eval.video=true"];
    for args in [&["train", "a.toml", "--gif"][..], &eval] {
        let said = refuses(dir, args);
        assert!(said.contains("Recall does not support rendering"), "{said}");
        assert_eq!(fs::read_dir(dir.join("runs")).unwrap().count(), 0, "nothing remains");
    }
    let said = succeeds(dir, &["train", "a.toml", "--run-dir", "run"]);
    assert!(!said.contains("watch") && said.contains("playfield board run\n"), "{said}");
    assert_eq!(refuses(dir, &["watch", "run"]), "error: Recall does not support rendering\n");
    assert!(!dir.join("run/videos").exists());
}

/// Rows of runs with different seeds are at the same steps, and stderr shows the network and a table that fits a terminal.
#[test]
fn metrics_are_written_at_equal_steps() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", &format!("{CARTPOLE}[run]\nlog_seconds = inf\n"));
    let steps = |run: &str| -> Vec<String> {
        let cells = rows(&dir.join(run), "progress.csv").into_iter().skip(1);
        cells.map(|row| row.split(',').next().unwrap().to_string()).collect()
    };
    let args = ["train", "a.toml", "--run-dir", "one", "--seed", "1"];
    let output = playfield(dir, &args).output().unwrap();
    let said = stderr(&output);
    succeeds(dir, &["train", "a.toml", "--run-dir", "two", "--seed", "2"]);
    // 4000 steps / 200: every rollout of 20 steps.
    assert_eq!(steps("one"), (1..=200).map(|i| (20 * i).to_string()).collect::<Vec<_>>());
    assert_eq!(steps("one"), steps("two"));
    succeeds(dir, &["train", "a.toml", "--run-dir", "few", "--set", "log_steps=1500"]);
    assert_eq!(steps("few"), ["1500", "3000", "4000"]);
    assert!(said.contains("network    mlp [64, 64] on f32[4]\n           4,675 parameters, fp32 on cpu, "), "{said}");
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    assert!(!said.contains(" -\n"), "no column without values: {said}");
}

#[test]
fn a_run_writes_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "pole.toml", CARTPOLE);
    let said = succeeds(dir, &["train", "pole.toml"]);
    let run = dir.join("runs/paac-cartpole-1");
    for part in
        ["4,000 of 4,000", "steps/s", "mean of the last", "runs/paac-cartpole-1", "playfield eval runs/paac-cartpole-1"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let config: toml::Table = fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap();
    assert_eq!(config["paac"]["rollout_steps"].as_integer(), Some(5), "defaults are written out");
    assert!(fs::read_to_string(run.join("command.txt")).unwrap().contains("train pole.toml"));
    assert!(fs::read_dir(&run).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().contains("tfevents")));

    let episodes = fs::read_to_string(run.join("episodes.csv")).unwrap();
    assert!(episodes.starts_with("step,time,return,length\n"));
    for line in episodes.lines().skip(1) {
        let cells: Vec<f64> = line.split(',').map(|c| c.parse().unwrap()).collect();
        assert_eq!(cells[2], cells[3], "the return of CartPole equals the length of the episode: {line}");
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
    assert!(dir.join("runs/paac-cartpole-2/config.toml").exists(), "a second run gets a folder of its own");

    let json = succeeds(dir, &["eval", "runs/paac-cartpole-1", "--episodes", "5", "--deterministic", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    let mut keys: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort();
    let expected = ["episodes", "max_return", "mean_length", "mean_return", "min_return", "returns", "std_return"];
    assert_eq!(keys, expected);
    assert_eq!(report["returns"].as_array().unwrap().len(), 5);
    let again = succeeds(dir, &["eval", "runs/paac-cartpole-1", "--episodes", "5", "--deterministic", "--json"]);
    assert_eq!(json, again, "the same seed gives the same episodes");
}

/// The same seed gives the same weights, bit for bit, and the same episodes; another seed does not.
#[test]
fn the_seed_determines_the_run() {
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

/// An interrupted and resumed run equals an uninterrupted one, bit for bit, where environments save their state: networks,
/// optimizers, random streams, replay buffers and priorities. The last resume is from a checkpoint with the keys of format 1.
#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    for env in [
        "id = 'CartPole'",
        "id = 'Pendulum'\nnormalize_obs = true\nnormalize_reward = true",
        "id = 'Catch'\nframe_stack = 3",
        "id = 'TicTacToe'\nnormalize_obs = true",
        "id = 'IdentityMultiDiscrete'",
    ] {
        // The schedule must not depend on where a session ends.
        resumed_equals_whole(&(CARTPOLE.replace("id = 'CartPole'", env) + "learning_rate.steps = 4000\n"));
    }
    for (env, network, method) in [
        ("CartPole", "lstm = 8", "actor_critic"),
        ("Pendulum", "", "actor_critic"),
        ("Catch", "", "n_step_q"),
        ("CartPole", "", "one_step_sarsa"),
    ] {
        resumed_equals_whole(&format!(
            "algorithm = 'a3c'\nsteps = 4000\n[env]\nid = '{env}'\nnum_envs = 2\n[network]\nhidden = [16]\n{network}\n[a3c]\nnum_threads = 1\nmethod = '{method}'\nlearning_rate.steps = 4000\ntarget_update_interval = 300\nexploration.anneal_steps = 2000\n"
        ));
    }
    for (env, settings) in [
        ("id = 'CartPole'", "prioritized = true\nbeta.steps = 4000\n"),
        ("id = 'TicTacToe'", "n_step = 2\n"),
        (
            "id = 'Catch'\nframe_stack = 3",
            "buffer_compression = true\nn_step = 3\nnoisy_sigma = 0.5\nprioritized = true\nbeta.steps = 4000\npriority.by = 'rank'\n",
        ),
    ] {
        let text = format!(
            "algorithm = 'dqn'\nsteps = 4000\n[env]\nnum_envs = 2\n{env}\n[network]\nhidden = [16]\n[dqn]\nnum_threads = 1\noverlap = false\nlearning_starts = 200\nbuffer_size = 1000\ntarget_update_interval = 50\n{settings}"
        );
        resumed_equals_whole(&text);
    }
}

/// The same with batch norm, whose running statistics are not parameters: those of the network and of its target.
#[test]
fn a_resumed_run_equals_an_uninterrupted_one_with_batch_norm() {
    for (algorithm, settings) in [
        ("ppo", "learning_rate.steps = 4000\nclip_range.steps = 4000\nrollout_steps = 32\nminibatch_size = 20"),
        ("paac", "learning_rate.steps = 4000"),
        ("a3c", "learning_rate.steps = 4000"),
        ("a3c", "learning_rate.steps = 4000\nmethod = 'n_step_q'\ntarget_update_interval = 300"),
        ("dqn", "overlap = false\nlearning_starts = 200\nbuffer_size = 1000\ntarget_update_interval = 50"),
    ] {
        resumed_equals_whole(&format!(
            "algorithm = '{algorithm}'\nsteps = 4000\n[env]\nid = 'CartPole'\nnum_envs = 2\n[network]\nhidden = [16, 16]\nnorm = 'batch'\n[{algorithm}]\nnum_threads = 1\n{settings}\n"
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
    rewrite_in_format_1(&dir.join("parts"));
    succeeds(dir, &["train", "--resume", "parts", "--steps", "4000"]);
    let [whole, parts] = ["whole", "parts"].map(|run| read(checkpoints(&dir.join(run)).last().unwrap()).unwrap());
    assert_eq!(whole.step, parts.step, "{text}");
    assert_eq!(whole.params, parts.params, "{text}");
    assert_eq!(whole.arrays, parts.arrays, "{text}");
    let (mut a, mut b) = (whole.state, parts.state);
    assert!(a.remove("run.elapsed_seconds") != b.remove("run.elapsed_seconds"));
    // The number of frame files is the number of saves.
    assert_eq!(a.remove("replay.segments").is_some(), b.remove("replay.segments").is_some());
    assert_eq!(a, b, "{text}");
    assert_eq!(rows(&dir.join("whole"), "episodes.csv"), rows(&dir.join("parts"), "episodes.csv"), "{text}");
    let commands = fs::read_to_string(dir.join("parts/command.txt")).unwrap();
    assert_eq!(commands.lines().count(), 3);
}

/// Rewrites the newest checkpoint of `run` as earlier versions wrote it: in format 1, with the old names of renamed keys.
fn rewrite_in_format_1(run: &Path) {
    let path = checkpoints(run).pop().unwrap();
    let mut snapshot = read(&path).unwrap();
    let old = |key: &str| {
        let (name, key) = match key.strip_prefix("actor_learner.0.") {
            Some(key) => ("actor_learner.0.", key),
            None => ("", key),
        };
        let key = match key {
            "actor.rng" => "player.rng",
            "recurrent_state.h" => "memory.h",
            "recurrent_state.c" => "memory.c",
            "replay.rings" => "replay.lanes",
            "priorities.values" => "priorities.numbers",
            key => key,
        };
        format!("{name}{key}")
    };
    let (new_keys, arrays) = (snapshot.state.len() + snapshot.arrays.len(), snapshot.arrays.clone());
    snapshot.arrays = arrays.into_iter().map(|(key, array)| (old(&key), array)).collect();
    let state = serde_json::to_string(&snapshot.state).unwrap().replace("\"episode_return\"", "\"reward\"");
    let state: serde_json::Map<_, _> = serde_json::from_str(&state).unwrap();
    snapshot.state = state.into_iter().map(|(key, value)| (old(&key), value)).collect();
    assert_eq!(snapshot.state.len() + snapshot.arrays.len(), new_keys);
    Checkpoints::new(run.join("checkpoints"), 9).save(&snapshot, None).unwrap();
    let manifest = path.join("manifest.json");
    let mut fields: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    assert_eq!(fields["format"], 2);
    fields["format"] = 1.into();
    fields.as_object_mut().unwrap().remove("sha256");
    fs::write(manifest, fields.to_string()).unwrap();
}

/// A run with a damaged frame file or damaged CSV rows resumes without what they held, and says so.
#[test]
fn a_run_with_damaged_frames_and_rows_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let text = "algorithm = 'dqn'\nsteps = 1000\n[env]\nid = 'Catch'\nnum_envs = 2\nframe_stack = 3\n[network]\nhidden = [16]\n[dqn]\nnum_threads = 1\noverlap = false\nlearning_starts = 200\nbuffer_size = 5000\nprioritized = true\n";
    file(dir, "a.toml", text);
    succeeds(dir, &["train", "a.toml", "--run-dir", "run"]);
    succeeds(dir, &["train", "--resume", "run", "--steps", "1500"]);
    let folder = dir.join("run/checkpoints/replay");
    let mut segments: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    assert!(segments.len() >= 2, "{segments:?}");
    for (number, segment) in [&segments[0], segments.last().unwrap()].into_iter().enumerate() {
        let mut bytes = fs::read(segment).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(segment, bytes).unwrap();
        let episodes = dir.join("run/episodes.csv");
        let mut rows = fs::read(&episodes).unwrap();
        let last = rows.len() - 4;
        rows[last] = 0xff;
        fs::write(&episodes, rows).unwrap();
        let steps = (1600 + 100 * number).to_string();
        let output = playfield(dir, &["train", "--resume", "run", "--steps", &steps]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let (said, name) = (stderr(&output), segment.file_name().unwrap().to_string_lossy().into_owned());
        assert!(said.contains(&name) && said.contains("its transitions are dropped"), "{said}");
        assert!(dir.join("run/episodes.csv.damaged").exists());
        let text = fs::read_to_string(&episodes).unwrap();
        let last: u64 = text.lines().last().unwrap().split(',').next().unwrap().parse().unwrap();
        assert!(last > 1500 + 100 * number as u64, "{text}");
    }
}

/// A killed run resumes from its checkpoint; its files are truncated to that step first.
#[test]
fn the_files_of_a_killed_run_are_truncated_to_its_checkpoint() {
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

/// What a killed process left under temporary names, or as a replaced checkpoint, is removed when the run is resumed. Files of the user
/// stay.
#[test]
fn unfinished_files_are_removed_on_resume() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    succeeds(dir, &["train", "a.toml", "--run-dir", "run", "--steps", "400"]);
    let run = dir.join("run");
    for folder in ["videos", "checkpoints/replay", "checkpoints/.writing-000000000900"] {
        fs::create_dir_all(run.join(folder)).unwrap();
    }
    let saved = run.join("checkpoints/000000000400");
    let replaced = run.join("checkpoints/000000000400.replaced");
    fs::create_dir(&replaced).unwrap();
    fs::copy(saved.join("manifest.json"), replaced.join("manifest.json")).unwrap();
    let unfinished = [
        ".writing-config.toml",
        ".writing-episodes.csv",
        "videos/.writing-a.gif",
        "checkpoints/replay/.writing-000000000900.lz4",
        "checkpoints/.writing-000000000900/model.safetensors",
    ];
    for name in unfinished.iter().chain(&["notes.txt", "videos/a.gif"]) {
        fs::write(run.join(name), "").unwrap();
    }
    succeeds(dir, &["train", "--resume", "run", "--steps", "800"]);
    for name in unfinished {
        assert!(!run.join(name).exists(), "{name}");
    }
    assert!(!replaced.exists() && !run.join("checkpoints/.writing-000000000900").exists());
    assert!(run.join("notes.txt").exists() && run.join("videos/a.gif").exists());
}

struct Running(Child);

impl Running {
    /// A run without an end, once it trains.
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

/// Whether this process, and so every program that it starts, ignores SIGHUP: tests may run under `nohup`.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & 1 != 0
}

#[test]
fn a_signal_saves_and_prints_how_to_resume() {
    let signals = [("INT", 130), ("TERM", 143), ("HUP", 129)];
    for (signal, code) in signals.into_iter().filter(|(signal, _)| *signal != "HUP" || !hangup_is_ignored()) {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(dir.path());
        running.signal(signal);
        let output = running.0.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("playfield train --resume run"), "{said}");
        let saved = read(checkpoints(&dir.path().join("run")).last().unwrap()).unwrap();
        assert!(said.contains(&format!("{} of 1,000,000,000", thousands(saved.step))), "{said}");
        assert!(said.contains(&format!("checkpoint run/checkpoints/{:012}\n", saved.step)), "{said}");
        let more = (saved.step + 1000).to_string();
        succeeds(dir.path(), &["train", "--resume", "run", "--steps", &more]);
    }
}

/// The second signal ends the program at once, here during an update that cannot end because the process is stopped.
#[test]
fn a_second_signal_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path());
    // While it is stopped both signals become pending.
    running.signal("STOP");
    running.signal("INT");
    running.signal("TERM");
    running.signal("CONT");
    let output = running.0.wait_with_output().unwrap();
    assert!([Some(130), Some(143)].contains(&output.status.code()), "{:?}", output.status);
    assert!(checkpoints(&dir.path().join("run")).is_empty(), "nothing was saved");
}

/// With `nohup` a run continues after its terminal is closed.
#[test]
fn an_ignored_hangup_stays_ignored() {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path(), "a.toml", CARTPOLE);
    let line = format!(
        "trap '' HUP; {} train a.toml --run-dir run --steps 4000 2>/dev/null & while ! test -e run/progress.csv; do sleep .05; done; kill -HUP $!; wait $!",
        env!("CARGO_BIN_EXE_playfield")
    );
    let output = std::process::Command::new("bash").args(["-c", &line]).current_dir(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("4,000 of 4,000"));
}

/// A run that is killed before its first checkpoint resumes at step 0 in the same folder.
#[test]
fn a_run_that_was_killed_before_its_first_checkpoint_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path());
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    let dir = dir.path();
    assert!(checkpoints(&dir.join("run")).is_empty());
    let said = refuses(dir, &["eval", "run"]);
    assert!(said.contains("no checkpoint yet: a run saves one every `run.checkpoint_seconds`"), "{said}");
    succeeds(dir, &["train", "--resume", "run", "--steps", "2000"]);
    succeeds(dir, &["train", "a.toml", "--run-dir", "whole", "--steps", "2000"]);
    let [whole, resumed] = ["whole", "run"].map(|run| read(checkpoints(&dir.join(run)).last().unwrap()).unwrap());
    assert_eq!(whole.params, resumed.params);
    assert_eq!(rows(&dir.join("whole"), "episodes.csv"), rows(&dir.join("run"), "episodes.csv"));
}

/// A short run has its first checkpoint long before `checkpoint_seconds`.
#[test]
fn the_first_checkpoint_comes_early() {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path(), "a.toml", CARTPOLE);
    let args = ["train", "a.toml", "--run-dir", "run", "--steps", "1000M", "--set", "checkpoint_seconds=5"];
    let mut child = playfield(dir.path(), &args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = std::time::Instant::now();
    while checkpoints(&dir.path().join("run")).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let saved = read(checkpoints(&dir.path().join("run")).last().unwrap()).unwrap();
    let seconds = saved.state["run.elapsed_seconds"].as_f64().unwrap();
    assert!((0.5..4.0).contains(&seconds), "after a tenth of 5 seconds, but {seconds}");
}

/// Parameters that are not finite are never saved: the run keeps its last good checkpoint, and the message names it if there is
/// one.
#[test]
fn a_run_that_diverges_keeps_its_last_good_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    let diverges = ["--set", "learning_rate=1e30", "--set", "gradient_clip=0"];
    let fails = |args: &[&str]| {
        let said = refuses(dir, args);
        assert!(said.contains("training diverged: "), "{said}");
        said
    };
    let said = fails(&[&["train", "a.toml", "--run-dir", "new"][..], &diverges].concat());
    assert!(!said.contains("checkpoint") && !said.contains("--resume"), "{said}");
    assert!(checkpoints(&dir.join("new")).is_empty());

    succeeds(dir, &["train", "a.toml", "--run-dir", "run", "--steps", "400"]);
    let mut config: toml::Table = fs::read_to_string(dir.join("run/config.toml")).unwrap().parse().unwrap();
    config["paac"]["learning_rate"] = toml::Value::Float(1e30);
    config["paac"]["gradient_clip"] = toml::Value::Float(0.0);
    fs::write(dir.join("run/config.toml"), config.to_string()).unwrap();
    let said = fails(&["train", "--resume", "run", "--steps", "4000"]);
    assert!(said.contains("the last good checkpoint is that of step 400"), "{said}");
    assert!(
        said.contains("step 400 is saved; to resume from there: ") && said.contains("playfield train --resume run\n")
    );
    assert_eq!(read(checkpoints(&dir.join("run")).last().unwrap()).unwrap().step, 400);
    succeeds(dir, &["eval", "run", "--episodes", "1"]);
}

/// The best checkpoint by training return needs a full window: below 100 episodes there is no score, and the newest is used.
#[test]
fn the_best_checkpoint_is_not_one_lucky_episode() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    let agent = |run: &str| {
        let said = succeeds(dir, &["eval", run, "--episodes", "1", "--best"]);
        said.lines().find_map(|line| line.strip_prefix("agent      ")).unwrap().to_string()
    };
    succeeds(dir, &["train", "a.toml", "--run-dir", "run", "--steps", "400"]);
    succeeds(dir, &["train", "--resume", "run", "--steps", "800"]);
    assert_eq!(agent("run"), "run at step 800");
    // Now the windows are full.
    succeeds(dir, &["train", "--resume", "run", "--steps", "4000"]);
    assert_eq!(agent("run"), "run at step 4,000");
    let manifest = |name: &str| {
        let text = fs::read_to_string(dir.join("run/checkpoints").join(name).join("manifest.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["score"].as_f64()
    };
    assert_eq!(manifest("000000000800"), None);
    assert!(manifest("000000004000").unwrap() > 10.0);
}

#[cfg(feature = "python")]
mod python {
    use super::*;
    use crate::common::{experiment, python};

    /// The saved state of a run can be read with any rewards.
    #[test]
    fn a_run_with_infinite_returns_is_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let pay = "
class Pay(Base):
    def step(self, action):
        obs, reward, *rest = super().step(action)
        odd = [float('-inf'), 1e39, float('inf')][self.np_random.integers(3)]
        return obs, odd if self.np_random.random() < .05 else reward, *rest
";
        python(dir, "pay", pay);
        file(dir, "a.toml", &experiment("pay:Pay-v0").replace("[paac]", "clip_reward = 'clamp'\n[paac]"));
        succeeds(dir, &["train", "a.toml", "--run-dir", "run"]);
        let state = read(checkpoints(&dir.join("run")).last().unwrap()).unwrap().state;
        let window = state["run.window"].to_string();
        assert!(window.contains("inf") && !window.contains("null"), "{window}");
        succeeds(dir, &["train", "--resume", "run", "--steps", "800"]);
    }

    /// A resumed run does not repeat the random numbers of environments that cannot be saved.
    #[test]
    fn a_resumed_run_has_new_random_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let draws = "
class Draws(Base):
    def reset(self, *, seed=None, options=None):
        start = super().reset(seed=seed)
        # Each environment is first reset with seed 0, to see what it returns.
        with open(os.devnull if seed == 0 else 'draws.txt', 'a') as file:
            file.write(f'{self.np_random.random()}\\n')
        return start
";
        python(dir, "draws", draws);
        file(dir, "a.toml", &experiment("draws:Draws-v0"));
        succeeds(dir, &["train", "a.toml", "--run-dir", "run"]);
        succeeds(dir, &["train", "--resume", "run", "--steps", "800"]);
        let text = fs::read_to_string(dir.join("draws.txt")).unwrap();
        let mut numbers: Vec<_> = text.lines().collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert!(count >= 80 && numbers.len() == count, "{} of {count} numbers are different", numbers.len());
    }

    /// When an environment fails, the run is saved and the message says how to resume. One that fails at once leaves nothing to
    /// resume.
    #[test]
    fn a_failed_run_prints_how_to_resume_if_it_has_a_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let fail = "
class Late(Base):
    steps = 0
    def step(self, action):
        self.steps += 1
        if self.steps == 500:
            raise ValueError('the simulator has crashed')
        return super().step(action)
class Early(Base):
    def reset(self, *, seed=None, options=None):
        raise ValueError('there is no simulator')
";
        python(dir, "fail", fail);
        let text = |id: &str| experiment(id).replace("paac", "a3c").replace("= 400", "= 100000");
        file(dir, "late.toml", &text("fail:Late-v0"));
        file(dir, "early.toml", &text("fail:Early-v0"));
        let said = refuses(dir, &["train", "late.toml", "--run-dir", "late"]);
        let saved = read(checkpoints(&dir.join("late")).last().unwrap()).unwrap().step;
        let hint = format!(
            "step {} is saved; to resume from there: {} train --resume late\n",
            thousands(saved),
            env!("CARGO_BIN_EXE_playfield")
        );
        assert!(said.contains(&hint) && said.contains("the simulator has crashed"), "{said}");
        let said = refuses(dir, &["train", "early.toml", "--run-dir", "early"]);
        assert!(said.contains("there is no simulator") && !said.contains("--resume"), "{said}");
        assert!(!dir.join("early").exists());
    }

    /// The video of the Python example has the pace of its metadata, here in hundredths of a second. Only videos need frames: without
    /// its `render` it is trained and embedded, and a video is refused at the start.
    #[test]
    fn the_python_example_is_trained_watched_and_embedded() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("envs/examples/python");
        for name in ["config.toml", "corridor.py"] {
            fs::copy(example.join(name), dir.join(name)).unwrap();
        }
        let said = succeeds(dir, &["train", "config.toml", "--steps", "800", "--run-dir", "run", "--gif"]);
        assert!(said.contains("playfield watch run\n") && said.contains("video      run/videos/"), "{said}");
        succeeds(dir, &["watch", "run", "--video", "corridor.gif"]);
        assert_eq!(delays(&dir.join("corridor.gif"))[0], 10);

        let module = fs::read_to_string(dir.join("corridor.py")).unwrap();
        file(dir, "corridor.py", &module.replace("\"rgb_array\"", ""));
        let reason = "corridor.py:Corridor does not support rendering\n";
        let said = refuses(dir, &["train", "config.toml", "--steps", "800", "--run-dir", "blind", "--gif"]);
        assert!(said.ends_with(reason) && !dir.join("blind").exists(), "{said}");
        succeeds(dir, &["train", "config.toml", "--steps", "800", "--run-dir", "blind"]);
        assert!(refuses(dir, &["watch", "blind"]).ends_with(reason));
        succeeds(dir, &["embed", "blind", "--points", "20", "--perplexity", "5"]);
    }

    /// Training succeeds even if its video fails.
    #[test]
    fn a_training_without_a_video() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let size = "
class Sized(Base):
    size = (0, 0)
    def render(self):
        return np.zeros((*self.size, 3), np.uint8)
class Empty(Sized):
    pass
class Huge(Sized):
    size = (2, 70000)
class Growing(Sized):
    def render(self):
        return np.zeros((10 + self.t, 10, 3), np.uint8)
for made in Sized.__subclasses__():
    gym.register(f'{made.__name__}-v0', entry_point=made)
";
        python(dir, "size", size);
        let expected = [
            ("size:Empty-v0", "0 × 0 pixels"),
            ("size:Huge-v0", "70000 × 2 pixels: a GIF supports 1 to 65535 per side"),
            ("size:Growing-v0", "10 × 10 pixels and then of 10 × 11"),
        ];
        for (i, (id, reason)) in expected.into_iter().enumerate() {
            let (config, run) = (format!("{i}.toml"), format!("run-{i}"));
            file(dir, &config, &experiment(id));
            let output = playfield(dir, &["train", &config, "--run-dir", &run, "--gif"]).output().unwrap();
            let said = stderr(&output);
            assert!(output.status.success() && said.contains("no video: ") && said.contains(reason), "{id}: {said}");
            assert!(refuses(dir, &["watch", &run]).contains(reason));
            succeeds(dir, &["embed", &run, "--points", "20", "--perplexity", "5"]);
        }
    }
}

/// The delay after each frame of a GIF, in hundredths of a second.
fn delays(path: &Path) -> Vec<u16> {
    let bytes = fs::read(path).unwrap();
    // Graphic control extensions: 21 F9, four bytes, of which the second and third are the delay, and 0.
    let frames = bytes.windows(8).filter(|b| b[..3] == [0x21, 0xf9, 4] && b[7] == 0);
    frames.map(|b| u16::from_le_bytes([b[4], b[5]])).collect()
}

/// A video at the resolution and the pace of the environment, the last frame included.
#[test]
fn an_agent_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "pole.toml", &CARTPOLE.replace("num_envs", "max_episode_steps = 20\nnum_envs"));
    succeeds(dir, &["train", "pole.toml", "--run-dir", "pole"]);
    let said = succeeds(dir, &["watch", "pole"]);
    assert!(said.contains("video      pole/videos/000000004000.gif"), "{said}");
    let video = dir.join("pole/videos/000000004000.gif");
    let steps: usize = said.split("content    ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(said.contains(&format!("{steps} steps, return {steps}.00: a complete episode")), "{said}");
    assert_eq!(delays(&video), vec![2; steps + 1], "50 frames per second, those before each step and the last");
    assert_eq!(fs::read(&video).unwrap()[..10], *b"GIF89a\x2c\x01\x64\x00", "300 × 100");
    succeeds(dir, &["watch", "pole", "--video", "more.gif", "--overlay"]);
    assert_eq!(fs::read(dir.join("more.gif")).unwrap()[..10], *b"GIF89a\x58\x02\x04\x01", "600 × 200 and the caption");
    assert_eq!(delays(&dir.join("more.gif")).len(), steps + 1);
    let output = playfield(dir, &["watch", "pole", "--video", "more.mp4", "--overlay"]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
    assert_eq!(fs::read(dir.join("more.mp4")).unwrap()[4..12], *b"ftypisom");
    assert!(!dir.join("more.mp4.part").exists());
    let said = refuses(dir, &["watch", "pole", "--video", "video.avi"]);
    assert!(said.contains("--video video.avi: end the name in .mp4 or .gif"), "{said}");
    if cfg!(feature = "python") {
        let pong =
            "algorithm = 'paac'\nsteps = 60\n[env]\nid = 'ALE/Pong-v5'\nnum_envs = 2\n[network]\ntorso = 'nips'\n";
        file(dir, "pong.toml", pong);
        let said = succeeds(dir, &["train", "pong.toml", "--run-dir", "pong", "--gif"]);
        assert!(said.contains("pong/videos/000000000060.gif"), "{said}");
        succeeds(dir, &["watch", "pong", "--gif", "short.gif", "--seconds", "2"]);
        let video = fs::read(dir.join("short.gif")).unwrap();
        assert_eq!(&video[..10], b"GIF89a\xa0\x00\xd2\x00", "160 × 210");
        assert_eq!(delays(&dir.join("short.gif")), vec![7; 30], "15 steps of four frames per second");
        assert!(!dir.join(".writing-short.gif").exists());
    }
}
