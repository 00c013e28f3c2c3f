//! Learning curves of several groups in one chart.

use crate::chart::{self, Area, Drawn, INK, Legend, Line, Lines, line_color};
use crate::curve::{Axis, Curve, Quantity, summary};
use crate::format::{count, number};
use crate::group::Group;
use playfield_core::Result;
use plotters::prelude::*;

const SIZE: (u32, u32) = (1000, 480);
const TEXT: u32 = 15;
/// Characters of a name in the legend.
const LONGEST: usize = 60;

impl Quantity {
    /// What is plotted, in words.
    pub fn describe(&self) -> String {
        match self {
            Self::Return { window: 1 } => "return of training episodes".into(),
            Self::Return { window } => format!("mean return of the last {window} training episodes"),
            Self::Column { tag, window: 1 } => tag.clone(),
            Self::Column { tag, window } => format!("{tag}, mean of the last {window} values"),
        }
    }

    /// Whether it usually rises over a run.
    fn rises(&self) -> bool {
        match self {
            Self::Return { .. } => true,
            Self::Column { tag, .. } => tag.contains("rew"),
        }
    }
}

impl Axis {
    /// The label of the axis.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Steps => "agent steps",
            Self::Minutes => "minutes of training",
        }
    }

    /// How a value is written.
    pub fn format(self) -> fn(f64) -> String {
        match self {
            Self::Steps => count,
            Self::Minutes => number,
        }
    }
}

/// The line of a group, in color `i`; `None` if no run of the group has a value.
pub fn line(i: usize, group: &Group, quantity: &Quantity, axis: Axis) -> Option<Line> {
    let curves: Vec<_> = group.runs.iter().filter_map(|run| Curve::new(run, quantity, axis)).collect();
    let points = summary(&curves);
    (!points.is_empty()).then(|| Line { name: group.label(), color: line_color(i), points })
}

/// A chart of lines with a title and a legend.
pub struct Plot {
    title: String,
    x: String,
    axis: Axis,
    lines: Vec<Line>,
    levels: Vec<f64>,
    log: bool,
    legend: Legend,
}

impl Plot {
    /// The chart of `groups`, with a line at each of `levels`. Groups without a value have no line.
    pub fn new(groups: &[Group], quantity: &Quantity, axis: Axis, levels: &[f64]) -> Self {
        let line = |(i, group)| {
            let mut line = line(i, group, quantity, axis)?;
            if line.name.chars().count() > LONGEST {
                line.name = line.name.chars().take(LONGEST - 1).chain(['…']).collect();
            }
            Some(line)
        };
        let mut envs: Vec<&str> = groups.iter().flat_map(|group| &group.runs).map(|run| &*run.env).collect();
        envs.sort_unstable();
        envs.dedup();
        let of_seeds = groups.iter().any(|group| group.runs.len() > 1);
        let legend = if quantity.rises() { Legend::LowerRight } else { Legend::UpperRight };
        Self {
            title: format!("{}: {}", envs.join(", "), quantity.describe()),
            x: format!(
                "{}{}",
                axis.describe(),
                if of_seeds { " (mean and interquartile range over seeds)" } else { "" }
            ),
            axis,
            lines: groups.iter().enumerate().filter_map(line).collect(),
            levels: levels.to_vec(),
            log: !quantity.rises(),
            legend,
        }
    }

    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The chart as SVG.
    ///
    /// # Errors
    /// [`Error::Other`](playfield_core::Error::Other) if drawing fails.
    pub fn svg(&self) -> Result<String> {
        chart::svg(SIZE, &self.title, |area| self.draw(area))
    }

    /// The chart as PNG.
    ///
    /// # Errors
    /// As [`svg`](Self::svg).
    pub fn png(&self) -> Result<Vec<u8>> {
        chart::png(SIZE, &self.title, |area| self.draw(area))
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<'_, B>) -> Drawn<B> {
        area.fill(&WHITE)?;
        let (head, rest) = area.split_vertically(32);
        head.draw(&Text::new(self.title.clone(), (12, 10), ("sans-serif", TEXT + 2).into_font().color(&INK)))?;
        let chart = Lines {
            lines: &self.lines,
            axes: (&self.x, ""),
            from_zero: true,
            x_label: self.axis.format(),
            log: self.log,
            levels: &self.levels,
            legend: Some(self.legend),
            text: TEXT,
        };
        chart.draw(&rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunFolder;
    use crate::run::tests::{settings, write};

    fn group(dir: &std::path::Path, name: &str, returns: &[&[f64]]) -> Group {
        let run = |(i, returns): (usize, &&[f64])| {
            let path = dir.join(format!("{name}-{i}"));
            write(&path, &settings("ppo", "Toy", i as u64, 0.1), returns);
            RunFolder::read(&path).unwrap()
        };
        Group::new(name, returns.iter().enumerate().map(run).collect())
    }

    #[test]
    fn each_group_is_one_line_and_several_seeds_have_a_band() {
        let dir = tempfile::tempdir().unwrap();
        let seeds = group(dir.path(), "two", &[&[1.0, 2.0, 3.0], &[4.0, 5.0, 7.0]]);
        let groups = [seeds, group(dir.path(), "one", &[&[2.0, 2.5]]), group(dir.path(), "empty", &[&[]])];
        let plot = Plot::new(&groups, &Quantity::Return { window: 100 }, Axis::Steps, &[]);
        let text = plot.svg().unwrap();
        for expected in
            ["Toy: mean return of the last 100 training episodes", "two, 2 seeds", ">\none\n<", "interquartile"]
        {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!text.contains("empty"), "{text}");
        assert_eq!(text.matches("<polygon").count(), 1);
        assert!(plot.png().unwrap().starts_with(b"\x89PNG"));
        assert!(Plot::new(&groups[2..], &Quantity::Return { window: 1 }, Axis::Minutes, &[1.0]).is_empty());
    }

    #[test]
    fn long_names_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let groups = [group(dir.path(), &"n".repeat(80), &[&[1.0, 2.0]])];
        let text = Plot::new(&groups, &Quantity::Return { window: 1 }, Axis::Minutes, &[]).svg().unwrap();
        assert!(text.contains(&format!("\n{}…\n", "n".repeat(59))), "{text}");
    }
}
