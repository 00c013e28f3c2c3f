//! Drives the program as a user does.
#![allow(dead_code)] // each test program uses its part

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// CartPole with a small network: a few thousand steps a second, no Python.
pub const CARTPOLE: &str =
    "algorithm = 'paac'\nsteps = 4000\n[env]\nid = 'CartPole'\nnum_envs = 4\n[paac]\nnum_threads = 1\n";

/// The program, to be started in `folder`.
pub fn playfield(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_playfield"));
    // Environments of a test's own lie beside its experiments.
    command.args(args).current_dir(folder).env("PYTHONPATH", folder);
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

/// A module of Gymnasium environments beside the experiments in `folder`: names `module:Id-v0` find what it registers.
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

/// [`CARTPOLE`]'s settings for the environment `id`.
pub fn experiment(id: &str) -> String {
    CARTPOLE.replace("'CartPole'", &format!("'{id}'")).replace("4000", "400")
}
