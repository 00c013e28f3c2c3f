//! Exported policies compute what the policies of playfield compute: ONNX files in onnxruntime, TorchScript files in libtorch, on
//! observations of their environments.
#![cfg(feature = "python")]

#[allow(dead_code)] // its `main`
#[path = "../examples/act.rs"]
mod act;

use crate::common::{CARTPOLE, file, refuses, succeeds};
use playfield::collect::Collector;
use playfield::core::algorithm::Entry;
use playfield::core::{
    Action, ActionSpace, Actions, Checkpoints, EnvConfig, EnvFactory, Mode, Obs, Policy, Snapshot, rng,
};
use playfield::wrappers::Factory;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Environments of a recording. Training has another number, and exported batches have any.
const ENVS: usize = 3;

/// An experiment of few steps.
fn experiment(algorithm: &str, env: &str, network: &str, section: &str) -> String {
    let defaults = match algorithm {
        "dqn" => "learning_starts = 32\nbuffer_size = 1000\nbatch_size = 16\nnum_threads = 1\noverlap = false",
        "ppo" => "rollout_steps = 16\nminibatch_size = 16\nnum_threads = 1",
        _ => "num_threads = 1",
    };
    format!(
        "algorithm = '{algorithm}'\nsteps = 64\n[env]\nnum_envs = 2\n{env}\n[network]\nprecision = 'fp32'\n{network}\n\
         [{algorithm}]\n{defaults}\n{section}\n"
    )
}

/// A policy in its environments.
struct Play {
    collector: Collector,
    policy: Box<dyn Policy>,
    snapshot: Snapshot,
    normalized: bool,
}

/// The policy of a run, by the interfaces of the library, and environments with the seeds `seeds`.
fn open(run: &Path, seeds: &[u64]) -> Play {
    let table: toml::Table = fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap();
    let snapshot = Checkpoints::new(run.join("checkpoints"), 1).latest().unwrap().snapshot;
    let env = EnvConfig::resolve(table["env"].as_table().unwrap(), toml::Table::new()).unwrap();
    let own = playfield::classic::sources().into_iter().find(|(id, ..)| *id == env.id).map(|(.., source)| source);
    let source = own.or_else(|| playfield::gymnasium::lookup(&env.id)).unwrap();
    let (factory, normalized) = (Factory::new(source, env.clone()).unwrap(), env.normalize_obs);
    let algorithms = [
        Entry::of::<playfield::ppo::Ppo>(),
        Entry::of::<playfield::paac::Paac>(),
        Entry::of::<playfield::a3c::A3c>(),
        Entry::of::<playfield::dqn::Dqn>(),
    ];
    let algorithm = algorithms.iter().find(|entry| Some(entry.name) == table["algorithm"].as_str()).unwrap();
    let mut policy = algorithm.parse(&table).unwrap().load(factory.spec(), &snapshot).unwrap();
    policy.begin(seeds.len());
    let mut envs = factory.unnormalized(seeds).unwrap();
    if normalized {
        envs.load_statistics(&snapshot.state["env.statistics"], true).unwrap();
    }
    Play { collector: Collector::unnormalized(envs, None).unwrap(), policy, snapshot, normalized }
}

/// Observations as the environments return them, and the outputs of the policy: `[steps, n, …]`.
#[derive(Default)]
struct Recording {
    steps: usize,
    n: usize,
    obs: Vec<Obs>,
    ended: Vec<bool>,
    outputs: BTreeMap<String, Vec<f32>>,
    /// The executed discrete actions.
    actions: Vec<i64>,
    recurrent_width: usize,
}

