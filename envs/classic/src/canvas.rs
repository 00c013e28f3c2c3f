//! Images of environments: filled shapes in the coordinates of a scene.

use playfield_core::Image;

/// Red, green and blue.
pub(crate) type Color = [u8; 3];

pub(crate) const BLACK: Color = [0, 0, 0];
pub(crate) const GRAY: Color = [150, 150, 150];
pub(crate) const BROWN: Color = [202, 152, 101];
pub(crate) const BLUE: Color = [70, 110, 180];
pub(crate) const RED: Color = [204, 77, 77];

/// A point of the scene: to the right, and up.
pub(crate) type Point = [f64; 2];

/// An image of a rectangle of the scene, on white.
pub(crate) struct Canvas {
    image: Image,
    /// The scene's left upper corner.
    corner: Point,
    /// Pixels per unit.
    scale: f64,
}

impl Canvas {
    /// An image `width` pixels wide of the scene from `low` (left, below) to `high` (right, above).
    pub fn new(width: usize, low: Point, high: Point) -> Self {
        let scale = width as f64 / (high[0] - low[0]);
        let height = (scale * (high[1] - low[1])).round() as usize;
        let image = Image { width, height, rgb: vec![255; 3 * width * height] };
        Self { image, corner: [low[0], high[1]], scale }
    }

    /// Colors every pixel whose center is `inside`.
    pub fn fill(&mut self, color: Color, inside: impl Fn(Point) -> bool) {
        let Self { image, corner, scale } = self;
        for (i, pixel) in image.rgb.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (column, row) = (i % image.width, i / image.width);
            if inside([corner[0] + (column as f64 + 0.5) / *scale, corner[1] - (row as f64 + 0.5) / *scale]) {
                *pixel = color;
            }
        }
    }

    /// A disc.
    pub fn disc(&mut self, color: Color, center: Point, radius: f64) {
        self.fill(color, |[x, y]| (x - center[0]).hypot(y - center[1]) <= radius);
    }

    /// A rectangle from `low` to `high`.
    pub fn rectangle(&mut self, color: Color, low: Point, high: Point) {
        self.fill(color, |[x, y]| (low[0]..high[0]).contains(&x) && (low[1]..high[1]).contains(&y));
    }

    /// A line with round ends.
    pub fn line(&mut self, color: Color, [ax, ay]: Point, [bx, by]: Point, width: f64) {
        let (dx, dy) = (bx - ax, by - ay);
        let squared = (dx * dx + dy * dy).max(f64::MIN_POSITIVE);
        self.fill(color, |[x, y]| {
            let along = (((x - ax) * dx + (y - ay) * dy) / squared).clamp(0.0, 1.0);
            (x - ax - along * dx).hypot(y - ay - along * dy) <= width / 2.0
        });
    }

    /// The image.
    pub fn into_image(self) -> Image {
        self.image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_where_the_scene_has_them() {
        let mut canvas = Canvas::new(40, [-2.0, -1.0], [2.0, 1.0]);
        canvas.rectangle(BLUE, [-2.0, 0.0], [-1.0, 1.0]);
        canvas.disc(RED, [1.0, -0.5], 0.2);
        canvas.line(BLACK, [0.0, -1.0], [0.0, 1.0], 0.2);
        let image = canvas.into_image();
        assert_eq!((image.width, image.height), (40, 20));
        let count = |color: Color| image.rgb.as_chunks::<3>().0.iter().filter(|pixel| **pixel == color).count();
        // 10 × 10 pixels; π · 2² pixels, sampled at their centers; 2 × 20 pixels.
        assert_eq!([count(BLUE), count(RED), count(BLACK)], [100, 12, 40]);
        let at = |column: usize, row: usize| image.rgb.as_chunks::<3>().0[row * 40 + column];
        assert_eq!([at(0, 0), at(9, 9), at(10, 9), at(30, 15), at(20, 0)], [BLUE, BLUE, [255; 3], RED, BLACK]);
    }
}
