use crate::Config;
use crate::learner::Learner;
use playfield_actor_critic::Actor;
use playfield_collect::{Collector, Evaluator, resolve_splits};
use playfield_core::{Algorithm, EnvFactory, EnvSpec, Policy, Result, Rollout, Run, Snapshot};

/// PPO.
pub struct Ppo;

impl Algorithm for Ppo {
    const NAME: &'static str = "ppo";
    const ABOUT: &'static str =
        "proximal policy optimization: several epochs of minibatches from each rollout (Schulman et al. 2017)";
    const SINGLE_PROCESS: Option<&'static str> = None;
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
        config.check_minibatch(envs.num_envs())?;
        Rollout::check_memory(envs.spec(), envs.num_envs(), config.rollout_steps)?;
        let (network, device) = playfield_nn::resolve(&config.network, envs.spec(), &config.device)?;
        Ok(Config {
            learning_rate: config.learning_rate.over(steps),
            clip_range: config.clip_range.over(steps),
            entropy_coefficient: config.entropy_coefficient.over(steps),
            num_splits: resolve_splits(config.num_splits, network.lstm > 0, envs)?,
            num_threads: playfield_core::config::thread_count(config.num_threads),
            network,
            device,
            ..config.clone()
        })
    }

    fn extend(config: &Config, from: u64, to: u64) -> Config {
        Config {
            learning_rate: config.learning_rate.extended(from, to),
            clip_range: config.clip_range.extended(from, to),
            entropy_coefficient: config.entropy_coefficient.extended(from, to),
            ..config.clone()
        }
    }

    fn train(config: &Config, envs: &dyn EnvFactory, run: &mut Run) -> Result<Box<dyn Policy>> {
        let config = Self::resolve(config, run.steps(), envs)?;
        let (spec, group) = (envs.spec(), run.group().clone());
        // Settings are those of all processes together, and each has an equal part of the environments.
        let n = group.share("env.num_envs", envs.num_envs())?;
        let config = config.of_rank(&*group)?;
        config.check_minibatch(n)?;
        // One thread for each operation: the network splits the batch among threads instead.
        tch::set_num_threads(1);

        let snapshot = run.take_resume();
        let seeds = run.environment_seeds(n, snapshot.as_ref());
        let collector = Collector::in_splits(envs, &seeds, config.num_splits.min(n), snapshot.as_ref())?;
        let mut collector = collector.with_group(group.clone());
        let mut learner = Learner::new(&config, spec, n, run.rank_seed())?;
        if let Some(snapshot) = &snapshot {
            learner.load(snapshot, collector.is_restored())?;
        }
        learner.join(&group, run.distributed())?;
        let summary = learner.actor.net.summary(&config.network, spec);
        run.network(&summary.text, &summary.layers)?;
        let mut evaluator = Evaluator::new(envs, run, collector.steps())?;
        let mut rollout = Rollout::new(spec, n, config.rollout_steps, config.gamma);

        let trained = (|| {
            while run.should_continue(collector.steps())? {
                let collected = collector.collect(&mut learner.actor, &mut rollout);
                let step = collector.steps();
                run.progress(step, collector.take_episodes())?;
                collected?;
                let update = collector.timer.time("time/phase_learn_ms", || learner.update(&rollout, step));
                let update = update.map_err(|error| run.explain(error))?;

                if run.log_due() {
                    run.log(step, &[update.report(), collector.timer.take()].concat())?;
                    if run.wants_histograms() {
                        run.histograms(step, &learner.actor.net.params.histograms())?;
                    }
                }
                if evaluator.is_due(step) {
                    let policy = &mut learner.actor.evaluation_policy();
                    run.evaluated(step, &evaluator.evaluate(step, policy, collector.statistics())?)?;
                }
                if run.save_due() {
                    run.save(step, &mut [&mut learner, &mut collector])?;
                }
            }
            Ok(())
        })();
        run.finish(trained, collector.steps(), &mut [&mut learner, &mut collector])?;
        learner.actor.begin(n);
        Ok(Box::new(learner.actor))
    }

    fn load(config: &Config, spec: &EnvSpec, snapshot: &Snapshot) -> Result<Box<dyn Policy>> {
        Ok(Box::new(Actor::for_evaluation(&config.network, spec, &config.device, snapshot)?))
    }
}
