use crate::actor::Actor;
use crate::clock::Clock;
use crate::config::Config;
use crate::learner::Learner;
use crate::replay::Replay;
use crate::worker::{Chunk, LearnerHandle, Worker};
use playfield_collect::{Collector, Evaluator};
use playfield_core::text::thousands;
use playfield_core::{Algorithm, EnvFactory, EnvSpec, Mode, Policy, Result, Run, Snapshot, rng};
use playfield_nn::config::TorsoKind;
use playfield_nn::{NetworkConfig, QNetwork};
use std::mem::swap;
use tch::Device;

/// DQN and its family.
pub struct Dqn;

impl Algorithm for Dqn {
    const NAME: &'static str = "dqn";
    const ABOUT: &'static str =
        "deep Q-learning with experience replay, and its family up to Rainbow (Mnih et al. 2015; Hessel et al. 2018)";
    const SINGLE_PROCESS: Option<&'static str> = None;
    type Config = Config;

    fn defaults(chosen: &Config) -> Config {
        Config::defaults(chosen)
    }

    fn check(config: &Config) -> Result<()> {
        config.check()
    }

    fn resolve(config: &Config, steps: u64, envs: &dyn EnvFactory) -> Result<Config> {
        config.check()?;
        let (network, device) = playfield_nn::resolve(&config.network, envs.spec(), &config.device)?;
        let annealed = steps.saturating_sub(config.anneal_from());
        let is_inline = config.num_threads == 0 && device == "cpu" && is_small(&network, envs.spec());
        Ok(Config {
            learning_rate: config.learning_rate.over(steps),
            beta: config.beta.over(annealed),
            exploration_epsilon: config.exploration_epsilon.over(annealed),
            num_threads: if is_inline { 1 } else { config.threads() },
            overlap: config.overlap && !is_inline,
            network,
            device,
            ..config.clone()
        })
    }

    fn extend(config: &Config, from: u64, to: u64) -> Config {
        let annealed = |steps: u64| steps.saturating_sub(config.anneal_from());
        Config {
            learning_rate: config.learning_rate.extended(from, to),
            beta: config.beta.extended(annealed(from), annealed(to)),
            exploration_epsilon: config.exploration_epsilon.extended(annealed(from), annealed(to)),
            ..config.clone()
        }
    }

    /// # Errors
    /// Also where the machine has too little memory for the replay buffer.
    fn train(config: &Config, envs: &dyn EnvFactory, run: &mut Run) -> Result<Box<dyn Policy>> {
        let config = Self::resolve(config, run.steps(), envs)?;
        let (spec, seed, group) = (envs.spec(), run.rank_seed(), run.group().clone());
        // Settings are those of all processes together, and each has an equal part of the environments.
        let n = group.share("env.num_envs", envs.num_envs())?;
        if config.overlap && group.is_distributed() {
            run.notify("dqn.overlap is not available with several processes: each acts and learns in turn");
        }
        let config = config.of_rank(&*group)?;
        // One thread for each operation: the learner splits the batch among threads instead.
        tch::set_num_threads(1);
        let clock = Clock::new(&config);

        run.notify(&Replay::size(&config, spec));
        let chunk_steps = (config.train_interval.min(LONGEST_CHUNK).min(run.steps()) as usize / envs.num_envs()).max(1);
        if clock.first_update() > run.steps().next_multiple_of((chunk_steps * envs.num_envs()) as u64) {
            let [first, steps] = [clock.first_update(), run.steps()].map(thousands);
            run.notify(&format!(
                "warning: no update is made: the first is due after {first} steps (dqn.learning_starts and dqn.train_interval), \
                 and the run has {steps}"
            ));
        }
        let snapshot = run.take_resume();
        let mut learner = Learner::new(config.clone(), spec, seed)?;
        let mut replay = Replay::new(&config, spec, n, seed, run.checkpoint_dir().as_deref())?;
        let device = learner.online().params.master().device();
        if device != Device::Cpu
            && config.buffer_on_device
            && let Err(error) = replay.copy_frames_to(spec, device)
        {
            run.notify(&format!("warning: samples of the replay buffer are sent to the device: {error}"));
        }
        let mut lost = Vec::new();
        if let Some(snapshot) = &snapshot {
            learner.load(snapshot)?;
            // Of a run with another number of processes the buffer is not resumed.
            if snapshot.state.contains_key("replay.rings") {
                lost = replay.load(snapshot)?;
            }
        }
        learner.join(&group, run.distributed())?;
        for file in &lost {
            run.notify(&format!("warning: {}: its transitions are dropped", file.message));
        }
        let summary = learner.online().summary(&config.network, spec);
        run.network(&summary.text, &summary.layers)?;
        let environments = envs.unnormalized(&run.environment_seeds(n, snapshot.as_ref()))?;
        let mut collector = Collector::unnormalized(environments, snapshot.as_ref())?.with_group(group.clone());
        let lost_newest = lost.iter().any(|file| file.has_newest);
        if collector.is_restored() && lost_newest {
            collector.reset()?;
        }
        if !collector.is_restored() || lost_newest {
            replay.reset(&collector.experience().batch);
        }
        let mut actor = Actor::new(&config, learner.online().deep_clone(), rng::stream(seed, "dqn/actions"));
        if let Some(snapshot) = &snapshot {
            actor.load(snapshot)?;
        }
        let mut evaluator = Evaluator::new(envs, run, collector.steps())?;

        let worker = Worker::new(learner, replay);
        let chunk = worker.chunk(spec, n, chunk_steps);
        let mut version = chunk.version;
        let mut learner = match config.overlap {
            false => LearnerHandle::inline(worker),
            true => {
                let spare = worker.chunk(spec, n, chunk_steps);
                LearnerHandle::thread(worker, spare)
            }
        };
        let mut slot = Some(chunk);

        let trained = (|| {
            while run.should_continue(collector.steps())? {
                let mut chunk = slot.take().expect("a chunk is on this side between exchanges");
                let (before, mut done) = (collector.steps(), 0);
                let collected = chunk.steps.iter_mut().try_for_each(|experience| {
                    actor.epsilon = clock.epsilon(collector.steps());
                    collector.step(&mut actor, Mode::Sample)?;
                    swap(experience, collector.experience_mut());
                    done += 1;
                    Ok(())
                });
                let step = collector.steps();
                // Steps before a failure are stored, too.
                chunk.steps.truncate(done);
                chunk.due = if collected.is_ok() { clock.due(before, step) } else { Vec::new() };
                if collected.is_ok() {
                    collector.merge_statistics()?;
                }
                chunk.normalizer = collector.normalizer().cloned();
                let due = chunk.updates();
                let mut chunk = learner.exchange(chunk).map_err(|error| run.explain(error))?;
                swap(&mut actor.network, &mut chunk.network);
                swap(&mut version, &mut chunk.version);
                collector.timer.add("time/phase_learn_ms", chunk.update_time);
                let chunk = slot.insert(chunk);
                run.progress(step, collector.take_episodes())?;
                collected?;

                if run.log_due() {
                    let mut row = report(chunk, version, if config.overlap { due } else { 0 });
                    row.push(("rollout/exploration_rate", clock.epsilon(step)));
                    row.push(("train/learning_rate", config.learning_rate.at(step)));
                    row.extend(config.prioritized.then(|| ("train/per_beta", clock.beta(step))));
                    row.extend(collector.timer.take());
                    run.log(step, &row)?;
                    if run.wants_histograms() {
                        let histograms = learner.with(|worker| worker.learner.online().params.histograms());
                        run.histograms(step, &histograms.map_err(|error| run.explain(error))?)?;
                    }
                }
                if evaluator.is_due(step) {
                    let network = online(&mut learner).map_err(|error| run.explain(error))?;
                    let policy = &mut actor.evaluation_policy(&config, network);
                    run.evaluated(step, &evaluator.evaluate(step, policy, collector.statistics())?)?;
                }
                if run.save_due() {
                    run.save(step, &mut [&mut learner, &mut actor, &mut collector])?;
                }
            }
            Ok(())
        })();
        run.finish(trained, collector.steps(), &mut [&mut learner, &mut actor, &mut collector])?;
        Ok(Box::new(actor.evaluation_policy(&config, online(&mut learner)?)))
    }

