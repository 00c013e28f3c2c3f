use crate::args::Eval;
use crate::experiment::Experiment;
use crate::{Registry, folder};
use indicatif::ProgressBar;
use playfield_core::{
    Actions, EnvFactory, EpisodeEnd, Error, History, Mode, Policy, Result, Snapshot, StepBatch, VecEnv, rng,
};
use playfield_wrappers::Factory;
use serde::Serialize;
use std::process::ExitCode;

/// What `--json` prints: one object. Standard deviation is that of the episodes (divided by their number).
#[derive(Debug, PartialEq, Serialize)]
struct Report {
    mean_return: f64,
    std_return: f64,
    min_return: f64,
    max_return: f64,
    mean_length: f64,
    episodes: usize,
    returns: Vec<f64>,
}

/// `playfield eval`.
pub fn eval(registry: &Registry, args: &Eval) -> Result<ExitCode> {
    let mut table = folder::settings(&args.run)?;
    if let Some(device) = &args.device {
        table.insert("device".into(), device.clone().into());
    }
    let experiment = Experiment::new(table, &[], registry)?;
    let checkpoints = folder::checkpoints(&args.run, experiment.intervals.keep_checkpoints);
    let loaded = if args.best { checkpoints.best()? } else { checkpoints.latest()? };
    for (path, reason) in &loaded.skipped {
        eprintln!("warning: {} is not whole and is passed over: {reason}", path.display());
    }

    let episodes = args.episodes as usize;
    let n = experiment.settings.num_envs.min(episodes);
    let factory = Factory::new(experiment.source.clone(), experiment.env.clone())?;
    let mut env = factory.vec(&rng::seeds(args.seed, "eval", n))?;
    freeze_statistics(&mut *env, &loaded.snapshot)?;
    let mut policy = (experiment.algorithm.load)(&experiment.settings, factory.spec(), &loaded.snapshot)?;
    policy.seed(rng::derive(args.seed, "eval/actions", 0));
    let mode = if args.deterministic { Mode::Greedy } else { Mode::Sample };

    let bar = if args.json { ProgressBar::hidden() } else { ProgressBar::new(episodes as u64) };
    let ends = play(&mut *env, &mut *policy, mode, episodes, || bar.inc(1))?;
    bar.finish_and_clear();
    let report = report(&ends);
    if args.json {
        println!("{}", serde_json::to_string(&report).map_err(Error::other)?);
    } else {
        let Report { mean_return, std_return, min_return, max_return, mean_length, .. } = &report;
        println!("agent      {} at step {}", args.run.display(), loaded.snapshot.step);
        println!(
            "episodes   {episodes} of {}, {}",
            experiment.env.id,
            if args.deterministic { "greedy" } else { "sampled" }
        );
        println!("return     {mean_return:.2} ± {std_return:.2}, from {min_return:.2} to {max_return:.2}");
        println!("length     {mean_length:.0} steps");
    }
    Ok(ExitCode::SUCCESS)
}

/// A normaliser's statistics belong to what was learnt: playing uses them and leaves them as they are.
pub(super) fn freeze_statistics(env: &mut dyn VecEnv, snapshot: &Snapshot) -> Result<()> {
    match snapshot.state.get("env.statistics") {
        Some(statistics) if !statistics.is_null() => env.load_statistics(statistics, true),
        _ => Ok(()),
    }
}

/// Plays `episodes` episodes. Environment `i` plays numbers `i`, `i + n`, …, decided beforehand: taking the first to end
/// would favour short episodes.
fn play(
    env: &mut dyn VecEnv,
    policy: &mut dyn Policy,
    mode: Mode,
    episodes: usize,
    mut ended: impl FnMut(),
) -> Result<Vec<EpisodeEnd>> {
    let (spec, n) = (env.spec().clone(), env.num_envs());
    let mut batch = StepBatch::new(&spec, n);
    let mut history = History::new(&spec, n);
    let mut actions = Actions::zeros(&spec.actions, n);
    let mut ends = vec![None; episodes];
    let mut next: Vec<usize> = (0..n).collect();
    env.reset(&mut batch)?;
    history.reset(&batch);
    while ends.iter().any(Option::is_none) {
        policy.act(history.observations(), mode, &mut actions)?;
        env.step(&actions, &mut batch)?;
        history.push(&batch);
        for (end, next) in batch.episode.iter().zip(&mut next) {
            if let Some(end) = *end {
                if let Some(place) = ends.get_mut(*next) {
                    *place = Some(end);
                    ended();
                }
                *next += n;
            }
        }
        let done: Vec<_> = (0..n).map(|i| batch.done(i)).collect();
        policy.episodes_ended(&done);
    }
    Ok(ends.into_iter().flatten().collect())
}

fn report(ends: &[EpisodeEnd]) -> Report {
    let n = ends.len() as f64;
    let returns: Vec<f64> = ends.iter().map(|e| e.reward).collect();
    let mean = returns.iter().sum::<f64>() / n;
    Report {
        mean_return: mean,
        std_return: (returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / n).sqrt(),
        min_return: returns.iter().copied().fold(f64::INFINITY, f64::min),
        max_return: returns.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        mean_length: ends.iter().map(|e| e.length as f64).sum::<f64>() / n,
        episodes: ends.len(),
        returns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::{ActionSpace, Dtype, EnvSpec, Obs, Step};

    /// Environment 0's episodes last one step and pay 1, environment 1's three steps and pay 10.
    struct Uneven {
        spec: EnvSpec,
        age: u64,
    }

    impl VecEnv for Uneven {
        fn spec(&self) -> &EnvSpec {
            &self.spec
        }
        fn num_envs(&self) -> usize {
            2
        }
        fn reset(&mut self, batch: &mut StepBatch) -> Result<()> {
            batch.clear();
            Ok(())
        }
        fn send(&mut self, _actions: &Actions) -> Result<()> {
            self.age += 1;
            Ok(())
        }
        fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
            batch.clear();
            for (i, length) in [1, 3].into_iter().enumerate() {
                if self.age.is_multiple_of(length) {
                    batch.set(i, Step { terminated: true, ..Step::default() });
                    batch.episode[i] = Some(EpisodeEnd { reward: [1.0, 10.0][i], length });
                }
            }
            Ok(())
        }
    }

    struct Idle;

    impl Policy for Idle {
        fn act(&mut self, _obs: &Obs, _mode: Mode, _actions: &mut Actions) -> Result<()> {
            Ok(())
        }
        fn seed(&mut self, _seed: u64) {}
    }

    /// Counting whatever ends first would give three episodes of 1 and one of 10.
    #[test]
    fn short_episodes_are_not_favoured() {
        let actions = ActionSpace::Discrete { n: 2 };
        let spec =
            EnvSpec { id: "u".into(), shape: vec![1], dtype: Dtype::F32, history: 1, actions, action_names: vec![] };
        let mut counted = 0;
        let ends = play(&mut Uneven { spec, age: 0 }, &mut Idle, Mode::Greedy, 4, || counted += 1).unwrap();
        let r = report(&ends);
        assert_eq!((r.returns, counted), (vec![1.0, 10.0, 1.0, 10.0], 4));
        assert_eq!(
            (r.mean_return, r.std_return, r.min_return, r.max_return, r.mean_length),
            (5.5, 4.5, 1.0, 10.0, 2.0)
        );
    }
}