impl Play {
    /// Records up to `steps` steps; where actions are greedy, one episode.
    fn record(&mut self, steps: usize, mode: Mode) -> Recording {
        let Self { collector, policy, snapshot, normalized } = self;
        let (n, spec) = (collector.num_envs(), collector.spec().clone());
        let mut recording = Recording { n, ..Recording::default() };
        recording.recurrent_width = snapshot.params.get("lstm.weight_hh").map_or(0, |array| array.shape[1]);
        let mut put = |name: &str, values: &[f32]| {
            recording.outputs.entry(name.into()).or_default().extend_from_slice(values);
        };
        while recording.steps < steps {
            let obs = collector.observations().clone();
            let outputs = policy.outputs(&obs, n).unwrap();
            put("value", &outputs.values);
            match &spec.actions {
                ActionSpace::Box { .. } => {
                    let mut actions = Actions::zeros(&spec.actions, n);
                    policy.act(&obs, &[], Mode::Greedy, &mut actions).unwrap();
                    let Actions::Continuous { values, .. } = actions else { unreachable!() };
                    put("mean", &values);
                    let log_std = snapshot.params["log_std"].values::<f32>().unwrap();
                    (0..n).for_each(|_| put("std", &log_std.iter().map(|l| l.exp()).collect::<Vec<_>>()));
                }
                _ => put(if outputs.are_values { "q_values" } else { "logits" }, &outputs.preferences),
            }
            recording.obs.push(if *normalized { collector.experience().batch.obs.clone() } else { obs });
            collector.step(&mut **policy, mode).unwrap();
            let experience = collector.experience();
            if let Actions::Discrete(actions) = &experience.actions {
                recording.actions.extend(actions);
            }
            let ended = experience.batch.ended();
            recording.ended.extend(&ended);
            recording.steps += 1;
            if mode == Mode::Greedy && ended[0] {
                break;
            }
        }
        recording
    }
}

