//! Invalid arguments and settings: a one-line error that says what to do, exit code 2, and nothing overwritten.

use crate::common::{CARTPOLE, checkpoints, file, playfield, refuses, stderr, succeeds};
use std::fs;
use std::process::Command;

#[test]
fn a_typo_gets_the_closest_match() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    file(dir, "typo.toml", &CARTPOLE.replace("num_threads", "num_treads"));
    file(dir, "broken.toml", "algorithm = paac\n");
    for (args, expected) in [
        (&["train", "typo.toml"][..], "unknown key `paac.num_treads`; did you mean 'num_threads'?"),
        (&["train", "a.toml", "--set", "learning_rat=1"], "did you mean 'learning_rate'?"),
        (&["train", "a.toml", "--env", "CartPol"], "unknown environment 'CartPol'; did you mean 'CartPole'?"),
        (&["train", "a.toml", "--env", "pong"], "did you mean 'ALE/Pong-v5'?"),
        (&["train", "a.toml", "--set", "algorithm=pac"], "unknown algorithm 'pac'; did you mean 'paac'?"),
        (&["train", "b.toml"], "file not found: b.toml; did you mean 'a.toml'?"),
        (&["train", "broken.toml"], "line 1"),
        (&["train", "a.toml", "--set", "rollout_steps=0"], "`rollout_steps` must be at least 1"),
        (&["train", "a.toml", "--set", "gamma=1.5"], "`gamma` = 1.5 must lie between 0 and 1"),
        (&["train", "a.toml", "--set", "torso=nature"], "use torso = \"mlp\""),
        (&["train", "a.toml", "--device", "cuda:7"], "device 'cuda:7'"),
        (&["train", "a.toml", "--device", "gpu"], "device 'gpu' is unknown"),
        (&["train", "a.toml", "--steps", "many"], "write a whole number of steps from 1 on"),
        (&["train"], "required"),
        (&["trian", "a.toml"], "train"),
        (&["eval", "nowhere"], "nowhere contains no run"),
        (&["train", "--resume", "nowhere"], "nowhere contains no run"),
        (&["envs", "Cartpoel"], "did you mean 'CartPole'?"),
    ] {
        let said = refuses(dir, args);
        assert!(said.contains(expected), "{args:?}: {said}");
    }
    let left: Vec<_> = fs::read_dir(dir.join("runs")).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "a run that did not start leaves no folder: {left:?}");
}

/// Sizes that no machine has: an error that names the key, never a panic or an abort.
#[test]
fn impossible_sizes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let large = ["-1", "1000000000", "9223372036854775807"];
    for (algorithm, key, values) in [
        ("ppo", "num_envs", &large[..]),
        ("ppo", "frame_stack", &large),
        ("ppo", "lstm", &large),
        ("ppo", "hidden", &["[-1]", "[1000000000]", "[100000,100000]", "[64,9223372036854775807]"]),
        ("ppo", "rollout_steps", &large),
        ("ppo", "minibatch_size", &large),
        ("ppo", "epochs", &large),
        ("paac", "num_envs", &large),
        ("paac", "rollout_steps", &large),
        ("a3c", "num_envs", &large),
        ("a3c", "rollout_steps", &large),
        ("dqn", "num_envs", &large),
        ("dqn", "buffer_size", &large),
        ("dqn", "batch_size", &large),
        ("dqn", "n_step", &large),
        ("dqn", "gradient_steps", &large),
    ] {
        file(dir, "a.toml", &format!("algorithm = '{algorithm}'\nsteps = 20\n[env]\nid = 'CartPole'\n"));
        for value in values {
            let said = refuses(dir, &["train", "a.toml", "--set", &format!("{key}={value}")]);
            let error = said.lines().last().unwrap_or_default();
            assert!(error.starts_with("error") && error.contains(key), "{algorithm} {key}={value}: {said}");
        }
    }
}

/// A run that is too short for its replay buffer is trained, with a warning.
#[test]
fn a_run_without_an_update_gets_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        "algorithm = 'dqn'\nsteps = 200\n[env]\nid = 'Catch'\n[network]\nhidden = [8]\n[dqn]\nlearning_starts = 300\n";
    file(dir.path(), "a.toml", config);
    let output = playfield(dir.path(), &["train", "a.toml"]).output().unwrap();
    let said = stderr(&output);
    let warning =
        "warning: no update is made: the first is due after 300 steps (dqn.learning_starts and dqn.train_interval)";
    assert!(output.status.success() && said.contains(warning), "{said}");
}

