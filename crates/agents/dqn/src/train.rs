use crate::config::Config;
use crate::learner::{Learner, Losses};
use playfield_core::algorithm::{parse_section, write_section};
use playfield_core::metrics::PhaseTimer;
use playfield_core::rng::Rng;
use playfield_core::{
    Actions, Algorithm, EnvFactory, EnvSpec, History, Policy, Result, Run, Schedule, Settings, Snapshot, StepBatch, rng,
};
use playfield_nn::NetworkConfig;
use playfield_replay::{Changes, FrameRing, Prioritized, Transitions, uniform};

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
/// Where an environment or the disk fails, or the loss is no longer finite.
pub fn train(settings: &Settings, factory: &dyn EnvFactory, run: &mut Run) -> Result<Box<dyn Policy>> {
    let (config, network) = configs(settings)?;
    let (spec, n) = (factory.spec(), settings.num_envs);
    set_threads(config.threads);
    let epsilon = Schedule::linear(config.exploration_start, config.exploration_end, config.exploration_steps);
    let beta_steps = if config.beta_steps == 0 { run.steps() } else { config.beta_steps };
    let beta = Schedule::linear(config.beta_start, 1.0, beta_steps);

    let mut learner = Learner::new(config.clone(), &network, spec, &settings.device, run.seed())?;
    let mut replay = Replay::new(&config, spec, n, run.seed())?;
    let mut env = factory.vec(&rng::seeds(run.seed(), "env", n))?;
    let mut batch = StepBatch::new(spec, n);
    let mut history = History::new(spec, n);
    let mut actions = Actions::zeros(&spec.actions, n);
    env.reset(&mut batch)?;
    history.reset(&batch);
    replay.reset(&batch);
    let mut step = 0;
    if let Some(snapshot) = run.take_resume() {
        learner.load_all(&snapshot)?;
        env.load_statistics(&snapshot.get("env.statistics")?, false)?;
        step = snapshot.step;
    }
    let starts = step + config.learning_starts;
    let (mut timer, mut last) = (PhaseTimer::default(), None);

    while run.goes_on(step) {
        let exploration = if config.noisy_sigma > 0.0 { 0.0 } else { epsilon.at(step) };
        timer.time("time/phase_act_ms", || learner.explore(history.observations(), exploration, &mut actions));
        timer.time("time/phase_env_ms", || env.step(&actions, &mut batch))?;
        history.push(&batch);
        replay.push(&actions, &batch);
        let before = step;
        step += n as u64;
        for end in batch.episode.iter().flatten() {
            run.episode(step, *end)?;
        }
        if step >= starts && replay.len() >= config.batch_size {
            for _ in 0..rounds(before, step, config.update_every_steps) * config.updates_per_round {
                last = Some(timer.time("time/phase_learn_ms", || replay.learn(&mut learner, beta.at(step)))?);
            }
            if rounds(before, step, config.target_every_steps) > 0 {
                learner.update_target();
            }
        }
        if run.log_due() || !run.goes_on(step) {
            let mut row = vec![("rollout/exploration_rate", exploration), ("train/replay_size", replay.len() as f64)];
            row.extend(report(&learner, last.as_ref(), config.prioritized.then(|| beta.at(step))));
            row.extend(timer.take());
            run.log(step, &row)?;
        }
        if run.save_due() {
            run.save(snapshot(step, &learner, &*env))?;
        }
    }
    run.save(snapshot(step, &learner, &*env))?;
    Ok(Box::new(learner))
}

/// How many multiples of `every` lie in (`before`, `after`].
fn rounds(before: u64, after: u64, every: u64) -> u64 {
    after / every - before / every
}

/// The memory, how it is drawn from, and what a draw fills.
struct Replay {
    memory: FrameRing,
    priorities: Option<Prioritized>,
    transitions: Transitions,
    indices: Vec<usize>,
    weights: Vec<f32>,
    rng: Rng,
}