impl Recording {
    /// The outputs of an ONNX file in onnxruntime, step by step.
    fn onnx(&self, dir: &Path, model: &str) -> BTreeMap<String, Vec<f32>> {
        let bytes = |obs: &Obs| match obs {
            Obs::U8(pixels) => pixels.clone(),
            Obs::F32(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        fs::write(dir.join("obs.bin"), self.obs.iter().flat_map(bytes).collect::<Vec<u8>>()).unwrap();
        fs::write(dir.join("ended.bin"), self.ended.iter().map(|&e| u8::from(e)).collect::<Vec<u8>>()).unwrap();
        python(dir, ONNX, &[model, &self.steps.to_string(), &self.n.to_string()]);
        let outputs = fs::read_dir(dir.join("outputs")).unwrap().map(|entry| entry.unwrap().path());
        let floats = |path: &Path| {
            fs::read(path).unwrap().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        outputs.map(|path| (path.file_stem().unwrap().to_str().unwrap().into(), floats(&path))).collect()
    }

    /// The outputs of a TorchScript file in libtorch, step by step.
    fn torchscript(&self, path: &Path, obs_shape: &[i64]) -> BTreeMap<String, Vec<f32>> {
        let module = tch::CModule::load(path).unwrap();
        let (n, width) = (self.n as i64, self.recurrent_width as i64);
        let zeros = || tch::Tensor::zeros([n, width], (tch::Kind::Float, tch::Device::Cpu));
        let mut state = if width > 0 { vec![("next_hidden", zeros()), ("next_cell", zeros())] } else { Vec::new() };
        let heads =
            ["logits", "mean", "std", "q_values", "value"].into_iter().filter(|h| self.outputs.contains_key(*h));
        let heads: Vec<_> = heads.map(|name| (name, (self.outputs[name].len() / self.steps / self.n) as i64)).collect();
        let mut outputs = BTreeMap::<String, Vec<f32>>::new();
        for (obs, ended) in self.obs.iter().zip(self.ended.chunks_exact(self.n)) {
            let obs = match obs {
                Obs::U8(pixels) => tch::Tensor::from_slice(pixels),
                Obs::F32(values) => tch::Tensor::from_slice(values),
            };
            let mut inputs = vec![obs.view(&[&[n][..], obs_shape].concat()[..])];
            inputs.extend(state.iter().map(|(_, tensor)| tensor.shallow_clone()));
            let result = module.forward_ts(&inputs).unwrap();
            let mut column = 0;
            let mut take = |width: i64| {
                column += width;
                result.narrow(1, column - width, width)
            };
            for &(name, width) in &heads {
                let values: Vec<f32> = take(width).contiguous().view(-1).try_into().unwrap();
                outputs.entry(name.into()).or_default().extend(values);
            }
            let keep: Vec<f32> = ended.iter().map(|&e| if e { 0.0 } else { 1.0 }).collect();
            let keep = tch::Tensor::from_slice(&keep).unsqueeze(1);
            state.iter_mut().for_each(|(_, tensor)| *tensor = take(width) * &keep);
            assert_eq!(column, result.size()[1]);
        }
        outputs
    }

    /// Fails unless `actual` holds the recorded outputs, up to rounding.
    fn assert_equal(&self, name: &str, actual: &BTreeMap<String, Vec<f32>>) {
        for (output, expected) in &self.outputs {
            let actual = &actual[output];
            assert_eq!(actual.len(), expected.len(), "{name}: {output}");
            let largest = expected.iter().fold(0.0_f32, |max, v| max.max(v.abs()));
            let difference = actual.iter().zip(expected).fold(0.0_f32, |max, (a, b)| max.max((a - b).abs()));
            assert!(difference <= 1e-4 * largest + 3e-5, "{name}: {output} differs by {difference} of {largest}");
            let varies = expected.iter().any(|v| (v - expected[0]).abs() > 1e-3 * largest);
            assert!(varies || output == "std", "{name}: {output} does not depend on the observation");
        }
    }
}

/// Computes the outputs for `obs.bin` from the recurrent state of each environment, which is reset where an episode ended.
const ONNX: &str = "
import os, sys
import numpy as np, onnxruntime
model, steps, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
policy = onnxruntime.InferenceSession(model)
types = {'tensor(uint8)': np.uint8, 'tensor(float)': np.float32}
inputs = {i.name: (types[i.type], [n] + i.shape[1:]) for i in policy.get_inputs()}
assert all(i.shape[0] == 'n' for i in policy.get_inputs() + policy.get_outputs())
dtype, shape = inputs.pop('obs')
obs = np.fromfile('obs.bin', dtype).reshape([steps] + shape)
ended = np.fromfile('ended.bin', bool).reshape(steps, n, 1)
state = {name: np.zeros(shape, dtype) for name, (dtype, shape) in inputs.items()}
results = {o.name: [] for o in policy.get_outputs()}
shapes = {o.name: [n] + o.shape[1:] for o in policy.get_outputs()}
for t in range(steps):
    outputs = dict(zip(results, policy.run(None, {'obs': obs[t], **state})))
    for name, values in outputs.items():
        assert list(values.shape) == shapes[name], (name, values.shape)
        results[name].append(values)
    state = {name: np.where(ended[t], np.float32(0), outputs['next_' + name]) for name in state}
os.makedirs('outputs', exist_ok=True)
for name, values in results.items():
    np.stack(values).astype(np.float32).tofile(f'outputs/{name}.bin')
";

/// Runs Python code in `dir`. Returns what it prints.
fn python(dir: &Path, code: &str, args: &[&str]) -> String {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let output = Command::new(python).current_dir(dir).args(["-c", code]).args(args).output().unwrap();
    assert!(output.status.success(), "{}\n{code}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Trains `text`, exports the policy in both formats, and compares them on `steps` steps.
fn check(name: &str, text: &str, steps: usize) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", text);
    succeeds(dir, &["train", "a.toml", "--run-dir", "run"]);
    succeeds(dir, &["export", "run", "--out", "policy.onnx"]);
    succeeds(dir, &["export", "run", "--format", "torchscript", "--out", "policy.pt"]);
    let mut play = open(&dir.join("run"), &rng::seeds(1, "export", ENVS));
    let recording = play.record(steps, Mode::Sample);
    recording.assert_equal(name, &recording.onnx(dir, "policy.onnx"));
    let spec = play.collector.spec();
    let shape = spec.shape.iter().copied().chain((spec.frame_stack > 1).then_some(spec.frame_stack));
    let shape: Vec<i64> = shape.map(|d| d as i64).collect();
    recording.assert_equal(name, &recording.torchscript(&dir.join("policy.pt"), &shape));
}

const PONG: &str = "id = 'ALE/Pong-v5'";

#[test]
fn convolutional_policies_are_exported() {
    for (name, algorithm, network, section) in [
        ("nature", "ppo", "torso = 'nature'", ""),
        (
            "nips, standardized frames, a torso for the value",
            "paac",
            "torso = 'nips'\nstandardize = true\nshared = false",
            "",
        ),
        ("impala, layer norm", "a3c", "torso = 'impala'\nnorm = 'layer'", ""),
        ("small, folded batch norm, LSTM", "ppo", "torso = 'small'\nnorm = 'batch'\nlstm = 16", ""),
        ("dueling", "dqn", "torso = 'nature'", "dueling = true"),
    ] {
        check(name, &experiment(algorithm, PONG, network, section), 6);
    }
}

#[test]
fn policies_on_vectors_are_exported() {
    for (name, algorithm, env, network, section) in [
        ("MLP", "ppo", "id = 'CartPole'\nframe_stack = 2", "activation = 'relu'", ""),
        ("Gaussian, normalized observations", "ppo", "id = 'Pendulum'\nnormalize_obs = true", "norm = 'layer'", ""),
        ("LSTM", "paac", "id = 'Recall'", "hidden = [16]\nlstm = 8", ""),
        ("values by n-step Q-learning", "a3c", "id = 'CartPole'", "activation = 'sigmoid'", "method = 'n_step_q'"),
        (
            "categorical, noisy, batch norm that is not folded",
            "dqn",
            "id = 'CartPole'",
            "norm = 'batch'",
            "distribution = 'categorical'\nnoisy_sigma = 0.5",
        ),
        ("several components", "ppo", "id = 'IdentityMultiDiscrete'", "hidden = [8]", ""),
        ("action masks", "dqn", "id = 'TicTacToe'", "", ""),
        (
            "quantiles, dueling, bytes",
            "dqn",
            "id = 'Catch'",
            "",
            "distribution = 'quantile'\natoms = 7\ndueling = true",
        ),
    ] {
        check(name, &experiment(algorithm, env, network, section), 40);
    }
}

/// Along an episode of the evaluation, the exported policy prefers the actions that the evaluation executed; so does the policy that
/// a Rust program loads.
#[test]
fn greedy_actions_are_those_of_the_evaluation() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    succeeds(dir, &["train", "a.toml", "--run-dir", "run"]);
    succeeds(dir, &["export", "run", "--best", "--out", "policy.onnx"]);
    let json = succeeds(dir, &["eval", "run", "--best", "--episodes", "1", "--deterministic", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    let recording = open(&dir.join("run"), &rng::seeds(0, "eval", 1)).record(500, Mode::Greedy);
    assert_eq!(Some(recording.steps as f64), report["mean_length"].as_f64());
    let logits = &recording.onnx(dir, "policy.onnx")["logits"];
    let exported: Vec<i64> = logits.chunks_exact(2).map(|l| i64::from(l[1] > l[0])).collect();
    assert_eq!(exported, recording.actions);
    let mut policy = playfield::load_policy(dir.join("run")).unwrap();
    assert_eq!((policy.spec().id.as_str(), policy.step()), ("CartPole", 4000));
    for (obs, &action) in recording.obs.iter().zip(&recording.actions) {
        assert_eq!(policy.act(obs.as_ref()).unwrap(), Action::Discrete(action as usize));
    }
    let error = policy.act(playfield::core::ObsRef::F32(&[0.0; 3])).unwrap_err().to_string();
    assert!(error.contains("3 elements of F32, and CartPole observes [4] of F32"), "{error}");
    assert!(act::episode(&dir.join("run"), 1).unwrap() >= 1.0);
}

/// A loaded policy normalizes, stacks, carries its recurrent state and maps to bounds as the environments of an evaluation do.
#[test]
fn a_loaded_policy_prepares_observations_as_in_evaluation() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let env = "id = 'Pendulum'\nframe_stack = 3\nnormalize_obs = true\nmax_episode_steps = 12";
    file(dir, "a.toml", &experiment("ppo", env, "lstm = 8", ""));
    succeeds(dir, &["train", "a.toml", "--run-dir", "run"]);
    // Raw frames, and what the policy does with the environments' own stacks.
    let table: toml::Table = fs::read_to_string(dir.join("run/config.toml")).unwrap().parse().unwrap();
    let config = EnvConfig::resolve(table["env"].as_table().unwrap(), toml::Table::new()).unwrap();
    let source = playfield::classic::sources().into_iter().find(|(id, ..)| *id == config.id).unwrap().2;
    let factory = Factory::new(source, config).unwrap();
    let Play { mut policy, snapshot, .. } = open(&dir.join("run"), &[5]);
    let collector = |envs: Box<dyn playfield::core::VecEnv>| {
        let mut envs = envs;
        envs.load_statistics(&snapshot.state["env.statistics"], true).unwrap();
        Collector::new(envs, None).unwrap()
    };
    let (mut normalized, mut raw) =
        (collector(factory.vec(&[5]).unwrap()), collector(factory.unnormalized(&[5]).unwrap()));
    let mut loaded = playfield::load_policy(dir.join("run")).unwrap();
    for step in 0..30 {
        let frame = raw.experience().batch.obs.clone();
        normalized.step(&mut *policy, Mode::Greedy).unwrap();
        let Actions::Continuous { values: mut expected, .. } = normalized.experience().actions.clone() else {
            unreachable!()
        };
        raw.step(&mut Fixed(expected.clone()), Mode::Greedy).unwrap();
        factory.spec().actions.to_bounds(&mut expected);
        assert_eq!(loaded.act(frame.as_ref()).unwrap(), Action::Continuous(&expected), "step {step}");
        if normalized.experience().batch.ended()[0] {
            loaded.begin_episode();
        }
    }
}

#[test]
fn a_loaded_policy_selects_valid_actions() {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path(), "a.toml", &experiment("paac", "id = 'TicTacToe'", "", ""));
    succeeds(dir.path(), &["train", "a.toml", "--run-dir", "run"]);
    let mut policy = playfield::load_policy(dir.path().join("run")).unwrap().sampling(3);
    let obs = Obs::zeros(policy.spec().dtype, policy.spec().frame_len());
    for valid in 0..policy.spec().mask_len() {
        let mask: Vec<bool> = (0..policy.spec().mask_len()).map(|action| action == valid).collect();
        assert_eq!(policy.act_masked(obs.as_ref(), &mask).unwrap(), Action::Discrete(valid));
    }
}

/// A policy that selects one action.
struct Fixed(Vec<f32>);

impl Policy for Fixed {
    fn act(&mut self, _obs: &Obs, _mask: &[bool], _mode: Mode, actions: &mut Actions) -> playfield::core::Result<()> {
        let Actions::Continuous { values, .. } = actions else { unreachable!() };
        values.copy_from_slice(&self.0);
        Ok(())
    }

    fn seed(&mut self, _seed: u64) {}
}

/// The printed code runs, and the card states the model and its preprocessing.
#[test]
fn an_export_prints_code_and_writes_a_card() {
    for (algorithm, env, network, printed, stated) in [
        (
            "ppo",
            "id = 'CartPole'",
            "",
            "[",
            &["`logits` | float32 | [n, 2]", "0 LEFT, 1 RIGHT", "truncated after 500 steps"][..],
        ),
        (
            "ppo",
            "id = 'Pendulum'\nnormalize_obs = true",
            "",
            "[[",
            &["`mean`", "normalized by the running", "low, high = np.array([-2.0])"],
        ),
        (
            "paac",
            "id = 'Recall'\nclip_reward = 'sign'",
            "lstm = 8",
            "[",
            &["`hidden` | float32 | [n, 8]", "rewards are their sign"],
        ),
        ("dqn", "id = 'Catch'\nframe_stack = 2", "", "[", &["[n, 10, 5, 2]", "oldest first", "`q_values`", "epsilon"]),
        ("ppo", "id = 'IdentityMultiDiscrete'", "", "[[", &["components with [", "np.split(logits, ["]),
        (
            "dqn",
            "id = 'TicTacToe'",
            "",
            "[",
            &["which actions are valid", "np.where(mask, q_values, -np.inf)", "np.where(mask, random, -1)"],
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        file(dir, "a.toml", &experiment(algorithm, env, network, ""));
        succeeds(dir, &["train", "a.toml", "--run-dir", "run"]);
        let said = succeeds(dir, &["export", "run"]);
        let path = said.lines().find_map(|line| line.strip_prefix("policy     ")).unwrap().split(',').next().unwrap();
        let code = said.split_once("Run it in Python:\n").unwrap().1.trim();
        let action = python(dir, code, &[]);
        assert!(action.starts_with(printed), "{action}\n{code}");
        let card = fs::read_to_string(dir.join(format!("{path}.md"))).unwrap();
        // Beside the file, its name is its path.
        let here = code.replace("run/policy", "policy");
        for expected in stated.iter().chain(&["agent steps | ", "ONNX, operator set 18", &here]) {
            assert!(card.contains(expected), "{expected}\n{card}");
        }
        // The card's code that samples an action.
        let mut blocks = card.split("```python\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        let sampling = blocks.nth(1).unwrap();
        let shapes =
            python(dir, &format!("{code}\nshape = action.shape\n{sampling}\nprint(shape == action.shape)"), &[]);
        assert!(shapes.trim().ends_with("True"), "{shapes}\n{sampling}");
    }
}

/// A safetensors file holds the parameters of the checkpoint, and the constants of the preprocessing.
#[test]
fn exported_weights_have_the_names_of_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", &experiment("ppo", "id = 'Pendulum'\nnormalize_obs = true", "hidden = [8]", ""));
    succeeds(dir, &["train", "a.toml", "--run-dir", "run"]);
    let said = succeeds(dir, &["export", "run", "--format", "safetensors", "--out", "deep/er/p.safetensors"]);
    assert!(said.contains("= F.linear(v") && said.contains("return mean, std, value"), "{said}");
    let code = "import sys\nfrom safetensors.numpy import load_file\na, b = [load_file(p) for p in sys.argv[1:]]\n\
                print(sorted(a.keys() - b.keys()), b.keys() - a.keys(), all((a[k] == b[k]).all() for k in b))";
    let checkpoint = crate::common::checkpoints(&dir.join("run")).pop().unwrap().join("model.safetensors");
    let said = python(dir, code, &["deep/er/p.safetensors", checkpoint.to_str().unwrap()]);
    assert_eq!(said.trim(), "['normalize_obs.mean', 'normalize_obs.std'] set() True");
    assert!(dir.join("deep/er/p.safetensors.md").exists());
}

#[test]
fn an_export_without_a_policy_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    succeeds(dir, &["train", "a.toml", "--run-dir", "run", "--steps", "200"]);
    for (args, expected) in [
        (&["export", "nothing"][..], "contains no run"),
        (&["export", "run", "--format", "onx"], "'onnx'"),
        (&["export", "run", "--out", "run"], "is a folder: name a file"),
        (&["export", "run", "--out", "a.toml/b.onnx"], "cannot create"),
    ] {
        let said = refuses(dir, args);
        assert!(said.contains(expected), "{args:?}: {said}");
    }
    fs::remove_dir_all(dir.join("run/checkpoints")).unwrap();
    assert!(refuses(dir, &["export", "run"]).contains("no checkpoint yet"));
    let error = playfield::load_policy(dir.join("run")).err().unwrap().to_string();
    assert!(error.contains("no checkpoint yet"), "{error}");
}
