use crate::args::Watch;
use crate::commands::agent::Agent;
use crate::output::{self, out};
use crate::terminal::Screen;
use crate::{Registry, paths, signals};
use playfield_collect::Collector;
use playfield_core::files::{self, Output};
use playfield_core::run::Stop;
use playfield_core::text::thousands;
use playfield_core::{Action, EnvFactory as _, Error, Image, Outputs, Policy, Result, rng};
use playfield_lab::caption::{Caption, captioned};
use playfield_log::video::{Format, Video};
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// `playfield watch`.
pub fn watch(registry: &Registry, args: &Watch) -> Result<ExitCode> {
    let stop = signals::listen("the episode ends here")?;
    let episode = match output::is_terminal() && args.video.is_none() {
        true => show(registry, args, &stop)?,
        false => {
            let (path, episode) = record(registry, args, &stop)?;
            out!("video      {}", paths::shown(&path));
            episode
        }
    };
    let part = if episode.ended { "a complete episode" } else { "the beginning of an episode" };
    let steps = thousands(episode.steps as u64);
    out!("content    {steps} steps, return {:.2}: {part}", episode.episode_return);
    Ok(stop.requested().map_or(ExitCode::SUCCESS, |signal| ExitCode::from(128 + signal as u8)))
}

/// Records an episode of the agent of a run, as `playfield watch --video` does. Returns the file.
pub fn record_video(registry: &Registry, args: &Watch, stop: &Stop) -> Result<PathBuf> {
    Ok(record(registry, args, stop)?.0)
}

/// Shows an episode in the terminal, in real time.
fn show(registry: &Registry, args: &Watch, stop: &Stop) -> Result<Episode> {
    let agent = Agent::open(registry, &args.run, args.device.as_deref(), args.playing.best)?;
    let (frame_time, start) = (Duration::from_secs_f64(1.0 / agent.factory.render_fps()), Instant::now());
    let (mut screen, mut frames) = (None, 0);
    play(&agent, args, stop, |frame, numbers| {
        screen.get_or_insert_with(Screen::open).show(frame, &numbers.line());
        frames += 1;
        // Late frames follow each other without a pause.
        std::thread::sleep((frame_time * frames).saturating_sub(start.elapsed()));
        Ok(())
    })
}

/// Records an episode. Returns the file.
fn record(registry: &Registry, args: &Watch, stop: &Stop) -> Result<(PathBuf, Episode)> {
    let unknown =
        |path: &PathBuf| Error::config(format!("--video {}: end the name in .mp4 or .gif", paths::shown(path)));
    let format = match &args.video {
        Some(path) => Format::of(path).ok_or_else(|| unknown(path))?,
        None => Format::Gif,
    };
    let agent = Agent::open(registry, &args.run, args.device.as_deref(), args.playing.best)?;
    let id = &agent.experiment.env.id;
    let path =
        args.video.clone().unwrap_or_else(|| args.run.join("videos").join(format!("{:012}.gif", agent.snapshot.step)));
    let mut video = None;
    let named = |error| match error {
        Error::Config(message) => Error::config(format!("{id} renders {message}")),
        error => error,
    };
    let recorded = play(&agent, args, stop, |frame, numbers| {
        format.check_size(frame).map_err(named)?;
        let captioned = args.overlay.then(|| captioned(frame, &numbers.caption())).transpose()?;
        let frame = captioned.as_ref().unwrap_or(frame);
        let video = match &mut video {
            Some(video) => video,
            None => video.insert(begin(format, &path, frame, agent.factory.render_fps()).map_err(named)?),
        };
        video.push(frame).map_err(named)
    });
    let temporary = files::temporary(&path);
    let recorded = recorded.inspect_err(|_| _ = fs::remove_file(&temporary))?;
    if let Some(video) = video {
        video.finish()?.flush().map_err(Error::io("write", &temporary))?;
    }
    files::rename(&temporary, &path).map_err(Error::io("write", &path))?;
    Ok((path, recorded))
}

/// A video to be renamed to `path` when it is complete.
fn begin(format: Format, path: &Path, first: &Image, fps: f64) -> Result<Video<BufWriter<Output>>> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    }
    let temporary = files::temporary(path);
    let file = Output::create(&temporary).map_err(Error::io("create", &temporary))?;
    Video::new(format, BufWriter::new(file), first, fps)
}

/// An episode that is shown.
struct Episode {
    steps: usize,
    episode_return: f64,
    ended: bool,
}

/// An agent's numbers at a frame.
struct Numbers {
    steps: usize,
    /// The return so far.
    episode_return: f64,
    /// The outputs of the network, where they are shown and the episode has not ended.
    outputs: Option<Outputs>,
    /// The name of the chosen action, and its index.
    action: Option<(String, usize)>,
}

impl Numbers {
    fn line(&self) -> String {
        let mut line = format!("step {}  return {:.2}", self.steps, self.episode_return);
        if let Some(value) = self.outputs.as_ref().and_then(|outputs| outputs.values.first()) {
            line += &format!("  value {value:.2}");
        }
        if let (Some((name, action)), Some(share)) = (&self.action, self.shares()) {
            line += &match share.get(*action) {
                Some(share) if self.is_policy() => format!("  {name} {:.0} %", 100.0 * share),
                _ => format!("  {name}"),
            };
        }
        line
    }

