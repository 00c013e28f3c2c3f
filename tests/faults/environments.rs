//! Environments in Python that fail in each way, in each mode, with each algorithm.

#[cfg(not(feature = "python"))]
pub fn class(_size: crate::campaign::Size) -> Vec<crate::campaign::Class> {
    Vec::new()
}

#[cfg(feature = "python")]
pub use python::class;

#[cfg(feature = "python")]
mod python {
    use crate::campaign::{Class, Finding, Group, Size, program};
    use crate::common::{checkpoints, file};
    use std::path::Path;

    /// Fails at step 45 of one environment, in the middle of an episode; `final` at its end.
    const MODULE: &str = r#"
import ctypes, os, time, gymnasium, numpy as np

class Fails(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, how):
        self.how, self.steps = how, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t, self.steps = self.t + 1, self.steps + 1
        obs, reward = np.zeros(2, np.float32), 1.0
        if self.how == "final" and self.steps == 40:
            obs[0] = np.nan
        if self.steps == 45:
            if self.how == "raise":
                raise ValueError("the simulator is gone")
            if self.how == "exit":
                os._exit(7)
            if self.how == "crash":
                ctypes.string_at(0)
            if self.how == "hang":
                time.sleep(300)
            if self.how == "invalid":
                obs[0] = np.nan
            if self.how == "reward":
                reward = float("inf")
            if self.how == "shape":
                obs = np.zeros(3, np.float32)
            if self.how == "type":
                obs = np.zeros(2, np.float64).tolist()
        return obs, reward, self.t == 10, False, {}
"#;

    const WAYS: [&str; 9] = ["raise", "exit", "crash", "hang", "invalid", "final", "reward", "shape", "type"];

    /// The row of the table.
    pub fn class(size: Size) -> Vec<Class> {
        let groups = ["ppo", "paac", "a3c", "dqn"].into_iter().map(move |algorithm| {
            Group::new(algorithm, move |folder, tally| {
                file(folder, "own.py", MODULE);
                let text = format!(
                    "algorithm = '{algorithm}'\nsteps = 4000\n[env]\nid = 'own.py:Fails'\nnum_envs = 4\nstep_timeout_seconds = 2\n"
                );
                file(folder, "a.toml", &text);
                let tries = WAYS.iter().flat_map(|how| ["sync", "async"].map(|mode| (*how, mode))).enumerate();
                let offset = algorithm.len();
                for (_, (how, mode)) in tries.filter(|(i, _)| size == Size::Full || *i == offset) {
                    tally.add(format!("{how}, {mode}"), fail(folder, how, mode));
                    let _ = std::fs::remove_dir_all(folder.join("run"));
                }
            })
        });
        vec![Class { name: "an environment fails", groups: groups.collect() }]
    }

    fn fail(folder: &Path, how: &str, mode: &str) -> Finding {
        let (how_set, mode_set) = (format!("env.kwargs.how={how}"), format!("vectorization={mode}"));
        let args = ["train", "a.toml", "--run-dir", "run", "--set", &how_set, "--set", &mode_set];
        let ended = program(folder, &args);
        match (how, mode) {
            // In this process the environment ends the program: only what it was is said.
            ("exit", "sync") => return ended.has_code(&[7]),
            ("crash", "sync") if ended.status == Err(11) && ended.stderr.contains("Segmentation fault") => {
                return Ok(());
            }
            // A list of the right length is an observation.
            ("type", _) => return ended.is_graceful(),
            _ => ended.has_code(&[2])?,
        }
        if !ended.stderr.contains("own.py:Fails") {
            return Err(format!("the environment is not named: {}", ended.stderr));
        }
        if checkpoints(&folder.join("run")).is_empty() { Err("nothing is saved".into()) } else { Ok(()) }
    }
}
