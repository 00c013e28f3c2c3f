//! Actor-learners: a single one equals PAAC; several resume from checkpoints; a failing one stops training with a checkpoint.

use playfield_a3c::{A3c, Config, Method};
use playfield_core::metrics::{EpisodeRow, Row};
use playfield_core::run::{EvalConfig, Intervals};
use playfield_core::{
    Actions, Algorithm, Checkpoints, EnvConfig, EnvFactory, EnvSpec, EpisodeEnd, Error, Obs, Result, Run, Schedule,
    Sink, Snapshot, StepBatch, VecEnv,
};
use playfield_hogwild::Sharing;
use playfield_nn::NetworkConfig;
use playfield_nn::config::NormKind;
use playfield_nn::optim::{Adam, OptimizerConfig, RmsProp, Rule};
use playfield_paac::Paac;
use playfield_wrappers::Factory;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const ENVS: usize = 4;

fn factory() -> Factory {
    with_settings(toml::Table::new())
}

/// CartPole with further settings of `[env]`.
fn with_settings(settings: toml::Table) -> Factory {
    let (_, _, source) = playfield_classic::sources().into_iter().find(|(id, ..)| *id == "CartPole").unwrap();
    let mut table = toml::toml! {
        id = "CartPole"
        num_envs = 4
    };
    table.extend(settings);
    Factory::new(source.clone(), EnvConfig::resolve(&table, source.defaults()).unwrap()).unwrap()
}

/// Trains to `steps` in `dir`, from the latest checkpoint if there is one.
fn train<A: Algorithm>(config: &A::Config, factory: &dyn EnvFactory, dir: &Path, steps: u64) -> Result<()> {
    train_to::<A>(config, factory, dir, steps, Recorder::default())
}

fn train_to<A: Algorithm>(
    config: &A::Config,
    factory: &dyn EnvFactory,
    dir: &Path,
    steps: u64,
    recorder: Recorder,
) -> Result<()> {
    let checkpoints = Checkpoints::new(dir, 1);
    let resumed = checkpoints.latest().ok().map(|loaded| loaded.snapshot);
    let mut run = Run::new(3, steps).with_checkpoints(checkpoints, Default::default()).with_sink(recorder);
    if let Some(snapshot) = resumed {
        run = run.with_resume(snapshot)?;
    }
    A::train(config, factory, &mut run).map(drop)
}

fn latest(dir: &Path) -> Snapshot {
    Checkpoints::new(dir, 1).latest().unwrap().snapshot
}

fn network() -> NetworkConfig {
    NetworkConfig { hidden: vec![16], ..NetworkConfig::default() }
}

fn config(num_threads: usize) -> Config {
    Config { num_threads, network: network(), device: "cpu".into(), ..Config::default() }
}

/// The episodes of a run with their steps, the lags of its rows, and the steps of its evaluations.
#[derive(Clone, Default)]
struct Recorder {
    episodes: Arc<Mutex<Vec<(u64, EpisodeEnd)>>>,
    lags: Arc<Mutex<Vec<f64>>>,
    evaluations: Arc<Mutex<Vec<u64>>>,
}

impl Sink for Recorder {
    fn scalars(&mut self, row: &Row) -> Result<()> {
        self.lags.lock().unwrap().extend(row.get("async/policy_lag"));
        Ok(())
    }
    fn evaluation(&mut self, row: &Row) -> Result<()> {
        self.evaluations.lock().unwrap().push(row.step);
        Ok(())
    }
    fn episode(&mut self, row: &EpisodeRow) -> Result<()> {
        self.episodes.lock().unwrap().push((row.step, row.end));
        Ok(())
    }
}

