//! Charts as SVG and PNG: axes, lines with bands, colors, and the two backends of `plotters`.
//!
//! The same drawing code runs on both backends.

pub use crate::format::number;
use crate::text::Typeset;
use playfield_core::{Error, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// The backend of [`svg`].
pub type Svg<'a> = Typeset<SVGBackend<'a>>;

/// The backend of [`png`] and [`canvas`].
pub type Bitmap<'a> = Typeset<BitMapBackend<'a>>;

/// An area to draw on.
pub type Area<'a, B> = DrawingArea<B, Shift>;

/// The result of drawing on a backend.
pub type Drawn<B> = std::result::Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// The error of drawing on a bitmap.
pub type DrawError = DrawingAreaErrorKind<<Bitmap<'static> as DrawingBackend>::ErrorType>;

/// The color of text and axes.
pub const INK: RGBColor = RGBColor(60, 60, 60);
const COLORS: [RGBColor; 10] = [
    RGBColor(110, 110, 110), // for a baseline
    RGBColor(31, 119, 180),
    RGBColor(214, 96, 20),
    RGBColor(44, 140, 70),
    RGBColor(180, 50, 120),
    RGBColor(120, 90, 190),
    RGBColor(0, 150, 160),
    RGBColor(170, 130, 0),
    RGBColor(200, 60, 60),
    RGBColor(100, 70, 50),
];

/// The color of series `i`; that of 0 is gray, for a baseline.
pub fn color(i: usize) -> RGBColor {
    COLORS[i % COLORS.len()]
}

/// The color of line `i`, where no line is a baseline: readable on white and on black.
pub fn line_color(i: usize) -> RGBColor {
    COLORS[1 + i % (COLORS.len() - 2)]
}

/// The chart of `draw` as SVG; `title` names it in an error.
///
/// # Errors
/// [`Error::Other`] if drawing fails.
pub fn svg(
    size: (u32, u32),
    title: &str,
    draw: impl FnOnce(&Area<'_, Svg<'_>>) -> Drawn<Svg<'static>>,
) -> Result<String> {
    let mut text = String::new();
    let area = Typeset::vector(SVGBackend::with_string(&mut text, size)).into_drawing_area();
    draw(&area).and_then(|()| area.present()).map_err(failed(title))?;
    drop(area);
    Ok(text)
}

/// The chart of `draw` as PNG; `title` names it in an error.
///
/// # Errors
/// [`Error::Other`] if drawing fails.
pub fn png(
    size: (u32, u32),
    title: &str,
    draw: impl FnOnce(&Area<'_, Bitmap<'_>>) -> std::result::Result<(), DrawError>,
) -> Result<Vec<u8>> {
    encode(&canvas(size.0, size.1, draw).map_err(failed(title))?, size.0, size.1)
}

/// Draws on a new bitmap of this size and returns its RGB pixels.
///
/// # Errors
/// That of `draw`.
pub fn canvas(
    width: u32,
    height: u32,
    draw: impl FnOnce(&Area<'_, Bitmap<'_>>) -> std::result::Result<(), DrawError>,
) -> std::result::Result<Vec<u8>, DrawError> {
    let mut pixels = vec![0; (width * height * 3) as usize];
    draw(&Typeset::bitmap(BitMapBackend::with_buffer(&mut pixels, (width, height))).into_drawing_area())?;
    Ok(pixels)
}

/// Encodes RGB pixels as PNG.
///
/// # Errors
/// [`Error::Other`] if the pixels are not of this size.
pub fn encode(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().map_err(Error::other)?;
    writer.write_image_data(pixels).map_err(Error::other)?;
    writer.finish().map_err(Error::other)?;
    Ok(bytes)
}

/// The error message of a chart that cannot be drawn.
fn failed<E: std::error::Error + Send + Sync>(title: &str) -> impl FnOnce(DrawingAreaErrorKind<E>) -> Error {
    move |error| Error::other(format!("the chart of {title} cannot be drawn: {error}"))
}

/// Draws the title of a chart at its upper left corner.
///
/// # Errors
/// Those of the backend.
pub fn heading<B: DrawingBackend>(area: &Area<'_, B>, text: &str) -> Drawn<B> {
    area.draw(&Text::new(text.to_string(), (12, 8), ("sans-serif", 16).into_font().color(&INK)))
}

/// An axis: linear, or logarithmic if all values are positive and span more than two orders of magnitude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Whether positions are decimal logarithms of values.
    log: bool,
    low: f64,
    high: f64,
}

