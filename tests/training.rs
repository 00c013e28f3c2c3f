//! Training with failures: environments that fail, replay buffers without transitions, divergence; and the policy that training
//! returns.

use playfield::a3c::A3c;
use playfield::core::algorithm::Entry;
use playfield::core::env::source;
use playfield::core::metrics::{Row, Sink};
use playfield::core::run::Intervals;
use playfield::core::{
    Action, ActionSpace, Checkpoints, Configured, Dtype, Env, EnvConfig, EnvFactory as _, EnvSpec, Error, Obs, ObsMut,
    Result, Run, Snapshot, Step,
};
use playfield::dqn::Dqn;
use playfield::paac::Paac;
use playfield::ppo::Ppo;
use playfield::wrappers::Factory;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Episodes of five steps with reward 1 each. It fails in step `fails`, counted over all episodes.
struct Walk {
    spec: EnvSpec,
    position: u64,
    steps: u64,
    fails: u64,
}

impl Walk {
    fn new(fails: u64) -> Self {
        let actions = ActionSpace::Discrete { n: 2 };
        let spec = EnvSpec::new("Walk", &[1], Dtype::F32, actions);
        Self { spec, position: 0, steps: 0, fails }
    }
}

impl Env for Walk {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, _seed: Option<u64>, mut obs: ObsMut<'_>) -> Result<Step> {
        self.position = 0;
        obs.f32()[0] = 0.0;
        Ok(Step::default())
    }

    fn step(&mut self, _action: Action<'_>, mut obs: ObsMut<'_>) -> Result<Step> {
        (self.position, self.steps) = (self.position + 1, self.steps + 1);
        if self.steps == self.fails {
            return Err(Error::env("Walk", "the simulator has crashed"));
        }
        obs.f32()[0] = self.position as f32 / 5.0;
        Ok(Step { reward: 1.0, terminated: self.position == 5, ..Step::default() })
    }
}

const NEVER: u64 = u64::MAX;

fn factory(num_envs: usize, fails: u64) -> Factory {
    let config = EnvConfig { id: "Walk".into(), num_envs, num_threads: 1, ..EnvConfig::default() };
    Factory::new(Arc::new(source(move |_| Ok(Walk::new(fails)))), config).unwrap()
}

/// The algorithm with these sections of a configuration.
fn settings(algorithm: Entry, network: &str, section: &str) -> Box<dyn Configured> {
    let text = format!(
        "device = 'cpu'
[network]
{network}
[{}]
{section}",
        algorithm.name
    );
    algorithm.parse(&text.parse().unwrap()).unwrap()
}

fn run(dir: &Path, steps: u64) -> Run {
    let intervals = Intervals { checkpoint_seconds: 1e6, ..Intervals::default() };
    Run::new(1, steps).with_checkpoints(Checkpoints::new(dir, 2), intervals)
}

fn latest(dir: &Path) -> Snapshot {
    Checkpoints::new(dir, 2).latest().unwrap().snapshot
}

const PAAC: Entry = Entry::of::<Paac>();
const PPO: Entry = Entry::of::<Ppo>();
const A3C: Entry = Entry::of::<A3c>();
const DQN: Entry = Entry::of::<Dqn>();

const ALGORITHMS: [(Entry, &str); 4] = [
    (PAAC, "num_threads = 1"),
    (A3C, "num_threads = 2"),
    (DQN, "learning_starts = 20\nbuffer_size = 500\noverlap = false\nnum_threads = 1"),
    (DQN, "learning_starts = 20\nbuffer_size = 500\nnum_threads = 2"),
];

/// An environment that fails after 100 steps: the run is saved, as on Ctrl-C, the error is the environment's, and the run
/// resumes.
#[test]
fn a_checkpoint_is_saved_when_an_environment_fails() {
    for (algorithm, section) in ALGORITHMS {
        let (dir, settings) = (tempfile::tempdir().unwrap(), settings(algorithm, "hidden = [8]", section));
        let error = settings.train(&factory(2, 100), &mut run(dir.path(), 1_000)).err().expect("it fails");
        assert!(error.to_string().contains("the simulator has crashed"), "{}: {error}", algorithm.name);
        let snapshot = latest(dir.path());
        // 99 complete steps of two environments; asynchronous ones may differ by more.
        let expected = if algorithm.name == "a3c" { 90..=1_000 } else { 198..=198 };
        assert!(expected.contains(&snapshot.step), "{}: saved at step {}", algorithm.name, snapshot.step);
        let mut resumed = run(dir.path(), 1_000).with_resume(snapshot).unwrap();
        settings.train(&factory(2, NEVER), &mut resumed).unwrap();
        assert!(latest(dir.path()).step >= 1_000, "{}", algorithm.name);
    }
}

