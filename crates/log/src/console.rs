//! The console: a table with a new line every few seconds and, on a terminal, a progress bar below it.
//!
//! All output goes to stderr: stdout is for results.

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use playfield_core::Result;
use playfield_core::metrics::{EpisodeRow, Row, Sink};
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

/// The table, and the progress bar if stderr is a terminal.
pub struct Console {
    out: Out,
    total: u64,
    /// Times and steps of the rows of the last [`SPEED_WINDOW`].
    reached: VecDeque<(Instant, u64)>,
    ticked: Instant,
    lines: usize,
    shown: Option<Instant>,
    pending: Option<Row>,
    announced: bool,
}

enum Out {
    Bar(ProgressBar),
    Lines(Box<dyn Write>),
}

impl Console {
    /// A console for a run of `total` agent steps that is at `step`.
    pub fn new(total: u64, step: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::to(Box::new(std::io::stderr()), total, step);
        }
        let bar = ProgressBar::new(total).with_position(step);
        let template = "{bar:30} {percent:>3} %  {human_pos}/{human_len} steps  {msg}";
        // The template is a constant: it parses.
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self::with(Out::Bar(bar), total, step)
    }

    /// A console that writes plain lines to `out`.
    pub fn to(out: Box<dyn Write>, total: u64, step: u64) -> Self {
        Self::with(Out::Lines(out), total, step)
    }

    fn with(out: Out, total: u64, step: u64) -> Self {
        let now = Instant::now();
        let reached = [(now, step)].into();
        Self { out, total, reached, ticked: now, lines: 0, shown: None, pending: None, announced: step > 0 }
    }

    /// Ignores errors: a closed pipe does not end a run.
    fn print(&mut self, line: &str) {
        match &mut self.out {
            Out::Bar(bar) => bar.println(line),
            Out::Lines(out) => _ = writeln!(out, "{line}"),
        }
    }

    fn show(&mut self, row: &Row) {
        if self.lines.is_multiple_of(PAGE) {
            self.print(&join(COLUMNS.iter().map(|c| c.title.to_string())));
        }
        self.lines += 1;
        let left = self.left(row.step);
        let cell = |c: &Column| match c.tag {
            "left" => left.map_or("-".into(), duration),
            tag => row.get(tag).filter(|v| v.is_finite()).map_or("-".into(), c.format),
        };
        self.print(&join(COLUMNS.iter().map(cell)));
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
        if self.shown.is_none_or(|s| s.elapsed() >= INTERVAL) {
            self.show(row);
            (self.shown, self.pending) = (Some(Instant::now()), None);
        } else {
            self.pending = Some(row.clone());
        }
        if let Out::Bar(bar) = &self.out {
            let fps = row.get("time/fps").map(|v| format!("{} steps/s", whole(v)));
            let left = self.left(row.step).map(|l| format!("{} left", duration(l)));
            let mean = row.get("rollout/ep_rew_mean").map(|v| format!("return {v:.2}"));
            bar.set_message([fps, left, mean].into_iter().flatten().collect::<Vec<_>>().join("  "));
        }
        Ok(())
    }

    fn evaluation(&mut self, row: &Row) -> Result<()> {
        let [mean, std, length] =
            ["eval/mean_reward", "eval/std_reward", "eval/mean_ep_length"].map(|tag| row.get(tag).unwrap_or(f64::NAN));
        let (steps, length) = (HumanCount(row.step), whole(length));
        self.print(&format!("evaluation after {steps} steps: mean return {mean:.2} ± {std:.2}, length {length}"));
        Ok(())
    }

    fn episode(&mut self, row: &EpisodeRow) -> Result<()> {
        if !std::mem::replace(&mut self.announced, true) {
            let time = duration(row.elapsed);
            self.print(&format!(
                "first episode: return {:.2} in {} steps, after {time}",
                row.end.reward, row.end.length
            ));
        }
        Ok(())
    }

    fn notify(&mut self, message: &str) {
        self.print(message);
    }

    fn progress(&mut self, step: u64) {
        if let (Out::Bar(bar), true) = (&self.out, self.ticked.elapsed() >= TICK) {
            bar.set_position(step);
            self.ticked = Instant::now();
        }
    }
}

/// Prints the last row of the run, even if the interval since the previous one is short.
impl Drop for Console {
    fn drop(&mut self) {
        if let Some(row) = self.pending.take() {
            self.show(&row);
        }
        if let Out::Bar(bar) = &self.out {
            bar.finish_and_clear();
        }
    }
}

struct Column {
    tag: &'static str,
    title: &'static str,
    format: fn(f64) -> String,
}

const COLUMNS: &[Column] = &[
    Column { tag: "time/total_timesteps", title: "steps", format: whole },
    Column { tag: "time/fps", title: "steps/s", format: whole },
    Column { tag: "left", title: "time left", format: whole },
    Column { tag: "rollout/ep_rew_mean", title: "return", format: |v| format!("{v:.2}") },
    Column { tag: "rollout/ep_len_mean", title: "length", format: whole },
    Column { tag: "train/loss", title: "loss", format: short },
    Column { tag: "train/value_loss", title: "value", format: short },
    Column { tag: "train/entropy_loss", title: "entropy", format: |v| short(-v) },
    Column { tag: "train/explained_variance", title: "explained", format: |v| format!("{v:.2}") },
    Column { tag: "train/grad_norm", title: "gradient", format: short },
];

fn join(cells: impl Iterator<Item = String>) -> String {
    cells.enumerate().map(|(i, cell)| format!("{cell:>width$}", width = if i == 0 { 12 } else { 10 })).collect()
}

/// `1,234,567`.
fn whole(value: f64) -> String {
    let sign = if value <= -0.5 { "-" } else { "" };
    format!("{sign}{}", HumanCount(value.abs().round() as u64))
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

/// `41 s`, `12 min`, `3 h 05`.
fn duration(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..=99 => format!("{s} s"),
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
        let end = EpisodeEnd { reward: -21.0, length: 812 };
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
            [9, 100, 5999, 11_100].map(|s| duration(Duration::from_secs(s))),
            ["9 s", "2 min", "100 min", "3 h 05"]
        );
    }
}
