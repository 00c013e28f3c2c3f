//! The console: on a terminal, a dashboard and a progress bar; elsewhere a table with a new line every few seconds.
//!
//! All output goes to stderr: stdout is for results.

use crate::dashboard::Dashboard;
use indicatif::{ProgressBar, ProgressStyle};
use playfield_core::Result;
use playfield_core::metrics::{EpisodeRow, Row, Sink};
use playfield_core::text::thousands;
use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Seconds between two lines.
const INTERVAL: Duration = Duration::from_secs(10);
/// Lines between two headers.
const PAGE: usize = 20;
/// The remaining time is estimated from the speed over this time: a run is slower once updates begin.
const SPEED_WINDOW: Duration = Duration::from_secs(60);
/// The shortest time between two movements of the progress bar.
const TICK: Duration = Duration::from_millis(100);

/// The dashboard if stderr is a terminal, else the table.
pub struct Console {
    out: Out,
    total: u64,
    /// Times and steps of the rows of the last [`SPEED_WINDOW`].
    reached: VecDeque<(Instant, u64)>,
    ticked: Instant,
    /// Lines since the last header.
    lines: usize,
    /// Tags of the rows so far, in [`COLUMNS`].
    seen: Vec<&'static str>,
    /// The columns of the last header.
    columns: Vec<&'static Column>,
    shown: Option<Instant>,
    pending: Option<Row>,
    announced: bool,
}

enum Out {
    Bar(ProgressBar, Dashboard),
    Lines(Box<dyn Write>),
}

