use crate::Config;
use crate::actor_learner::{self, Context, Message, Pause, Update};
use crate::config::Method;
use crate::learner::{Learner, learner};
use crate::q_learner::{QLearner, Target};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use playfield_actor_critic::Actor;
use playfield_collect::Evaluator;
use playfield_core::metrics::Tag;
use playfield_core::resume::environment_seeds;
use playfield_core::{
    Algorithm, Array, EnvFactory, EnvSpec, EpisodeEnd, Error, Persist, Policy, Result, Rollout, Run, Snapshot, State,
    rng,
};
use playfield_hogwild::Shared;
use playfield_nn::optim::Optimizer;
use playfield_nn::params::to_vec;
use playfield_nn::sharding::use_one_core;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// A3C, and asynchronous Q-learning and Sarsa.
pub struct A3c;

/// Elements of a stripe: small enough that threads rarely contend for one, large enough that locking it costs little.
const STRIPE: usize = 8192;

/// The name of the target parameters in a checkpoint.
const TARGET: &str = "target";

/// How often the progress bar moves while no message arrives.
const TICK: Duration = Duration::from_millis(100);

impl Algorithm for A3c {
    const NAME: &'static str = "a3c";
    const ABOUT: &'static str =
        "asynchronous advantage actor-critic, Q-learning and Sarsa: threads without synchronization (Mnih et al. 2016)";
    const SINGLE_PROCESS: Option<&'static str> =
        Some("its threads never wait for each other, as processes that average their gradients do; use paac or ppo");
    type Config = Config;

    fn defaults(chosen: &Config) -> Config {
        let default = Config::default();
        Config { optimizer: default.optimizer.with_rule(&chosen.optimizer), ..default }
    }

    fn check(config: &Config) -> Result<()> {
        config.check()
    }

    fn resolve(config: &Config, steps: u64, envs: &dyn EnvFactory) -> Result<Config> {
        config.check()?;
        Rollout::check_memory(envs.spec(), envs.num_envs(), config.rollout_steps)?;
        let (network, device) = playfield_nn::resolve(&config.network, envs.spec(), "cpu")?;
        Ok(Config {
            num_threads: config.threads(envs.num_envs())?,
            learning_rate: config.learning_rate.over(steps),
            entropy_coefficient: config.entropy_coefficient.over(steps),
            network,
            device,
            ..config.clone()
        })
    }

    fn extend(config: &Config, from: u64, to: u64) -> Config {
        Config {
            learning_rate: config.learning_rate.extended(from, to),
            entropy_coefficient: config.entropy_coefficient.extended(from, to),
            ..config.clone()
        }
    }

