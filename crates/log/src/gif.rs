//! Animated GIFs.

use gif::{Encoder, Frame, Repeat};
use playfield_core::{Error, Image, Result};

/// An animated GIF, repeated without end, of `frames` at `fps` frames per second. GIF times frames in hundredths of a second.
///
/// # Errors
/// [`Error::Config`] where the frames differ in size, or are larger than a GIF can hold.
pub(crate) fn encode(frames: &[Image], fps: f64) -> Result<Vec<u8>> {
    let Some(Image { width, height, .. }) = frames.first() else { return Ok(Vec::new()) };
    let side = |side: usize| u16::try_from(side).ok().filter(|side| *side > 0);
    let (Some(w), Some(h)) = (side(*width), side(*height)) else {
        return Err(Error::config(format!(
            "a video of {width} × {height} pixels: a GIF has 1 to {} on each side",
            u16::MAX
        )));
    };
    let mut encoder = Encoder::new(Vec::new(), w, h, &[]).map_err(Error::other)?;
    encoder.set_repeat(Repeat::Infinite).map_err(Error::other)?;
    for image in frames {
        if (image.width, image.height, image.rgb.len()) != (*width, *height, 3 * width * height) {
            return Err(Error::config(format!(
                "a video of frames of {width} × {height} and of {} × {} pixels: a GIF has one size",
                image.width, image.height
            )));
        }
        let mut frame = Frame::from_rgb_speed(w, h, &image.rgb, 10);
        frame.delay = (100.0 / fps).round() as u16;
        encoder.write_frame(&frame).map_err(Error::other)?;
    }
    encoder.into_inner().map_err(Error::other)
}
