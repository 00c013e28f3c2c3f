//! A user's environments in Python, through the whole program: their results are converted or refused, and actions are in their
//! spaces.
#![cfg(feature = "python")]

use crate::common::{file, playfield, refuses, stderr, succeeds};
use std::fs;
use std::path::Path;

/// Environments of one step each but for `Broken`, whose episodes last ten.
const MODULE: &str = r#"
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete


class Target(gymnasium.Env):
    """The action should be `goal`; costs the squared distance, as a share of the range. Its space must contain the action."""

    observation_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, low, high, goal, dtype="float32"):
        self.action_space = Box(low, high, (1,), np.dtype(dtype).type)
        self.goal, self.range = goal, high - low

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        return np.zeros(1, np.float32), -((float(action[0]) - self.goal) / self.range) ** 2, True, False, {}


class Cue(gymnasium.Env):
    """The action must be the index of the cell that is 1: one-hot, in any dtype."""

    action_space = Discrete(8)

    def __init__(self, dtype):
        self.dtype = np.dtype(dtype)
        self.observation_space = Box(0, 1, (8,), self.dtype.type)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cue = int(self.np_random.integers(8))
        return np.eye(8, dtype=self.dtype)[self.cue], {}

    def step(self, action):
        return np.eye(8, dtype=self.dtype)[self.cue], float(action == self.cue), True, False, {"cue": [None] * self.cue}


class Broken(gymnasium.Env):
    """Returns `value` as its reward now and then."""

    observation_space, action_space = Box(-1, 1, (2,), np.float32), Discrete(2)

    def __init__(self, value):
        self.value = {"none": None, "undefined": np.nan, "minus": -np.inf, "two": np.ones(2)}[value]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        reward = self.value if self.np_random.random() < 0.02 else 1.0
        return np.zeros(2, np.float32), reward, self.t == 10, False, {}


class Picture(gymnasium.Env):
    """Frames with channels first, as in PyTorch."""

    observation_space, action_space = Box(0, 255, (3, 40, 40), np.uint8), Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros((3, 40, 40), np.uint8), {}

    def step(self, action):
        print("a line that is not part of the program's output")
        return np.zeros((3, 40, 40), np.uint8), 1.0, True, False, {}


class Cards(gymnasium.Env):
    """Plays each of `cards` once, in any order: the valid actions are the cards that are left. Another action raises. With `cuts`, an
    episode is truncated now and then."""

    def __init__(self, cards=4, hands=0, blocked=False, cuts=False):
        self.cards, self.hands, self.blocked, self.cuts = cards, hands, blocked, cuts
        self.observation_space = Dict(left=MultiBinary(cards), played=Box(0, np.inf, (), np.float32), last=Discrete(cards + 1))
        self.action_space = MultiDiscrete([cards] * hands) if hands else Discrete(cards)

    def _answer(self):
        left = np.isin(np.arange(self.cards), self.played, invert=True).astype(np.int8)
        mask = np.zeros_like(left) if self.blocked and len(self.played) == 2 else left
        last = self.played[-1] if self.played else self.cards
        observation = {"left": left, "played": np.float32(len(self.played)), "last": last}
        return observation, {"action_mask": np.tile(mask, max(self.hands, 1))}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.played = []
        return self._answer()

    def step(self, action):
        card = int(np.ravel(action)[0])
        if card in self.played:
            raise ValueError(f"card {card} is not left")
        self.played.append(card)
        observation, info = self._answer()
        cut = self.cuts and bool(self.np_random.random() < 0.2)
        return observation, 1.0, len(self.played) == self.cards, cut, info


def cards_vector(num_envs):
    """A vector environment with Gymnasium's default, next-step autoreset."""
    return gymnasium.vector.SyncVectorEnv([lambda: Cards(cuts=True)] * num_envs)


for made in (Target, Cue, Broken, Picture, Cards):
    gymnasium.register(f"{made.__name__}-v0", entry_point=made)
gymnasium.register("CardsVector-v0", vector_entry_point=cards_vector)
"#;

