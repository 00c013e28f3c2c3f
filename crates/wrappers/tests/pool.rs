//! The pool against a simple loop, and with environments that fail.

mod common;

use common::{Random, Script, TERMINATED, episode, space};
use playfield_core::{
    Action, Actions, Dtype, Env, EnvSpec, Error, Obs, ObsMut, Result, State, Step, StepBatch, VecEnv,
};
use playfield_wrappers::Pool;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

fn random_pool(seeds: &[u64], threads: usize, dtype: Dtype) -> Pool {
    Pool::new(seeds, threads, move |_| Ok(Box::new(Random::new(dtype)))).unwrap()
}

/// The expected row of a batch after a step, by the slow definition.
struct Row {
    obs: Obs,
    last: Option<Obs>,
    step: Step,
}

/// Steps one environment alone and resets it where an episode ends.
fn alone(env: &mut dyn Env, action: i64) -> Row {
    let mut obs = Obs::zeros(env.spec().dtype, env.spec().frame_len());
    let mut step = env.step(Action::Discrete(action as usize), obs.as_mut()).unwrap();
    let last = step.done().then(|| obs.clone());
    if step.done() {
        step.life_lost = false;
        step.truncated &= !step.terminated;
        env.reset(None, obs.as_mut()).unwrap();
    }
    Row { obs, last, step }
}

fn assert_row(batch: &StepBatch, i: usize, row: &Row) {
    assert_eq!(batch.obs_row(i), row.obs.as_ref());
    if let Some(last) = &row.last {
        assert_eq!(batch.final_obs_row(i), last.as_ref());
    }
    let step = Step {
        reward: batch.reward[i],
        terminated: batch.terminated[i],
        truncated: batch.truncated[i],
        life_lost: batch.life_lost[i],
    };
    assert_eq!((step, batch.episode[i], batch.forced[i]), (row.step, None, None));
}

/// Actions that differ from row to row and from step to step.
fn actions(n: usize, t: usize) -> Actions {
    Actions::Discrete((0..n).map(|i| ((i * 5 + t * 7) / 2 % 3) as i64).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn equals_a_loop_for_every_number_of_threads(
        n in 1..7_usize, threads in 0..5_usize, seed in 0..1000_u64, numbers: bool, steps in 1..120_usize,
    ) {
        let dtype = if numbers { Dtype::F32 } else { Dtype::U8 };
        let seeds: Vec<u64> = (0..n as u64).map(|i| seed * 7 + i).collect();
        let mut pool = random_pool(&seeds, threads, dtype);
        let mut batch = StepBatch::new(pool.spec(), n);
        let mut envs: Vec<Random> = seeds.iter().map(|_| Random::new(dtype)).collect();
        // Twice: the second reset starts from the same seeds again.
        for _ in 0..2 {
            pool.reset(&mut batch).unwrap();
            for (i, env) in envs.iter_mut().enumerate() {
                let mut obs = Obs::zeros(dtype, 24);
                let step = env.reset(Some(seeds[i]), obs.as_mut()).unwrap();
                assert_row(&batch, i, &Row { obs, last: None, step });
            }
            for t in 0..steps {
                let actions = actions(n, t);
                pool.step(&actions, &mut batch).unwrap();
                let Actions::Discrete(numbers) = &actions else { unreachable!() };
                for (i, env) in envs.iter_mut().enumerate() {
                    assert_row(&batch, i, &alone(env, numbers[i]));
                }
            }
        }
    }

    #[test]
    fn resumes_from_a_saved_state_with_another_number_of_threads(
        n in 1..6_usize, before in 0..50_usize, threads in 0..4_usize, others in 0..4_usize,
    ) {
        let seeds: Vec<u64> = (0..n as u64).collect();
        let mut pool = random_pool(&seeds, threads, Dtype::U8);
        let mut batch = StepBatch::new(pool.spec(), n);
        pool.reset(&mut batch).unwrap();
        for t in 0..before {
            pool.step(&actions(n, t), &mut batch).unwrap();
        }
        let text = pool.save_state().unwrap().unwrap().to_string();
        let mut other = random_pool(&vec![99; n], others, Dtype::U8);
        let mut copy = batch.clone();
        other.load_state(&serde_json::from_str(&text).unwrap()).unwrap();
        for t in before..before + 60 {
            pool.step(&actions(n, t), &mut batch).unwrap();
            other.step(&actions(n, t), &mut copy).unwrap();
            prop_assert_eq!(&batch, &copy);
        }
    }
}

/// How an environment fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    Panic,
    Fail,
    PanicInReset,
    FailInReset,
}