/// With automatic threads a small network of DQN is trained in one thread without overlap, and the choice is written out; a number of
/// threads or a larger network keeps the overlap.
#[test]
fn dqn_trains_small_networks_in_one_thread() {
    for (network, section, expected) in [
        ("hidden = [256, 256]", "batch_size = 64", (1, false)),
        ("hidden = [256, 256]", "num_threads = 2", (2, true)),
        ("hidden = [1024, 1024]", "num_threads = 0\nbatch_size = 16", (1, true)),
    ] {
        let mut configured = settings(DQN, network, section);
        for _ in 0..2 {
            configured.resolve(1_000, &factory(1, NEVER)).unwrap();
            let dqn = configured.table().unwrap()["dqn"].clone();
            let found = (dqn["num_threads"].as_integer().unwrap(), dqn["overlap"].as_bool().unwrap());
            assert_eq!(found, expected, "{network}, {section}");
        }
    }
}

/// Updates start with the first transition that can be sampled: later than `learning_starts` with n-step returns, or with as
/// many environments as steps before learning starts.
#[test]
fn dqn_waits_for_the_first_transition() {
    for (envs, section) in [
        (1, "n_step = 4\nlearning_starts = 0\ntrain_interval = 1"),
        (8, "n_step = 3\nlearning_starts = 10"),
        (64, "n_step = 3\nlearning_starts = 100"),
        (4, "n_step = 4\nlearning_starts = 0\nprioritized = true"),
    ] {
        for how in ["overlap = false\nnum_threads = 1", "overlap = true\nnum_threads = 2"] {
            let settings = settings(DQN, "hidden = [8]", &format!("buffer_size = 2000\n{section}\n{how}"));
            let dir = tempfile::tempdir().unwrap();
            settings.train(&factory(envs, NEVER), &mut run(dir.path(), 640)).unwrap();
            let updates: u64 = latest(dir.path()).get("optimizer.updates").unwrap();
            assert!(updates > 10, "{envs} environments, {section}: {updates} updates");
        }
    }
}

/// A loss that overflows ends the training without a checkpoint; the message names the last good one.
#[test]
fn a_diverged_training_keeps_its_last_good_checkpoint() {
    for (algorithm, section) in ALGORITHMS {
        let dir = tempfile::tempdir().unwrap();
        let good = settings(algorithm, "hidden = [8]", section);
        good.train(&factory(2, NEVER), &mut run(dir.path(), 200)).unwrap();
        let snapshot = latest(dir.path());
        let wild = settings(
            algorithm,
            "hidden = [8]\nactivation = 'relu'",
            &format!("{section}\nlearning_rate = 1e30\noptimizer = {{ rule = 'sgd' }}"),
        );
        let fresh = tempfile::tempdir().unwrap();
        let error = wild.train(&factory(2, NEVER), &mut run(fresh.path(), 5_000)).err().expect("it diverges");
        assert!(matches!(error, Error::Diverged(_)), "{}: {error}", algorithm.name);
        assert!(!error.to_string().contains("checkpoint"), "there is no checkpoint: {error}");
        assert!(latest(dir.path()) == snapshot);
    }
}

/// The policy that training returns has a zero recurrent state: its outputs equal those of the policy loaded from the last
/// checkpoint.
#[test]
fn a_recurrent_policy_is_handed_over_without_its_state() {
    for (algorithm, section) in [(PAAC, "num_threads = 1"), (A3C, "num_threads = 1")] {
        let (dir, settings) = (tempfile::tempdir().unwrap(), settings(algorithm, "hidden = [8]\nlstm = 8", section));
        let factory = factory(3, NEVER);
        let mut trained = settings.train(&factory, &mut run(dir.path(), 302)).unwrap();
        let mut loaded = settings.load(factory.spec(), &latest(dir.path())).unwrap();
        let observations = Obs::F32(vec![0.2, 0.4, 0.8]);
        let said = loaded.outputs(&observations, 3).unwrap_err().to_string();
        assert!(said.contains("call `begin(3)`"), "states belong to their environments: {said}");
        let [a, b] = [&mut trained, &mut loaded].map(|policy| {
            policy.begin(3);
            policy.outputs(&observations, 3).unwrap()
        });
        assert_eq!(a, b, "{}", algorithm.name);
    }
}