#[test]
fn a_folder_that_is_not_empty_is_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    succeeds(dir, &["train", "a.toml", "--run-dir", "run", "--steps", "400"]);
    let before = fs::read(dir.join("run/progress.csv")).unwrap();
    let said = refuses(dir, &["train", "a.toml", "--run-dir", "run"]);
    assert!(said.contains("already contains a run") && said.contains("--resume run"), "{said}");
    assert_eq!(fs::read(dir.join("run/progress.csv")).unwrap(), before);
    let said = refuses(dir, &["train", "--resume", "run"]);
    assert!(said.contains("run is at step 400: to continue training, give --steps more than that (not 400)"), "{said}");

    fs::create_dir(dir.join("papers")).unwrap();
    file(&dir.join("papers"), "thesis.txt", "years of work");
    let said = refuses(dir, &["train", "a.toml", "--run-dir", "papers"]);
    assert!(said.contains("is not empty"), "{said}");
    assert_eq!(fs::read_to_string(dir.join("papers/thesis.txt")).unwrap(), "years of work");

    file(dir, "plain", "");
    let said = refuses(dir, &["train", "a.toml", "--run-dir", "plain/run"]);
    assert!(said.contains("cannot create ") && said.contains("plain/run"), "{said}");
}

/// A run that fails at the start leaves a folder of the user's, or a link to it, unchanged, and removes its own.
#[test]
fn a_run_that_fails_at_start_leaves_folders_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // The network is created after the folder.
    file(dir, "a.toml", &CARTPOLE.replace("[paac]", "[network]\ntorso = 'nature'\n[paac]"));
    fs::create_dir(dir.join("mine")).unwrap();
    std::os::unix::fs::symlink("mine", dir.join("link")).unwrap();
    for run in ["mine", "link", "new", "a/new/one"] {
        let said = refuses(dir, &["train", "a.toml", "--run-dir", run]);
        assert!(said.contains("torso"), "{said}");
        assert_eq!(fs::read_dir(dir.join("mine")).unwrap().count(), 0, "{run}");
        assert!(dir.join("link").is_symlink());
        assert!(!dir.join("new").exists() && !dir.join("a").exists(), "{run}");
    }
    // No lock file is left in a folder that is not empty.
    file(&dir.join("mine"), "thesis.txt", "years of work");
    refuses(dir, &["train", "a.toml", "--run-dir", "mine"]);
    assert_eq!(fs::read_dir(dir.join("mine")).unwrap().count(), 1);
}

#[test]
fn an_argument_that_is_not_utf8() {
    use std::os::unix::ffi::OsStrExt as _;
    let dir = tempfile::tempdir().unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"odd\xff");
    for args in [&["train"][..], &["eval"], &["envs"], &["train", "--run-dir"], &[]] {
        let output = playfield(dir.path(), args).arg(odd).output().unwrap();
        let said = stderr(&output);
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{args:?}: {said}");
        assert!(said.contains("is not UTF-8"), "{args:?}: {said}");
    }
}

/// Numbers in several notations.
#[test]
fn numbers_in_many_forms() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    let sets = ["--steps", "0.4k", "--set", "learning_rate=.001", "--set", "gamma=1.", "--set", "rollout_steps=1e1"];
    succeeds(dir, &[&["train", "a.toml", "--run-dir", "run"][..], &sets].concat());
    let config: toml::Table = fs::read_to_string(dir.join("run/config.toml")).unwrap().parse().unwrap();
    assert_eq!(config["steps"].as_integer(), Some(400));
    assert_eq!(config["paac"]["learning_rate"].as_float(), Some(0.001));
    assert_eq!(config["paac"]["gamma"].as_float(), Some(1.0));
    assert_eq!(config["paac"]["rollout_steps"].as_integer(), Some(10));
    for (steps, total) in [("4.1M", 4_100_000), ("16.1k", 16_100)] {
        let set = format!("steps={steps}");
        for args in [&["--steps", steps][..], &["--set", &set]] {
            // The device is refused after the steps are parsed.
            let args = [&["train", "a.toml", "--run-dir", "big", "--set", "device=gpu"][..], args].concat();
            let said = refuses(dir, &args);
            assert!(said.contains("device 'gpu' is unknown"), "{total}: {said}");
        }
    }
}