impl Replay {
    fn new(config: &Config, spec: &EnvSpec, envs: usize, seed: u64) -> Result<Self> {
        let memory = FrameRing::new(spec, envs, config.replay_capacity, config.n_step, config.gamma)?;
        let priorities = match config.prioritized {
            true => Some(Prioritized::new(config.priority.clone(), memory.capacity())?),
            false => None,
        };
        let n = config.batch_size;
        let transitions = Transitions::new(spec, n);
        Ok(Self {
            memory,
            priorities,
            transitions,
            indices: vec![0; n],
            weights: vec![1.0; n],
            rng: rng::stream(seed, "dqn/replay"),
        })
    }

    fn len(&self) -> usize {
        self.memory.len()
    }

    fn reset(&mut self, batch: &StepBatch) {
        let changes = self.memory.reset(batch);
        Self::follow(&mut self.priorities, changes);
    }

    fn push(&mut self, actions: &Actions, batch: &StepBatch) {
        let changes = self.memory.push(actions, batch);
        Self::follow(&mut self.priorities, changes);
    }

    fn follow(priorities: &mut Option<Prioritized>, changes: &Changes) {
        if let Some(priorities) = priorities {
            priorities.follow(changes);
        }
    }

    /// Draws a batch, learns from it, and sets its priorities.
    fn learn(&mut self, learner: &mut Learner, beta: f64) -> Result<Losses> {
        match &self.priorities {
            Some(priorities) => priorities.sample(&mut self.rng, beta, &mut self.indices, &mut self.weights),
            None => uniform::sample(&self.memory, &mut self.rng, &mut self.indices),
        }
        self.memory.gather(&self.indices, &mut self.transitions);
        let losses = learner.update(&self.transitions, &self.weights);
        if let Some(priorities) = &mut self.priorities {
            priorities.update(&self.indices, &losses.errors)?;
        }
        Ok(losses)
    }
}

fn report(learner: &Learner, last: Option<&Losses>, beta: Option<f64>) -> Vec<(&'static str, f64)> {
    let mut row: Vec<_> = beta.map(|b| ("train/per_beta", b)).into_iter().collect();
    if let Some(losses) = last {
        let error = losses.errors.iter().map(|e| f64::from(e.abs())).sum::<f64>() / losses.errors.len() as f64;
        row.extend([
            ("train/loss", losses.loss),
            ("train/q_mean", losses.q_mean),
            ("train/td_error", error),
            ("train/grad_norm", losses.grad_norm),
            ("train/n_updates", learner.updates() as f64),
        ]);
    }
    row
}

fn snapshot(step: u64, learner: &Learner, env: &dyn playfield_core::VecEnv) -> Snapshot {
    let mut snapshot = Snapshot { step, ..Snapshot::default() };
    learner.save_all(&mut snapshot);
    snapshot.put("env.statistics", &env.save_statistics());
    snapshot
}

fn load(settings: &Settings, spec: &EnvSpec, snapshot: &Snapshot) -> Result<Box<dyn Policy>> {
    let (config, network) = configs(settings)?;
    set_threads(config.threads);
    let mut learner = Learner::new(config, &network, spec, &settings.device, 0)?;
    learner.load(snapshot)?;
    Ok(Box::new(learner))
}

fn resolve(settings: &Settings) -> Result<Settings> {
    let (config, network) = configs(settings)?;
    let (section, network) = (write_section("dqn", &config)?, write_section("network", &network)?);
    Ok(Settings { section, network, ..settings.clone() })
}

fn configs(settings: &Settings) -> Result<(Config, NetworkConfig)> {
    let config: Config = parse_section("dqn", &settings.section)?;
    let network: NetworkConfig = parse_section("network", &settings.network)?;
    config.check()?;
    network.check()?;
    Ok((config, network))
}

fn set_threads(threads: usize) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tch::set_num_threads(if threads == 0 { cores } else { threads } as i32);
}