struct Troubled {
    inner: Random,
    left: usize,
    trouble: Option<Trouble>,
}

impl Env for Troubled {
    fn spec(&self) -> &EnvSpec {
        self.inner.spec()
    }
    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        match self.trouble {
            Some(Trouble::PanicInReset) => panic!("no way {}", 1),
            Some(Trouble::FailInReset) => Err(Error::env("Random", "no power")),
            _ => self.inner.reset(seed, obs),
        }
    }
    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        self.left = self.left.saturating_sub(1);
        match self.trouble {
            Some(Trouble::Panic) if self.left == 0 => panic!("no way {}", 1),
            Some(Trouble::Fail) if self.left == 0 => Err(Error::env("Random", "no power")),
            _ => self.inner.step(action, obs),
        }
    }
}

/// Fails the test instead of blocking forever.
fn within_seconds<T: Send + 'static>(seconds: u64, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = crossbeam::channel::bounded(1);
    std::thread::spawn(move || done.send(work()));
    wait.recv_timeout(Duration::from_secs(seconds)).expect("the pool hangs, or the test failed in its thread")
}

#[test]
fn a_failing_or_panicking_environment_is_an_error_that_names_it_and_never_a_hang() {
    for threads in 0..4 {
        for trouble in [Trouble::Panic, Trouble::Fail, Trouble::PanicInReset, Trouble::FailInReset] {
            let error = within_seconds(30, move || {
                let make = move |i| -> Result<Box<dyn Env>> {
                    let trouble = (i == 3).then_some(trouble);
                    Ok(Box::new(Troubled { inner: Random::new(Dtype::U8), left: 4, trouble }))
                };
                let mut pool = Pool::new(&[1, 2, 3, 4, 5], threads, make).unwrap();
                let mut batch = StepBatch::new(pool.spec(), 5);
                let mut first = pool.reset(&mut batch);
                for t in 0..4 {
                    first = first.and_then(|()| pool.step(&actions(5, t), &mut batch));
                }
                let later = pool.send(&actions(5, 0)).expect_err("the pool has ended").to_string();
                assert!(later.contains("after a failure"), "{later}");
                assert!(
                    pool.reset(&mut batch).is_err() && pool.recv(&mut batch).is_err() && pool.save_state().is_err()
                );
                first.expect_err("environment 3 fails")
            });
            let cause = match trouble {
                Trouble::Panic | Trouble::PanicInReset => "panicked: no way 1",
                Trouble::Fail | Trouble::FailInReset => "no power",
            };
            let expected = format!("Random: environment 3: {cause}");
            assert_eq!(error.to_string(), expected, "{threads} threads");
            assert!(matches!(error, Error::Env { .. }));
        }
    }
}

/// An environment whose third step, or the reset after it, takes a minute.
struct Hanging {
    inner: Random,
    steps: u32,
    in_reset: bool,
}

impl Hanging {
    fn wait(&self, in_reset: bool) {
        if self.steps == 3 && self.in_reset == in_reset {
            std::thread::sleep(Duration::from_secs(60));
        }
    }
}

impl Env for Hanging {
    fn spec(&self) -> &EnvSpec {
        self.inner.spec()
    }
    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        self.wait(true);
        self.inner.reset(seed, obs)
    }
    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        self.steps += 1;
        self.wait(false);
        let step = self.inner.step(action, obs)?;
        Ok(Step { terminated: self.steps == 3, ..step })
    }
}

