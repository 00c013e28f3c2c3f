//! Text on charts: a backend of `plotters` that measures and draws text with its own font.
//!
//! The font support of plotters depends on ttf-parser, which is no longer maintained. Here skrifa reads the font, and
//! `ab_glyph_rasterizer` fills the outlines. The font, DejaVu Sans, is included in the program: minimal systems have none.

use ab_glyph_rasterizer::{Point, Rasterizer, point};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind as Failure,
};
use skrifa::instance::{LocationRef, Size};
use skrifa::outline::{DrawSettings, OutlinePen};
use skrifa::{FontRef, GlyphId, MetadataProvider};

/// A backend whose text is set in DejaVu Sans.
pub struct Typeset<B> {
    backend: B,
    /// Whether the outlines of glyphs are drawn; else the backend draws text, and is only told its size.
    outlines: bool,
}

impl<B> Typeset<B> {
    /// A backend that draws pixels: text becomes pixels.
    pub fn bitmap(backend: B) -> Self {
        Self { backend, outlines: true }
    }

    /// A backend that draws text: text stays text.
    pub fn vector(backend: B) -> Self {
        Self { backend, outlines: false }
    }
}

impl<B: DrawingBackend> DrawingBackend for Typeset<B> {
    type ErrorType = B::ErrorType;

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        at: BackendCoord,
    ) -> Result<(), Failure<B::ErrorType>> {
        if !self.outlines {
            return self.backend.draw_text(text, style, at);
        }
        let font = Font::new(style.size())?;
        let width = font.width(text);
        // The start of the baseline. Vertical positions are those of plotters' SVG backend.
        let left = match style.anchor().h_pos {
            HPos::Left => 0.0,
            HPos::Center => -width / 2.0,
            HPos::Right => -width,
        };
        let baseline = match style.anchor().v_pos {
            VPos::Top => 0.76 * font.em,
            VPos::Center => 0.5 * font.x_height,
            VPos::Bottom => -0.5 * font.x_height,
        };
        let (left, baseline) = (left.round() as i32, baseline.round() as i32);
        let (columns, rows) = self.get_size();
        let (transform, color) = (style.transform(), style.color());
        let mut drawn = Ok(());
        font.fill(text, |x, y, coverage| {
            let (x, y) = transform.transform(left + x, baseline + y);
            let (x, y) = (at.0 + x, at.1 + y);
            if drawn.is_ok() && (0..columns as i32).contains(&x) && (0..rows as i32).contains(&y) {
                let alpha = color.alpha * f64::from(coverage);
                drawn = self.backend.draw_pixel((x, y), BackendColor { alpha, ..color });
            }
        })?;
        drawn
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Result<(u32, u32), Failure<B::ErrorType>> {
        let font = Font::new(style.size())?;
        Ok((font.width(text).ceil() as u32, font.em.round() as u32))
    }

    fn get_size(&self) -> (u32, u32) {
        self.backend.get_size()
    }

    fn ensure_prepared(&mut self) -> Result<(), Failure<B::ErrorType>> {
        self.backend.ensure_prepared()
    }

    fn present(&mut self) -> Result<(), Failure<B::ErrorType>> {
        self.backend.present()
    }

    fn draw_pixel(&mut self, at: BackendCoord, color: BackendColor) -> Result<(), Failure<B::ErrorType>> {
        self.backend.draw_pixel(at, color)
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Result<(), Failure<B::ErrorType>> {
        self.backend.draw_line(from, to, style)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        upper_left: BackendCoord,
        bottom_right: BackendCoord,
        style: &S,
        fill: bool,
    ) -> Result<(), Failure<B::ErrorType>> {
        self.backend.draw_rect(upper_left, bottom_right, style, fill)
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Result<(), Failure<B::ErrorType>> {
        self.backend.draw_path(path, style)
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        center: BackendCoord,
        radius: u32,
        style: &S,
        fill: bool,
    ) -> Result<(), Failure<B::ErrorType>> {
        self.backend.draw_circle(center, radius, style, fill)
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        vertices: I,
        style: &S,
    ) -> Result<(), Failure<B::ErrorType>> {
        self.backend.fill_polygon(vertices, style)
    }
}

/// The font at one size; lengths are pixels.
struct Font {
    font: FontRef<'static>,
    em: f32,
    x_height: f32,
}

impl Font {
    /// `size` as plotters counts it: 1.24 em.
    fn new<E: std::error::Error + Send + Sync>(size: f64) -> Result<Self, Failure<E>> {
        let font = FontRef::new(dejavu::sans::regular()).map_err(|e| Failure::FontError(Box::new(e)))?;
        let em = (size / 1.24) as f32;
        let x_height = font.metrics(Size::new(em), LocationRef::default()).x_height.unwrap_or(0.5 * em);
        Ok(Self { font, em, x_height })
    }

    /// The glyphs of `text` and their distances from its start. A character that the font lacks is its empty box, glyph 0.
    fn glyphs(&self, text: &str) -> (Vec<(GlyphId, f32)>, f32) {
        let charmap = self.font.charmap();
        let metrics = self.font.glyph_metrics(Size::new(self.em), LocationRef::default());
        let mut x = 0.0;
        let place = |c| {
            let glyph = charmap.map(c).unwrap_or_default();
            let start = x;
            x += metrics.advance_width(glyph).unwrap_or(0.0);
            (glyph, start)
        };
        (text.chars().map(place).collect(), x)
    }

    fn width(&self, text: &str) -> f32 {
        self.glyphs(text).1
    }

    /// Calls `pixel(x, y, coverage)` for each pixel that `text` covers; (0, 0) is the start of its baseline.
    fn fill<E: std::error::Error + Send + Sync>(
        &self,
        text: &str,
        mut pixel: impl FnMut(i32, i32, f32),
    ) -> Result<(), Failure<E>> {
        let (glyphs, width) = self.glyphs(text);
        // No glyph of the font extends further than one em beyond its advance or 1.5 em from the baseline.
        let (margin, height) = (self.em.ceil(), 1.5 * self.em.ceil());
        let mut raster = Rasterizer::new((width + 2.0 * margin).ceil() as usize, (2.0 * height) as usize);
        let outlines = self.font.outline_glyphs();
        for (glyph, x) in glyphs {
            let Some(outline) = outlines.get(glyph) else { continue };
            let origin = point(margin + x, height);
            let mut pen = Pen { raster: &mut raster, origin, start: origin, last: origin };
            let settings = DrawSettings::unhinted(Size::new(self.em), LocationRef::default());
            outline.draw(settings, &mut pen).map_err(|e| Failure::FontError(Box::new(e)))?;
        }
        raster.for_each_pixel_2d(|x, y, coverage| {
            if coverage > 0.0 {
                pixel(x as i32 - margin as i32, y as i32 - height as i32, coverage.min(1.0));
            }
        });
        Ok(())
    }
}

/// Draws an outline, whose y points upward, on a raster, whose y points downward.
struct Pen<'a> {
    raster: &'a mut Rasterizer,
    /// The glyph's origin on the raster.
    origin: Point,
    start: Point,
    last: Point,
}

impl Pen<'_> {
    fn place(&self, x: f32, y: f32) -> Point {
        point(self.origin.x + x, self.origin.y - y)
    }
}