impl Console {
    /// A console for a run of `total` agent steps that is at `step`.
    pub fn new(total: u64, step: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::to(Box::new(std::io::stderr()), total, step);
        }
        let bar = ProgressBar::new(total).with_position(step);
        let template = "{prefix}\n{bar:24} {percent:>3} %  {human_pos}/{human_len} steps  {msg}";
        // The template is a constant: it parses.
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        let curves =
            COLUMNS.iter().filter(|column| !["time/", "left"].iter().any(|group| column.tag.starts_with(group)));
        let curves = curves.filter(|column| column.tag != "rollout/ep_len_mean");
        let dashboard = Dashboard::new(curves.map(|column| (column.tag, column.title, column.format)));
        Self::with(Out::Bar(bar, dashboard), total, step)
    }

    /// A console that writes plain lines to `out`.
    pub fn to(out: Box<dyn Write>, total: u64, step: u64) -> Self {
        Self::with(Out::Lines(out), total, step)
    }

    fn with(out: Out, total: u64, step: u64) -> Self {
        let now = Instant::now();
        let reached = [(now, step)].into();
        let (seen, columns) = (Vec::new(), Vec::new());
        Self {
            out,
            total,
            reached,
            ticked: now,
            lines: 0,
            seen,
            columns,
            shown: None,
            pending: None,
            announced: step > 0,
        }
    }

    /// Ignores errors: a closed pipe does not end a run.
    fn print(&mut self, line: &str) {
        match &mut self.out {
            Out::Bar(bar, _) => bar.println(line),
            Out::Lines(out) => _ = writeln!(out, "{line}"),
        }
    }

    fn show(&mut self, row: &Row) {
        let columns = self.columns();
        if self.lines == PAGE || self.columns.iter().map(|c| c.tag).ne(columns.iter().map(|c| c.tag)) {
            (self.lines, self.columns) = (0, columns);
        }
        if self.lines == 0 {
            self.print(&join(self.columns.iter().map(|c| (c.width, c.title.to_string()))));
        }
        self.lines += 1;
        let left = self.left(row.step);
        let cell = |c: &&'static Column| match c.tag {
            "left" => (c.width, left.map_or("-".into(), duration)),
            tag => (c.width, row.get(tag).filter(|v| v.is_finite()).map_or("-".into(), c.format)),
        };
        self.print(&join(self.columns.iter().map(cell)));
    }

    /// The columns of every run and the first others of which there are values, as many as fit [`WIDTH`].
    fn columns(&self) -> Vec<&'static Column> {
        let (common, others) = COLUMNS.split_at(COMMON);
        let mut left = WIDTH - common.iter().map(|c| c.width).sum::<usize>();
        let seen = others.iter().filter(|column| self.seen.contains(&column.tag));
        let fits = |column: &&Column| {
            let rest = left.checked_sub(column.width);
            left = rest.unwrap_or(left);
            rest.is_some()
        };
        common.iter().chain(seen.filter(fits)).collect()
    }

    /// The remaining time at the current speed.
    fn left(&self, step: u64) -> Option<Duration> {
        let (since, from) = *self.reached.front()?;
        let done = step.checked_sub(from).filter(|&d| d > 0)?;
        let seconds = since.elapsed().as_secs_f64() * self.total.saturating_sub(step) as f64 / done as f64;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

impl Sink for Console {
    fn scalars(&mut self, row: &Row) -> Result<()> {
        self.reached.push_back((Instant::now(), row.step));
        while self.reached.get(1).is_some_and(|(when, _)| when.elapsed() >= SPEED_WINDOW) {
            self.reached.pop_front();
        }
        let new = |tag: &&'static str| !self.seen.contains(tag) && row.get(tag).is_some();
        let new: Vec<_> = COLUMNS.iter().map(|column| column.tag).filter(new).collect();
        self.seen.extend(new);
        let left = self.left(row.step).map(|left| format!("{} left", duration(left)));
        if let Out::Bar(bar, dashboard) = &mut self.out {
            dashboard.push(row);
            bar.set_prefix(dashboard.lines());
            let fps = row.get("time/fps").map(|v| format!("{} steps/s", whole(v)));
            bar.set_message([fps, left].into_iter().flatten().collect::<Vec<_>>().join("  "));
        } else if self.shown.is_none_or(|shown| shown.elapsed() >= INTERVAL) {
            self.show(row);
            (self.shown, self.pending) = (Some(Instant::now()), None);
        } else {
            self.pending = Some(row.clone());
        }
        Ok(())
    }

    fn evaluation(&mut self, row: &Row) -> Result<()> {
        let [mean, std, length] =
            ["eval/mean_reward", "eval/std_reward", "eval/mean_ep_length"].map(|tag| row.get(tag).unwrap_or(f64::NAN));
        let (steps, length) = (thousands(row.step), whole(length));
        self.print(&format!("evaluation after {steps} steps: mean return {mean:.2} ± {std:.2}, length {length}"));
        Ok(())
    }

    fn episode(&mut self, row: &EpisodeRow) -> Result<()> {
        if !std::mem::replace(&mut self.announced, true) {
            let time = duration(row.elapsed);
            self.print(&format!(
                "first episode: return {:.2} in {} steps, after {time}",
                row.end.episode_return,
                thousands(row.end.length)
            ));
        }
        Ok(())
    }

    fn notify(&mut self, message: &str) {
        self.print(message);
    }

    fn progress(&mut self, step: u64) {
        if let (Out::Bar(bar, _), true) = (&self.out, self.ticked.elapsed() >= TICK) {
            bar.set_position(step);
            self.ticked = Instant::now();
        }
    }
}

/// Prints the last row of the run, even if the interval since the previous one is short; on a terminal, leaves the dashboard.
impl Drop for Console {
    fn drop(&mut self) {
        if let Out::Bar(bar, dashboard) = &self.out {
            bar.println(dashboard.lines());
            bar.finish_and_clear();
        } else if let Some(row) = self.pending.take() {
            self.show(&row);
        }
    }
}

struct Column {
    tag: &'static str,
    title: &'static str,
    width: usize,
    format: fn(f64) -> String,
}

const fn column(tag: &'static str, title: &'static str, width: usize, format: fn(f64) -> String) -> Column {
    Column { tag, title, width, format }
}

/// The number of [`COLUMNS`] of every run.
const COMMON: usize = 5;
/// Columns of the narrowest usual terminal.
const WIDTH: usize = 80;

/// The columns of every run, then those of algorithms, the most telling first.
const COLUMNS: &[Column] = &[
    column("time/total_timesteps", "steps", 11, whole),
    column("time/fps", "steps/s", 9, whole),
    column("left", "left", 9, whole),
    column("rollout/ep_rew_mean", "return", 10, |v| format!("{v:.2}")),
    column("rollout/ep_len_mean", "length", 8, whole),
    column("train/loss", "loss", 8, short),
    column("train/entropy_loss", "entropy", 8, |v| short(-v)),
    column("train/explained_variance", "expl.var", 9, |v| format!("{v:.2}")),
    column("train/q_mean", "Q", 8, short),
    column("rollout/exploration_rate", "epsilon", 8, short),
    column("train/grad_norm", "grad", 8, short),
    column("train/value_loss", "value", 8, short),
];

fn join(cells: impl Iterator<Item = (usize, String)>) -> String {
    cells.map(|(width, cell)| format!("{cell:>width$}")).collect()
}

/// A rounded number: `-1,234,567`.
fn whole(value: f64) -> String {
    let sign = if value <= -0.5 { "-" } else { "" };
    format!("{sign}{}", thousands(value.abs().round() as u64))
}

/// About three significant digits: `0.0325`, `12.3`, `1.2e-5`.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        v if !(1e-3..1e5).contains(&v) => format!("{value:.1e}"),
        v if v < 1.0 => format!("{value:.4}"),
        v if v < 100.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

/// A duration for people: `350 ms`, `1.2 s`, `41 s`, `12 min`, `3 h 05`.
pub fn duration(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        1..=9 => format!("{:.1} s", time.as_secs_f64()),
        s @ 10..=99 => format!("{s} s"),
        s @ 100..=5999 => format!("{} min", (s + 30) / 60),
        s => format!("{} h {:02}", s / 3600, s % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::EpisodeEnd;
    use playfield_core::metrics::Metric;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[derive(Clone, Default)]
    struct Page(Rc<RefCell<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn row(step: u64, loss: f64) -> Row {
        let values = [("train/loss", loss), ("train/entropy_loss", -1.79)];
        Row::new(step, Duration::ZERO, values.map(|(tag, value)| (tag.into(), value)))
    }

    #[test]
    fn the_first_and_the_last_line_are_shown_and_the_first_episode_is_announced() {
        let page = Page::default();
        let mut console = Console::to(Box::new(page.clone()), 5_000_000, 0);
        let end = EpisodeEnd { episode_return: -21.0, length: 812 };
        for _ in 0..2 {
            console.episode(&EpisodeRow { step: 900, elapsed: Duration::from_secs(12), end }).unwrap();
        }
        for (step, loss) in [(1_234_567, 0.0325), (1_300_000, f64::NAN), (1_400_000, 12.345)] {
            console.scalars(&row(step, loss)).unwrap();
        }
        drop(console);
        let printed = String::from_utf8(page.0.borrow().clone()).unwrap();
        let lines: Vec<_> = printed.lines().collect();
        assert_eq!(lines[0], "first episode: return -21.00 in 812 steps, after 12 s");
        assert!(lines[1].trim_start().starts_with("steps"), "{printed}");
        assert!(
            lines[2].contains("1,234,567") && lines[2].contains("0.0325") && lines[2].contains("1.79"),
            "{printed}"
        );
        assert!(lines[3].contains("1,400,000") && lines[3].contains("12.3"), "{printed}");
        assert_eq!(lines.len(), 4, "{printed}");
    }

    #[test]
    fn an_evaluation_is_one_line_and_leaves_the_table_as_it_is() {
        let page = Page::default();
        let mut console = Console::to(Box::new(page.clone()), 5_000_000, 0);
        let values = [("eval/mean_reward", 12.345), ("eval/std_reward", 4.5), ("eval/mean_ep_length", 812.2)];
        let evaluation = Row::new(1_000_000, Duration::ZERO, values.map(|(tag, value)| (tag.into(), value)));
        console.scalars(&row(1_000_000, 0.5)).unwrap();
        console.evaluation(&evaluation).unwrap();
        drop(console);
        let printed = String::from_utf8(page.0.borrow().clone()).unwrap();
        let lines: Vec<_> = printed.lines().collect();
        assert_eq!(lines[2], "evaluation after 1,000,000 steps: mean return 12.35 ± 4.50, length 812");
        assert_eq!(lines.len(), 3, "{printed}");
    }

    /// No column without values: those of DQN's updates appear with a new header once there are some.
    #[test]
    fn the_table_has_the_columns_of_the_algorithm() {
        let table = |rows: &[&[&'static str]]| {
            let page = Page::default();
            let mut console = Console::to(Box::new(page.clone()), 50_000_000, 0);
            for tags in rows {
                let values = tags.iter().map(|tag| ((*tag).into(), -12_345.678));
                console.shown = None;
                console.scalars(&Row::new(12_345_678, Duration::ZERO, values)).unwrap();
            }
            drop(console);
            String::from_utf8(page.0.borrow().clone()).unwrap()
        };
        let dqn = ["rollout/exploration_rate", "train/loss", "train/q_mean", "train/grad_norm"];
        let printed = table(&[&dqn[..1], &dqn[..1], &dqn]);
        let words: Vec<Vec<_>> = printed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["steps", "steps/s", "left", "return", "length", "epsilon"], "{printed}");
        assert_eq!(words[3][5..], ["loss", "Q", "epsilon", "grad"], "{printed}");
        assert_eq!(words.len(), 5, "{printed}");
        let all: Vec<_> = COLUMNS.iter().map(|column| column.tag).filter(|tag| *tag != "left").collect();
        let printed = table(&[&all]);
        assert!(printed.lines().all(|line| line.chars().count() == WIDTH), "{printed}");
    }

    #[test]
    fn every_column_shows_a_described_tag() {
        for Column { tag, .. } in COLUMNS.iter().filter(|column| column.tag != "left") {
            assert!(Metric::find(tag).is_some(), "{tag}");
        }
    }

    #[test]
    fn numbers_are_formatted() {
        assert_eq!([0.0, 999.0, 1000.0, -1_234_567.4].map(whole), ["0", "999", "1,000", "-1,234,567"]);
        assert_eq!([0.0, 1.2e-5, 0.0325, 12.345, 1234.5].map(short), ["0", "1.2e-5", "0.0325", "12.35", "1234"]);
        assert_eq!(
            [350, 9_000, 99_000, 100_000, 5_999_000, 11_100_000].map(|ms| duration(Duration::from_millis(ms))),
            ["350 ms", "9.0 s", "99 s", "2 min", "100 min", "3 h 05"]
        );
    }
}