    fn caption(&self) -> Caption {
        let chosen = self.action.as_ref().map(|(_, action)| *action);
        Caption { text: self.line(), bars: self.shares().unwrap_or_default(), chosen }
    }

    fn is_policy(&self) -> bool {
        self.outputs.as_ref().is_some_and(|outputs| !outputs.are_values)
    }

    /// The probability of each discrete action; of a network of action values, its value relative to the lowest and the highest.
    /// Invalid actions have 0.
    fn shares(&self) -> Option<Vec<f64>> {
        self.action.as_ref()?;
        let Outputs { preferences, are_values, .. } = self.outputs.as_ref()?;
        let preferences = preferences.iter().map(|p| f64::from(*p));
        let finite = preferences.clone().filter(|p| p.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), p| (l.min(p), h.max(p)));
        if *are_values {
            let range = if high > low { high - low } else { 1.0 };
            return Some(preferences.map(|p| if p.is_finite() { (p - low) / range } else { 0.0 }).collect());
        }
        let weights: Vec<f64> = preferences.map(|p| (p - high).exp()).collect();
        let sum: f64 = weights.iter().sum();
        Some(weights.into_iter().map(|weight| weight / sum).collect())
    }
}

/// Plays one episode and calls `show` with each frame, the last included.
fn play(
    agent: &Agent,
    args: &Watch,
    stop: &Stop,
    mut show: impl FnMut(&Image, &Numbers) -> Result<()>,
) -> Result<Episode> {
    let mut collector = agent.rendering_collector(rng::derive(args.playing.seed, "watch", 0))?;
    let mut policy = agent.policy(args.playing.seed, "watch/actions")?;
    let (spec, mode) = (collector.spec().clone(), args.playing.mode());
    let unsupported = || Error::config(format!("{} does not support rendering", spec.id));
    let limit = (f64::from(args.seconds) * agent.factory.render_fps()).ceil() as usize;
    let mut episode = Episode { steps: 0, episode_return: 0.0, ended: false };
    while !episode.ended && episode.steps < limit && stop.requested().is_none() {
        let frame = collector.render()?.ok_or_else(unsupported)?;
        let outputs = args.overlay.then(|| outputs(&mut *policy, &mut collector)).transpose()?;
        let (steps, episode_return) = (episode.steps, episode.episode_return);
        collector.step(&mut *policy, mode)?;
        let action = match collector.experience().actions.row(0) {
            Action::Discrete(a) => {
                Some((spec.action_names.get(a).cloned().unwrap_or_else(|| format!("action {a}")), a))
            }
            _ => None,
        };
        show(&frame, &Numbers { steps, episode_return, outputs, action })?;
        let batch = &collector.experience().batch;
        (episode.steps, episode.ended) = (steps + 1, batch.done(0));
        episode.episode_return =
            batch.episode[0].map_or(episode_return + f64::from(batch.reward[0]), |end| end.episode_return);
    }
    let last = if episode.ended { collector.final_frame()? } else { None };
    if let Some(frame) = last {
        let Episode { steps, episode_return, .. } = episode;
        show(&frame, &Numbers { steps, episode_return, outputs: None, action: None })?;
    }
    Ok(episode)
}

/// The outputs of the network at the current observation. Those of invalid actions are −∞.
fn outputs(policy: &mut dyn Policy, collector: &mut Collector) -> Result<Outputs> {
    let mut outputs = policy.outputs(collector.observations(), 1)?;
    let mask = collector.experience().batch.mask_row(0);
    for (preference, _) in outputs.preferences.iter_mut().zip(mask).filter(|(_, valid)| !**valid) {
        *preference = f32::NEG_INFINITY;
    }
    match outputs.are_values {
        true => Ok(Outputs::of_values(outputs.preferences, 1, outputs.features)),
        false => Ok(outputs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caption_has_return_value_and_the_probability_of_the_action() {
        let outputs = Outputs { preferences: vec![0.0, 2.0_f32.ln(), 0.0], values: vec![0.5], ..Outputs::default() };
        let action = Some(("LEFT".to_string(), 1));
        let mut numbers = Numbers { steps: 12, episode_return: 3.0, outputs: Some(outputs), action };
        let caption = numbers.caption();
        assert_eq!(caption.text, "step 12  return 3.00  value 0.50  LEFT 50 %");
        assert!(caption.bars.iter().zip([0.25, 0.5, 0.25]).all(|(a, b)| (a - b).abs() < 1e-6), "{caption:?}");
        assert_eq!(caption.chosen, Some(1));
        // Of action values: their position between the lowest and the highest.
        let values = vec![-1.0, 3.0, 1.0, f32::NEG_INFINITY];
        numbers.outputs = Some(Outputs { preferences: values, are_values: true, values: vec![3.0], features: vec![] });
        let caption = numbers.caption();
        assert_eq!(
            (caption.text.as_str(), caption.bars),
            ("step 12  return 3.00  value 3.00  LEFT", vec![0.0, 1.0, 0.5, 0.0])
        );
        let last = Numbers { outputs: None, action: None, ..numbers };
        assert_eq!(last.caption(), Caption { text: "step 12  return 3.00".into(), ..Caption::default() });
    }
}