const ACTOR_CRITIC: &str = "[network]\ninit = 'orthogonal'\nhidden = [32]\n[paac]\nlearning_rate.start = 5e-3\n\
    entropy_coefficient = 0.0\nsum_over_time = false\nnum_threads = 1\noptimizer = { rule = 'adam', beta2 = 0.999, eps = 1e-5 }\n";

/// A folder with the module `own` and a configuration of PAAC.
fn folder(env: &str, steps: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "own.py", MODULE);
    let text = format!("algorithm = 'paac'\nsteps = {steps}\n[env]\nid = '{env}'\nnum_envs = 16\n{ACTOR_CRITIC}");
    file(folder.path(), "paac.toml", &text);
    folder
}

fn greedy(dir: &Path, run: &str, episodes: &str) -> f64 {
    let json = succeeds(dir, &["eval", run, "--episodes", episodes, "--deterministic", "--json"]);
    serde_json::from_str::<serde_json::Value>(&json).unwrap()["mean_return"].as_f64().unwrap()
}

/// Ranges around 0 and elsewhere, some with bounds that are not float32 numbers: the same policy gradient learns all.
#[test]
fn continuous_actions_are_learned_in_any_range() {
    let dir = folder("own:Target-v0", 30_000);
    for (number, (low, high, goal, dtype)) in [
        (5.0, 35.0, 26.0, "float32"),
        (0.0, 1.0, 0.3, "float32"),
        (-0.1, 0.1, 0.04, "float64"),
        (-1.0, 1.0, -0.4, "float32"),
        (-1000.0, -200.0, -480.0, "float16"),
    ]
    .into_iter()
    .enumerate()
    {
        for seed in ["1", "2", "3"] {
            let run = format!("run-{number}-{seed}");
            let sets = [("low", low), ("high", high), ("goal", goal)].map(|(key, x)| format!("env.kwargs.{key}={x:?}"));
            let dtype = format!("env.kwargs.dtype={dtype}");
            let mut args = vec!["train", "paac.toml", "--seed", seed, "--run-dir", &run, "--set", &dtype];
            sets.iter().for_each(|set| args.extend(["--set", set]));
            succeeds(dir.path(), &args);
            let off = (-greedy(dir.path(), &run, "1")).sqrt();
            assert!(off < 0.05, "[{low}, {high}] of {dtype}, goal {goal}, seed {seed}: off by {off} of the range");
        }
    }
}

/// Every algorithm, in training and in evaluation, sampled and greedy, selects valid actions only, in environments that raise at others:
/// in Python with a Dict observation, the same as a vector environment with next-step autoreset, and in Rust. Ignored steps are not
/// counted: an episode has at most 4 steps.
#[test]
fn every_algorithm_selects_valid_actions_only() {
    let short = "learning_starts = 200\nbuffer_size = 1000\nbatch_size = 16\ntarget_update_interval = 100\n";
    for (name, network, settings) in [
        ("ppo", "", "rollout_steps = 16\nminibatch_size = 32\n"),
        ("ppo", "lstm = 8", "rollout_steps = 8\nminibatch_size = 8\n"),
        ("paac", "", ""),
        ("a3c", "", ""),
        ("a3c", "", "method = 'one_step_q'\n"),
        ("a3c", "", "method = 'one_step_sarsa'\n"),
        ("a3c", "", "method = 'n_step_q'\n"),
        ("dqn", "", short),
        ("dqn", "", &format!("double = true\ndueling = true\nn_step = 3\nprioritized = true\n{short}")),
        ("dqn", "", &format!("distribution = 'quantile'\natoms = 11\nnoisy_sigma = 0.5\n{short}")),
    ] {
        let dir = folder("own:Cards-v0", 0);
        let text = format!(
            "algorithm = '{name}'\nsteps = 600\n[env]\nid = 'own:Cards-v0'\nnum_envs = 4\n[{name}]\nnum_threads = 1\n{settings}[network]\nhidden = [16]\n{network}"
        );
        file(dir.path(), "a.toml", &text);
        // One variant of each kind of learner is enough for the other environments.
        let is_variant = settings.contains("one_step") || settings.contains("quantile");
        let others = if is_variant { &[][..] } else { &["own:CardsVector-v0", "TicTacToe"] };
        for env in [&["own:Cards-v0"][..], others].concat() {
            succeeds(dir.path(), &["train", "a.toml", "--run-dir", env, "--env", env]);
        }
        for mode in [&["--deterministic"][..], &[]] {
            let args = [&["eval", "own:Cards-v0", "--episodes", "4", "--json"], mode].concat();
            let json: serde_json::Value = serde_json::from_str(&succeeds(dir.path(), &args)).unwrap();
            assert_eq!(json["mean_return"].as_f64(), Some(4.0), "{name} {settings}");
        }
        if is_variant {
            continue;
        }
        let episodes = fs::read_to_string(dir.path().join("own:CardsVector-v0/episodes.csv")).unwrap();
        let lengths = episodes.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse::<u64>().unwrap());
        let lengths: Vec<u64> = lengths.collect();
        if name == "paac" {
            let said = succeeds(dir.path(), &["eval", "own:CardsVector-v0", "--episodes", "9"]);
            assert!(said.contains("episodes   9 of own:CardsVector-v0"), "{said}");
        }
        assert!(lengths.iter().all(|length| *length <= 4) && lengths.contains(&4) && lengths.len() > 100);
    }
}