#[test]
fn an_environment_over_the_limit_is_an_error_that_names_it() {
    for (threads, in_reset) in [(0, false), (1, true), (2, false), (3, true)] {
        let limit = Duration::from_millis(300);
        let error = within_seconds(20, move || {
            let make = move |i| -> Result<Box<dyn Env>> {
                let steps = if i == 3 { 0 } else { 100 };
                Ok(Box::new(Hanging { inner: Random::new(Dtype::U8), steps, in_reset }))
            };
            let mut pool = Pool::with_limit(&[1, 2, 3, 4, 5], threads, Some(limit), make).unwrap();
            let mut batch = StepBatch::new(pool.spec(), 5);
            pool.reset(&mut batch).unwrap();
            let mut plain = random_pool(&[1, 2, 3, 4, 5], 1, Dtype::U8);
            let mut expected = StepBatch::new(pool.spec(), 5);
            plain.reset(&mut expected).unwrap();
            assert_eq!(batch.obs, expected.obs);
            (0..3).find_map(|t| pool.step(&actions(5, t), &mut batch).err()).expect("its third step is slow")
        });
        let expected = "Random: environment 3: its step or reset took longer than 0.3 s (env.step_timeout_seconds)";
        assert_eq!(error.to_string(), expected, "{threads} threads");
    }
}

#[test]
fn an_environment_that_cannot_be_built_is_an_error() {
    for threads in 0..4 {
        let build = move |trouble: fn() -> Result<Box<dyn Env>>| {
            within_seconds(30, move || {
                let make =
                    move |i| if i == 2 { trouble() } else { Ok(Box::new(Random::new(Dtype::U8)) as Box<dyn Env>) };
                Pool::new(&[1, 2, 3, 4], threads, make).err().expect("environment 2 cannot be built")
            })
        };
        let panicked = build(|| panic!("no such thing")).to_string();
        assert!(panicked.contains("environment 2: panicked: no such thing"), "{panicked}");
        let failed = build(|| Err(Error::env("Random", "no disk"))).to_string();
        assert_eq!(failed, "Random: environment 2: no disk");
        let wrong = build(|| Err(Error::config("unknown key")));
        assert!(matches!(&wrong, Error::Config(m) if m == "unknown key"), "{wrong}");
        let other = build(|| Ok(Box::new(Random::new(Dtype::F32))));
        assert!(other.to_string().contains("has other spaces"), "{other}");
    }
    assert!(matches!(Pool::new(&[], 1, |_| Ok(Box::new(Random::new(Dtype::U8)))), Err(Error::Config(_))));
}

#[test]
fn invalid_actions_are_refused_and_change_nothing() {
    for threads in [1, 2] {
        let mut pool = random_pool(&[1, 2], threads, Dtype::U8);
        let mut batch = StepBatch::new(pool.spec(), 2);
        pool.reset(&mut batch).unwrap();
        for wrong in [
            Actions::Discrete(vec![0, 3]),
            Actions::Discrete(vec![-1, 0]),
            Actions::Discrete(vec![0]),
            Actions::Continuous { values: vec![0.0, 0.0], dim: 1 },
        ] {
            assert!(matches!(pool.send(&wrong), Err(Error::Config(_))), "{wrong:?}");
        }
        pool.step(&actions(2, 0), &mut batch).unwrap();
    }
}

#[test]
fn calls_in_the_wrong_phase_are_errors_and_change_nothing() {
    for threads in [1, 2] {
        let mut pool = random_pool(&[1, 2], threads, Dtype::U8);
        let mut batch = StepBatch::new(pool.spec(), 2);
        assert!(pool.send(&actions(2, 0)).is_err(), "before a reset");
        assert!(pool.recv(&mut batch).is_err());
        pool.reset(&mut batch).unwrap();
        assert!(pool.recv(&mut batch).is_err(), "nothing was sent");
        pool.send(&actions(2, 0)).unwrap();
        assert!(pool.send(&actions(2, 0)).is_err(), "twice");
        assert!(pool.reset(&mut batch).is_err() && pool.save_state().is_err(), "during a step");
        assert!(pool.load_state(&State::Null).is_err());
        pool.recv(&mut batch).unwrap();
        assert!(pool.load_state(&serde_json::json!({"envs": [1]})).is_err(), "a state of one environment");
        pool.step(&actions(2, 1), &mut batch).unwrap();
    }
}

