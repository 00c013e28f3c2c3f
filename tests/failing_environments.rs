//! Environments that hang, crash or fail, through the whole program: the run is saved, one signal ends it, no process is left.
#![cfg(all(feature = "python", target_os = "linux"))]

use crate::common::{checkpoints, file, refuses, stderr};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Fails once one environment has made `at` steps; with `marker`, only if that file does not exist, and then it is created.
const MODULE: &str = r#"
import ctypes, os, time, gymnasium, numpy as np

class Fails(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, how, at=300, marker=None):
        self.how, self.at, self.marker, self.steps = how, at, marker, 0
        with open("pids", "a") as file:
            file.write(f"{os.getpid()}\n")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t, self.steps = self.t + 1, self.steps + 1
        if self.steps == self.at:
            try:
                if self.marker:
                    os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
                self.fail()
            except FileExistsError:
                pass
        return np.zeros(2, np.float32), 1.0, self.t == 10, False, {}

    def fail(self):
        with open("failing", "w"):
            pass
        if self.how == "raise":
            raise ValueError("the simulator is gone")
        if self.how == "exit":
            os._exit(7)
        if self.how == "crash":
            ctypes.string_at(0)
        time.sleep(300)
"#;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path(), "own.py", MODULE);
    let text = "algorithm = 'paac'\nsteps = 4000\n[env]\nid = 'own.py:Fails'\nnum_envs = 4\n[paac]\nnum_threads = 1\n";
    file(dir.path(), "own.toml", text);
    dir
}

/// Trains in process group `id` of its own until it fails, then sends `signal` to the group, as a terminal does.
fn train(dir: &Path, sets: &[&str], signal: Option<&str>) -> (Output, Duration) {
    for name in ["pids", "failing"] {
        let _ = std::fs::remove_file(dir.join(name));
    }
    let mut args =
        vec!["--default-signal=INT", env!("CARGO_BIN_EXE_playfield"), "train", "own.toml", "--run-dir", "run"];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    // A shell starts background processes with SIGINT ignored.
    let mut command = Command::new("env");
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.env("XDG_STATE_HOME", dir.join("state"));
    let child = command.args(args).current_dir(dir).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(90);
    while !dir.join("failing").exists() {
        assert!(Instant::now() < deadline, "it does not fail");
        std::thread::sleep(Duration::from_millis(20));
    }
    let start = Instant::now();
    if let Some(signal) = signal {
        std::thread::sleep(Duration::from_millis(300));
        Command::new("kill").args([signal, "--", &format!("-{}", child.id())]).status().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    (output, start.elapsed())
}

/// Waits until no process that created an environment runs.
fn assert_nothing_left(dir: &Path, limit: Duration) {
    let ids = std::fs::read_to_string(dir.join("pids")).unwrap();
    let runs = |id: &str| std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    let deadline = Instant::now() + limit;
    while let Some(id) = ids.lines().find(|id| runs(id)) {
        assert!(Instant::now() < deadline, "process {id} is left");
        std::thread::sleep(Duration::from_millis(100));
    }
}

const MODES: [&[&str]; 3] =
    [&["vectorization=sync"], &["vectorization=async"], &["vectorization=async", "repeat_action_probability=1e-300"]];

/// A step over the limit ends the run with a sentence, in every mode and algorithm. The run is saved and can be resumed.
#[test]
fn a_run_whose_environment_hangs_is_saved() {
    let dir = folder();
    let dir = dir.path();
    for algorithm in ["paac", "ppo", "a3c", "dqn"] {
        let text = format!("algorithm = '{algorithm}'\nsteps = 4000\n[env]\nid = 'own.py:Fails'\nnum_envs = 4\n");
        file(dir, "own.toml", &text);
        for mode in if algorithm == "paac" { &MODES[..] } else { &MODES[..2] } {
            let sets = [*mode, &["env.kwargs.how=sleep", "step_timeout_seconds=1"]].concat();
            let (output, time) = train(dir, &sets, None);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{algorithm} {mode:?}: {said}");
            assert!(
                said.contains("own.py:Fails: ")
                    && said.contains("environment ")
                    && said.contains("took longer than 1 s"),
                "{said}"
            );
            assert!(said.contains("is saved; to resume"), "{algorithm} {mode:?}: {said}");
            assert!(time < Duration::from_secs(25), "{algorithm} {mode:?}: {time:?}");
            assert_nothing_left(dir, Duration::from_secs(15));
            assert!(!checkpoints(&dir.join("run")).is_empty());
            std::fs::remove_dir_all(dir.join("run")).unwrap();
        }
    }
}

/// Without a limit one signal ends a program whose environment hangs, with its processes.
#[test]
fn one_signal_ends_a_program_whose_environment_hangs() {
    let dir = folder();
    for mode in MODES {
        let sets = [mode, &["env.kwargs.how=sleep"]].concat();
        let (output, time) = train(dir.path(), &sets, Some("-INT"));
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(130), "{mode:?}: {said}");
        assert!(
            said.contains("an environment has not returned for") && !said.contains("Traceback"),
            "{mode:?}: {said}"
        );
        // Ten seconds for the program, as many for a process that hangs, which holds the program's stderr.
        assert!(time < Duration::from_secs(28), "{mode:?}: {time:?}");
        assert_nothing_left(dir.path(), Duration::from_secs(20));
        std::fs::remove_dir_all(dir.path().join("run")).unwrap();
    }
}

