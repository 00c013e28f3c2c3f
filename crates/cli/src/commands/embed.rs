use crate::args::Embed as Args;
use crate::commands::agent::Agent;
use crate::output::{note, out};
use crate::{Registry, paths, signals};
use indicatif::{ProgressBar, ProgressStyle};
use playfield_core::{Error, Image, Result, rng};
use playfield_lab::map;
use playfield_tricks::tsne::{TsneConfig, tsne_unless};
use std::fs;
use std::process::ExitCode;

/// `playfield embed`.
pub fn embed(registry: &Registry, args: &Args) -> Result<ExitCode> {
    let stop = signals::listen("no map is written")?;
    // Checked before any experience is collected.
    if !(args.perplexity >= 1.0 && args.perplexity < args.points as f64) {
        return Err(Error::config(format!(
            "--perplexity {} must be at least 1 and less than the number of points, {}",
            args.perplexity, args.points
        )));
    }
    let agent = Agent::open(registry, &args.run, None, args.playing.best)?;
    let mut collector = agent.rendering_collector(rng::derive(args.playing.seed, "embed", 0))?;
    let (spec, mode) = (collector.spec().clone(), args.playing.mode());
    let mut policy = agent.policy(args.playing.seed, "embed/actions")?;

    let bar = ProgressBar::new(args.points as u64);
    let style = ProgressStyle::with_template("collecting {bar:30} {pos}/{len} points, {eta} left");
    bar.set_style(style.map_err(Error::other)?);
    let (mut features, mut values, mut frames) = (Vec::new(), Vec::new(), Vec::<Option<Image>>::new());
    for step in 0.. {
        if step % args.every == 0 {
            let outputs = policy.outputs(collector.observations(), 1)?;
            features.extend(outputs.features);
            values.extend(outputs.values);
            // An empty image counts as no image.
            frames.push(collector.render()?.filter(|image| !image.rgb.is_empty()));
            bar.inc(1);
        }
        if values.len() == args.points || stop.requested().is_some() {
            break;
        }
        collector.step(&mut *policy, mode)?;
    }
    bar.finish_and_clear();
    let stopped = || Ok(ExitCode::from(128 + stop.requested().unwrap_or(0) as u8));
    if stop.requested().is_some() {
        return stopped();
    }
    let width = features.len() / values.len();
    note!("computing a t-SNE map of {} points with {width} features", values.len());
    let config = TsneConfig { perplexity: args.perplexity, ..TsneConfig::default() };
    let rng = &mut rng::stream(args.playing.seed, "embed/map");
    let Some(map) = tsne_unless(&features, width, &config, rng, || stop.requested().is_some())? else {
        return stopped();
    };
    if let Some(warning) = &map.warning {
        note!("warning: {warning}");
    }
    let title = format!("{} at step {}: {} observations", spec.id, agent.snapshot.step, values.len());
    let bytes = map::png(&title, &map.points, &values, |i| frames[i].take())?;
    let path = args.out.clone().unwrap_or_else(|| args.run.join(format!("embed-{:012}.png", agent.snapshot.step)));
    fs::write(&path, bytes).map_err(Error::io("write", &path))?;
    let returns: Vec<f64> = collector.take_episodes().into_iter().map(|(_, end)| end.episode_return).collect();
    let mean = returns.iter().sum::<f64>() / returns.len() as f64;
    match returns.len() {
        0 => out!("episodes   none finished"),
        n => out!("episodes   {n}, mean return {mean:.2}"),
    }
    out!("t-SNE      KL divergence {:.3} at perplexity {}", map.divergence, args.perplexity);
    out!("map        {}", paths::shown(&path));
    out!("note       only local neighborhoods are meaningful: sizes and distances of clusters are not");
    Ok(ExitCode::SUCCESS)
}