#[test]
fn a_run_in_use_is_not_trained_twice() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    let args = ["train", "a.toml", "--run-dir", "run", "--steps", "1000M"];
    let mut first = playfield(dir, &args).stderr(std::process::Stdio::null()).spawn().unwrap();
    let progress = dir.join("run/progress.csv");
    while !progress.exists() {
        assert!(first.try_wait().unwrap().is_none(), "the first run is still training");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    for args in [&["train", "--resume", "run"][..], &["train", "a.toml", "--run-dir", "run"]] {
        let said = refuses(dir, args);
        assert!(said.contains("another process trains in run"), "{said}");
    }
    first.kill().unwrap();
    first.wait().unwrap();
}

/// A run resumes from its last undamaged checkpoint and reports the damaged ones; without an undamaged one it is an error.
#[test]
fn damaged_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    succeeds(dir, &["train", "a.toml", "--run-dir", "run", "--steps", "1000"]);
    succeeds(dir, &["train", "--resume", "run", "--steps", "2000"]);
    let run = dir.join("run");
    let all = checkpoints(&run);
    assert_eq!(all.len(), 2);
    let model = all[1].join("model.safetensors");
    let whole = fs::read(&model).unwrap();
    fs::write(&model, &whole[..whole.len() / 2]).unwrap();

    let output = playfield(dir, &["train", "--resume", "run", "--steps", "3000"]).output().unwrap();
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    let skipped = "warning: skipped the checkpoint run/checkpoints/000000002000: ";
    assert!(said.contains(skipped) && said.contains("from step 1,000 to 3,000"), "{said}");

    for checkpoint in checkpoints(&run) {
        fs::write(checkpoint.join("manifest.json"), "{").unwrap();
    }
    for args in [&["eval", "run"][..], &["train", "--resume", "run", "--steps", "9000"]] {
        let said = refuses(dir, args);
        assert!(said.contains("no complete checkpoint: "), "{said}");
    }
}

#[test]
fn a_checkpoint_of_another_network_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    succeeds(dir, &["train", "a.toml", "--run-dir", "run", "--steps", "400"]);
    let config = fs::read_to_string(dir.join("run/config.toml")).unwrap();
    assert!(config.contains("hidden = [64, 64]") || config.contains("hidden = [\n"), "{config}");
    let mut table: toml::Table = config.parse().unwrap();
    table["network"]["hidden"] = toml::Value::Array(vec![32.into(), 32.into()]);
    fs::write(dir.join("run/config.toml"), table.to_string()).unwrap();
    for args in [&["eval", "run"][..], &["train", "--resume", "run", "--steps", "9000"]] {
        let said = refuses(dir, args);
        assert!(said.contains("another network?"), "{said}");
    }
}

/// A checkpoint whose checksums are valid and whose numbers are not: one sentence that names the value.
#[test]
fn a_hostile_checkpoint_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    succeeds(dir, &["train", "a.toml", "--run-dir", "run", "--steps", "400"]);
    let all = playfield::core::Checkpoints::new(dir.join("run/checkpoints"), 1);
    let whole = all.latest().unwrap().snapshot;
    for (key, value) in [
        ("run.episodes", serde_json::json!(-1)),
        ("run.elapsed_seconds", serde_json::json!(1e300)),
        ("optimizer.updates", serde_json::json!(u64::MAX)),
        ("env.state", serde_json::json!({ "envs": [] })),
        ("actor.rng", serde_json::json!("../x")),
    ] {
        let mut hostile = whole.clone();
        hostile.put(key, &value);
        all.save(&hostile, None).unwrap();
        let said = refuses(dir, &["train", "--resume", "run", "--steps", "800"]);
        let named = if key == "env.state" { "the saved state is not one of" } else { key };
        assert!(said.lines().last().unwrap().starts_with("error: ") && said.contains(named), "{key}: {said}");
    }
    let mut short = whole.clone();
    short.arrays.insert("observations".into(), playfield::core::Array::new(&[1], &[0.5_f32]));
    all.save(&short, None).unwrap();
    let said = refuses(dir, &["train", "--resume", "run", "--steps", "800"]);
    assert!(said.contains("observations") && said.contains("of another shape"), "{said}");
    all.save(&whole, None).unwrap();
    succeeds(dir, &["train", "--resume", "run", "--steps", "800"]);
}

