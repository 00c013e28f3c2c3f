//! A map of points colored by a value, with the RGB frames of some points, like figure 4 of Mnih et al. 2015.

use playfield_core::{Error, Image, Result};
use playfield_report::chart::{self, Area, Bitmap, INK, number};
use plotters::prelude::*;

/// Images on each side.
const SIDE: usize = 6;
const WIDTH: u32 = 1400;
const HEIGHT: u32 = 1000;
/// Width of a column of images; the map lies between two columns.
const COLUMN: i32 = 200;
const HEAD: i32 = 40;

/// The map as PNG: `points`, colored by their `values` (violet is low, yellow is high), and the images of up to twelve distant points,
/// if `image(i)` returns one for point `i`.
///
/// # Errors
/// [`Error::Other`] if drawing fails.
pub fn png(
    title: &str,
    points: &[[f64; 2]],
    values: &[f32],
    mut image: impl FnMut(usize) -> Option<Image>,
) -> Result<Vec<u8>> {
    let (low, high) = range(values.iter().map(|v| f64::from(*v)));
    let mut images = Vec::new();
    let pixels = chart::canvas(WIDTH, HEIGHT, |area| {
        area.fill(&WHITE)?;
        area.draw(&Text::new(title.to_string(), (12, 10), ("sans-serif", 18).into_font().color(&INK)))?;
        legend(area, low, high)?;
        let [(left, right), (bottom, top)] = [0, 1].map(|k| range(points.iter().map(|p| p[k])));
        let place = |p: [f64; 2]| {
            let share = |x: f64, low: f64, high: f64| if high > low { (x - low) / (high - low) } else { 0.5 };
            let (across, down) = (f64::from(WIDTH as i32 - 2 * COLUMN - 60), f64::from(HEIGHT as i32 - HEAD - 60));
            let x = COLUMN + 30 + (share(p[0], left, right) * across) as i32;
            (x, HEAD + 30 + ((1.0 - share(p[1], bottom, top)) * down) as i32)
        };
        for (point, value) in points.iter().zip(values) {
            let share = if high > low { (f64::from(*value) - low) / (high - low) } else { 0.5 };
            area.draw(&Circle::new(place(*point), 4, shade(share).filled()))?;
        }
        for (slot, i) in slots(points) {
            let Some(image) = image(i) else { continue };
            let corner = corner(slot);
            let size = fitted(&image);
            let edge = if slot < SIDE { corner.0 + size.0 as i32 } else { corner.0 };
            let line = [place(points[i]), (edge, corner.1 + size.1 as i32 / 2)];
            area.draw(&PathElement::new(line, INK.mix(0.5)))?;
            area.draw(&Circle::new(place(points[i]), 7, INK.stroke_width(2)))?;
            images.push((corner, size, image));
        }
        Ok(())
    });
    let mut pixels = pixels.map_err(|error| Error::other(format!("the map '{title}' cannot be drawn: {error}")))?;
    for ((x, y), (width, height), image) in &images {
        for row in 0..*height {
            for column in 0..*width {
                let from = (row as usize * image.height / *height as usize) * image.width
                    + column as usize * image.width / *width as usize;
                let to = ((*y as usize + row as usize) * WIDTH as usize + *x as usize + column as usize) * 3;
                pixels[to..to + 3].copy_from_slice(&image.rgb[from * 3..from * 3 + 3]);
            }
        }
    }
    chart::encode(&pixels, WIDTH, HEIGHT)
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
}

/// The size of an image in its slot, with its aspect ratio.
fn fitted(image: &Image) -> (u32, u32) {
    let (width, height) = (COLUMN as f64 - 30.0, f64::from(HEIGHT as i32 - HEAD) / SIDE as f64 - 14.0);
    let scale = (width / image.width as f64).min(height / image.height as f64);
    ((image.width as f64 * scale) as u32, (image.height as f64 * scale) as u32)
}

