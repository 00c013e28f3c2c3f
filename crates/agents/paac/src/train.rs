use crate::Config;
use crate::learner::{Learner, Losses};
use playfield_core::algorithm::{parse_section, write_section};
use playfield_core::metrics::PhaseTimer;
use playfield_core::resume::{environment_seeds, restore_environments, save_environments};
use playfield_core::{
    Actions, Algorithm, EnvFactory, EnvSpec, Error, FrameStack, Mode, Policy, Result, Rollout, Run, Settings, Snapshot,
    StepBatch, VecEnv,
};
use playfield_nn::NetworkConfig;

/// PAAC, as a row of the registry.
pub static ALGORITHM: Algorithm = Algorithm {
    name: "paac",
    about: "parallel advantage actor-critic: synchronous, batched (Clemente et al. 2017)",
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
    // Each operation on one thread: the network shares the rows of a batch out among threads instead.
    tch::set_num_threads(1);
    let (learning_rate, entropy) = (config.learning_rate(run.steps()), config.entropy(run.steps()));

    let resumed = run.take_resume();
    let mut env = factory.vec(&environment_seeds(run.seed(), n, resumed.as_ref()))?;
    let mut learner = Learner::new(&config, &network, spec, n, &settings.device, run.seed())?;
    let mut batch = StepBatch::new(spec, n);
    let mut history = FrameStack::new(spec, n);
    let mut actions = Actions::zeros(&spec.actions, n);
    let mut rollout = Rollout::new(spec, n, config.rollout_steps, config.gamma);
    let (mut step, mut restored) = (0, false);
    if let Some(snapshot) = resumed {
        step = snapshot.step;
        learner.load_all(&snapshot)?;
        restored = restore_environments(&mut *env, &mut history, &snapshot)?;
        learner.player.load(&snapshot, restored)?;
    }
    if !restored {
        env.reset(&mut batch)?;
        history.reset(&batch);
    }
    let mut timer = PhaseTimer::default();

    let trained = (|| {
        while run.should_continue(step) {
            learner.set_entropy_coefficient(entropy.at(step));
            rollout.clear();
            while !rollout.is_full() {
                rollout.observe(&history);
                let player = &mut learner.player;
                timer.time("time/phase_act_ms", || player.act(history.observations(), Mode::Sample, &mut actions))?;
                timer.time("time/phase_env_ms", || env.step(&actions, &mut batch))?;
                history.push(&batch);
                rollout.outcome(&actions, &batch, |i| player.final_value(history.final_observation(i), i));
                player.reset_states(&batch.ended());
                step += n as u64;
                for end in batch.episode.iter().flatten() {
                    run.episode(step, *end)?;
                }
            }
            rollout.observe(&history);
            let rate = learning_rate.at(step);
            let (losses, grad_norm) = timer.time("time/phase_learn_ms", || learner.update(&rollout, rate));
            if !grad_norm.is_finite() {
                let update = learner.updates();
                return Err(run.diverged(&format!("the gradient's norm is {grad_norm} at update {update}")));
            }

            if run.log_due() || !run.should_continue(step) {
                let mut row = report(&losses, grad_norm, rate, learner.updates());
                row.extend(timer.take());
                run.log(step, &row)?;
            }
            if run.save_due() {
                run.save(snapshot(step, &mut *env, &learner, &history))?;
            }
        }
        Ok(())
    })();
    // Whatever else ended the training, what was learned is saved; parameters that diverged are not.
    if !matches!(trained, Err(Error::Diverged(_))) {
        let saved = run.save(snapshot(step, &mut *env, &learner, &history));
        trained.and(saved)?;
    } else {
        trained?;
    }
    learner.player.restart();
    Ok(Box::new(learner.player))
}

fn report(losses: &Losses, grad_norm: f64, learning_rate: f64, updates: u64) -> Vec<(&'static str, f64)> {
    let mut row = losses.report().to_vec();
    row.extend([
        ("train/grad_norm", grad_norm),
        ("train/learning_rate", learning_rate),
        ("train/n_updates", updates as f64),
    ]);
    row
}

fn snapshot(step: u64, env: &mut dyn VecEnv, learner: &Learner, history: &FrameStack) -> Snapshot {
    let mut snapshot = Snapshot { step, ..Snapshot::default() };
    learner.save_all(&mut snapshot);
    save_environments(env, history, &mut snapshot);
    snapshot
}

fn load(settings: &Settings, spec: &EnvSpec, snapshot: &Snapshot) -> Result<Box<dyn Policy>> {
    let (config, network) = configs(settings)?;
    tch::set_num_threads(1);
    let mut learner = Learner::new(&config, &network, spec, 1, &settings.device, 0)?;
    learner.load(snapshot)?;
    learner.player.net.fold();
    Ok(Box::new(learner.player))
}

fn resolve(settings: &Settings) -> Result<Settings> {
    let (config, network) = configs(settings)?;
    let (section, network) = (write_section("paac", &config)?, write_section("network", &network)?);
    Ok(Settings { section, network, ..settings.clone() })
}

fn configs(settings: &Settings) -> Result<(Config, NetworkConfig)> {
    let config = Config::from_table(&settings.section)?;
    let network: NetworkConfig = parse_section("network", &settings.network)?;
    network.check()?;
    Ok((config, network))
}