/// Actions of several components are for algorithms with a policy, and a mask that allows nothing is named.
#[test]
fn actions_that_an_algorithm_cannot_select_are_refused() {
    let dir = folder("own:Cards-v0", 400);
    let hands = ["--set", "env.kwargs.hands=2"];
    succeeds(dir.path(), &[&["train", "paac.toml", "--run-dir", "run"], &hands[..]].concat());
    for (algorithm, method) in [("dqn", ""), ("a3c", "method = 'n_step_q'")] {
        let text =
            format!("algorithm = '{algorithm}'\nsteps = 400\n[env]\nid = 'own:Cards-v0'\n[{algorithm}]\n{method}\n");
        file(dir.path(), "q.toml", &text);
        let said = refuses(dir.path(), &[&["train", "q.toml"], &hands[..]].concat());
        assert!(said.contains("actions of several components") && said.contains("use ppo, paac or a3c"), "{said}");
    }
    let said = refuses(dir.path(), &["train", "paac.toml", "--set", "env.kwargs.blocked=true"]);
    assert!(said.contains("environment 0: its action mask allows none of 4 actions"), "{said}");
}

/// A module that leaves a file when it is imported.
const LEAVES_A_TRACE: &str = "import pathlib, gymnasium\n\
    pathlib.Path('executed').touch()\n\
    gymnasium.register('Game-v0', entry_point='gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=20)\n";

/// A run of somebody else names Python code as its environment: no command imports it without `--trust`, and none from the folder of
/// the run.
#[test]
fn the_code_of_a_stranger_s_run_is_not_executed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "game.py", LEAVES_A_TRACE);
    file(dir, "a.toml", &crate::common::experiment("game:Game-v0"));
    let trace = dir.join("executed");
    succeeds(dir, &["train", "a.toml", "--run-dir", "run"]);
    // The one who trained it evaluates it.
    succeeds(dir, &["eval", "run", "--episodes", "1"]);
    for command in ["eval", "watch", "embed", "distill", "export"] {
        fs::remove_file(&trace).unwrap_or_default();
        let output = playfield(dir, &[command, "run"]).env("XDG_STATE_HOME", dir.join("other")).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        assert!(said.contains("game:Game-v0") && said.contains("--trust") && !trace.exists(), "{command}: {said}");
    }
    let resume = |args: &[&str]| {
        let args = [&["train", "--resume", "run", "--steps", "500"], args].concat();
        playfield(dir, &args).env("XDG_STATE_HOME", dir.join("other")).output().unwrap()
    };
    assert!(stderr(&resume(&[])).contains("--trust") && !trace.exists());
    assert!(resume(&["--trust"]).status.success() && trace.exists());

    fs::remove_file(&trace).unwrap();
    fs::rename(dir.join("game.py"), dir.join("run/game.py")).unwrap();
    let output = playfield(&dir.join("run"), &["eval", ".", "--trust"]).output().unwrap();
    let said = stderr(&output);
    assert!(said.contains("game.py: the environment of a run is not imported from the run's own folder"), "{said}");
    assert!(!trace.exists() && !dir.join("run/executed").exists());
}

