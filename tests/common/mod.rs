//! Runs the program as a user does.
#![allow(dead_code)] // each test program uses a part

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// CartPole with a small network: a few thousand steps per second, without Python.
pub const CARTPOLE: &str =
    "algorithm = 'paac'\nsteps = 4000\n[env]\nid = 'CartPole'\nnum_envs = 4\n[paac]\nnum_threads = 1\n";

/// The program, started in `folder`.
pub fn playfield(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_playfield"));
    // A test's environments are in the folder of its configurations.
    command.args(args).current_dir(folder).env("PYTHONPATH", folder);
    // The list of environments that a user has trained in.
    command.env("XDG_STATE_HOME", folder.join(".state"));
    command
}

/// A port of 127.0.0.1 on which nothing listens.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The stdout of the program, which must succeed.
pub fn succeeds(folder: &Path, args: &[&str]) -> String {
    let output = playfield(folder, args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}\n{}", output.status, stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The stderr of the program, which must end with exit code 2 and one line, without panic or traceback.
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

/// A browser of Chromium's family: the one named by `CHROME`, or the first that is installed.
pub fn browser() -> Option<String> {
    let names = std::env::var("CHROME").into_iter().chain(["chromium", "google-chrome"].map(String::from));
    let runs = |name: &String| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    names.into_iter().find(runs)
}

/// Writes a module of Gymnasium environments into `folder`, which are used as `module:Id-v0`.
pub fn python(folder: &Path, module: &str, classes: &str) {
    let head = "import os, subprocess, gymnasium as gym, numpy as np

class Base(gym.Env):
    metadata = {'render_modes': ['rgb_array']}
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    def __init__(self, render_mode=None):
        self.render_mode = render_mode
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}
    def step(self, action):
        self.t += 1
        return np.zeros(2, np.float32), 1.0, self.t == 10, False, {}
    def render(self):
        return np.zeros((20, 20, 3), np.uint8)
";
    let tail = "
for made in Base.__subclasses__():
    gym.register(f'{made.__name__}-v0', entry_point=made)
";
    file(folder, &format!("{module}.py"), &format!("{head}{classes}{tail}"));
}

/// The settings of [`CARTPOLE`] with the environment `id`.
pub fn experiment(id: &str) -> String {
    CARTPOLE.replace("'CartPole'", &format!("'{id}'")).replace("4000", "400")
}

/// Copies a folder with its folders and files.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => _ = fs::copy(entry.path(), target).unwrap(),
        }
    }
}

/// The files below `folder`, relative to it.
pub fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path()).iter().map(|file| format!("{name}/{file}"))),
            false => found.push(name),
        }
    }
    found.sort();
    found
}
