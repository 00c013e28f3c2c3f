//! Animated GIFs, written frame by frame.

use gif::{Encoder, Frame, Repeat};
use playfield_core::{Error, Image, Result};
use std::io::Write;

/// An animated GIF being written, repeated without end.
pub struct Gif<W: Write> {
    encoder: Encoder<W>,
    /// Width and height of the frames, before enlargement.
    size: (usize, usize),
    zoom: usize,
    /// Duration of a frame in hundredths of a second.
    delay: u16,
}

impl<W: Write> Gif<W> {
    /// Begins a GIF of frames of the size of `first`, each pixel enlarged to `zoom` × `zoom`, at `fps` frames per second.
    ///
    /// # Errors
    /// As [`check_size`], and where `writer` fails.
    pub fn new(writer: W, first: &Image, fps: f64, zoom: usize) -> Result<Self> {
        check_size(first)?;
        let side = |side: usize| u16::try_from(side * zoom).map_err(|_| unsupported(first));
        let mut encoder = Encoder::new(writer, side(first.width)?, side(first.height)?, &[]).map_err(Error::other)?;
        // Browsers replace a delay of less than two hundredths of a second.
        let delay = (100.0 / fps).round().max(2.0) as u16;
        encoder.set_repeat(Repeat::Infinite).map_err(Error::other)?;
        Ok(Self { encoder, size: (first.width, first.height), zoom, delay })
    }

    /// Appends a frame.
    ///
    /// # Errors
    /// [`Error::Config`] for a frame of another size than the first, and where the writer fails.
    pub fn push(&mut self, image: &Image) -> Result<()> {
        let Self { encoder, size, zoom, delay } = self;
        if (image.width, image.height) != *size {
            return Err(Error::config(format!(
                "frames of {} × {} pixels and then of {} × {}: all frames of a GIF have the same size",
                size.0, size.1, image.width, image.height
            )));
        }
        check_size(image)?;
        let (width, height) = (image.width * *zoom, image.height * *zoom);
        let mut rgb = Vec::with_capacity(3 * width * height);
        for row in image.rgb.chunks_exact(3 * image.width) {
            let enlarged: Vec<u8> = row.as_chunks::<3>().0.iter().flat_map(|p| p.repeat(*zoom)).collect();
            (0..*zoom).for_each(|_| rgb.extend_from_slice(&enlarged));
        }
        let mut frame = Frame::from_rgb_speed(width as u16, height as u16, &rgb, 10);
        frame.delay = *delay;
        encoder.write_frame(&frame).map_err(Error::other)
    }

    /// Ends the GIF and returns the writer.
    ///
    /// # Errors
    /// Where the writer fails.
    pub fn finish(self) -> Result<W> {
        self.encoder.into_inner().map_err(Error::other)
    }
}

/// Rejects a frame of a size that GIF does not support.
///
/// # Errors
/// [`Error::Config`] with the size and the bounds.
pub fn check_size(image: &Image) -> Result<()> {
    let Image { width, height, rgb } = image;
    let sides = 1..=usize::from(u16::MAX);
    match sides.contains(width) && sides.contains(height) && rgb.len() == 3 * width * height {
        true => Ok(()),
        false => Err(unsupported(image)),
    }
}

fn unsupported(Image { width, height, .. }: &Image) -> Error {
    Error::config(format!("frames of {width} × {height} pixels: a GIF supports 1 to {} per side", u16::MAX))
}