/// Files in the working directory named like modules of the standard library do not replace them, in any process.
#[test]
fn files_named_like_python_s_modules_are_not_imported() {
    for vectorization in ["sync", "async"] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for name in ["random", "numpy", "selectors", "struct", "game"] {
            let text = if name == "game" { LEAVES_A_TRACE } else { "raise SystemExit('the wrong module')" };
            file(dir, &format!("{name}.py"), text);
        }
        let text = crate::common::experiment("game:Game-v0")
            .replace("[env]", &format!("[env]\nvectorization = '{vectorization}'"));
        file(dir, "a.toml", &text);
        let output =
            playfield(dir, &["train", "a.toml", "--run-dir", "run"]).env_remove("PYTHONPATH").output().unwrap();
        assert!(output.status.success() && dir.join("executed").exists(), "{vectorization}: {}", stderr(&output));
    }
}

/// One-hot bytes and one-hot floats have the same values: both algorithms learn the same from them, bit for bit.
#[test]
fn bytes_and_floats_give_the_same_run() {
    let dqn = "algorithm = 'dqn'\nsteps = 3000\n[env]\nid = 'own:Cue-v0'\nnum_envs = 4\n[network]\nhidden = [32]\n[dqn]\n\
        num_threads = 1\noverlap = false\nlearning_rate = 0.01\nlearning_starts = 100\nbuffer_size = 2000\n\
        target_update_interval = 40\nexploration_epsilon.end = 0.05\nexploration_epsilon.steps = 500\nsum_over_batch = false\n\
        optimizer = { rule = 'adam', beta2 = 0.999, eps = 1e-8 }\n";
    let dir = folder("own:Cue-v0", 40_000);
    file(dir.path(), "dqn.toml", dqn);
    for algorithm in ["paac", "dqn"] {
        let returns = ["uint8", "float32", "int64"].map(|dtype| {
            let (run, kind) = (format!("{algorithm}-{dtype}"), format!("env.kwargs.dtype={dtype}"));
            succeeds(dir.path(), &["train", &format!("{algorithm}.toml"), "--set", &kind, "--run-dir", &run]);
            greedy(dir.path(), &run, "50")
        });
        assert!(returns[0] > 0.9, "{algorithm}: {returns:?}");
        assert!(returns.iter().all(|r| *r == returns[0]), "{algorithm}: {returns:?}");
    }
}

/// An invalid reward ends training at once with the environment and the value, in every algorithm and way of stepping.
#[test]
fn an_invalid_reward_is_named_with_its_environment() {
    let dir = folder("own:Broken-v0", 20_000);
    for algorithm in ["ppo", "paac", "a3c", "dqn"] {
        let text = format!("algorithm = '{algorithm}'\nsteps = 20_000\n[env]\nid = 'own:Broken-v0'\nnum_envs = 4\n");
        let name = format!("{algorithm}-plain.toml");
        file(dir.path(), &name, &text);
        for way in ["vectorization=sync", "vectorization=async", "frame_skip=2"] {
            for (value, expected) in
                [("none", "its reward is None"), ("undefined", "its reward is NaN"), ("two", "its reward is array")]
            {
                let value = format!("env.kwargs.value={value}");
                let said = refuses(dir.path(), &["train", &name, "--set", way, "--set", &value]);
                assert!(
                    said.contains("error: own:Broken-v0: ") && said.contains("environment ") && said.contains(expected),
                    "{algorithm} {way}: {said}"
                );
            }
        }
    }
    let refused = refuses(dir.path(), &["train", "paac.toml", "--set", "env.kwargs.value=minus"]);
    assert!(refused.contains("its reward is -inf") && refused.contains("clip_reward"), "{refused}");
    let clipped = ["train", "paac.toml", "--set", "env.kwargs.value=minus", "--set", "clip_reward=clamp"];
    succeeds(dir.path(), &clipped);
}

