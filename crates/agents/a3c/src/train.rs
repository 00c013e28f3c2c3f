use crate::Config;
use crate::actor_learner::{self, Common, Pause, Report, Update};
use crate::config::Method;
use crate::learner::{Learner, learner};
use crate::q_learner::{QLearner, Target};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use playfield_core::algorithm::{parse_section, write_section};
use playfield_core::resume::environment_seeds;
use playfield_core::{Algorithm, Array, EnvFactory, EnvSpec, Error, Policy, Result, Run, Settings, Snapshot, rng};
use playfield_hogwild::Shared;
use playfield_nn::NetworkConfig;
use playfield_nn::optim::Optimizer;
use playfield_nn::params::to_vec;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// A3C, as a row of the registry.
pub static ALGORITHM: Algorithm = Algorithm {
    name: "a3c",
    about: "asynchronous advantage actor-critic, Q-learning and Sarsa: threads that wait for nobody (Mnih et al. 2016)",
    resolve,
    train,
    load,
};

/// Numbers of a stripe: small enough that threads rarely meet in one, large enough that taking it costs nothing.
const STRIPE: usize = 8192;

/// Under which name a checkpoint holds the target parameters.
const TARGET: &str = "target";

/// How a learner that explores by an ε reports it.
const EPSILON: &str = "rollout/exploration_rate";

/// How often the progress bar moves where nothing is reported.
const TICK: Duration = Duration::from_millis(100);

/// Trains until the run says stop.
///
/// # Errors
/// Where an environment fails (or panics), naming the actor-learner, after the others have stopped and what they had learned
/// was saved; where the disk fails, or the loss is no longer finite.
pub fn train(settings: &Settings, factory: &dyn EnvFactory, run: &mut Run) -> Result<Box<dyn Policy>> {
    let (mut config, network) = configs(settings)?;
    if config.anneal_steps == 0 {
        config.anneal_steps = run.steps();
    }
    let (spec, seed, threads) = (factory.spec(), run.seed(), config.threads(settings.num_envs)?);
    // Each actor-learner computes on one core.
    tch::set_num_threads(1);
    on_the_processor(settings)?;
    let (n, target) = (settings.num_envs / threads, Arc::new(Target::default()));
    let make = |n, rng| learner(&config, &network, spec, n, seed, rng, &target);
    let mut spare = make(1, rng::stream(seed, "a3c/actions"))?;
    let mut optimizer = Optimizer::new(config.optimizer.clone(), spare.params());
    let resumed = run.take_resume();
    target.renew([to_vec(spare.params().master()), to_vec(spare.params().running_stats())].concat());
    if let Some(snapshot) = &resumed {
        spare.params().load(snapshot)?;
        optimizer.load(spare.params(), snapshot)?;
        if config.method != Method::ActorCritic {
            let state = snapshot.array(TARGET)?.values().filter(|s: &Vec<f32>| s.len() == target.state().len());
            target.renew(state.ok_or_else(|| Error::checkpoint(TARGET, "of another network"))?);
        }
    }
    let (updates, [square, mean]) = match config.shared_statistics {
        true => optimizer.statistics(),
        false => (optimizer.statistics().0, [vec![], vec![]]),
    };
    let common = Common {
        config: &config,
        factory,
        seeds: &environment_seeds(seed, settings.num_envs, resumed.as_ref()),
        threads,
        shared: Shared::new(config.sharing, STRIPE, &to_vec(spare.params().master()), &square, &mean),
        running: to_vec(spare.params().running_stats()).into(),
        target: target.clone(),
        learning_rate: config.learning_rate(),
        steps: resumed.as_ref().map_or(0, |s| s.step).into(),
        goal: run.steps(),
        updates: updates.into(),
        stop: false.into(),
    };
    let learners = (0..threads).map(|i| {
        let rng = rng::stream(rng::derive(seed, "a3c/actor-learner", i as u64), "actions");
        let state = resumed.as_ref().map(|s| s.nested(&part(i))).filter(|s| !s.state.is_empty());
        Ok((make(n, rng)?, state))
    });
    let learners = learners.collect::<Result<Vec<_>>>()?;

    let mut keeper = Keeper { spare, optimizer, standing: vec![None; threads] };
    thread::scope(|scope| {
        let (reports, inbox) = unbounded();
        let mut pauses = Vec::new();
        for (i, (learner, state)) in learners.into_iter().enumerate() {
            // What was asked of somebody who has ended is dropped with this channel: nobody waits for an answer.
            let (pause, asked) = unbounded();
            pauses.push(pause);
            let (common, reports) = (&common, reports.clone());
            scope.spawn(move || {
                let work = || actor_learner::run(common, i, learner, state, &asked, &reports);
                let ended = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(&*panic)));
                let _ = reports.send(Report::Ended(i, ended));
            });
        }
        drop(reports);
        let heard = hear(&common, run, &inbox, &pauses, &mut keeper);
        // Whatever went wrong here, nobody plays on; who waits at a gate or is asked to pause is let go by now.
        common.stop.store(true, Relaxed);
        heard
    })?;
    let mut spare = keeper.spare;
    spare.params().set_master(0, &common.shared.copy()[0]);
    spare.params().set_running_stats(&common.running_stats());
    spare.params().mark_updated();
    Ok(spare)
}