/// PAAC and a single actor-learner with all environments resume from the same checkpoint and compute identical updates, bit for
/// bit; with batch norm, running statistics included, to rounding. Adam's bias correction counts their updates. 3,008 steps are 94
/// rollouts. No other thread's update comes between.
#[test]
fn a_single_actor_learner_is_paac() {
    let learning_rate = Schedule::linear(3e-3, 0.0, 10_000);
    let entropy_coefficient = Schedule::linear(0.02, 0.002, 10_000);
    let batch_norm = NetworkConfig { norm: NormKind::Batch, ..network() };
    let [rms_prop, adam] = [RmsProp::tensorflow().into(), OptimizerConfig::from(Adam::default())];
    for (network, optimizer) in [(network(), rms_prop.clone()), (batch_norm, rms_prop), (network(), adam)] {
        let is_exact = network.norm != NormKind::Batch && optimizer.name() == Rule::RmsProp;
        let paac_config = playfield_paac::Config {
            num_threads: 1,
            rollout_steps: 8,
            gae_lambda: 0.9,
            learning_rate,
            entropy_coefficient,
            gradient_clip: 0.5,
            optimizer: optimizer.clone(),
            network: network.clone(),
            device: "cpu".into(),
            ..Default::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let [paac, a3c] = ["paac", "a3c"].map(|name| dir.path().join(name));
        train::<Paac>(&paac_config, &factory(), &paac, 1_000).unwrap();
        let mut start = latest(&paac);
        let whole = Snapshot { params: Default::default(), ..start.clone() };
        start.nest("actor_learner.0", whole);
        Checkpoints::new(&a3c, 1).save(&start, None).unwrap();

        let recorders = [Recorder::default(), Recorder::default()];
        train_to::<Paac>(&paac_config, &factory(), &paac, 3_008, recorders[0].clone()).unwrap();
        // The default of `initial_square` differs, but the optimizer state is restored from the checkpoint.
        let config = Config {
            rollout_steps: 8,
            gae_lambda: 0.9,
            learning_rate,
            entropy_coefficient,
            gradient_clip: 0.5,
            sum_over_time: true,
            optimizer: match optimizer {
                OptimizerConfig::RmsProp(_) => config(1).optimizer,
                other => other,
            },
            network,
            ..config(1)
        };
        train_to::<A3c>(&config, &factory(), &a3c, 3_008, recorders[1].clone()).unwrap();
        let (expected, actual) = (latest(&paac), latest(&a3c));
        assert_eq!((expected.step, actual.step), (3_008, 3_008));
        assert_ne!(expected.params, start.params);
        for (name, array) in &expected.params {
            let [a, b] = [array, &actual.params[name]].map(|array| array.values::<f32>().unwrap());
            // The global norm sums the elements of normalization layers in another order; Adam's step divides in another.
            let bound = if is_exact { 0.0 } else { 1e-6 };
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= bound), "{name}: {a:?}, {b:?}");
        }
        assert_eq!(expected.get::<u64>("optimizer.updates").unwrap(), actual.get::<u64>("optimizer.updates").unwrap());
        let own = actual.nested("actor_learner.0");
        assert_eq!(expected.state["actor.rng"], own.state["actor.rng"]);
        assert_eq!(expected.state["env.state"], own.state["env.state"]);
        let lags = recorders[1].lags.lock().unwrap().clone();
        let [expected, actual] = recorders.map(|recorder| recorder.episodes.lock().unwrap().clone());
        assert!(expected.len() > 10 && expected == actual, "{expected:?}, {actual:?}");
        assert!(!lags.is_empty() && lags.iter().all(|lag| *lag == 0.0), "{lags:?}");
    }
}

/// The target network is that of the last update that was due: the first one where none is, and never the same where all are.
#[test]
fn the_target_network_is_updated_when_it_is_due() {
    let dir = tempfile::tempdir().unwrap();
    let targets = |name: &str, target_update_interval| {
        let config = Config { method: Method::OneStepQ, target_update_interval, ..config(1) };
        [100, 200].map(|steps| {
            train::<A3c>(&config, &factory(), &dir.path().join(name), steps).unwrap();
            latest(&dir.path().join(name)).array("target").unwrap().values::<f32>().unwrap()
        })
    };
    let [never, always] = [targets("never", 1_000_000_000), targets("always", 1)];
    assert_eq!(never[0], never[1]);
    assert!(never[0] != always[0] && always[0] != always[1]);
}

/// A decaying entropy coefficient changes the parameters; a linear schedule with equal start and end does not.
#[test]
fn the_entropy_coefficient_may_decay() {
    let dir = tempfile::tempdir().unwrap();
    let trained = |name: &str, entropy_coefficient| {
        let run = dir.path().join(name);
        train::<A3c>(&Config { entropy_coefficient, ..config(1) }, &factory(), &run, 1_000).unwrap();
        latest(&run).params
    };
    let constant = trained("constant", Schedule::constant(0.1));
    assert_eq!(constant, trained("line", Schedule::linear(0.1, 0.1, 500)));
    assert_ne!(constant, trained("decaying", Schedule::linear(0.1, 0.0, 0)));
}