/// A working directory whose path is not UTF-8 is no obstacle.
#[test]
fn a_working_directory_that_is_not_utf8() {
    use std::os::unix::ffi::OsStrExt as _;
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"odd\xff"));
    fs::create_dir(&odd).unwrap();
    file(&odd, "a.toml", CARTPOLE);
    succeeds(&odd, &["train", "a.toml", "--run-dir", "run", "--steps", "400", "--gif"]);
    for args in [
        &["train", "--resume", "run", "--steps", "800"][..],
        &["eval", "run", "--episodes", "1"],
        &["export", "run", "--out", "policy.onnx"],
        &["report", "run", "--out", "report.html"],
        &["runs", "."],
    ] {
        succeeds(&odd, args);
    }
}

/// A full disk, simulated by a limit on the size of files: training ends with the reason, earlier checkpoints are undamaged, and
/// the run resumes once there is space.
#[test]
fn a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    succeeds(dir, &["train", "a.toml", "--run-dir", "run", "--steps", "400"]);
    let before = checkpoints(&dir.join("run"));
    // Files are limited to 16 KiB. SIGXFSZ is ignored, so that writing fails instead.
    let line =
        format!("trap '' XFSZ; ulimit -f 16; exec {} train --resume run --steps 800", env!("CARGO_BIN_EXE_playfield"));
    let output = Command::new("bash").args(["-c", &line]).current_dir(dir).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("error: cannot write") && said.contains("checkpoints"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(checkpoints(&dir.join("run")), before);
    succeeds(dir, &["train", "--resume", "run", "--steps", "800"]);
}

#[cfg(feature = "python")]
mod python {
    use super::*;

    #[test]
    fn a_missing_environment_module_or_game() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        file(dir, "a.toml", CARTPOLE);
        for (id, expected) in [
            ("nowhere:Thing-v0", "nowhere"),
            ("ALE/Pongg-v5", "did you mean 'ALE/Pong-v5'?"),
            ("CartPole-v7", "CartPole"),
        ] {
            let said = refuses(dir, &["train", "a.toml", "--env", id]);
            assert!(said.contains(expected), "{id}: {said}");
        }
        let classes = "class Empty(Base):\n    observation_space = gym.spaces.Box(-1, 1, (0,), np.float32)\n";
        crate::common::python(dir, "empty", classes);
        let said = refuses(dir, &["train", "a.toml", "--env", "empty:Empty-v0"]);
        assert!(said.contains("which has no elements: there is nothing to learn from"), "{said}");
        let output = playfield(dir, &["train", "a.toml", "--env", "nowhere:Thing-v0", "--verbose"]).output().unwrap();
        assert!(stderr(&output).contains("Traceback"), "{}", stderr(&output));
    }

    /// A variable that names no Python is named in the error.
    #[test]
    fn wrong_variables_of_python_are_named() {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path(), "a.toml", CARTPOLE);
        for (variable, expected) in [
            ("PLAYFIELD_VENV", "PLAYFIELD_VENV=/nonexistent is not a virtual environment: correct or unset it"),
            ("PYTHONHOME", "PYTHONHOME=/nonexistent is set: unset it"),
        ] {
            let args = ["train", "a.toml", "--env", "CartPole-v1"];
            let output = playfield(dir.path(), &args).env(variable, "/nonexistent").output().unwrap();
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.lines().last().unwrap().starts_with("error: ") && said.contains(expected), "{said}");
            assert!(!said.contains("make setup"), "{said}");
        }
    }

    #[test]
    fn a_missing_python_package_is_named_with_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        file(dir, "a.toml", CARTPOLE);
        let empty = dir.join("venv");
        fs::create_dir(&empty).unwrap();
        let real = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/pyvenv.cfg");
        fs::copy(real, empty.join("pyvenv.cfg")).unwrap();
        let output = playfield(dir, &["train", "a.toml", "--env", "ALE/Pong-v5"])
            .env("PLAYFIELD_VENV", &empty)
            .output()
            .unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("make setup") && !said.contains("Traceback"), "{said}");
        let output = playfield(dir, &["doctor"]).env("PLAYFIELD_VENV", &empty).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stdout).contains("missing"));
        // Environments in Rust train without Python.
        let output =
            playfield(dir, &["train", "a.toml", "--steps", "400"]).env("PLAYFIELD_VENV", &empty).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
}