impl OutlinePen for Pen<'_> {
    fn move_to(&mut self, x: f32, y: f32) {
        self.start = self.place(x, y);
        self.last = self.start;
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let end = self.place(x, y);
        self.raster.draw_line(self.last, end);
        self.last = end;
    }

    fn quad_to(&mut self, cx: f32, cy: f32, x: f32, y: f32) {
        let (control, end) = (self.place(cx, cy), self.place(x, y));
        self.raster.draw_quad(self.last, control, end);
        self.last = end;
    }

    fn curve_to(&mut self, cx0: f32, cy0: f32, cx1: f32, cy1: f32, x: f32, y: f32) {
        let [first, second, end] = [(cx0, cy0), (cx1, cy1), (x, y)].map(|(x, y)| self.place(x, y));
        self.raster.draw_cubic(self.last, first, second, end);
        self.last = end;
    }

    fn close(&mut self) {
        self.raster.draw_line(self.last, self.start);
        self.last = self.start;
    }
}

#[cfg(test)]
mod tests {
    use crate::chart::canvas;
    use plotters::prelude::*;
    use plotters::style::text_anchor::{HPos, Pos, VPos};

    /// The smallest box around the dark pixels of a 200 × 200 canvas with `text` at its center: left, top, right, bottom.
    fn extent(text: &str, anchor: Pos, transform: FontTransform) -> [i32; 4] {
        let style = ("sans-serif", 25).into_font().transform(transform).color(&BLACK).pos(anchor);
        let pixels = canvas(200, 200, |area| {
            area.fill(&WHITE)?;
            area.draw(&Text::new(text.to_string(), (100, 100), style))
        });
        let pixels = pixels.unwrap();
        let dark = pixels.as_chunks::<3>().0.iter().enumerate().filter(|(_, pixel)| pixel[0] < 128);
        dark.fold([200, 200, 0, 0], |[left, top, right, bottom], (i, _)| {
            let (x, y) = (i as i32 % 200, i as i32 / 200);
            [left.min(x), top.min(y), right.max(x), bottom.max(y)]
        })
    }

    /// In DejaVu Sans, "H" is 0.752 em wide and 0.729 em high; its stems are 0.098 em from both sides. Here 1 em = 20.16 pixels.
    #[test]
    fn text_is_drawn_at_its_anchor() {
        let near = |found: [i32; 4], expected: [i32; 4]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1), "{found:?}, expected {expected:?}");
        };
        let text = "HHH"; // 45.5 pixels wide, 14.7 high
        near(extent(text, Pos::new(HPos::Left, VPos::Top), FontTransform::None), [102, 101, 143, 114]);
        near(extent(text, Pos::new(HPos::Right, VPos::Top), FontTransform::None), [57, 101, 98, 114]);
        near(extent(text, Pos::new(HPos::Center, VPos::Center), FontTransform::None), [79, 91, 120, 104]);
        near(extent(text, Pos::new(HPos::Center, VPos::Center), FontTransform::Rotate270), [91, 80, 104, 121]);
    }

    /// A character that the font lacks is a box; text beyond the canvas is cut.
    #[test]
    fn any_text_is_drawn() {
        for text in ["", "äÄ→ε², ñ", "日本", &"long ".repeat(100)] {
            extent(text, Pos::new(HPos::Center, VPos::Center), FontTransform::None);
        }
        let [left, .., right, _] = extent("日", Pos::default(), FontTransform::None);
        assert!(right > left);
    }
}