/// A checkpoint contains the random stream and environments of every actor-learner, and a run with several resumes from it: with
/// shared or separate optimizer statistics, with locks or lock-free.
#[test]
fn several_actor_learners_resume_from_a_checkpoint() {
    for config in [config(4), Config { sharing: Sharing::Atomic, shared_statistics: false, ..config(2) }] {
        let threads = config.num_threads;
        let dir = tempfile::tempdir().unwrap();
        train::<A3c>(&config, &factory(), dir.path(), 2_000).unwrap();
        let first = latest(dir.path());
        let streams: Vec<_> =
            (0..threads).map(|i| first.nested(&format!("actor_learner.{i}")).state["actor.rng"].clone()).collect();
        assert!((1..threads).all(|i| streams[i] != streams[0]), "each has its own stream");
        assert!(!first.state.contains_key(&format!("actor_learner.{threads}.actor.rng")));
        train::<A3c>(&config, &factory(), dir.path(), 4_000).unwrap();
        let second = latest(dir.path());
        assert!(first.step >= 2_000 && second.step >= 4_000 && second.step < 4_000 + 20 * threads as u64);
        let updates = |s: &Snapshot| s.get::<u64>("optimizer.updates").unwrap();
        let per_update = 5 * (ENVS / threads) as u64;
        assert_eq!((updates(&first), updates(&second)), (first.step / per_update, second.step / per_update));
        assert_ne!(first.params, second.params);
        if !config.shared_statistics {
            let own = |i| second.nested(&format!("actor_learner.{i}")).get::<u64>("statistics.updates").unwrap();
            assert_eq!((0..threads).map(own).sum::<u64>(), updates(&second), "each counts its own");
        }
    }
}

/// Each step ends an episode here, so a checkpoint that contains the episodes of all its steps counts as many as steps.
#[test]
fn a_checkpoint_contains_every_episode_before_it() {
    let factory = with_settings(toml::toml! { max_episode_steps = 1 });
    let dir = tempfile::tempdir().unwrap();
    let intervals = Intervals { checkpoint_seconds: 1e-9, ..Intervals::default() };
    let mut run = Run::new(3, 400).with_checkpoints(Checkpoints::new(dir.path(), 1_000), intervals);
    A3c::train(&config(4), &factory, &mut run).unwrap();
    let all = Checkpoints::new(dir.path(), 1).list().unwrap();
    assert!(all.len() > 2, "{all:?}");
    for path in all {
        let saved = playfield_core::checkpoint::read(&path).unwrap();
        assert_eq!(saved.get::<u64>("run.episodes").unwrap(), saved.step);
    }
}

/// How an environment fails.
#[derive(Clone, Copy, PartialEq)]
enum Failure {
    Error,
    Panic,
    /// A reward whose square is not finite.
    Reward,
}

/// Environments of which that with the seed `fails_for` fails after `steps` steps.
struct Failing {
    inner: Factory,
    failure: Failure,
    fails_for: u64,
    steps: usize,
}

struct FailingEnv {
    inner: Box<dyn VecEnv>,
    left: Option<usize>,
    failure: Failure,
}

impl EnvFactory for Failing {
    fn spec(&self) -> &EnvSpec {
        self.inner.spec()
    }

    fn num_envs(&self) -> usize {
        self.inner.num_envs()
    }

    fn vec(&self, seeds: &[u64]) -> Result<Box<dyn VecEnv>> {
        let left = (seeds[0] == self.fails_for).then_some(self.steps);
        Ok(Box::new(FailingEnv { inner: self.inner.vec(seeds)?, left, failure: self.failure }))
    }
}

impl VecEnv for FailingEnv {
    fn spec(&self) -> &EnvSpec {
        self.inner.spec()
    }
    fn num_envs(&self) -> usize {
        self.inner.num_envs()
    }
    fn reset(&mut self, batch: &mut StepBatch) -> Result<()> {
        self.inner.reset(batch)
    }
    fn send(&mut self, actions: &Actions) -> Result<()> {
        self.inner.send(actions)
    }
    fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
        self.inner.recv(batch)?;
        if let Some(left) = self.left.take() {
            match (left, self.failure) {
                (1, Failure::Panic) => panic!("failed on purpose"),
                (1, Failure::Error) => return Err(Error::env("FailingEnv", "failed on purpose")),
                (1, Failure::Reward) => batch.reward[0] = 1e38,
                _ => self.left = Some(left - 1),
            }
        }
        Ok(())
    }
}

#[test]
fn a_failing_actor_learner_stops_the_others_and_is_named() {
    for failure in [Failure::Error, Failure::Panic] {
        let fails_for = playfield_core::rng::seeds(3, "env", ENVS)[2];
        let failing = Failing { inner: factory(), failure, fails_for, steps: 100 };
        let (dir, start) = (tempfile::tempdir().unwrap(), Instant::now());
        let error = train::<A3c>(&config(4), &failing, dir.path(), u64::MAX / 2).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("actor-learner 2") && said.contains("failed on purpose"), "{said}");
        assert!(start.elapsed() < Duration::from_secs(60), "the others stop");
        let saved = latest(dir.path());
        assert!(saved.step > 0 && saved.state.contains_key("actor_learner.0.actor.rng"));
        assert!(!saved.state.contains_key("actor_learner.2.actor.rng"), "the state of the failed one is not saved");
        // With working environments the run resumes from this checkpoint.
        let target = saved.step + 1_000;
        train::<A3c>(&config(4), &factory(), dir.path(), target).unwrap();
        assert!(latest(dir.path()).step >= target);
    }
}