/// Slots 0 to 5 are on the left, 6 to 11 on the right, from top to bottom.
fn corner(slot: usize) -> (i32, i32) {
    let x = if slot < SIDE { 15 } else { WIDTH as i32 - COLUMN + 30 };
    (x, HEAD + 4 + (slot % SIDE) as i32 * (HEIGHT as i32 - HEAD) / SIDE as i32)
}

/// Points far from each other with their slots, assigned by position.
fn slots(points: &[[f64; 2]]) -> Vec<(usize, usize)> {
    let distance = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2);
    let center = [0, 1].map(|k| points.iter().map(|p| p[k]).sum::<f64>() / points.len() as f64);
    let mut chosen: Vec<usize> = Vec::new();
    while chosen.len() < (2 * SIDE).min(points.len()) {
        let from_all = |i: usize| chosen.iter().map(|&c| distance(points[i], points[c])).fold(f64::INFINITY, f64::min);
        let far = |i: usize| if chosen.is_empty() { distance(points[i], center) } else { from_all(i) };
        chosen.extend((0..points.len()).max_by(|&a, &b| far(a).total_cmp(&far(b))));
    }
    chosen.sort_by(|&a, &b| points[a][0].total_cmp(&points[b][0]));
    let half = chosen.len().div_ceil(2);
    let (left, right) = chosen.split_at_mut(half);
    let mut all = Vec::new();
    for (side, first) in [(left, 0), (right, SIDE)] {
        side.sort_by(|&a, &b| points[b][1].total_cmp(&points[a][1]));
        all.extend(side.iter().enumerate().map(|(k, &i)| (first + k, i)));
    }
    all
}

fn legend(area: &Area<'_, Bitmap<'_>>, low: f64, high: f64) -> std::result::Result<(), chart::DrawError> {
    let (left, top, length) = (WIDTH as i32 - 460, 12, 200);
    for x in 0..length {
        let color = shade(f64::from(x) / f64::from(length));
        area.draw(&Rectangle::new([(left + x, top), (left + x + 1, top + 14)], color.filled()))?;
    }
    let style = ("sans-serif", 14).into_font().color(&INK);
    area.draw(&Text::new(format!("value {}", number(low)), (left - 90, top), style.clone()))?;
    area.draw(&Text::new(number(high), (left + length + 8, top), style))
}

/// Matplotlib's viridis color map (CC0), interpolated from five colors.
fn shade(share: f64) -> RGBColor {
    const STOPS: [[f64; 3]; 5] =
        [[68.0, 1.0, 84.0], [59.0, 82.0, 139.0], [33.0, 145.0, 140.0], [94.0, 201.0, 98.0], [253.0, 231.0, 37.0]];
    let at = share.clamp(0.0, 1.0) * 4.0;
    let (low, part) = ((at as usize).min(3), at - at.floor().min(3.0));
    let [r, g, b] = [0, 1, 2].map(|k| (STOPS[low][k] * (1.0 - part) + STOPS[low + 1][k] * part) as u8);
    RGBColor(r, g, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_and_images_are_drawn() {
        let points: Vec<[f64; 2]> = (0..40).map(|i| [f64::from(i % 8), f64::from(i / 8)]).collect();
        let values: Vec<f32> = (0..40).map(|i| i as f32).collect();
        let red = Image { width: 20, height: 30, rgb: [255, 0, 0].repeat(600) };
        let mut requested = Vec::new();
        let bytes = png("a map", &points, &values, |i| {
            requested.push(i);
            Some(red.clone())
        });
        requested.sort_unstable();
        requested.dedup();
        assert_eq!(requested.len(), 12, "twelve different points");
        let mut reader = ::png::Decoder::new(std::io::Cursor::new(bytes.unwrap())).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let count = |color: [u8; 3]| pixels.chunks(3).filter(|p| *p == color).count();
        let (width, height) = fitted(&red);
        assert_eq!(count([255, 0, 0]), 12 * (width * height) as usize);
        assert!(count([253, 231, 37]) > 20, "the highest value is yellow");
    }

    #[test]
    fn a_map_needs_neither_many_points_nor_images() {
        png("a map", &[[0.0, 0.0], [0.0, 0.0]], &[1.0, 1.0], |_| None).unwrap();
    }
}
