use crate::actor::Actor;
use crate::clock::Clock;
use crate::config::Config;
use crate::learner::Learner;
use crate::replay::Replay;
use crate::round::{Learning, Partner, Played, Round};
use playfield_core::algorithm::{parse_section, write_section};
use playfield_core::metrics::PhaseTimer;
use playfield_core::resume::{environment_seeds, restore_environments, save_environments};
use playfield_core::{
    Algorithm, EnvFactory, EnvSpec, Error, FrameStack, Normalizer, Obs, Policy, Result, Run, Settings, Snapshot,
    StepBatch, VecEnv, rng,
};
use playfield_nn::NetworkConfig;
use std::mem::swap;

/// DQN, as a row of the registry.
pub static ALGORITHM: Algorithm = Algorithm {
    name: "dqn",
    about: "deep Q-learning from a replay memory, and its family up to Rainbow (Mnih et al. 2015; Hessel et al. 2018)",
    resolve,
    train,
    load,
};

/// Trains until the run says stop.
///
/// # Errors
/// Where an environment or the disk fails, the machine has too little memory, or the loss is no longer finite.
pub fn train(settings: &Settings, factory: &dyn EnvFactory, run: &mut Run) -> Result<Box<dyn Policy>> {
    let (config, network) = configs(settings)?;
    let (spec, n, seed) = (factory.spec(), settings.num_envs, run.seed());
    // Each operation on one thread: the learner shares a batch out among threads instead.
    tch::set_num_threads(1);
    let clock = Clock::new(&config, run.steps());

    run.say(&Replay::size(&config, spec));
    if config.learning_starts >= run.steps() {
        let (starts, steps) = (config.learning_starts, run.steps());
        run.say(&format!("warning: nothing is learned: dqn.learning_starts = {starts}, and the run has {steps} steps"));
    }
    let replay = Replay::new(&config, spec, n, seed, run.checkpoint_dir())?;
    let learner = Learner::new(config.clone(), &network, spec, &settings.device, seed)?;
    let mut learning = Learning { learner, replay };
    let resumed = run.take_resume();
    let mut env = factory.unnormalized(&environment_seeds(seed, n, resumed.as_ref()))?;
    let mut history = FrameStack::new(spec, n);
    let (mut step, rng) = (0, rng::stream(seed, "dqn/actions"));
    let mut actor = match resumed {
        None => {
            start(&mut *env, &mut history, &mut learning.replay)?;
            Actor::new(&learning.learner, rng)
        }
        Some(snapshot) => {
            step = snapshot.step;
            learning.learner.load_all(&snapshot)?;
            learning.replay.load(&snapshot)?;
            if !restore_environments(&mut *env, &mut history, &snapshot)? {
                start(&mut *env, &mut history, &mut learning.replay)?;
            }
            let mut actor = Actor::new(&learning.learner, rng);
            actor.load(&snapshot)?;
            actor
        }
    };
    let round_steps = (config.train_interval as usize / n).max(1);
    let round = learning.round(spec, n, round_steps);
    let mut version = round.version;
    let mut partner = match config.overlap {
        false => Partner::here(learning),
        true => {
            let spare = learning.round(spec, n, round_steps);
            Partner::there(learning, spare)
        }
    };
    let mut timer = PhaseTimer::default();
    let (mut between, mut observation) = (Some(round), Observation::default());

    let trained = (|| {
        while run.should_continue(step) {
            let mut round = between.take().expect("one round is on this side");
            let (before, mut played) = (step, 0);
            let acted = round.steps.iter_mut().try_for_each(|Played { actions, batch }| {
                let epsilon = clock.epsilon(step);
                timer.time("time/phase_act_ms", || {
                    actor.explore(observation.of(&history, env.normalizer()), epsilon, actions);
                });
                timer.time("time/phase_env_ms", || env.step(actions, batch))?;
                history.push(batch);
                (step, played) = (step + n as u64, played + 1);
                batch.episode.iter().flatten().try_for_each(|end| run.episode(step, *end))
            });
            // What was played before a failure is stored, too.
            round.steps.truncate(played);
            round.due = if acted.is_ok() { clock.due(before, step) } else { Vec::new() };
            round.normalizer = env.normalizer().cloned();
            let due = round.updates();
            let mut round = partner.exchange(round).map_err(|error| match error {
                Error::Diverged(what) => run.diverged(&what),
                error => error,
            })?;
            acted?;
            swap(&mut actor.network, &mut round.network);
            swap(&mut version, &mut round.version);
            timer.add("time/phase_learn_ms", round.learn_time);
            let round = between.insert(round);

            if run.log_due() || !run.should_continue(step) {
                let mut row = report(round, version, if config.overlap { due } else { 0 });
                row.push(("rollout/exploration_rate", clock.epsilon(step)));
                row.extend(config.prioritized.then(|| ("train/per_beta", clock.beta(step))));
                row.extend(timer.take());
                run.log(step, &row)?;
            }
            if run.save_due() {
                save(run, step, &mut partner, &actor, &mut *env, &history)?;
            }
        }
        Ok(())
    })();
    // Whatever else ended the training, what was learned is saved; parameters that diverged are not.
    if !matches!(trained, Err(Error::Diverged(_))) {
        let saved = save(run, step, &mut partner, &actor, &mut *env, &history);
        trained.and(saved)?;
    } else {
        trained?;
    }
    Ok(Box::new(actor))
}