impl Scale {
    /// The smallest linear axis for the finite `values`, with a margin of `room` times its length at both ends.
    pub fn linear(values: impl Iterator<Item = f64>, room: f64) -> Self {
        let finite = values.filter(|v| v.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return Self { log: false, low: 0.0, high: 1.0 };
        }
        let room = if high > low { room * (high - low) } else { 0.5 * low.abs().max(1.0) };
        Self { log: false, low: low - room, high: high + room }
    }

    /// As [`linear`](Self::linear), on a logarithmic axis: all values must be positive.
    pub fn logarithmic(values: impl Iterator<Item = f64>, room: f64) -> Self {
        Self { log: true, ..Self::linear(values.map(f64::log10), room) }
    }

    /// A linear or logarithmic axis, depending on `values`.
    pub fn new(values: impl Iterator<Item = f64> + Clone) -> Self {
        let Self { low, high, .. } = Self::linear(values.clone(), 0.0);
        match low > 0.0 && high > 100.0 * low {
            true => Self::logarithmic(values, 0.06),
            false => Self::linear(values, 0.06),
        }
    }

    /// The position of a value; infinite values lie at the edge.
    pub fn place(&self, value: f64) -> f64 {
        (if self.log { value.log10() } else { value }).clamp(self.low, self.high)
    }

    /// The label at a position; on a logarithmic axis only at integer powers of ten.
    pub fn label(&self, place: f64) -> String {
        match self.log {
            true if (place - place.round()).abs() > 1e-6 => String::new(),
            true => number(10_f64.powf(place)),
            false => number(place),
        }
    }

    /// The positions from one end to the other.
    pub fn range(&self) -> std::ops::Range<f64> {
        self.low..self.high
    }
}

/// A line, with a band around it.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Its color.
    pub color: RGBColor,
    /// For each x: x, y, and the lower and upper edge of the band.
    pub points: Vec<[f64; 4]>,
}

/// The place of a legend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Legend {
    /// Where curves fall.
    UpperRight,
    /// Where curves rise.
    LowerRight,
}

/// A chart of lines.
pub struct Lines<'a> {
    /// The lines, the first at the bottom.
    pub lines: &'a [Line],
    /// The labels of x and y; empty: none.
    pub axes: (&'a str, &'a str),
    /// Whether the axis of x begins at 0.
    pub from_zero: bool,
    /// Formats a value of x.
    pub x_label: fn(f64) -> String,
    /// Whether y is logarithmic where its values are positive and span more than two orders of magnitude.
    pub log: bool,
    /// Values of y to mark.
    pub levels: &'a [f64],
    /// The place of the legend, if there is one.
    pub legend: Option<Legend>,
    /// The size of text in pixels; margins and strokes are proportional to it.
    pub text: u32,
}