#[test]
fn without_the_state_of_one_environment_there_is_no_state() {
    for threads in [1, 3] {
        let make = |i| -> Result<Box<dyn Env>> {
            let inner = Random::new(Dtype::U8);
            Ok(if i == 1 { Box::new(Troubled { inner, left: 9, trouble: None }) } else { Box::new(inner) })
        };
        let mut pool = Pool::new(&[1, 2, 3], threads, make).unwrap();
        let mut batch = StepBatch::new(pool.spec(), 3);
        pool.reset(&mut batch).unwrap();
        assert_eq!(pool.save_state().unwrap(), None);
        let state = random_pool_state();
        let error = pool.load_state(&state).expect_err("environment 1 cannot load").to_string();
        assert!(error.contains("environment 1: this environment cannot restore"), "{error}");
    }
}

fn random_pool_state() -> State {
    let mut pool = random_pool(&[1, 2, 3], 1, Dtype::U8);
    pool.reset(&mut StepBatch::new(&pool.spec().clone(), 3)).unwrap();
    pool.save_state().unwrap().unwrap()
}

/// Records the thread that steps it, and sleeps during a step.
struct Slow {
    inner: Script,
    wait: Duration,
    threads: Arc<std::sync::Mutex<Vec<ThreadId>>>,
    alive: Arc<AtomicUsize>,
}

impl Env for Slow {
    fn spec(&self) -> &EnvSpec {
        self.inner.spec()
    }
    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        self.inner.reset(seed, obs)
    }
    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        self.threads.lock().unwrap().push(std::thread::current().id());
        std::thread::sleep(self.wait);
        self.inner.step(action, obs)
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs one step of a pool of four. Returns the thread that stepped each environment, and the number of environments left after
/// the drop.
fn stepping_threads(threads: usize, drop_during_a_step: bool) -> (Vec<ThreadId>, usize) {
    let log = Arc::new(std::sync::Mutex::new(Vec::new()));
    let alive = Arc::new(AtomicUsize::new(4));
    let (a, b) = (log.clone(), alive.clone());
    let make = move |_| -> Result<Box<dyn Env>> {
        let inner = Script::game(&[], episode(3, TERMINATED));
        Ok(Box::new(Slow { inner, wait: Duration::from_millis(50), threads: a.clone(), alive: b.clone() }))
    };
    let mut pool = Pool::new(&[0; 4], threads, make).unwrap();
    let mut batch = StepBatch::new(pool.spec(), 4);
    pool.reset(&mut batch).unwrap();
    let start = std::time::Instant::now();
    pool.send(&Actions::zeros(&space(2), 4)).unwrap();
    assert!(start.elapsed() < Duration::from_millis(40), "`send` must not wait for the environments");
    if !drop_during_a_step {
        pool.recv(&mut batch).unwrap();
    }
    drop(pool);
    let log = log.lock().unwrap().clone();
    (log, alive.load(Ordering::SeqCst))
}

#[test]
fn each_thread_steps_its_own_environments_and_one_thread_is_the_caller() {
    let here = std::thread::current().id();
    for threads in [0, 1] {
        assert_eq!(stepping_threads(threads, false), (vec![here; 4], 0));
    }
    let (mut threads, alive) = stepping_threads(4, false);
    threads.sort_by_key(|id| format!("{id:?}"));
    threads.dedup();
    assert_eq!((threads.len(), threads.contains(&here), alive), (4, false, 0));
}

#[test]
fn dropping_a_pool_joins_its_threads_even_during_a_step() {
    assert_eq!(within_seconds(30, || stepping_threads(2, true)).1, 0);
}