    /// # Errors
    /// An environment that fails or panics ends training with an error that names the actor-learner, after the other threads have
    /// stopped and what they learned is saved.
    fn train(config: &Config, envs: &dyn EnvFactory, run: &mut Run) -> Result<Box<dyn Policy>> {
        let config = Self::resolve(config, run.steps(), envs)?;
        let (spec, seed, threads) = (envs.spec(), run.seed(), config.num_threads);
        // Each actor-learner computes on one core.
        use_one_core();
        let (n, target) = (envs.num_envs() / threads, Arc::new(Target::default()));
        let mut template = learner(&config, spec, 1, seed, rng::stream(seed, "a3c/actions"), &target)?;
        let mut optimizer = Optimizer::new(config.optimizer.clone(), template.params());
        let snapshot = run.take_resume();
        target.update([to_vec(template.params().master()), to_vec(template.params().running_stats())].concat());
        if let Some(snapshot) = &snapshot {
            template.params().load(snapshot)?;
            optimizer.load(template.params(), snapshot)?;
            if config.method != Method::ActorCritic {
                let state = snapshot.array(TARGET)?.values().filter(|s: &Vec<f32>| s.len() == target.state().len());
                target.update(state.ok_or_else(|| Error::checkpoint(TARGET, "of another network"))?);
            }
        }
        let (updates, [square, mean]) = match config.shared_statistics {
            true => optimizer.statistics(),
            false => (optimizer.statistics().0, [vec![], vec![]]),
        };
        let step = snapshot.as_ref().map_or(0, |s| s.step);
        let context = Context {
            config: &config,
            envs,
            seeds: &environment_seeds(seed, envs.num_envs(), snapshot.as_ref()),
            threads,
            shared: Shared::new(config.sharing, STRIPE, &to_vec(template.params().master()), &square, &mean),
            running_stats: to_vec(template.params().running_stats()).into(),
            target: target.clone(),
            steps: step.into(),
            total_steps: run.steps(),
            updates: updates.into(),
            stop: false.into(),
        };
        let learners = (0..threads).map(|i| {
            let rng = rng::stream(rng::derive(seed, "a3c/actor-learner", i as u64), "actions");
            let state = snapshot.as_ref().map(|s| s.nested(&part(i))).filter(|s| !s.state.is_empty());
            Ok((learner(&config, spec, n, seed, rng, &target)?, state))
        });
        let learners = learners.collect::<Result<Vec<_>>>()?;
        let summary = template.summary(&config, spec);
        run.network(&summary.text, &summary.layers)?;
        let mut evaluator = Evaluator::new(envs, run, step)?;

        let mut checkpoint = CheckpointBuilder { context: &context, template, optimizer, states: vec![None; threads] };
        thread::scope(|scope| {
            let (sender, messages) = unbounded();
            let mut pauses = Vec::new();
            for (i, (learner, state)) in learners.into_iter().enumerate() {
                // A request to a thread that has ended is dropped with this channel: nothing waits for an answer.
                let (pause, requests) = unbounded();
                pauses.push(pause);
                let (context, messages) = (&context, sender.clone());
                scope.spawn(move || {
                    use_one_core();
                    let work = || actor_learner::run(context, i, learner, state, &requests, &messages);
                    let ended = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(&*panic)));
                    let _ = messages.send(Message::Ended(i, ended));
                });
            }
            drop(sender);
            let supervised = supervise(run, &messages, &pauses, &mut checkpoint, &mut evaluator);
            // Whatever failed here, every thread stops.
            context.stop.store(true, Relaxed);
            supervised
        })?;
        checkpoint.load_shared();
        Ok(checkpoint.template.evaluation_policy())
    }

    fn load(config: &Config, spec: &EnvSpec, snapshot: &Snapshot) -> Result<Box<dyn Policy>> {
        if config.method == Method::ActorCritic {
            return Ok(Box::new(Actor::for_evaluation(&config.network, spec, "cpu", snapshot)?));
        }
        let (init, rng) = (&mut rng::stream(0, "a3c/init"), rng::stream(0, "a3c/actions"));
        let mut learner = QLearner::new(config, spec, init, rng, Arc::default())?;
        learner.params().load(snapshot)?;
        Ok(Box::new(learner.into_evaluation_policy()))
    }
}

/// Reports what the actor-learners send, evaluates and saves when it is due, and returns when all have ended.
fn supervise(
    run: &mut Run,
    messages: &Receiver<Message>,
    pauses: &[Sender<Pause>],
    checkpoint: &mut CheckpointBuilder<'_>,
    evaluator: &mut Evaluator,
) -> Result<()> {
    let context = checkpoint.context;
    let mut inbox = Inbox::new(context.threads);
    // Until every actor-learner has ended, and with the last one the channel.
    loop {
        match messages.recv_timeout(TICK) {
            Ok(message) => inbox.receive(message, run, checkpoint),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let step = context.steps.load(Relaxed);
        let reported = (|| {
            run.progress(step, inbox.episodes.drain(..))?;
            if inbox.failure.is_none() && run.should_continue(step)? && run.log_due() {
                inbox.metrics.report(run, step, context.updates.load(Relaxed))?;
                if run.wants_histograms() {
                    checkpoint.load_shared();
                    let mut histograms = checkpoint.template.params().histograms();
                    // The gradients are the threads' own.
                    histograms.retain(|(tag, _)| tag.starts_with("parameters/"));
                    run.histograms(step, &histograms)?;
                }
            }
            Ok(())
        })();
        if let Err(error) = reported {
            // Parameters are saved before the error is reported.
            inbox.failure.get_or_insert(error);
        }
        if inbox.failure.is_some() || !run.should_continue(step)? {
            context.stop.store(true, Relaxed);
        }
        let all_run = !inbox.has_ended && inbox.failure.is_none();
        if all_run && (run.save_due() || evaluator.is_due(step)) {
            // Held until the end of this block: the threads resume when it is dropped.
            let _paused = pause(pauses, checkpoint);
            let step = context.steps.load(Relaxed);
            // The episodes of every rollout that the checkpoint contains.
            messages.try_iter().for_each(|message| inbox.receive(message, run, checkpoint));
            run.progress(step, inbox.episodes.drain(..))?;
            if inbox.failure.is_none() {
                checkpoint.evaluate_if_due(run, evaluator)?;
                if run.save_due() {
                    run.save(step, &mut [checkpoint])?;
                }
            }
        }
    }
    let step = context.steps.load(Relaxed);
    let trained = match inbox.failure {
        Some(error) => Err(error),
        None => inbox
            .metrics
            .report(run, step, context.updates.load(Relaxed))
            .and_then(|()| checkpoint.evaluate_if_due(run, evaluator)),
    };
    run.finish(trained, step, &mut [checkpoint])
}

/// The content of the messages received so far.
struct Inbox {
    /// Whether an actor-learner has ended.
    has_ended: bool,
    /// The first error.
    failure: Option<Error>,
    metrics: Aggregator,
    /// Finished episodes, each with its step, until they are reported to the run.
    episodes: Vec<(u64, EpisodeEnd)>,
}

impl Inbox {
    fn new(threads: usize) -> Self {
        Self { has_ended: false, failure: None, metrics: Aggregator::new(threads), episodes: Vec::new() }
    }

    fn receive(&mut self, message: Message, run: &Run, checkpoint: &mut CheckpointBuilder<'_>) {
        match message {
            Message::Episodes { by, episodes } => {
                self.metrics.returns[by].extend(episodes.iter().map(|(_, end)| end.episode_return));
                self.episodes.extend(episodes);
            }
            Message::Update(by, update) => self.metrics.add(by, update),
            Message::Ended(i, Ok(state)) => {
                self.has_ended = true;
                checkpoint.states[i] = Some(state);
            }
            Message::Ended(i, Err(error)) => {
                self.has_ended = true;
                checkpoint.states[i] = None;
                self.failure.get_or_insert(match error {
                    Error::Diverged(what) => run.diverged(&format!("actor-learner {i}: {what}")),
                    error => named(i, error),
                });
            }
        }
    }
}

/// Pauses every actor-learner between two rollouts and collects the states. The threads resume when the result is dropped.
fn pause(pauses: &[Sender<Pause>], checkpoint: &mut CheckpointBuilder<'_>) -> Sender<()> {
    let (paused, resume) = bounded(0);
    let (sender, states) = bounded(pauses.len());
    for pause in pauses {
        // A thread that has ended has sent its state already.
        let _ = pause.send(Pause { states: sender.clone(), resume: resume.clone() });
    }
    drop(sender);
    for (i, state) in states {
        checkpoint.states[i] = Some(state);
    }
    paused
}

/// Assembles a checkpoint, while all actor-learners are paused or have ended.
struct CheckpointBuilder<'a> {
    context: &'a Context<'a>,
    /// A template learner: it receives the shared parameters, for their names and for evaluation.
    template: Box<dyn Learner>,
    optimizer: Optimizer,
    /// The last state of each actor-learner; `None` where it failed.
    states: Vec<Option<Snapshot>>,
}

