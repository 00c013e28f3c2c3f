use crate::args::Watch;
use crate::commands::agent::Agent;
use crate::output::out;
use crate::{Registry, paths};
use gif::{Encoder, Frame, Repeat};
use playfield_core::{Error, Image, Result, rng};
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
    check_size(&spec.id, &first)?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    }
    // Renamed when complete.
    let temporary = path.with_extension("gif.part");
    let mut video = Video::new(&spec.id, &temporary, &first)?;
    video.push(&first)?;
    let (mut steps, mut reward, mut ended) = (0, 0.0, false);
    while !ended && steps < args.seconds as usize * 100 / usize::from(DELAY) {
        collector.step(&mut *policy, mode)?;
        let batch = &collector.experience().batch;
        (steps, ended) = (steps + 1, batch.done(0));
        reward = batch.episode[0].map_or(reward + f64::from(batch.reward[0]), |end| end.reward);
        // After the end of an episode the environment renders the next one.
        if !ended {
            video.push(&collector.render()?.ok_or_else(unsupported)?)?;
        }
    }
    video.finish()?;
    fs::rename(&temporary, &path).map_err(Error::io("write", &path))?;
    Ok((path, steps, reward, ended))
}

/// Rejects frames of a size that GIF does not support.
fn check_size(id: &str, image: &Image) -> Result<()> {
    let Image { width, height, rgb } = image;
    let sides = 1..=usize::from(u16::MAX);
    match sides.contains(width) && sides.contains(height) && rgb.len() == 3 * width * height {
        true => Ok(()),
        false => Err(Error::config(format!(
            "{id} renders frames of {width} × {height} pixels: a GIF supports 1 to {} per side",
            sides.end()
        ))),
    }
}

/// A GIF being written. Small frames are enlarged, for example those of Atari by a factor of 2.
struct Video {
    id: String,
    path: PathBuf,
    encoder: Encoder<BufWriter<File>>,
    size: (usize, usize),
    zoom: usize,
}

impl Video {
    /// Creates the file `path` for frames of the environment `id`, all of the size of `first`, which was checked.
    fn new(id: &str, path: &std::path::Path, first: &Image) -> Result<Self> {
        let zoom = (480 / first.width.max(first.height).max(1)).clamp(1, 8);
        let file = BufWriter::new(File::create(path).map_err(Error::io("create", path))?);
        let (width, height) = ((first.width * zoom) as u16, (first.height * zoom) as u16);
        let mut encoder = Encoder::new(file, width, height, &[]).map_err(Error::other)?;
        encoder.set_repeat(Repeat::Infinite).map_err(Error::other)?;
        Ok(Self { id: id.into(), path: path.to_path_buf(), encoder, size: (first.width, first.height), zoom })
    }

    /// Appends a frame.
    fn push(&mut self, image: &Image) -> Result<()> {
        let Self { id, encoder, size, zoom, .. } = self;
        if (image.width, image.height) != *size {
            return Err(Error::config(format!(
                "{id} renders frames of {} × {} pixels and then of {} × {}: all frames of a GIF have the same size",
                size.0, size.1, image.width, image.height
            )));
        }
        check_size(id, image)?;
        let (width, height) = (image.width * *zoom, image.height * *zoom);
        let mut rgb = Vec::with_capacity(3 * width * height);
        for row in image.rgb.chunks_exact(3 * image.width) {
            let scaled: Vec<u8> = row.as_chunks::<3>().0.iter().flat_map(|p| p.repeat(*zoom)).collect();
            (0..*zoom).for_each(|_| rgb.extend_from_slice(&scaled));
        }
        let mut frame = Frame::from_rgb_speed(width as u16, height as u16, &rgb, 10);
        frame.delay = DELAY;
        encoder.write_frame(&frame).map_err(Error::other)
    }

    fn finish(self) -> Result<()> {
        let Self { path, encoder, .. } = self;
        let mut file = encoder.into_inner().map_err(Error::other)?;
        file.flush().map_err(Error::io("write", &path))
    }
}