/// Without a `render_mode`, `embed` needs no frames, and `watch` is an error; an environment's output is not part of the program's.
#[test]
fn environments_without_frames_can_be_embedded_and_evaluated() {
    let dir = folder("own:Picture-v0", 200);
    let channels = ["train", "paac.toml", "--run-dir", "run", "--set", "torso=nature", "--set", "vectorization=auto"];
    succeeds(dir.path(), &channels);
    let saved = std::fs::read_to_string(dir.path().join("run/config.toml")).unwrap();
    // A step is much shorter than what a process costs.
    assert!(saved.contains("nature") && saved.contains("vectorization = \"sync\""), "{saved}");
    assert_eq!(greedy(dir.path(), "run", "3"), 1.0);
    succeeds(dir.path(), &["embed", "run", "--points", "30", "--perplexity", "5"]);
    let said = refuses(dir.path(), &["watch", "run"]);
    assert!(said.contains("own:Picture-v0 does not support rendering"), "{said}");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("envs/examples/python");
    for name in ["config.toml", "corridor.py"] {
        std::fs::copy(example.join(name), dir.path().join(name)).unwrap();
    }
    succeeds(dir.path(), &["train", "config.toml", "--steps", "800", "--run-dir", "example"]);
    succeeds(dir.path(), &["embed", "example", "--points", "30", "--perplexity", "5"]);
    succeeds(dir.path(), &["watch", "example"]);
}