impl CheckpointBuilder<'_> {
    /// Copies the shared parameters into the template.
    fn load_shared(&mut self) {
        let params = self.template.params();
        params.set_master(0, &self.context.shared.copy()[0]);
        params.set_running_stats(&self.context.running_stats());
        params.mark_updated();
    }

    /// Evaluates the shared parameters, if it is time.
    fn evaluate_if_due(&mut self, run: &mut Run, evaluator: &mut Evaluator) -> Result<()> {
        let step = self.context.steps.load(Relaxed);
        if !evaluator.is_due(step) {
            return Ok(());
        }
        self.load_shared();
        let policy = &mut *self.template.evaluation_policy();
        run.evaluated(step, &evaluator.evaluate(step, policy, self.statistics())?)
    }

    /// The statistics of the environments' wrappers: only a single actor-learner has any.
    fn statistics(&self) -> Option<State> {
        let statistics = self.states.first()?.as_ref()?.state.get("env.statistics").cloned();
        statistics.filter(|statistics| !statistics.is_null())
    }
}

impl Persist for CheckpointBuilder<'_> {
    fn save(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.load_shared();
        let context = self.context;
        let [_, square, mean] = context.shared.copy();
        self.template.params().save(snapshot);
        let (_, [own_square, own_mean]) = self.optimizer.statistics();
        let (square, mean) = if square.is_empty() { (own_square, own_mean) } else { (square, mean) };
        self.optimizer.set_statistics(context.updates.load(Relaxed), [&square, &mean]);
        self.optimizer.save(self.template.params(), snapshot);
        if context.config.method != Method::ActorCritic {
            let target = context.target.state();
            snapshot.arrays.insert(TARGET.into(), Array::new(&[target.len()], &target));
        }
        snapshot.put("env.statistics", &self.statistics());
        for (i, state) in self.states.iter().enumerate() {
            if let Some(state) = state {
                snapshot.nest(&part(i), state.clone());
            }
        }
        Ok(())
    }
}

