use crate::Registry;
use crate::args::Eval;
use crate::commands::agent::Agent;
use crate::output::out;
use crate::paths;
use indicatif::ProgressBar;
use playfield_collect::evaluate;
use playfield_core::run::Stop;
use playfield_core::text::thousands;
use playfield_core::{EpisodeEnd, Error, Result, rng};
use serde::Serialize;
use std::process::ExitCode;

/// The JSON object of `--json`. `std_return` is the population standard deviation of the episode returns.
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
    let agent = Agent::open(registry, &args.run, args.device.as_deref(), args.playing.best)?;
    let (episodes, env) = (args.episodes as usize, &agent.experiment.env);
    let n = agent.experiment.env.num_envs.min(episodes);
    let mut collector = agent.collector(&rng::seeds(args.playing.seed, "eval", n))?;
    let mut policy = agent.policy(args.playing.seed, "eval/actions")?;
    let mode = args.playing.mode();

    let bar = if args.json { ProgressBar::hidden() } else { ProgressBar::new(episodes as u64) };
    let ends = evaluate(&mut collector, &mut *policy, mode, episodes, &Stop::default(), || bar.inc(1))?;
    bar.finish_and_clear();
    let report = report(&ends);
    if args.json {
        out!("{}", serde_json::to_string(&report).map_err(Error::other)?);
    } else {
        let Report { mean_return, std_return, min_return, max_return, mean_length, .. } = &report;
        out!("agent      {} at step {}", paths::shown(&args.run), thousands(agent.snapshot.step));
        out!(
            "episodes   {episodes} of {}, {}",
            env.id,
            if args.playing.deterministic { "greedy" } else { "stochastic" }
        );
        out!("return     {mean_return:.2} ± {std_return:.2}, from {min_return:.2} to {max_return:.2}");
        out!("length     {} steps", thousands(mean_length.round() as u64));
    }
    Ok(ExitCode::SUCCESS)
}

fn report(ends: &[EpisodeEnd]) -> Report {
    let n = ends.len() as f64;
    let returns: Vec<f64> = ends.iter().map(|e| e.episode_return).collect();
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

    #[test]
    fn a_report_has_the_mean_and_standard_deviation_of_all_episodes() {
        let r = report(&[1.0, 10.0, 1.0, 10.0].map(|episode_return| EpisodeEnd { episode_return, length: 2 }));
        assert_eq!(
            (r.mean_return, r.std_return, r.min_return, r.max_return, r.mean_length, r.episodes),
            (5.5, 4.5, 1.0, 10.0, 2.0, 4)
        );
    }
}