#[test]
fn ids_of_atari_games_without_preprocessing_name_the_id_with_it() {
    let dir = folder("own:Picture-v0", 200);
    for id in ["PongNoFrameskip-v4", "Pong-v4", "ale_py:PongNoFrameskip-v4"] {
        let said = refuses(dir.path(), &["train", "paac.toml", "--env", id]);
        assert!(said.contains("`ALE/Pong-v5`"), "{id}: {said}");
    }
    let said = refuses(dir.path(), &["train", "paac.toml", "--env", "ALE/Pong-v5", "--set", "env.kwargs.frameskip=1"]);
    assert!(said.contains("`frameskip`"), "{said}");
    let args = ["train", "paac.toml", "--env", "ALE/Pong-v5", "--set", "env.kwargs.difficulty=1", "--steps", "16"];
    let output = playfield(dir.path(), &args).args(["--run-dir", "pong"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let saved = std::fs::read_to_string(dir.path().join("pong/config.toml")).unwrap();
    for line in ["frame_skip = 4", "frame_stack = 4", "max_pool = true"] {
        assert!(saved.contains(line), "{saved}");
    }
}

/// A class in a file, with a module beside it, that renders and is not registered.
const CORRIDOR: &str = "
import gymnasium, numpy as np
from walls import CELLS

class Corridor(gymnasium.Env):
    metadata = {'render_modes': ['rgb_array'], 'render_fps': 10}
    observation_space = gymnasium.spaces.Box(0, 1, (CELLS,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, start=0, render_mode=None):
        if start > 7:
            raise ValueError(f'there is no cell {start}')
        self.start, self.render_mode = start, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cell = self.start
        return np.eye(CELLS, dtype=np.float32)[self.cell], {}

    def step(self, action):
        self.cell = max(self.cell + 2 * int(action) - 1, 0)
        return np.eye(CELLS, dtype=np.float32)[self.cell], -0.1, self.cell == CELLS - 1, False, {}

    def render(self):
        return np.full((20, 20, 3), 25 * self.cell, np.uint8)

class Table:
    pass
";

/// `env.id = "file.py:Class"` trains, resumes, evaluates and renders, also when a later command starts in another folder.
#[test]
fn a_class_in_a_file_needs_no_registration() {
    let dir = tempfile::tempdir().unwrap();
    let [work, other] = ["work", "other"].map(|name| dir.path().join(name));
    for folder in [&work.join("envs"), &other] {
        std::fs::create_dir_all(folder).unwrap();
    }
    file(&work, "envs/own.py", CORRIDOR);
    file(&work, "envs/walls.py", "CELLS = 8");
    let settings = "num_envs = 4\nmax_episode_steps = 50\nkwargs = { start = 5 }";
    let text =
        format!("algorithm = 'paac'\nsteps = 400\n[env]\nid = 'envs/own.py:Corridor'\n{settings}\n{ACTOR_CRITIC}");
    file(&work, "own.toml", &text);
    for (mode, run) in [("sync", "one"), ("async", "two")] {
        let set = format!("vectorization={mode}");
        succeeds(&work, &["train", "own.toml", "--run-dir", run, "--set", &set]);
        let saved = std::fs::read_to_string(work.join(run).join("config.toml")).unwrap();
        let absolute = format!("id = \"{}\"", work.join("envs/own.py:Corridor").display());
        assert!(saved.contains(&absolute), "{saved}");
        let run = work.join(run);
        let run = run.to_str().unwrap();
        let elsewhere = |args: &[&str]| {
            let output = playfield(&other, args).env("XDG_STATE_HOME", work.join(".state")).output().unwrap();
            assert!(output.status.success(), "{args:?}: {}", stderr(&output));
            String::from_utf8(output.stdout).unwrap()
        };
        elsewhere(&["train", "--resume", run, "--steps", "800"]);
        let json = elsewhere(&["eval", run, "--episodes", "2", "--deterministic", "--json"]);
        // Two cells to the right at the least, at most the limit of 50 steps.
        let mean = serde_json::from_str::<serde_json::Value>(&json).unwrap()["mean_return"].as_f64().unwrap();
        assert!((-5.0..=-0.2).contains(&mean), "{mean}");
        elsewhere(&["watch", run]);
    }
    let in_arguments = ["train", "own.toml", "--env", "own.py:Corridor", "--run-dir", "../three"];
    succeeds(&work.join("envs"), &[&in_arguments[..1], &["../own.toml"], &in_arguments[2..]].concat());
}

/// What is wrong with the file, the class, its import or its constructor is one sentence.
#[test]
fn a_wrong_file_or_class_is_named() {
    let dir = folder("own.py:Corridor", 100);
    file(dir.path(), "corridor.py", CORRIDOR);
    file(dir.path(), "walls.py", "CELLS = 8");
    file(dir.path(), "syntax.py", "def f(:\n  pass\n");
    file(dir.path(), "lacks.py", "import no_such_package\n");
    file(dir.path(), "plain.py", "import gymnasium\nclass Plain(gymnasium.Env):\n  pass\n");
    let path = |name: &str| dir.path().canonicalize().unwrap().join(name).display().to_string();
    for (id, expected) in [
        ("corider.py:Corridor", format!("there is no such file; did you mean {}?", path("corridor.py"))),
        (
            "corridor.py:Coridor",
            format!("the file has no class `Coridor`; did you mean {}?", path("corridor.py:Corridor")),
        ),
        ("corridor.py", format!("the id names a file and no class: write {}", path("corridor.py:Class"))),
        ("corridor.py:Table", "`Table` is no environment: derive the class from gymnasium.Env".into()),
        ("walls.py:Corridor", "the file has no class `Corridor`, and no subclass of gymnasium.Env".into()),
        ("syntax.py:A", "SyntaxError: invalid syntax (syntax.py, line 1)".into()),
        ("lacks.py:A", "the Python module `no_such_package` cannot be found".into()),
        ("plain.py:Plain", "AttributeError".into()),
        (
            "plain:Plain",
            format!("registers no `Plain`: register it (gymnasium.register), or write {}", path("plain.py:Plain")),
        ),
        ("own:Targit", "the module `own` registers no `Targit`; did you mean `own:Target-v0`?".into()),
    ] {
        let said = refuses(dir.path(), &["train", "paac.toml", "--env", id]);
        assert!(said.contains(&expected) && said.lines().count() == 1, "{id}: {said}");
        assert!(!said.contains("Alien"), "{id}: {said}");
    }
    for (set, expected) in [
        ("env.kwargs.start=8", "ValueError: there is no cell 8"),
        ("env.kwargs.stat=1", "unexpected keyword argument 'stat'"),
    ] {
        let said = refuses(dir.path(), &["train", "paac.toml", "--env", "corridor.py:Corridor", "--set", set]);
        assert!(said.contains(expected), "{set}: {said}");
    }
}
