//! Captions of the frames of a video: a line of text and a bar for each action.

use playfield_core::{Error, Image, Result};
use playfield_report::chart::{self, INK};
use plotters::prelude::*;

/// What a frame shows below the image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Caption {
    /// One line.
    pub text: String,
    /// The height of each action's bar, from 0 to 1.
    pub bars: Vec<f64>,
    /// The bar of the chosen action.
    pub chosen: Option<usize>,
}

/// Height of the line of text, in pixels.
const LINE: i32 = 20;
/// Height of the highest bar.
const BAR: i32 = 40;
/// The narrowest frame that fits a line of text.
const WIDTH: usize = 320;

/// `frame`, enlarged by a whole factor where it is narrow, with `caption` below it. Frames of one size stay of one size.
///
/// # Errors
/// [`Error::Other`] if drawing fails.
pub fn captioned(frame: &Image, caption: &Caption) -> Result<Image> {
    let zoom = WIDTH.div_ceil(frame.width.max(1)).max(1);
    let (width, height) = (frame.width * zoom, frame.height * zoom);
    let mut rgb = Vec::with_capacity(3 * width * (height + (LINE + BAR) as usize));
    for row in frame.rgb.chunks_exact(3 * frame.width.max(1)) {
        let enlarged: Vec<u8> = row.as_chunks::<3>().0.iter().flat_map(|pixel| pixel.repeat(zoom)).collect();
        (0..zoom).for_each(|_| rgb.extend_from_slice(&enlarged));
    }
    let strip = chart::canvas(width as u32, (LINE + BAR) as u32, |area| {
        area.fill(&WHITE)?;
        area.draw(&Text::new(caption.text.clone(), (4, 3), ("sans-serif", 14).into_font().color(&INK)))?;
        let n = caption.bars.len().max(1) as f64;
        for (i, share) in caption.bars.iter().enumerate() {
            let edge = |i: usize| 4 + (i as f64 * (width as f64 - 8.0) / n) as i32;
            let top = LINE + BAR - 2 - (share.clamp(0.0, 1.0) * f64::from(BAR - 4)).round() as i32;
            let color = if caption.chosen == Some(i) { INK.filled() } else { INK.mix(0.35).filled() };
            area.draw(&Rectangle::new([(edge(i), top), (edge(i + 1) - 2, LINE + BAR - 2)], color))?;
        }
        Ok(())
    });
    rgb.extend(strip.map_err(|error| Error::other(format!("the caption cannot be drawn: {error}")))?);
    Ok(Image { width, height: height + (LINE + BAR) as usize, rgb })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The image above, the caption below: the chosen action's bar is darker, and as high as its share.
    #[test]
    fn a_caption_is_below_the_picture() {
        let frame = Image { width: 160, height: 10, rgb: [10, 20, 30].repeat(1600) };
        let caption = Caption { text: "return 1.00".into(), bars: vec![0.25, 0.75], chosen: Some(1) };
        let image = captioned(&frame, &caption).unwrap();
        assert_eq!((image.width, image.height, image.rgb.len()), (320, 80, 320 * 80 * 3));
        let pixels = image.rgb.as_chunks::<3>().0;
        assert!(pixels[..320 * 20].iter().all(|pixel| *pixel == [10, 20, 30]));
        let column = |x: usize| (20 + LINE as usize..80).map(|y| pixels[y * 320 + x]).collect::<Vec<_>>();
        let height = |x: usize| column(x).iter().filter(|pixel| **pixel != [255; 3]).count() as i32;
        assert_eq!([height(80), height(240)], [9, 27], "36 pixels are a share of 1");
        assert!(pixels[75 * 320 + 240][0] < pixels[75 * 320 + 80][0]);
        let text = pixels[20 * 320..40 * 320].iter().filter(|pixel| **pixel != [255; 3]).count();
        assert!(text > 100, "{text}");
        let without = captioned(&frame, &Caption::default()).unwrap();
        assert_eq!((without.width, without.height), (320, 80));
    }
}