/// Aggregates the metrics of all threads between two rows of the log.
struct Aggregator {
    since: Instant,
    last: Option<Update>,
    updates: u64,
    lag: u64,
    phases: Vec<(&'static str, f64)>,
    /// Of each actor-learner: the returns of its episodes, and its last ε.
    returns: Vec<Vec<f64>>,
    epsilons: Vec<Option<f64>>,
}

impl Aggregator {
    fn new(threads: usize) -> Self {
        let (returns, epsilons) = (vec![vec![]; threads], vec![None; threads]);
        Self { since: Instant::now(), last: None, updates: 0, lag: 0, phases: Vec::new(), returns, epsilons }
    }

    fn add(&mut self, by: usize, update: Update) {
        self.epsilons[by] = update.epsilon;
        (self.updates, self.lag) = (self.updates + 1, self.lag + update.lag);
        for &(tag, time) in &update.phases {
            match self.phases.iter_mut().find(|(t, _)| *t == tag) {
                Some((_, sum)) => *sum += time,
                None => self.phases.push((tag, time)),
            }
        }
        self.last = Some(update);
    }

    /// Reports to `run`, and starts over.
    fn report(&mut self, run: &mut Run, step: u64, updates: u64) -> Result<()> {
        let metrics = std::mem::replace(self, Self::new(self.returns.len()));
        let mut row = metrics.per_thread();
        row.extend(metrics.row(updates).into_iter().map(|(tag, value)| (tag.into(), value)));
        run.log(step, &row)
    }

    /// Of each actor-learner: the mean return of its episodes, and its last ε.
    fn per_thread(&self) -> Vec<(Tag, f64)> {
        let mean = |returns: &Vec<f64>| returns.iter().sum::<f64>() / returns.len() as f64;
        let returns = self.returns.iter().enumerate().filter(|(_, returns)| !returns.is_empty());
        let returns = returns.map(|(i, returns)| (format!("async/return/{i}").into(), mean(returns)));
        let epsilons = self.epsilons.iter().enumerate();
        let epsilons = epsilons.filter_map(|(i, epsilon)| Some((format!("async/epsilon/{i}").into(), (*epsilon)?)));
        returns.chain(epsilons).collect()
    }

    /// The row of all actor-learners together, after `updates` in all.
    fn row(self, updates: u64) -> Vec<(&'static str, f64)> {
        let Some(last) = self.last else { return Vec::new() };
        let count = self.updates as f64;
        let mut row = (last.report)();
        row.extend([
            ("train/grad_norm", last.gradient_norm),
            ("train/learning_rate", last.learning_rate),
            ("train/n_updates", updates as f64),
            ("async/policy_lag", self.lag as f64 / count),
            ("async/updates_per_second", count / self.since.elapsed().as_secs_f64().max(1e-9)),
        ]);
        row.extend(self.phases.iter().map(|(tag, sum)| (*tag, sum / count)));
        row
    }
}

/// The name of an actor-learner's state in a checkpoint.
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
    Error::other(format!("panicked: {}", text.unwrap_or("for an unknown reason")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learner::Report;

    #[test]
    fn metrics_of_a_thread_end_in_its_index() {
        let mut metrics = Aggregator::new(3);
        metrics.returns = vec![vec![1.0, 3.0], vec![], vec![-1.0]];
        metrics.epsilons = vec![None, Some(0.25), None];
        let expected = [("async/return/0", 2.0), ("async/return/2", -1.0), ("async/epsilon/1", 0.25)];
        assert_eq!(metrics.per_thread(), expected.map(|(tag, value)| (Tag::from(tag), value)));
    }

    /// Of two updates in two seconds: the last one's report, and means.
    #[test]
    fn metrics_of_all_threads_are_means_over_updates() {
        let mut metrics = Aggregator::new(2);
        assert!(Aggregator::new(2).row(7).is_empty());
        metrics.since = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        for (by, lag, phases) in [(0, 2, vec![("a", 10.0), ("b", 1.0)]), (1, 4, vec![("b", 2.0), ("a", 20.0)])] {
            let report: Report = Box::new(move || vec![("train/loss", lag as f64)]);
            let epsilon = (by == 1).then_some(0.25);
            metrics.add(by, Update { report, epsilon, gradient_norm: 5.0, learning_rate: 0.1, lag, phases });
        }
        assert_eq!(metrics.epsilons, [None, Some(0.25)]);
        let row = metrics.row(7);
        let get = |tag: &str| row.iter().find(|(t, _)| *t == tag).unwrap_or_else(|| panic!("no {tag}")).1;
        let tags =
            ["train/loss", "train/grad_norm", "train/learning_rate", "train/n_updates", "async/policy_lag", "a", "b"];
        assert_eq!(tags.map(get), [4.0, 5.0, 0.1, 7.0, 3.0, 15.0, 1.5]);
        assert!((0.5..=1.0).contains(&get("async/updates_per_second")), "{row:?}");
    }
}
