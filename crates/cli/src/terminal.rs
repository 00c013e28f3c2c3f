//! Images in the terminal: two pixels per character, as the upper half block in one color on another, in 24-bit color.

use crate::output;
use playfield_core::Image;
use std::fmt::Write as _;
use terminal_size::{Height, Width};

/// The alternate screen of the terminal, without cursor; the previous content returns when it is dropped.
pub struct Screen;

impl Screen {
    /// Opens the screen.
    pub fn open() -> Self {
        output::write("\x1b[?1049h\x1b[?25l\x1b[2J");
        Self
    }

    /// Shows `image`, as large as the terminal allows, with a line of text below it.
    pub fn show(&self, image: &Image, text: &str) {
        let (columns, rows) = output::terminal_size().map_or((80, 24), |(Width(w), Height(h))| (w.into(), h.into()));
        output::write(&frame(image, text, columns, rows));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        output::write("\x1b[0m\x1b[?25h\x1b[?1049l");
    }
}

/// `image` and `text` for a terminal of `columns` × `rows` characters, from its left upper corner.
fn frame(image: &Image, text: &str, columns: usize, rows: usize) -> String {
    let Image { width, height, rgb } = scaled(image, columns.max(1), 2 * rows.saturating_sub(1).max(1));
    let mut frame = String::from("\x1b[H");
    for row in 0..height.div_ceil(2) {
        let mut last = None;
        for column in 0..width {
            let pixel = |y: usize| (y < height).then(|| &rgb[3 * (y * width + column)..][..3]);
            let colors = (pixel(2 * row).unwrap_or(&[0; 3]), pixel(2 * row + 1).unwrap_or(&[0; 3]));
            if last != Some(colors) {
                let ([r, g, b], [below_r, below_g, below_b]) = colors else { unreachable!("three bytes each") };
                let _ = write!(frame, "\x1b[38;2;{r};{g};{b};48;2;{below_r};{below_g};{below_b}m");
            }
            last = Some(colors);
            frame.push('▀');
        }
        frame += "\x1b[0m\x1b[K\r\n";
    }
    frame.extend(text.chars().take(columns));
    frame + "\x1b[K\x1b[J"
}

/// `image`, reduced to at most `width` × `height` pixels, each the mean of what it covers, or enlarged by a whole factor.
fn scaled(image: &Image, width: usize, height: usize) -> Image {
    let fit = (width as f64 / image.width as f64).min(height as f64 / image.height as f64);
    let scale = if fit >= 1.0 { fit.floor() } else { fit };
    let side = |length: usize, limit: usize| ((length as f64 * scale).round() as usize).clamp(1, limit);
    let (width, height) = (side(image.width, width), side(image.height, height));
    // The rows or columns that a pixel covers, at least one.
    let covered = |i: usize, n: usize, length: usize| i * length / n..((i + 1) * length).div_ceil(n);
    let mut rgb = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            let (mut sum, mut count) = ([0_usize; 3], 0);
            for row in covered(y, height, image.height) {
                for column in covered(x, width, image.width) {
                    let pixel = &image.rgb[3 * (row * image.width + column)..][..3];
                    sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += usize::from(*value));
                    count += 1;
                }
            }
            rgb.extend(sum.map(|sum| ((sum + count / 2) / count) as u8));
        }
    }
    Image { width, height, rgb }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: usize, rgb: &[[u8; 3]]) -> Image {
        Image { width, height: rgb.len() / width, rgb: rgb.concat() }
    }

    #[test]
    fn two_rows_of_pixels_are_one_of_characters() {
        let (red, blue) = ([255, 0, 0], [0, 0, 255]);
        let image = image(2, &[red, red, blue, blue]);
        assert_eq!(
            frame(&image, "step 1", 2, 2),
            "\x1b[H\x1b[38;2;255;0;0;48;2;0;0;255m▀▀\x1b[0m\x1b[K\r\nst\x1b[K\x1b[J",
            "equal colors are set once, and the text ends at the last column"
        );
        let large = frame(&image, "", 10, 5);
        assert_eq!((large.matches('▀').count(), large.matches("\r\n").count()), (8 * 4, 4), "enlarged fourfold");
    }

    #[test]
    fn a_picture_fits_the_terminal() {
        let gradient: Vec<[u8; 3]> = (0..160 * 210).map(|i| [(i % 160) as u8, (i / 160) as u8, 7]).collect();
        let small = scaled(&image(160, &gradient), 80, 46);
        assert_eq!((small.width, small.height), (35, 46));
        // The mean of the columns 0 to 4 and of the rows 0 to 4.
        assert_eq!(small.rgb[..3], [2, 2, 7]);
        let half = scaled(&image(2, &[[0; 3], [100; 3], [50; 3], [50; 3]]), 1, 9);
        assert_eq!((half.width, half.height, half.rgb), (1, 1, vec![50; 3]));
    }
}
