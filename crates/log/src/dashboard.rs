//! The dashboard of a run on a terminal: curves of the most telling metrics, and where the time goes.

use playfield_core::metrics::Row;

/// Characters of a curve, at most.
const WIDTH: usize = 40;
/// Curves, at most.
const CURVES: usize = 4;
/// From the lowest to the highest value of a curve.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A metric: its tag, its title and the format of its last value.
pub(crate) type Metric = (&'static str, &'static str, fn(f64) -> String);

/// The curves so far.
pub(crate) struct Dashboard {
    /// The metrics that may be shown, the most telling first.
    curves: Vec<(Metric, Curve)>,
    /// Fractions of the wall time that acting, stepping environments and learning took in the last row.
    shares: Vec<(&'static str, f64)>,
}

impl Dashboard {
    /// A dashboard of the first `metrics` that a run has.
    pub fn new(metrics: impl IntoIterator<Item = Metric>) -> Self {
        Self { curves: metrics.into_iter().map(|metric| (metric, Curve::default())).collect(), shares: Vec::new() }
    }

    /// Adds a row of metrics.
    pub fn push(&mut self, row: &Row) {
        for ((tag, ..), curve) in &mut self.curves {
            if let Some(value) = row.get(tag).filter(|value| value.is_finite()) {
                curve.push(value);
            }
        }
        let names = [("act", "time/share_act"), ("environments", "time/share_env"), ("learn", "time/share_learn")];
        self.shares = names.into_iter().filter_map(|(name, tag)| Some((name, row.get(tag)?))).collect();
    }

    /// Its lines, at most 80 columns wide.
    pub fn lines(&self) -> String {
        let shown = self.curves.iter().filter(|(_, curve)| !curve.values.is_empty()).take(CURVES);
        let mut lines: Vec<String> = shown
            .map(|((_, title, format), curve)| {
                format!("{title:<9} {:<WIDTH$} {:>10}", curve.text(), format(curve.last))
            })
            .collect();
        if !self.shares.is_empty() {
            // The rest: waiting, evaluation, checkpoints. There is none where threads learn beside the others.
            let rest = 1.0 - self.shares.iter().map(|(_, share)| share).sum::<f64>();
            let rest = Some(("other", rest)).filter(|(_, rest)| *rest >= 0.005);
            let shares = self.shares.iter().copied().chain(rest);
            let shares = shares.map(|(name, share)| format!("{name} {:.0} %", 100.0 * share));
            lines.push(format!("{:<9} {}", "time", shares.collect::<Vec<_>>().join("  ")));
        }
        lines.join("\n")
    }
}

/// A metric over a run: means of equally many values each, at most twice as many as there are characters.
#[derive(Default)]
struct Curve {
    values: Vec<f64>,
    /// The logarithm, to base 2, of the number of values in one mean.
    level: u32,
    /// The values of the next mean.
    pending: Vec<f64>,
    last: f64,
}

impl Curve {
    fn push(&mut self, value: f64) {
        self.last = value;
        self.pending.push(value);
        if self.pending.len() == 1 << self.level {
            self.values.push(mean(&self.pending));
            self.pending.clear();
        }
        if self.values.len() == 2 * WIDTH {
            self.values = self.values.chunks(2).map(mean).collect();
            self.level += 1;
        }
    }

    fn text(&self) -> String {
        // Each character is the mean of one value or two.
        let values: Vec<f64> = self.values.chunks(self.values.len().div_ceil(WIDTH).max(1)).map(mean).collect();
        let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
        let level = |value: &f64| match high > low {
            true => LEVELS[((value - low) / (high - low) * (LEVELS.len() - 1) as f64).round() as usize],
            false => LEVELS[0],
        };
        values.iter().map(level).collect()
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn dashboard() -> Dashboard {
        let metrics: [Metric; 2] = [("a", "return", |v| format!("{v:.2}")), ("b", "loss", |v| format!("{v:.1}"))];
        Dashboard::new(metrics)
    }

    fn row(values: &[(&'static str, f64)]) -> Row {
        Row::new(1, Duration::ZERO, values.iter().map(|(tag, value)| ((*tag).into(), *value)))
    }

    #[test]
    fn curves_are_scaled_and_metrics_without_values_have_none() {
        let mut dashboard = dashboard();
        for value in [0.0, 7.0, 3.0, f64::NAN] {
            dashboard.push(&row(&[("a", value), ("time/share_act", 0.25), ("time/share_learn", 0.5)]));
        }
        let expected =
            format!("return    {:<WIDTH$} {:>10}\ntime      act 25 %  learn 50 %  other 25 %", "▁█▄", "3.00");
        assert_eq!(dashboard.lines(), expected);
        dashboard.push(&row(&[("time/share_act", 0.5), ("time/share_learn", 0.75)]));
        assert!(dashboard.lines().ends_with("\ntime      act 50 %  learn 75 %"));
    }

    /// However long the run, a curve is a line of means of the whole run.
    #[test]
    fn a_long_run_is_averaged() {
        let mut dashboard = dashboard();
        for i in 0..1000 {
            dashboard.push(&row(&[("a", f64::from(i)), ("b", 2.0)]));
        }
        let lines = dashboard.lines();
        assert!(lines.lines().all(|line| line.chars().count() <= 80), "{lines}");
        let curve = dashboard.curves[0].1.text();
        assert!((WIDTH / 2..=WIDTH).contains(&curve.chars().count()), "{curve}");
        assert!(curve.starts_with('▁') && curve.ends_with('█') && curve.chars().is_sorted(), "{curve}");
        assert_eq!(dashboard.curves[1].1.text().chars().filter(|c| *c == '▁').count(), curve.chars().count());
    }
}