/// What the network sees of the environments' observations: themselves, or normalized copies.
#[derive(Default)]
struct Observation {
    normalized: Option<Obs>,
}

impl Observation {
    fn of<'a>(&'a mut self, history: &'a FrameStack, normalizer: Option<&Normalizer>) -> &'a Obs {
        let (Some(normalizer), Obs::F32(values)) = (normalizer, history.observations()) else {
            return history.observations();
        };
        let mut values = values.clone();
        normalizer.observations(&mut values, history.depth());
        self.normalized.insert(Obs::F32(values))
    }
}

/// Every environment starts an episode.
fn start(env: &mut dyn VecEnv, history: &mut FrameStack, replay: &mut Replay) -> Result<()> {
    let mut batch = StepBatch::new(env.spec(), env.num_envs());
    env.reset(&mut batch)?;
    history.reset(&batch);
    replay.reset(&batch);
    Ok(())
}

/// `version`: the updates that the acting weights have seen; `under_way`: those that are being made while they act.
fn report(round: &Round, version: u64, under_way: u64) -> Vec<(&'static str, f64)> {
    let mut row = vec![
        ("train/replay_size", round.replay_len as f64),
        ("train/n_updates", version as f64),
        ("async/policy_lag", under_way as f64),
    ];
    if let Some(losses) = &round.losses {
        let error = losses.errors.iter().map(|e| f64::from(e.abs())).sum::<f64>() / losses.errors.len() as f64;
        row.extend([
            ("train/loss", losses.loss),
            ("train/q_mean", losses.q_mean),
            ("train/td_error", error),
            ("train/grad_norm", losses.grad_norm),
        ]);
    }
    row
}

fn save(
    run: &mut Run,
    step: u64,
    partner: &mut Partner,
    actor: &Actor,
    env: &mut dyn VecEnv,
    history: &FrameStack,
) -> Result<()> {
    let mut snapshot = partner.with(move |learning| {
        let mut snapshot = Snapshot { step, ..Snapshot::default() };
        learning.learner.save_all(&mut snapshot);
        learning.replay.save(&mut snapshot).map(|()| snapshot)
    })?;
    actor.save(&mut snapshot);
    save_environments(env, history, &mut snapshot);
    run.save(snapshot)?;
    partner.with(|learning| learning.replay.saved())
}

fn load(settings: &Settings, spec: &EnvSpec, snapshot: &Snapshot) -> Result<Box<dyn Policy>> {
    let (config, network) = configs(settings)?;
    tch::set_num_threads(1);
    let mut learner = Learner::new(config, &network, spec, &settings.device, 0)?;
    learner.load(snapshot)?;
    let mut actor = Actor::new(&learner, rng::stream(0, "dqn/actions"));
    actor.network.fold();
    Ok(Box::new(actor))
}

fn resolve(settings: &Settings) -> Result<Settings> {
    let (config, network) = configs(settings)?;
    let (section, network) = (write_section("dqn", &config)?, write_section("network", &network)?);
    Ok(Settings { section, network, ..settings.clone() })
}

fn configs(settings: &Settings) -> Result<(Config, NetworkConfig)> {
    let config = Config::from_table(&settings.section)?;
    let network: NetworkConfig = parse_section("network", &settings.network)?;
    network.check()?;
    Ok((config, network))
}
