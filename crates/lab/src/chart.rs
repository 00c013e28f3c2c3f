//! Charts of an outcome: one dot per seed, a bar at the median, and curves over time or scatter plots.
//!
//! The same drawing code runs on two backends of `plotters`, for SVG and PNG. The font is included in the program, since minimal
//! systems have none.

use crate::run::{Curve, Outcome, Variant};
use crate::trick::Panel;
use playfield_core::{Error, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::sync::Once;

type Area<'a, B> = DrawingArea<B, Shift>;

const WIDTH: u32 = 1000;
pub(crate) const INK: RGBColor = RGBColor(60, 60, 60);
const COLOURS: [RGBColor; 10] = [
    RGBColor(110, 110, 110), // the baseline
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

fn color(i: usize) -> RGBColor {
    COLOURS[i % COLOURS.len()]
}

/// The chart as SVG.
///
/// # Errors
/// [`Error::Other`] if drawing fails.
pub fn svg(outcome: &Outcome) -> Result<String> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, (WIDTH, height(outcome))).into_drawing_area();
    draw(&area, outcome).map_err(failed(outcome.name))?;
    drop(area);
    Ok(text)
}

/// The chart as PNG.
///
/// # Errors
/// As [`svg`].
pub fn png(outcome: &Outcome) -> Result<Vec<u8>> {
    let height = height(outcome);
    encode(&canvas(WIDTH, height, |area| draw(area, outcome)).map_err(failed(outcome.name))?, WIDTH, height)
}

/// A title and scatter plots, three per row, as SVG.
///
/// # Errors
/// As [`svg`].
pub fn panels_svg(title: &str, panels: &[Panel]) -> Result<String> {
    let mut text = String::new();
    let size = (WIDTH, 30 + panels_height(panels));
    let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
    draw_panels(&area, title, panels).map_err(failed(title))?;
    drop(area);
    Ok(text)
}

/// The same as PNG.
///
/// # Errors
/// As [`svg`].
pub fn panels_png(title: &str, panels: &[Panel]) -> Result<Vec<u8>> {
    let height = 30 + panels_height(panels);
    encode(&canvas(WIDTH, height, |area| draw_panels(area, title, panels)).map_err(failed(title))?, WIDTH, height)
}

/// The error of drawing on a bitmap.
pub(crate) type DrawError = DrawingAreaErrorKind<<BitMapBackend<'static> as DrawingBackend>::ErrorType>;

/// Draws on a new bitmap of this size and returns its RGB pixels.
pub(crate) fn canvas(
    width: u32,
    height: u32,
    draw: impl FnOnce(&Area<'_, BitMapBackend<'_>>) -> std::result::Result<(), DrawError>,
) -> std::result::Result<Vec<u8>, DrawError> {
    register_font();
    let mut pixels = vec![0; (width * height * 3) as usize];
    draw(&BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area())?;
    Ok(pixels)
}

/// Encodes RGB pixels as PNG.
pub(crate) fn encode(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().map_err(Error::other)?;
    writer.write_image_data(pixels).map_err(Error::other)?;
    writer.finish().map_err(Error::other)?;
    Ok(bytes)
}

fn draw_panels<B: DrawingBackend>(area: &Area<'_, B>, title: &str, panels: &[Panel]) -> Drawn<B> {
    register_font();
    area.fill(&WHITE)?;
    let (head, rest) = area.split_vertically(30);
    heading(&head, title)?;
    grid(&rest, panels)?;
    area.present()
}

fn grid<B: DrawingBackend>(area: &Area<'_, B>, panels: &[Panel]) -> Drawn<B> {
    let rows = panels.len().div_ceil(3).max(1);
    area.split_evenly((rows, 3)).iter().zip(panels).try_for_each(|(place, panel)| scatter(place, panel))
}

fn panels_height(panels: &[Panel]) -> u32 {
    panels.len().div_ceil(3) as u32 * PANEL
}

/// Panels are arranged in rows of three.
const PANEL: u32 = WIDTH / 3;

fn strip_height(outcome: &Outcome) -> u32 {
    (70 + 30 * outcome.variants.len() as u32).max(if outcome.curves.is_empty() { 0 } else { 320 })
}

fn height(outcome: &Outcome) -> u32 {
    30 + strip_height(outcome) + panels_height(&outcome.panels)
}

fn register_font() {
    static FONT: Once = Once::new();
    FONT.call_once(|| {
        // Fails only for an invalid font, and then drawing text returns an error.
        let _ = plotters::style::register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular());
    });
}

/// The result of drawing on a backend.
type Drawn<B> = std::result::Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

fn draw<B: DrawingBackend>(area: &Area<'_, B>, outcome: &Outcome) -> Drawn<B> {
    register_font();
    area.fill(&WHITE)?;
    let (head, rest) = area.split_vertically(30);
    let seeds = if outcome.seeds == 1 { "1 seed".into() } else { format!("{} seeds", outcome.seeds) };
    heading(&head, &format!("{}: {seeds}", outcome.name))?;
    let (top, below) = rest.split_vertically(strip_height(outcome));
    if outcome.curves.is_empty() {
        strip(&top, outcome)?;
    } else {
        let (left, right) = top.split_horizontally(WIDTH * 45 / 100);
        strip(&left, outcome)?;
        curves(&right, outcome)?;
    }
    grid(&below, &outcome.panels)?;
    area.present()
}