    fn load(config: &Config, spec: &EnvSpec, snapshot: &Snapshot) -> Result<Box<dyn Policy>> {
        let init = &mut rng::stream(0, "dqn/init");
        let mut network = QNetwork::new(&config.network, config.heads(), spec, &config.device, init)?;
        network.params.load(snapshot)?;
        network.fold();
        Ok(Box::new(Actor::new(config, network, rng::stream(0, "dqn/actions"))))
    }
}

/// A copy of the learner's online network, after all updates that were sent.
///
/// # Errors
/// Where learning failed.
fn online(learner: &mut LearnerHandle) -> Result<QNetwork> {
    learner.with(|worker| worker.learner.online().deep_clone())
}

/// Agent steps of the longest chunk: Ctrl-C is heeded between chunks, and two of them are in memory.
const LONGEST_CHUNK: u64 = 4096;

/// Weights of the largest fully connected network that is small: two hidden layers of 512.
const SMALL: usize = 1 << 19;

/// Whether threads cost more than they save: each update hands over to another thread and back, and on a busy machine that thread first
/// waits for a core.
fn is_small(network: &NetworkConfig, spec: &EnvSpec) -> bool {
    let widths: Vec<usize> = [spec.obs_len()].into_iter().chain(network.hidden.iter().map(|&w| w as usize)).collect();
    network.torso == TorsoKind::Mlp && widths.windows(2).map(|pair| pair[0] * pair[1]).sum::<usize>() < SMALL
}

/// Metrics of the last update. `version`: the updates of the acting weights; `lag`: those in progress while they act.
fn report(chunk: &Chunk, version: u64, lag: u64) -> Vec<(&'static str, f64)> {
    let mut row = vec![
        ("train/replay_size", chunk.buffer_len as f64),
        ("train/n_updates", version as f64),
        ("async/policy_lag", lag as f64),
    ];
    if let Some(losses) = &chunk.losses {
        row.extend([
            ("train/loss", losses.loss),
            ("train/q_mean", losses.q_mean),
            ("train/td_error", losses.mean_error()),
            ("train/grad_norm", losses.grad_norm),
        ]);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::{ActionSpace, Dtype};

    /// 2¹⁹ weights are not small: 512 · 512, twice. Nor is a convolutional network.
    #[test]
    fn a_network_below_the_bound_is_small() {
        let spec = EnvSpec::new("t", &[512], Dtype::F32, ActionSpace::Discrete { n: 3 });
        let small = |torso, hidden: &[i64]| {
            is_small(&NetworkConfig { torso, hidden: hidden.to_vec(), ..NetworkConfig::default() }, &spec)
        };
        assert!(small(TorsoKind::Mlp, &[512, 511]) && !small(TorsoKind::Mlp, &[512, 512]));
        assert!(!small(TorsoKind::Nature, &[8]));
    }
}
