//! Charts of an outcome: one dot per seed, a bar at the median, and curves over time or scatter plots.

use crate::run::{Curve, Outcome, Variant};
use crate::trick::Panel;
use playfield_core::Result;
use playfield_report::chart::{self, Area, Drawn, Legend, Line, Lines, Scale, color, heading, number};
use plotters::prelude::*;

const WIDTH: u32 = 1000;

/// The chart as SVG.
///
/// # Errors
/// [`Error::Other`](playfield_core::Error::Other) if drawing fails.
pub fn svg(outcome: &Outcome) -> Result<String> {
    chart::svg((WIDTH, height(outcome)), outcome.name, |area| draw(area, outcome))
}

/// The chart as PNG.
///
/// # Errors
/// As [`svg`].
pub fn png(outcome: &Outcome) -> Result<Vec<u8>> {
    chart::png((WIDTH, height(outcome)), outcome.name, |area| draw(area, outcome))
}

/// A title and scatter plots, three per row, as SVG.
///
/// # Errors
/// As [`svg`].
pub fn panels_svg(title: &str, panels: &[Panel]) -> Result<String> {
    chart::svg((WIDTH, 30 + panels_height(panels)), title, |area| draw_panels(area, title, panels))
}

/// The same as PNG.
///
/// # Errors
/// As [`svg`].
pub fn panels_png(title: &str, panels: &[Panel]) -> Result<Vec<u8>> {
    chart::png((WIDTH, 30 + panels_height(panels)), title, |area| draw_panels(area, title, panels))
}

fn draw_panels<B: DrawingBackend>(area: &Area<'_, B>, title: &str, panels: &[Panel]) -> Drawn<B> {
    area.fill(&WHITE)?;
    let (head, rest) = area.split_vertically(30);
    heading(&head, title)?;
    grid(&rest, panels)
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

fn draw<B: DrawingBackend>(area: &Area<'_, B>, outcome: &Outcome) -> Drawn<B> {
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
    grid(&below, &outcome.panels)
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
    let line = |(i, curve): (usize, &Curve)| {
        // The color of the variant of the same name, if there is one.
        let color = color(outcome.variants.iter().position(|v| v.name == curve.name).unwrap_or(i));
        Line { name: curve.name.clone(), color, points: curve.points.clone() }
    };
    let lines: Vec<Line> = outcome.curves.iter().enumerate().map(line).collect();
    let axes = outcome.axes.unwrap_or(("", ""));
    let legend = Some(Legend::UpperRight);
    Lines { lines: &lines, axes, from_zero: false, x_label: number, log: true, levels: &[], legend, text: 12 }
        .draw(area)
}

fn scatter<B: DrawingBackend>(area: &Area<'_, B>, panel: &Panel) -> Drawn<B> {
    let x = panel.points.iter().map(|p| p[0]);
    let x = if panel.log { Scale::logarithmic(x, 0.05) } else { Scale::linear(x, 0.05) };
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
}