fn heading<B: DrawingBackend>(area: &Area<'_, B>, text: &str) -> Drawn<B> {
    area.draw(&Text::new(text.to_string(), (12, 8), ("sans-serif", 16).into_font().color(&INK)))
}

/// The error message of a chart that cannot be drawn.
fn failed<E: std::error::Error + Send + Sync>(title: &str) -> impl FnOnce(DrawingAreaErrorKind<E>) -> Error {
    move |error| Error::other(format!("the chart of {title} cannot be drawn: {error}"))
}

/// An axis: linear, or logarithmic if all values are positive and span more than two orders of magnitude.
struct Scale {
    log: bool,
    low: f64,
    high: f64,
}

impl Scale {
    /// The smallest linear axis for the finite `values`, with a margin of `room` times its length at both ends.
    fn linear(values: impl Iterator<Item = f64>, room: f64) -> Self {
        let finite = values.filter(|v| v.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return Self { log: false, low: 0.0, high: 1.0 };
        }
        let room = if high > low { room * (high - low) } else { 0.5 * low.abs().max(1.0) };
        Self { log: false, low: low - room, high: high + room }
    }

    /// A linear or logarithmic axis, depending on `values`.
    fn new(values: impl Iterator<Item = f64> + Clone) -> Self {
        let Self { low, high, .. } = Self::linear(values.clone(), 0.0);
        match low > 0.0 && high > 100.0 * low {
            true => Self { log: true, ..Self::linear(values.map(f64::log10), 0.06) },
            false => Self::linear(values, 0.06),
        }
    }

    /// The position of a value; infinite values lie at the edge.
    fn place(&self, value: f64) -> f64 {
        (if self.log { value.log10() } else { value }).clamp(self.low, self.high)
    }

    /// The label at a position; on a logarithmic axis only at integer powers of ten.
    fn label(&self, place: f64) -> String {
        match self.log {
            true if (place - place.round()).abs() > 1e-6 => String::new(),
            true => number(10_f64.powf(place)),
            false => number(place),
        }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.low..self.high
    }
}

/// Formats a number with three significant digits.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return if value > 0.0 { "∞".into() } else { "−∞".into() };
    }
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        return format!("{value:.1e}");
    }
    let digits = (2 - size.max(1e-3).log10().floor() as i32).clamp(0, 5) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

fn strip<B: DrawingBackend>(area: &Area<'_, B>, outcome: &Outcome) -> Drawn<B> {
    let variants = &outcome.variants;
    let scale = Scale::new(variants.iter().flat_map(|v| v.values.iter().copied()));
    let longest = variants.iter().map(|v| v.name.chars().count()).max().unwrap_or(0) as u32;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(20)
        .x_label_area_size(44)
        .y_label_area_size((14 + 7 * longest).min(220))
        .build_cartesian_2d(scale.range(), (0..variants.len() as i32 - 1).into_segmented())?;
    // The first variant is at the top.
    let row = |i: usize| variants.len() as i32 - 1 - i as i32;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(WHITE)
        .x_labels(5)
        .x_desc(outcome.metric)
        .x_label_formatter(&|x| scale.label(*x))
        .y_labels(variants.len())
        .y_label_formatter(&|y| match y {
            SegmentValue::CenterOf(i) => name_of(variants, variants.len() as i32 - 1 - i),
            _ => String::new(),
        })
        .label_style(("sans-serif", 12))
        .draw()?;
    for (i, variant) in variants.iter().enumerate() {
        let median = scale.place(variant.median);
        let bar = [(median, SegmentValue::Exact(row(i))), (median, SegmentValue::Exact(row(i) + 1))];
        chart.draw_series([PathElement::new(bar, color(i).stroke_width(3))])?;
        let dots = variant.values.iter().map(|v| (scale.place(*v), SegmentValue::CenterOf(row(i))));
        chart.draw_series(dots.map(|dot| Circle::new(dot, 4, color(i).mix(0.55).filled())))?;
    }
    Ok(())
}

fn name_of(variants: &[Variant], i: i32) -> String {
    let name = variants.get(i as usize).map(|v| v.name.clone()).unwrap_or_default();
    if name.chars().count() > 32 { name.chars().take(31).chain(['…']).collect() } else { name }
}