/// A process that raises, exits or crashes starts anew, with one warning; the run completes, and its episodes are all counted.
#[test]
fn a_failed_process_restarts_and_the_run_completes() {
    let dir = folder();
    let dir = dir.path();
    for algorithm in ["paac", "dqn"] {
        for (how, expected) in [("raise", "the simulator is gone"), ("exit", "exit code 7"), ("crash", "SIGSEGV")] {
            let marker = format!("env.kwargs.marker={algorithm}-{how}");
            let how = format!("env.kwargs.how={how}");
            let text = format!("algorithm = '{algorithm}'\nsteps = 3000\n[env]\nid = 'own.py:Fails'\nnum_envs = 4\n");
            file(dir, "own.toml", &text);
            let sets = ["vectorization=async", "on_failure=restart", &how, &marker];
            let (output, _) = train(dir, &sets, None);
            let said = stderr(&output);
            assert!(output.status.success(), "{sets:?}: {said}");
            let warnings: Vec<_> = said.lines().filter(|line| line.contains("restart 1 of at most 10")).collect();
            assert_eq!(warnings.len(), 1, "{sets:?}: {said}");
            assert!(warnings[0].contains(expected) && warnings[0].contains("environment "), "{}", warnings[0]);
            // All episodes have ten steps but for the one that was cut.
            let episodes = std::fs::read_to_string(dir.join("run/episodes.csv")).unwrap();
            let shorter = episodes.lines().skip(1).filter(|line| !line.ends_with(",10")).count();
            assert!(shorter <= 1, "{episodes}");
            assert_nothing_left(dir, Duration::from_secs(15));
            std::fs::remove_dir_all(dir.join("run")).unwrap();
        }
    }
}

/// In this process a crash ends the program; what it was is said.
#[test]
fn a_crash_in_this_process_is_named() {
    let dir = folder();
    let (output, _) = train(dir.path(), &["env.kwargs.how=exit"], None);
    let said = stderr(&output);
    assert!(output.status.code() == Some(7) && said.contains("called os._exit(7)") && said.contains("async"), "{said}");
    std::fs::remove_dir_all(dir.path().join("run")).unwrap();
    let (output, _) = train(dir.path(), &["env.kwargs.how=crash"], None);
    let said = stderr(&output);
    assert!(
        said.contains("Segmentation fault") && said.contains("own.py\", line") && said.contains("in fail"),
        "{said}"
    );
    assert!(!output.status.success());
}

#[test]
fn a_restart_needs_a_process() {
    let dir = folder();
    let said = refuses(dir.path(), &["train", "own.toml", "--set", "on_failure=restart"]);
    assert!(said.contains("needs `vectorization` = \"async\""), "{said}");
    let said = refuses(dir.path(), &["train", "own.toml", "--env", "CartPole", "--set", "step_timeout_seconds=-1"]);
    assert!(said.contains("`step_timeout_seconds` is a number of seconds"), "{said}");
}
