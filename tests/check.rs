//! `playfield check`: its output, its JSON object and its exit code. What it finds is tested with the environments.

use crate::common::{file, playfield, refuses, stderr, succeeds};
use serde_json::Value;

#[test]
fn an_environment_in_rust_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let said = succeeds(dir.path(), &["check", "CartPole", "--steps", "1k"]);
    for line in
        ["ok       spaces       vectors f32[4], 2 actions", "ok       seeds", "ok       speed", "0 errors, 0 warnings"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    let said = succeeds(dir.path(), &["check", "CartPole", "--set", "env.max_episode_steps=7", "--set", "num_envs=3"]);
    assert!(said.contains("of 7 to 7 steps: 0 terminated"), "{said}");
    let json = succeeds(dir.path(), &["check", "Catch", "--steps", "500", "--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((report["env"].as_str(), report["errors"].as_u64()), (Some("Catch"), Some(0)));
    let names: Vec<_> = report["findings"].as_array().unwrap().iter().map(|f| f["check"].as_str().unwrap()).collect();
    assert_eq!(names, ["spaces", "reward", "episodes", "seeds", "batch", "rendering", "speed"]);
    for (args, expected) in [
        (&["check", "Cartpoel"][..], "did you mean 'CartPole'?"),
        (&["check", "CartPole", "--set", "env.num_env=1"], "did you mean 'num_envs'?"),
        (&["check", "CartPole", "--set", "learning_rate=1"], "unknown key"),
        (&["check", "CartPole", "--steps", "0"], "write a whole number of steps from 1 on"),
    ] {
        let said = refuses(dir.path(), args);
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}

#[cfg(feature = "python")]
#[test]
fn an_environment_in_python_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let module = "
import gymnasium, numpy as np

class Noise(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    def __init__(self, fail=False):
        self.fail = fail
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}
    def step(self, action):
        print('not a part of the output')
        if self.fail:
            raise ValueError('the simulator is gone')
        return np.random.uniform(-1, 1, 2).astype(np.float32), float(action), self.np_random.random() < .1, False, {}
";
    file(dir.path(), "own.py", module);
    let output = playfield(dir.path(), &["check", "own.py:Noise", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report["errors"].as_u64(), report["warnings"].as_u64()), (Some(1), Some(0)), "{report}");
    let findings = report["findings"].as_array().unwrap();
    let error = findings.iter().find(|finding| finding["level"] == "error").unwrap();
    assert_eq!(error["check"], "seeds");
    assert!(error["advice"].as_str().unwrap().contains("self.np_random"), "{error}");

    let output = playfield(dir.path(), &["check", "own.py:Noise", "--set", "env.kwargs.fail=true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("error    step         ValueError: the simulator is gone (step 1, action"), "{said}");
    assert!(said.contains("1 error, 0 warnings"), "{said}");
    let said = refuses(dir.path(), &["check", "own.py:Noise", "--set", "vectorization=maybe"]);
    assert!(said.contains("maybe"), "{said}");
}