/// The last row of metrics.
#[derive(Clone, Default)]
struct Last(Arc<Mutex<Vec<(String, f64)>>>);

impl Sink for Last {
    fn scalars(&mut self, row: &Row) -> Result<()> {
        *self.0.lock().unwrap() = row.values.iter().map(|(tag, value)| (tag.to_string(), *value)).collect();
        Ok(())
    }
}

/// After 1,000 steps the number of updates is the scheduled one, and ε, β and learning rate are those of the last step.
#[test]
fn updates_and_schedules_follow_the_step_count() {
    let dqn = "learning_starts = 100\nbuffer_size = 500\ntrain_interval = 8\ngradient_steps = 3\n\
               prioritized = true\nbeta.start = 0.4\nexploration_epsilon.end = 0.0\nexploration_epsilon.steps = 1800\n";
    let a3c = "num_threads = 1\nrollout_steps = 5\nlearning_rate = { start = 0.001, end = 0.0, steps = 4000 }";
    let paac = "num_threads = 1\nrollout_steps = 5\nlearning_rate = { start = 0.001, end = 0.0, steps = 4000 }";
    type Case<'a> = (Entry, String, &'a [(&'a str, f64)]);
    // Ten rollouts of 100 transitions, each with two epochs of minibatches of 30, 30, 30 and 10.
    let ppo = "num_threads = 1\nrollout_steps = 50\nminibatch_size = 30\nepochs = 2\n\
               learning_rate = { start = 0.001, end = 0.0, steps = 4000 }\nclip_range = { start = 0.2, end = 0.1, steps = 2000 }";
    let cases: [Case<'_>; 5] = [
        // 3 updates at 104, 112, … 1000; ε = 1 − 900/1800; β at the end.
        (
            DQN,
            format!("{dqn}overlap = false\nnum_threads = 1"),
            &[("train/n_updates", 339.0), ("rollout/exploration_rate", 0.5), ("train/per_beta", 1.0)],
        ),
        // The acting weights are one round old, without the last 3 updates.
        (
            DQN,
            format!("{dqn}num_threads = 2"),
            &[("train/n_updates", 336.0), ("rollout/exploration_rate", 0.5), ("train/per_beta", 1.0)],
        ),
        (PPO, ppo.into(), &[("train/n_updates", 80.0), ("train/learning_rate", 0.00075), ("train/clip_range", 0.15)]),
        (PAAC, paac.into(), &[("train/n_updates", 100.0), ("train/learning_rate", 0.00075)]),
        (A3C, a3c.into(), &[("train/n_updates", 100.0), ("train/learning_rate", 0.00075)]),
    ];
    for (algorithm, section, expected) in cases {
        let last = Last::default();
        let settings = settings(algorithm, "hidden = [8]", &section);
        settings.train(&factory(2, NEVER), &mut Run::new(1, 1_000).with_sink(last.clone())).unwrap();
        let row = last.0.lock().unwrap();
        for (tag, expected) in expected {
            let found = row.iter().find(|(t, _)| t == tag).unwrap_or_else(|| panic!("{tag} is not reported")).1;
            assert!((found - expected).abs() < 1e-9, "{}, {tag}: {found}, not {expected}", algorithm.name);
        }
    }
}

/// A soft target update every step, every 4, every 64: the parameters differ.
#[test]
fn the_interval_of_soft_target_updates_changes_the_run() {
    let mut seen: Vec<Snapshot> = Vec::new();
    for every in [1, 4, 64] {
        let section = format!(
            "learning_starts = 20\nbuffer_size = 500\ntrain_interval = 8\ntau = 0.1\n\
             target_update_interval = {every}\noverlap = false\nnum_threads = 1\nloss = 'squared'\nsum_over_batch = false"
        );
        let (dir, settings) = (tempfile::tempdir().unwrap(), settings(DQN, "hidden = [8]", &section));
        settings.train(&factory(2, NEVER), &mut run(dir.path(), 500)).unwrap();
        let snapshot = latest(dir.path());
        assert!(seen.iter().all(|other| other.params != snapshot.params), "target_update_interval = {every}");
        seen.push(snapshot);
    }
}
