//! Actor-learners together: one alone is PAAC; several share what each learns; one that fails takes nobody with it.

use playfield_a3c::Config;
use playfield_core::{
    Actions, Algorithm, Checkpoints, EnvConfig, EnvFactory, EnvSpec, Error, Result, Run, Settings, Snapshot, StepBatch,
    VecEnv,
};
use playfield_wrappers::Factory;
use std::path::Path;
use std::time::{Duration, Instant};

const ENVS: usize = 4;

fn factory() -> Factory {
    let (_, _, source) = playfield_classic::sources().into_iter().find(|(id, ..)| *id == "CartPole").unwrap();
    let table = toml::toml! { id = "CartPole" };
    Factory::new(source.clone(), EnvConfig::resolve(&table, source.defaults()).unwrap()).unwrap()
}

/// Trains to `steps` in `dir`, from where it stood if anything is there.
fn train(algorithm: &Algorithm, settings: &Settings, factory: &dyn EnvFactory, dir: &Path, steps: u64) -> Result<()> {
    let checkpoints = Checkpoints::new(dir, 1);
    let resumed = checkpoints.latest().ok().map(|loaded| loaded.snapshot);
    let mut run = Run::new(3, steps).with_checkpoints(checkpoints, Default::default());
    if let Some(snapshot) = resumed {
        run = run.with_resume(snapshot)?;
    }
    (algorithm.train)(settings, factory, &mut run).map(drop)
}

fn latest(dir: &Path) -> Snapshot {
    Checkpoints::new(dir, 1).latest().unwrap().snapshot
}

fn settings(section: toml::Table) -> Settings {
    let network = toml::toml! { hidden = [16] };
    Settings { num_envs: ENVS, device: "cpu".into(), network, section }
}

/// PAAC plays for a while; then PAAC goes on, and, from where it stood, one actor-learner with all of its environments. They
/// do the same: the same episodes, gradients and steps, bit for bit.
#[test]
fn a_lone_actor_learner_is_paac() {
    let common = toml::toml! {
        num_threads = 1
        rollout_steps = 8
        gae_lambda = 0.9
        learning_rate = 3e-3
        anneal_steps = 10_000
        gradient_clip = 0.5
        entropy_coefficient = 0.02
        entropy_floor = 0.1
    };
    let dir = tempfile::tempdir().unwrap();
    let [paac, a3c] = ["paac", "a3c"].map(|name| dir.path().join(name));
    train(&playfield_paac::ALGORITHM, &settings(common.clone()), &factory(), &paac, 1_000).unwrap();
    let mut stood = latest(&paac);
    let whole = Snapshot { params: Default::default(), ..stood.clone() };
    stood.nest("actor_learner.0", whole);
    Checkpoints::new(&a3c, 1).save(&stood, None).unwrap();

    train(&playfield_paac::ALGORITHM, &settings(common.clone()), &factory(), &paac, 3_000).unwrap();
    let mut section = common;
    // PAAC's RMSProp starts at 1; by now the statistics are those of the checkpoint.
    section.insert("sum_over_time".into(), true.into());
    train(&playfield_a3c::ALGORITHM, &settings(section), &factory(), &a3c, 3_000).unwrap();
    let (expected, actual) = (latest(&paac), latest(&a3c));
    assert_eq!(expected.step, actual.step);
    assert_ne!(expected.params, stood.params);
    assert_eq!(expected.params, actual.params);
    assert_eq!(expected.get::<u64>("optimizer.updates").unwrap(), actual.get::<u64>("optimizer.updates").unwrap());
    let own = actual.nested("actor_learner.0");
    assert_eq!(expected.state["player.rng"], own.state["player.rng"]);
    assert_eq!(expected.state["env.state"], own.state["env.state"]);
}

/// `entropy_floor` = 1 is what was there before; less changes what is learned.
#[test]
fn the_weight_of_the_entropy_may_fall() {
    let config = Config { entropy_coefficient: 0.02, entropy_floor: 0.25, anneal_steps: 1000, ..Config::default() };
    assert_eq!([0, 500, 1000, 2000].map(|t| config.entropy().at(t)), [0.02, 0.0125, 0.005, 0.005]);
    let dir = tempfile::tempdir().unwrap();
    for algorithm in [&playfield_paac::ALGORITHM, &playfield_a3c::ALGORITHM] {
        let [plain, whole, falling] = ["", "entropy_floor = 1.0", "entropy_floor = 0.0"].map(|floor| {
            let section = format!("num_threads = 1\nentropy_coefficient = 0.1\n{floor}").parse().unwrap();
            let run = dir.path().join(format!("{}-{floor}", algorithm.name));
            train(algorithm, &settings(section), &factory(), &run, 1_000).unwrap();
            latest(&run).params
        });
        assert_eq!(plain, whole, "{}", algorithm.name);
        assert_ne!(plain, falling, "{}", algorithm.name);
    }
}