/// The update whose gradient is not finite is named, the first one here, and not counted.
#[test]
fn a_gradient_that_is_not_finite_ends_training() {
    let fails_for = playfield_core::rng::seeds(3, "env", ENVS)[0];
    let failing = Failing { inner: factory(), failure: Failure::Reward, fails_for, steps: 1 };
    let dir = tempfile::tempdir().unwrap();
    let error = train::<A3c>(&config(1), &failing, dir.path(), 1_000).unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, Error::Diverged(_)) && said.contains("actor-learner 0: the gradient's norm is"), "{said}");
    assert!(said.contains(" at update 1"), "{said}");
    assert!(Checkpoints::new(dir.path(), 1).latest().is_err(), "nothing is saved");
}

#[test]
fn invalid_settings_are_errors() {
    let said = A3c::resolve(&config(3), 100, &factory()).unwrap_err().to_string();
    assert!(said.contains("`num_threads` = 3 cannot share 4 environments evenly"), "{said}");
    // Running statistics would be those of each thread alone.
    let normalized = with_settings(toml::toml! { normalize_obs = true });
    let dir = tempfile::tempdir().unwrap();
    train::<A3c>(&config(1), &normalized, &dir.path().join("one"), 40).unwrap();
    let said = train::<A3c>(&config(2), &normalized, &dir.path().join("two"), 40).unwrap_err().to_string();
    assert!(said.contains("set a3c.num_threads = 1, or use paac"), "{said}");
    let gpu = Config { device: "cuda".into(), ..config(1) };
    let said = A3c::check(&gpu).unwrap_err().to_string();
    assert!(said.contains("Use device 'cpu', or paac for a GPU"), "{said}");
}

/// Rows and evaluations come when they are due, not with each of 50 rollouts. The supervisor may be late: then one stands for several.
#[test]
fn rows_and_evaluations_come_when_they_are_due() {
    let (dir, recorder) = (tempfile::tempdir().unwrap(), Recorder::default());
    let intervals = Intervals { log_seconds: f64::INFINITY, log_steps: 200, ..Intervals::default() };
    let evaluation = EvalConfig { every_steps: 300, episodes: 2, ..EvalConfig::default() };
    let run = Run::new(3, 1_000).with_checkpoints(Checkpoints::new(dir.path(), 1), intervals);
    let mut run = run.with_evaluation(evaluation).with_sink(recorder.clone());
    A3c::train(&config(1), &factory(), &mut run).unwrap();
    let evaluations = recorder.evaluations.lock().unwrap().clone();
    assert!((1..=4).contains(&evaluations.len()), "{evaluations:?}");
    let rows = recorder.lags.lock().unwrap().len();
    assert!((1..=6).contains(&rows), "{rows}");
}

/// Recurrent actor-learners have the states of their own environments; each checkpoint restores the policy of its method.
#[test]
fn policies_are_those_of_their_method() {
    let lstm = NetworkConfig { lstm: 4, ..network() };
    for (method, network) in [(Method::ActorCritic, lstm), (Method::OneStepQ, network())] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { method, network, ..config(2) };
        train::<A3c>(&config, &factory(), dir.path(), 200).unwrap();
        let mut policy = A3c::load(&config, factory().spec(), &latest(dir.path())).unwrap();
        policy.begin(1);
        let outputs = policy.outputs(&Obs::F32(vec![0.1, 0.2, 0.3, 0.4]), 1).unwrap();
        assert_eq!(outputs.are_values, method == Method::OneStepQ);
    }
}

/// The statistics of a single actor-learner's environments are those of the run; several have none.
#[test]
fn a_checkpoint_has_the_statistics_of_the_environments() {
    let normalized = with_settings(toml::toml! { normalize_obs = true });
    for (factory, has_statistics) in [(normalized, true), (factory(), false)] {
        let dir = tempfile::tempdir().unwrap();
        train::<A3c>(&config(1), &factory, dir.path(), 100).unwrap();
        let statistics = &latest(dir.path()).state["env.statistics"];
        assert_eq!(statistics.is_object() || statistics.is_array(), has_statistics, "{statistics}");
    }
}