impl Lines<'_> {
    /// Draws the chart.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn draw<B: DrawingBackend>(&self, area: &Area<'_, B>) -> Drawn<B> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = Scale::linear(points().map(|p| p[0]).chain(self.from_zero.then_some(0.0)), 0.0);
        let y = points().flat_map(|p| p[1..].iter().copied()).chain(self.levels.iter().copied());
        let y = if self.log { Scale::new(y) } else { Scale::linear(y, 0.06) };
        let text = self.text;
        let font = ("sans-serif", text).into_font().color(&INK);
        let described = |axis: &str| if axis.is_empty() { 0 } else { 3 * text / 2 };
        let mut chart = ChartBuilder::on(area)
            .margin(text * 2 / 3)
            .margin_right(text * 5 / 3)
            .x_label_area_size(3 * text / 2 + described(self.axes.0))
            .y_label_area_size(7 * text / 2 + described(self.axes.1))
            .build_cartesian_2d(x.range(), y.range())?;
        chart
            .configure_mesh()
            .axis_style(INK)
            .bold_line_style(INK.mix(0.2))
            .light_line_style(TRANSPARENT)
            .x_labels(6)
            .y_labels(6)
            .x_desc(self.axes.0)
            .y_desc(self.axes.1)
            .x_label_formatter(&|v| (self.x_label)(*v))
            .y_label_formatter(&|v| y.label(*v))
            .label_style(font)
            .draw()?;
        let stroke = (text / 7).max(2);
        for level in self.levels {
            let ends = [x.range().start, x.range().end].map(|x| (x, y.place(*level)));
            chart.draw_series(DashedLineSeries::new(ends, text / 2, text / 3, INK.stroke_width(1)))?;
        }
        for line in self.lines.iter().filter(|line| line.points.iter().any(|p| p[2] < p[3])) {
            let band = line.points.iter().map(|p| (p[0], y.place(p[3])));
            let band = band.chain(line.points.iter().rev().map(|p| (p[0], y.place(p[2])))).collect::<Vec<_>>();
            chart.draw_series([Polygon::new(band, line.color.mix(0.15))])?;
        }
        for line in self.lines {
            let style = line.color.stroke_width(stroke);
            let points = line.points.iter().map(|p| (p[0], y.place(p[1])));
            chart.draw_series(LineSeries::new(points, style))?;
        }
        match self.legend {
            Some(place) => self.draw_legend(&chart.plotting_area().strip_coord_spec(), place, stroke),
            None => Ok(()),
        }
    }

    /// The names of the lines beside samples of them, in a box at a corner of `area`.
    fn draw_legend<B: DrawingBackend>(&self, area: &Area<'_, B>, place: Legend, stroke: u32) -> Drawn<B> {
        let style = ("sans-serif", self.text).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
        let mut longest = 0;
        for line in self.lines {
            longest = longest.max(area.estimate_text_size(&line.name, &style)?.0 as i32);
        }
        let text = self.text as i32;
        let (pad, row) = (text / 2, 3 * text / 2);
        let (width, height) = (longest + text + 3 * pad, row * self.lines.len() as i32 + pad);
        let (columns, rows) = area.dim_in_pixel();
        let left = columns as i32 - width - pad;
        let top = match place {
            Legend::UpperRight => pad,
            Legend::LowerRight => rows as i32 - height - pad,
        };
        area.draw(&Rectangle::new([(left, top), (left + width, top + height)], WHITE.mix(0.75).filled()))?;
        for (i, line) in self.lines.iter().enumerate() {
            let y = top + pad / 2 + row * i as i32 + row / 2;
            let sample = [(left + pad, y), (left + pad + text, y)];
            area.draw(&PathElement::new(sample, line.color.stroke_width(stroke)))?;
            area.draw(&Text::new(line.name.clone(), (left + text + 2 * pad, y), style.clone()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(points: &[[f64; 4]]) -> Line {
        Line { name: "a <b>".into(), color: line_color(0), points: points.to_vec() }
    }

    fn drawn(lines: &[&Line], levels: &[f64]) -> String {
        let lines: Vec<Line> = lines.iter().map(|line| (*line).clone()).collect();
        let legend = Some(Legend::LowerRight);
        let chart = Lines {
            lines: &lines,
            axes: ("steps", ""),
            from_zero: false,
            x_label: crate::format::count,
            log: false,
            levels,
            legend,
            text: 12,
        };
        svg((600, 300), "a test", |area| chart.draw(area)).unwrap()
    }

    #[test]
    fn a_band_is_drawn_only_where_it_has_a_width() {
        let flat = lines(&[[0.0, 1.0, 1.0, 1.0], [1e6, 2.0, 2.0, 2.0]]);
        let wide = lines(&[[0.0, 1.0, 0.5, 1.5], [1e6, 2.0, 2.0, 2.0]]);
        let text = drawn(&[&flat], &[]);
        assert!(!text.contains("<polygon") && text.contains("a &lt;b&gt;") && text.contains("200k"), "{text}");
        assert_eq!(drawn(&[&flat, &wide], &[]).matches("<polygon").count(), 1);
        // A level outside the values extends the axis and is dashed.
        let with_level = drawn(&[&flat], &[8.0]);
        assert!(with_level.matches("<polyline").count() > text.matches("<polyline").count() + 10, "{with_level}");
    }

    #[test]
    fn an_axis_is_logarithmic_only_for_positive_values_of_different_magnitude() {
        assert!(Scale::new([0.1, 20.0].into_iter()).log);
        assert!(!Scale::new([0.0, 20.0].into_iter()).log && !Scale::new([0.1, 9.0].into_iter()).log);
        let scale = Scale::linear([f64::NAN, 1.0, f64::INFINITY, 3.0].into_iter(), 0.0);
        assert_eq!((scale.range(), scale.place(f64::INFINITY)), (1.0..3.0, 3.0));
    }
}
