use crate::args::Embed as Args;
use crate::commands::agent::Agent;
use crate::output::{note, out};
use crate::{Registry, paths, signals};
use indicatif::{ProgressBar, ProgressStyle};
use playfield_core::{Error, Image, Result, rng};
use playfield_lab::map;
use playfield_tricks::tsne::{TsneConfig, tsne};
use std::fs;
use std::process::ExitCode;

/// `playfield embed`.
pub fn embed(registry: &Registry, args: &Args) -> Result<ExitCode> {
    let stop = signals::listen()?;
    // Before any episode is played for it.
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
    let style = ProgressStyle::with_template("playing {bar:30} {pos}/{len} points, {eta} left");
    bar.set_style(style.map_err(Error::other)?);
    let (mut features, mut values, mut pictures) = (Vec::new(), Vec::new(), Vec::<Option<Image>>::new());
    for step in 0.. {
        if step % args.every == 0 {
            let said = policy.outputs(collector.observations(), 1)?;
            features.extend(said.features);
            values.extend(said.values);
            // A picture of 0 pixels is none.
            pictures.push(collector.render()?.filter(|image| !image.rgb.is_empty()));
            bar.inc(1);
        }
        if values.len() == args.points || stop.requested().is_some() {
            break;
        }
        collector.step(&mut *policy, mode)?;
    }
    bar.finish_and_clear();
    if let Some(signal) = stop.requested() {
        return Ok(ExitCode::from(128 + signal as u8));
    }
    let width = features.len() / values.len();
    note!("drawing a map of {} points of {width} numbers", values.len());
    let config = TsneConfig { perplexity: args.perplexity, ..TsneConfig::default() };
    let map = tsne(&features, width, &config, &mut rng::stream(args.playing.seed, "embed/map"))?;
    if let Some(warning) = &map.warning {
        note!("warning: {warning}");
    }
    let title = format!("{} at step {}: {} observations", spec.id, agent.snapshot.step, values.len());
    let bytes = map::png(&title, &map.points, &values, |i| pictures[i].take())?;
    let path = args.out.clone().unwrap_or_else(|| args.run.join(format!("embed-{:012}.png", agent.snapshot.step)));
    fs::write(&path, bytes).map_err(Error::io("write", &path))?;
    let returns: Vec<f64> = collector.take_episodes().into_iter().map(|(_, end)| end.reward).collect();
    let mean = returns.iter().sum::<f64>() / returns.len() as f64;
    match returns.len() {
        0 => out!("played     part of an episode"),
        n => out!("played     {n} episodes, mean return {mean:.2}"),
    }
    out!("left over  KL {:.3} at perplexity {}", map.divergence, args.perplexity);
    out!("map        {}", paths::shown(&path));
    out!("mind       neighbors mean something; sizes of clusters and distances between them do not");
    Ok(ExitCode::SUCCESS)
}
