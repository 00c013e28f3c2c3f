use crate::args::Watch;
use crate::commands::agent::Agent;
use crate::output::out;
use crate::{Registry, paths};
use playfield_core::{Error, Result, rng};
use playfield_log::gif::{self, Gif};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Duration of one agent step in hundredths of a second: four Atari frames at 60 frames per second.
const DELAY: u16 = 7;

/// `playfield watch`.
pub fn watch(registry: &Registry, args: &Watch) -> Result<ExitCode> {
    let (path, steps, reward, ended) = record(registry, args)?;
    let part = if ended { "a complete episode" } else { "the beginning of an episode" };
    out!("video      {}", paths::shown(&path));
    out!("content    {steps} steps, return {reward:.2}: {part}");
    Ok(ExitCode::SUCCESS)
}

/// Records one episode. Returns the file, the number of steps, their return, and whether the episode ended.
fn record(registry: &Registry, args: &Watch) -> Result<(PathBuf, usize, f64, bool)> {
    let agent = Agent::open(registry, &args.run, args.device.as_deref(), args.playing.best)?;
    let mut collector = agent.rendering_collector(rng::derive(args.playing.seed, "watch", 0))?;
    let spec = collector.spec().clone();
    let mut policy = agent.policy(args.playing.seed, "watch/actions")?;
    let mode = args.playing.mode();

    let unsupported = || Error::config(format!("{} does not support rendering", spec.id));
    let first = collector.render()?.ok_or_else(unsupported)?;

    let path = match &args.gif {
        Some(path) => path.clone(),
        None => args.run.join("videos").join(format!("{:012}.gif", agent.snapshot.step)),
    };
    let named = |error| match error {
        Error::Config(message) => Error::config(format!("{} renders {message}", spec.id)),
        error => error,
    };
    gif::check_size(&first).map_err(named)?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    }
    // Renamed when complete.
    let temporary = path.with_extension("gif.part");
    let file = BufWriter::new(File::create(&temporary).map_err(Error::io("create", &temporary))?);
    // Small frames are enlarged, for example those of Atari by a factor of 2.
    let zoom = (480 / first.width.max(first.height).max(1)).clamp(1, 8);
    let mut video = Gif::new(file, &first, 100.0 / f64::from(DELAY), zoom).map_err(named)?;
    video.push(&first).map_err(named)?;
    let (mut steps, mut reward, mut ended) = (0, 0.0, false);
    while !ended && steps < args.seconds as usize * 100 / usize::from(DELAY) {
        collector.step(&mut *policy, mode)?;
        let batch = &collector.experience().batch;
        (steps, ended) = (steps + 1, batch.done(0));
        reward = batch.episode[0].map_or(reward + f64::from(batch.reward[0]), |end| end.reward);
        // After the end of an episode the environment renders the next one.
        if !ended {
            video.push(&collector.render()?.ok_or_else(unsupported)?).map_err(named)?;
        }
    }
    video.finish()?.flush().map_err(Error::io("write", &temporary))?;
    fs::rename(&temporary, &path).map_err(Error::io("write", &path))?;
    Ok((path, steps, reward, ended))
}
