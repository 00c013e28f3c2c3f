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

/// Hundredths of a second that one agent step is shown where nothing else is known: Atari's four frames at 60 a second.
const DELAY: u16 = 7;

/// `playfield watch`.
pub fn watch(registry: &Registry, args: &Watch) -> Result<ExitCode> {
    let (path, steps, reward, ended) = film(registry, args)?;
    let how = if ended { "the whole episode" } else { "its beginning" };
    out!("video      {}", paths::shown(&path));
    out!("shows      {steps} steps, return {reward:.2}: {how}");
    Ok(ExitCode::SUCCESS)
}

/// Plays one episode and films it. Returns the file, the number of steps, their return, and whether the episode ended.
fn film(registry: &Registry, args: &Watch) -> Result<(PathBuf, usize, f64, bool)> {
    let agent = Agent::open(registry, &args.run, args.device.as_deref(), args.playing.best)?;
    let mut collector = agent.rendering_collector(rng::derive(args.playing.seed, "watch", 0))?;
    let spec = collector.spec().clone();
    let mut policy = agent.policy(args.playing.seed, "watch/actions")?;
    let mode = args.playing.mode();

    let nothing = || Error::config(format!("{} shows no pictures of itself", spec.id));
    let first = collector.render()?.ok_or_else(nothing)?;

    let path = match &args.gif {
        Some(path) => path.clone(),
        None => args.run.join("videos").join(format!("{:012}.gif", agent.snapshot.step)),
    };
    check_size(&spec.id, &first)?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    }
    // Under another name until it is whole.
    let temporary = path.with_extension("gif.part");
    let mut video = Video::new(&spec.id, &temporary, &first)?;
    video.show(&first)?;
    let (mut steps, mut reward, mut ended) = (0, 0.0, false);
    while !ended && steps < args.seconds as usize * 100 / usize::from(DELAY) {
        collector.step(&mut *policy, mode)?;
        let batch = &collector.experience().batch;
        (steps, ended) = (steps + 1, batch.done(0));
        reward = batch.episode[0].map_or(reward + f64::from(batch.reward[0]), |end| end.reward);
        // Where the episode ended, the next one is on the screen.
        if !ended {
            video.show(&collector.render()?.ok_or_else(nothing)?)?;
        }
    }
    video.finish()?;
    fs::rename(&temporary, &path).map_err(Error::io("write", &path))?;
    Ok((path, steps, reward, ended))
}

/// Refuses a picture that no GIF can hold.
fn check_size(id: &str, image: &Image) -> Result<()> {
    let Image { width, height, rgb } = image;
    let sides = 1..=usize::from(u16::MAX);
    match sides.contains(width) && sides.contains(height) && rgb.len() == 3 * width * height {
        true => Ok(()),
        false => Err(Error::config(format!(
            "{id} shows pictures of {width} × {height} pixels: a GIF has 1 to {} on each side",
            sides.end()
        ))),
    }
}

/// A GIF under way. Pictures are doubled in size where they are as small as an Atari's.
struct Video {
    id: String,
    path: PathBuf,
    encoder: Encoder<BufWriter<File>>,
    size: (usize, usize),
    zoom: usize,
}

impl Video {
    /// A film of the environment `id`, in the file `path`, of pictures as large as `first`, which a GIF can hold.
    fn new(id: &str, path: &std::path::Path, first: &Image) -> Result<Self> {
        let zoom = (480 / first.width.max(first.height).max(1)).clamp(1, 8);
        let file = BufWriter::new(File::create(path).map_err(Error::io("create", path))?);
        let (width, height) = ((first.width * zoom) as u16, (first.height * zoom) as u16);
        let mut encoder = Encoder::new(file, width, height, &[]).map_err(Error::other)?;
        encoder.set_repeat(Repeat::Infinite).map_err(Error::other)?;
        Ok(Self { id: id.into(), path: path.to_path_buf(), encoder, size: (first.width, first.height), zoom })
    }

    fn show(&mut self, image: &Image) -> Result<()> {
        let Self { id, encoder, size, zoom, .. } = self;
        if (image.width, image.height) != *size {
            return Err(Error::config(format!(
                "{id} shows pictures of {} × {} pixels and then of {} × {}: a GIF has one size",
                size.0, size.1, image.width, image.height
            )));
        }
        check_size(id, image)?;
        let (width, height) = (image.width * *zoom, image.height * *zoom);
        let mut rgb = Vec::with_capacity(3 * width * height);
        for row in image.rgb.chunks_exact(3 * image.width) {
            let wide: Vec<u8> = row.as_chunks::<3>().0.iter().flat_map(|p| p.repeat(*zoom)).collect();
            (0..*zoom).for_each(|_| rgb.extend_from_slice(&wide));
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
