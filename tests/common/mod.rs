//! Drives the program as a user does.
#![allow(dead_code)] // each test program uses its part

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// CartPole with a small network: a few thousand steps a second, no Python.
pub const CARTPOLE: &str =
    "algorithm = 'paac'\nsteps = 4000\n[env]\nid = 'CartPole'\nnum_envs = 4\n[paac]\nthreads = 1\n";

/// The program, to be started in `folder`.
pub fn playfield(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_playfield"));
    command.args(args).current_dir(folder);
    command
}

/// What the program said, having succeeded.
pub fn succeeds(folder: &Path, args: &[&str]) -> String {
    let output = playfield(folder, args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}\n{}", output.status, stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What the program complained of, having ended with code 2: one line, no panic, no traceback.
pub fn refuses(folder: &Path, args: &[&str]) -> String {
    let output = playfield(folder, args).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    assert!(!said.contains("panicked") && !said.contains("Traceback"), "{args:?}: {said}");
    said
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A new file `name` in `folder`.
pub fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// The folders of a run's checkpoints, oldest first.
pub fn checkpoints(run: &Path) -> Vec<PathBuf> {
    playfield::core::Checkpoints::new(run.join("checkpoints"), 1).list().unwrap()
}