/// Passes on what the actor-learners report, saves when it is time, and returns when all have ended.
fn hear(
    common: &Common<'_>,
    run: &mut Run,
    inbox: &Receiver<Report>,
    pauses: &[Sender<Pause>],
    keeper: &mut Keeper,
) -> Result<()> {
    let (mut running, mut failure, mut tally) = (common.threads, None, Tally::new(common.threads));
    while running > 0 {
        match inbox.recv_timeout(TICK) {
            Ok(Report::Episode { by, step, end }) => {
                tally.returns[by].push(end.reward);
                if let Err(error) = run.episode(step, end) {
                    failure.get_or_insert(error);
                    common.stop.store(true, Relaxed);
                }
            }
            Ok(Report::Update(by, update)) => tally.add(by, update),
            Ok(Report::Ended(i, Ok(standing))) => {
                running -= 1;
                keeper.standing[i] = Some(standing);
            }
            Ok(Report::Ended(i, Err(error))) => {
                running -= 1;
                keeper.standing[i] = None;
                failure.get_or_insert_with(|| match error {
                    Error::Diverged(what) => run.diverged(&format!("actor-learner {i}: {what}")),
                    error => named(i, error),
                });
                common.stop.store(true, Relaxed);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let step = common.steps.load(Relaxed);
        if !run.should_continue(step) {
            common.stop.store(true, Relaxed);
        }
        if run.log_due()
            && running > 0
            && failure.is_none()
            && let Err(error) = tally.report(run, step, common.updates.load(Relaxed))
        {
            // Parameters are saved before the error is reported.
            failure = Some(error);
            common.stop.store(true, Relaxed);
        }
        if run.save_due() && running == common.threads {
            let (go, gate) = bounded(0);
            let (standing, standings) = bounded(common.threads);
            for pause in pauses {
                // Who has ended has told where it stood.
                let _ = pause.send(Pause { standing: standing.clone(), gate: gate.clone() });
            }
            drop(standing);
            for (i, standing) in standings {
                keeper.standing[i] = Some(standing);
            }
            run.save(keeper.snapshot(common))?;
            drop(go);
        }
    }
    let step = common.steps.load(Relaxed);
    let failed = failure.map_or_else(|| tally.report(run, step, common.updates.load(Relaxed)), Err);
    let saved = run.save(keeper.snapshot(common));
    failed.and(saved)
}

/// What a checkpoint is made of.
struct Keeper {
    /// A learner that nobody plays with: what parameters are called.
    spare: Box<dyn Learner>,
    optimizer: Optimizer,
    /// Where each actor-learner stood when it was last asked; `None` where it has failed.
    standing: Vec<Option<Snapshot>>,
}

impl Keeper {
    /// Everything, while all actor-learners wait or have ended.
    fn snapshot(&mut self, common: &Common<'_>) -> Snapshot {
        let mut snapshot = Snapshot { step: common.steps.load(Relaxed), ..Snapshot::default() };
        let [params, square, mean] = common.shared.copy();
        self.spare.params().set_master(0, &params);
        self.spare.params().set_running_stats(&common.running_stats());
        self.spare.params().save(&mut snapshot);
        let (_, [own_square, own_mean]) = self.optimizer.statistics();
        let (square, mean) = if square.is_empty() { (own_square, own_mean) } else { (square, mean) };
        self.optimizer.set_statistics(common.updates.load(Relaxed), [&square, &mean]);
        self.optimizer.save(self.spare.params(), &mut snapshot);
        if common.config.method != Method::ActorCritic {
            let target = common.target.state();
            snapshot.arrays.insert(TARGET.into(), Array::new(&[target.len()], &target));
        }
        // What wrappers learned, for evaluation: only a lone actor-learner has any.
        let learned = self.standing.first().and_then(|s| s.as_ref()?.state.get("env.statistics").cloned());
        snapshot.put("env.statistics", &learned);
        for (i, standing) in self.standing.iter().enumerate() {
            if let Some(standing) = standing {
                snapshot.nest(&part(i), standing.clone());
            }
        }
        snapshot
    }
}

/// Updates between two rows of the log.
struct Tally {
    since: Instant,
    last: Option<Update>,
    updates: u64,
    lag: u64,
    phases: Vec<(&'static str, f64)>,
    /// Of each actor-learner: the returns of the episodes it ended, and the ε it explored by last.
    returns: Vec<Vec<f64>>,
    epsilon: Vec<Option<f64>>,
}

impl Tally {
    fn new(threads: usize) -> Self {
        let (returns, epsilon) = (vec![vec![]; threads], vec![None; threads]);
        Self { since: Instant::now(), last: None, updates: 0, lag: 0, phases: Vec::new(), returns, epsilon }
    }

    fn add(&mut self, by: usize, update: Update) {
        self.epsilon[by] = update.losses.iter().find(|(tag, _)| *tag == EPSILON).map(|(_, epsilon)| *epsilon);
        (self.updates, self.lag) = (self.updates + 1, self.lag + update.lag);
        for &(tag, time) in &update.phases {
            match self.phases.iter_mut().find(|(t, _)| *t == tag) {
                Some((_, sum)) => *sum += time,
                None => self.phases.push((tag, time)),
            }
        }
        self.last = Some(update);
    }

    /// Tells `run` what came together, and starts anew.
    fn report(&mut self, run: &mut Run, step: u64, updates: u64) -> Result<()> {
        let tally = std::mem::replace(self, Self::new(self.returns.len()));
        let mean = |returns: &Vec<f64>| returns.iter().sum::<f64>() / returns.len() as f64;
        let returns: Vec<_> = tally.returns.iter().map(|r| (!r.is_empty()).then(|| mean(r))).collect();
        run.log_each(step, "async/return", &returns)?;
        run.log_each(step, "async/epsilon", &tally.epsilon)?;
        run.log(step, &tally.row(updates))
    }

    /// The row of all actor-learners together, after `updates` in all.
    fn row(self, updates: u64) -> Vec<(&'static str, f64)> {
        let Some(last) = self.last else { return Vec::new() };
        let count = self.updates as f64;
        let mut row = last.losses;
        row.extend([
            ("train/grad_norm", last.grad_norm),
            ("train/learning_rate", last.learning_rate),
            ("train/n_updates", updates as f64),
            ("async/policy_lag", self.lag as f64 / count),
            ("async/updates_per_second", count / self.since.elapsed().as_secs_f64().max(1e-9)),
        ]);
        row.extend(self.phases.iter().map(|(tag, sum)| (*tag, sum / count)));
        row
    }
}

/// Under which name a checkpoint holds where an actor-learner stood.
fn part(i: usize) -> String {
    format!("actor_learner.{i}")
}

fn named(i: usize, error: Error) -> Error {
    match error {
        Error::Env { id, message, detail } => {
            Error::Env { id, message: format!("actor-learner {i}: {message}"), detail }
        }
        Error::Config(message) => Error::Config(message),
        other => Error::other(format!("actor-learner {i}: {other}")),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Error::other(format!("panicked: {}", text.unwrap_or("for a reason that is no text")))
}

/// Threads that share parameters by writing into each other's memory are no matter for a GPU.
fn on_the_processor(settings: &Settings) -> Result<()> {
    match settings.device.as_str() {
        "auto" | "cpu" => Ok(()),
        other => Err(Error::config(format!(
            "device '{other}': a3c's threads share parameters in the processor's memory. Use device 'cpu', or paac for a GPU"
        ))),
    }
}

fn load(settings: &Settings, spec: &EnvSpec, snapshot: &Snapshot) -> Result<Box<dyn Policy>> {
    let (config, network) = configs(settings)?;
    on_the_processor(settings)?;
    tch::set_num_threads(1);
    let rng = rng::stream(0, "a3c/actions");
    if config.method == Method::ActorCritic {
        let mut player = learner(&config, &network, spec, 1, 0, rng, &Arc::default())?;
        player.params().load(snapshot)?;
        player.fold();
        return Ok(player);
    }
    let init = &mut rng::stream(0, "a3c/init");
    let mut player = QLearner::new(&config, &network, spec, init, rng, Arc::default())?;
    player.params().load(snapshot)?;
    player.fold();
    player.explore_by(config.exploration.evaluation);
    Ok(Box::new(player))
}

fn resolve(settings: &Settings) -> Result<Settings> {
    let (config, network) = configs(settings)?;
    let (section, network) = (write_section("a3c", &config)?, write_section("network", &network)?);
    Ok(Settings { section, network, ..settings.clone() })
}

fn configs(settings: &Settings) -> Result<(Config, NetworkConfig)> {
    let config = Config::from_table(&settings.section)?;
    let network: NetworkConfig = parse_section("network", &settings.network)?;
    network.check()?;
    config.threads(settings.num_envs)?;
    Ok((config, network))
}