/// Every actor-learner keeps its own random stream and environments in the checkpoint, and a run of several goes on from
/// there: with statistics that all share or that each keeps, behind locks or lock-free.
#[test]
fn several_are_saved_and_go_on() {
    for section in [
        toml::toml! { num_threads = 4 },
        toml::toml! { num_threads = 2
        sharing = "atomic"
        shared_statistics = false },
    ] {
        let threads = section["num_threads"].as_integer().unwrap() as usize;
        let dir = tempfile::tempdir().unwrap();
        train(&playfield_a3c::ALGORITHM, &settings(section.clone()), &factory(), dir.path(), 2_000).unwrap();
        let first = latest(dir.path());
        let streams: Vec<_> =
            (0..threads).map(|i| first.nested(&format!("actor_learner.{i}")).state["player.rng"].clone()).collect();
        assert!((1..threads).all(|i| streams[i] != streams[0]), "each has a stream of its own");
        assert!(!first.state.contains_key(&format!("actor_learner.{threads}.player.rng")));
        train(&playfield_a3c::ALGORITHM, &settings(section), &factory(), dir.path(), 4_000).unwrap();
        let second = latest(dir.path());
        assert!(first.step >= 2_000 && second.step >= 4_000 && second.step < 4_000 + 20 * threads as u64);
        let updates = |s: &Snapshot| s.get::<u64>("optimizer.updates").unwrap();
        let per_update = 5 * (ENVS / threads) as u64;
        assert_eq!((updates(&first), updates(&second)), (first.step / per_update, second.step / per_update));
        assert_ne!(first.params, second.params);
    }
}

/// Environments of which the third actor-learner's fails after some steps: by an error, or by a panic.
struct Failing {
    inner: Factory,
    panics: bool,
    fails_for: u64,
}

struct Fuse {
    inner: Box<dyn VecEnv>,
    left: Option<usize>,
    panics: bool,
}

impl EnvFactory for Failing {
    fn spec(&self) -> &EnvSpec {
        self.inner.spec()
    }

    fn vec(&self, seeds: &[u64]) -> Result<Box<dyn VecEnv>> {
        let left = (seeds[0] == self.fails_for).then_some(100);
        Ok(Box::new(Fuse { inner: self.inner.vec(seeds)?, left, panics: self.panics }))
    }
}

impl VecEnv for Fuse {
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
        if let Some(left) = &mut self.left {
            *left -= 1;
            match (*left, self.panics) {
                (0, true) => panic!("burnt out"),
                (0, false) => return Err(Error::env("Fuse", "burnt out")),
                _ => {}
            }
        }
        self.inner.recv(batch)
    }
}

#[test]
fn one_that_fails_stops_the_others_and_is_named() {
    for panics in [false, true] {
        let fails_for = playfield_core::rng::seeds(3, "env", ENVS)[2];
        let failing = Failing { inner: factory(), panics, fails_for };
        let (dir, start) = (tempfile::tempdir().unwrap(), Instant::now());
        let settings = settings(toml::toml! { num_threads = 4 });
        let error = train(&playfield_a3c::ALGORITHM, &settings, &failing, dir.path(), u64::MAX / 2).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("actor-learner 2") && said.contains("burnt out"), "{said}");
        assert!(start.elapsed() < Duration::from_secs(60), "the others stop");
        let saved = latest(dir.path());
        assert!(saved.step > 0 && saved.state.contains_key("actor_learner.0.player.rng"));
        assert!(!saved.state.contains_key("actor_learner.2.player.rng"), "where it stood nobody knows");
        // What was saved goes on with environments that hold.
        let target = saved.step + 1_000;
        train(&playfield_a3c::ALGORITHM, &settings, &factory(), dir.path(), target).unwrap();
        assert!(latest(dir.path()).step >= target);
    }
}

#[test]
fn what_cannot_work_is_refused() {
    let resolve = |section, device: &str| {
        (playfield_a3c::ALGORITHM.resolve)(&Settings { device: device.into(), ..settings(section) })
    };
    let said = resolve(toml::toml! { num_threads = 3 }, "cpu").unwrap_err().to_string();
    assert!(said.contains("`num_threads` = 3 cannot share 4 environments evenly"), "{said}");
    let dir = tempfile::tempdir().unwrap();
    let gpu = Settings { device: "cuda".into(), ..settings(toml::Table::new()) };
    let said = train(&playfield_a3c::ALGORITHM, &gpu, &factory(), dir.path(), 100).unwrap_err().to_string();
    assert!(said.contains("use device 'cpu'") || said.contains("Use device 'cpu'"), "{said}");
    let (_, _, source) = playfield_classic::sources().into_iter().find(|(id, ..)| *id == "Pendulum").unwrap();
    let table = toml::toml! { id = "Pendulum"
    normalize_obs = true };
    let learns = Factory::new(source.clone(), EnvConfig::resolve(&table, source.defaults()).unwrap()).unwrap();
    let said = train(&playfield_a3c::ALGORITHM, &settings(toml::Table::new()), &learns, dir.path(), 100).unwrap_err();
    assert!(said.to_string().contains("a3c.num_threads = 1"), "{said}");
}