fn curves<B: DrawingBackend>(area: &Area<'_, B>, outcome: &Outcome) -> Drawn<B> {
    let (x_desc, y_desc) = outcome.axes.unwrap_or(("", ""));
    let all = || outcome.curves.iter().flat_map(|c: &Curve| c.points.iter());
    let x = Scale::linear(all().map(|p| p[0]), 0.0);
    let y = Scale::new(all().flat_map(|p| p[1..].iter().copied()));
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(20)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(x.range(), y.range())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels(6)
        .y_labels(6)
        .x_desc(x_desc)
        .y_desc(y_desc)
        .x_label_formatter(&|v| x.label(*v))
        .y_label_formatter(&|v| y.label(*v))
        .label_style(("sans-serif", 12))
        .draw()?;
    for (i, curve) in outcome.curves.iter().enumerate() {
        // The color of the variant of the same name, if there is one.
        let style = color(outcome.variants.iter().position(|v| v.name == curve.name).unwrap_or(i));
        let band = curve.points.iter().map(|p| (p[0], y.place(p[3])));
        let band = band.chain(curve.points.iter().rev().map(|p| (p[0], y.place(p[2])))).collect::<Vec<_>>();
        chart.draw_series([Polygon::new(band, style.mix(0.12))])?;
        let line = curve.points.iter().map(|p| (p[0], y.place(p[1])));
        chart
            .draw_series(LineSeries::new(line, style.stroke_width(2)))?
            .label(curve.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], style.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.75))
        .label_font(("sans-serif", 12))
        .position(SeriesLabelPosition::UpperRight)
        .draw()?;
    Ok(())
}

fn scatter<B: DrawingBackend>(area: &Area<'_, B>, panel: &Panel) -> Drawn<B> {
    let x = panel.points.iter().map(|p| p[0]);
    let x =
        if panel.log { Scale { log: true, ..Scale::linear(x.map(f64::log10), 0.05) } } else { Scale::linear(x, 0.05) };
    let y = Scale::linear(panel.points.iter().map(|p| p[1]), 0.05);
    let (width, height) = if panel.axes.is_some() { (56, 36) } else { (0, 0) };
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .caption(&panel.title, ("sans-serif", 14))
        .x_label_area_size(height)
        .y_label_area_size(width)
        .build_cartesian_2d(x.range(), y.range())?;
    if let Some((x_desc, y_desc)) = &panel.axes {
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_labels(5)
            .y_labels(6)
            .x_desc(x_desc)
            .y_desc(y_desc)
            .x_label_formatter(&|v| x.label(*v))
            .y_label_formatter(&|v| y.label(*v))
            .label_style(("sans-serif", 12))
            .draw()?;
    }
    let dots = panel.points.iter().zip(&panel.classes);
    let radius = if panel.points.len() > 200 { 2 } else { 3 };
    let dot = |(p, class): (&[f64; 2], &u8)| {
        Circle::new((x.place(p[0]), y.place(p[1])), radius, color(*class as usize).filled())
    };
    chart.draw_series(dots.map(dot))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Better;
    use crate::stats::Verdict;

    fn outcome(panels: usize) -> Outcome {
        let variant = |name: &str, values: &[f64], verdict| Variant {
            name: name.into(),
            values: values.to_vec(),
            median: values[1],
            quartiles: (values[0], values[2]),
            verdict,
        };
        Outcome {
            name: "toy",
            metric: "steps",
            better: Better::Lower,
            seeds: 3,
            seconds: 1.0,
            variants: vec![
                variant("without <&> it", &[1.0, 2.0, f64::INFINITY], None),
                variant("with", &[100.0, 200.0, 500.0], Some((Verdict::Hurts, 0.1))),
            ],
            axes: Some(("x", "y")),
            curves: vec![Curve { name: "with".into(), points: vec![[0.0, 1.0, 0.5, 1.5], [1.0, 2.0, 1.5, 9.0]] }],
            panels: (0..panels)
                .map(|i| Panel {
                    title: format!("panel {i}"),
                    axes: (i == 1).then(|| ("x".into(), "y".into())),
                    log: i == 1,
                    points: vec![[0.5, 1.0], [200.0, 3.0]],
                    classes: vec![0, 1],
                })
                .collect(),
        }
    }

    #[test]
    fn every_seed_is_a_dot_of_the_svg() {
        let text = svg(&outcome(0)).unwrap();
        assert_eq!(text.matches("<circle").count(), 6);
        assert!(text.contains("without &lt;&amp;&gt; it") && text.contains("toy: 3 seeds"), "{text}");
        assert_eq!(svg(&outcome(4)).unwrap().matches("<circle").count(), 6 + 8);
    }

    #[test]
    fn the_png_has_the_expected_size_and_title() {
        let decoder = png::Decoder::new(std::io::Cursor::new(png(&outcome(1)).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (WIDTH, 30 + 320 + PANEL));
        let title = pixels.chunks(3).take((WIDTH * 30) as usize).filter(|p| p[0] < 128).count();
        assert!(title > 50, "the title is drawn: {title} dark pixels");
    }

    #[test]
    fn numbers_have_three_significant_digits() {
        let written = [0.0, 1234.5, 12.34, 0.98765, 0.01234, 1e-5, 2.5e7, f64::INFINITY].map(number);
        assert_eq!(written, ["0", "1234", "12.3", "0.988", "0.0123", "1.0e-5", "2.5e7", "∞"]);
    }
}
