use crate::args::Runs;
use crate::output::out;
use clap::ValueEnum;
use playfield_core::{Error, Result};
use playfield_report::RunFolder;
use playfield_report::format::{bytes, count, number};
use playfield_report::run::{State, disk_usage, find};
use serde::Serialize;
use std::cmp::Ordering;
use std::path::Path;
use std::process::ExitCode;

/// The width of the table in characters.
const WIDTH: usize = 80;
/// Spaces between two columns.
const GAP: usize = 2;

/// The sort key of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SortKey {
    Name,
    Algorithm,
    Env,
    Seed,
    Steps,
    Score,
    State,
    Size,
}

/// The JSON object of `--json`.
#[derive(Debug, Serialize)]
struct Report {
    runs: Vec<Entry>,
}

/// A run folder.
#[derive(Debug, Serialize)]
struct Entry {
    /// The path below the searched folder.
    name: String,
    /// The state, or `damaged`.
    state: &'static str,
    /// The size on disk.
    bytes: u64,
    #[serde(flatten)]
    content: Content,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Content {
    Run {
        algorithm: String,
        env: String,
        seed: u64,
        steps: u64,
        total_steps: u64,
        score: Option<f64>,
        mean_return: Option<f64>,
        best_evaluation: Option<f64>,
        seconds: f64,
        #[serde(skip)]
        state: State,
    },
    Damaged {
        error: String,
    },
}

/// `playfield runs`.
pub fn runs(args: &Runs) -> Result<ExitCode> {
    let folder = &args.folder;
    if !folder.is_dir() {
        let shown = folder.display();
        return Err(Error::config(format!(
            "the folder {shown} does not exist: train first (playfield train CONFIG), or name another (playfield runs DIR)"
        )));
    }
    let mut paths = find(folder)?;
    if paths.is_empty() && folder.join("config.toml").exists() {
        paths.push(folder.clone());
    }
    let mut entries: Vec<Entry> = paths.iter().map(|path| entry(folder, path)).collect();
    // Stable: equal runs stay sorted by name.
    entries.sort_by(|a, b| compare(a, b, args.sort));
    if args.json {
        out!("{}", serde_json::to_string(&Report { runs: entries }).map_err(Error::other)?);
    } else if entries.is_empty() {
        out!("no runs in {}", folder.display());
    } else {
        table(&entries).iter().for_each(|line| out!("{line}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn entry(folder: &Path, path: &Path) -> Entry {
    let below = path.strip_prefix(folder).unwrap_or(path);
    let name = if below.as_os_str().is_empty() { path } else { below }.display().to_string();
    let bytes = disk_usage(path);
    match RunFolder::read(path) {
        Err(error) => {
            // The name of the folder is in the first column.
            let prefix = format!("{}/", path.display());
            let error = error.to_string().replace(&prefix, "").replace(&format!("{} ", path.display()), "");
            Entry { name, state: "damaged", bytes, content: Content::Damaged { error } }
        }
        Ok(run) => {
            let content = Content::Run {
                seed: run.seed,
                steps: run.step,
                total_steps: run.total_steps,
                score: run.score(),
                mean_return: run.mean_return(),
                best_evaluation: run.best_evaluation(),
                seconds: run.seconds(),
                state: run.state,
                algorithm: run.algorithm,
                env: run.env,
            };
            Entry { name, state: run.state.name(), bytes, content }
        }
    }
}

/// The order of two runs. Damaged folders, and runs without a score, come last.
fn compare(a: &Entry, b: &Entry, key: SortKey) -> Ordering {
    use Content::{Damaged, Run};
    let by_size = || b.bytes.cmp(&a.bytes);
    match (&a.content, &b.content) {
        _ if key == SortKey::Size => by_size(),
        (Damaged { .. }, Damaged { .. }) => Ordering::Equal,
        _ if key == SortKey::Name => Ordering::Equal,
        (Damaged { .. }, Run { .. }) => Ordering::Greater,
        (Run { .. }, Damaged { .. }) => Ordering::Less,
        (
            Run {
                algorithm: a_algorithm,
                env: a_env,
                seed: a_seed,
                steps: a_steps,
                score: a_score,
                state: a_state,
                ..
            },
            Run { algorithm, env, seed, steps, score, state, .. },
        ) => match key {
            SortKey::Algorithm => a_algorithm.cmp(algorithm),
            SortKey::Env => a_env.cmp(env),
            SortKey::Seed => a_seed.cmp(seed),
            SortKey::Steps => steps.cmp(a_steps),
            SortKey::Score => {
                let value = |score: &Option<f64>| score.filter(|s| !s.is_nan()).unwrap_or(f64::NEG_INFINITY);
                value(score).total_cmp(&value(a_score))
            }
            SortKey::State => a_state.cmp(state),
            SortKey::Name | SortKey::Size => Ordering::Equal,
        },
    }
}

/// The lines of the table, at most [`WIDTH`] characters each. The columns are as wide as their cells; names and environments are cut.
fn table(entries: &[Entry]) -> Vec<String> {
    let header = ["run", "algo", "env", "seed", "steps", "score", "state", "size"].map(String::from);
    let cells = |entry: &Entry| match &entry.content {
        Content::Damaged { .. } => None,
        Content::Run { algorithm, env, seed, steps, total_steps, score, state, .. } => {
            let percent = 100 * steps / (*total_steps).max(1);
            let state = match state {
                State::Running | State::Stopped => format!("{} {percent}%", state.name()),
                state => state.name().into(),
            };
            let score = score.filter(|s| !s.is_nan()).map_or("-".into(), number);
            let numbers = [seed.to_string(), count(*steps as f64), score, state, bytes(entry.bytes)];
            let [seed, steps, score, state, size] = numbers;
            Some(
                [entry.name.clone(), cut(algorithm, 9), env.clone(), cut(&seed, 6), steps, score, state, size]
                    .map(|cell| printable(&cell)),
            )
        }
    };
    let mut rows: Vec<_> = entries.iter().map(cells).collect();
    let all = || rows.iter().flatten().chain([&header]);
    let mut widths: [usize; 8] = std::array::from_fn(|i| all().map(|row| row[i].chars().count()).max().unwrap_or(0));
    // Where the table is too wide, the environment gives way to the name down to 12 characters, then the name gives way.
    let others = widths.iter().sum::<usize>() - widths[0] - widths[2] + 7 * GAP;
    let rest = WIDTH - others;
    widths[2] = widths[2].min(rest.saturating_sub(widths[0]).max(12));
    widths[0] = widths[0].min(rest - widths[2]);
    // `ALE/Breakout-v5` without its namespace where it would be cut.
    for row in rows.iter_mut().flatten() {
        if let (true, Some((_, id))) = (row[2].chars().count() > widths[2], row[2].rsplit_once('/')) {
            row[2] = id.to_string();
        }
    }
    let line = |row: &[String; 8]| {
        let cells = row.iter().zip(widths).enumerate().map(|(i, (cell, width))| {
            let cell = cut(cell, width);
            if (3..6).contains(&i) || i == 7 { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        cells.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end().to_string()
    };
    let rows = entries.iter().zip(&rows).map(|(entry, row)| match (&entry.content, row) {
        (Content::Damaged { error }, _) => {
            let name = cut(&printable(&entry.name), widths[0].max(12));
            let line = format!("{name:width$}{:GAP$}damaged: {}", "", printable(error), width = widths[0]);
            match line.chars().count() > WIDTH {
                true => line.chars().take(WIDTH - 1).chain(['…']).collect(),
                false => line,
            }
        }
        (_, Some(row)) => line(row),
        (_, None) => String::new(),
    });
    [line(&header)].into_iter().chain(rows).collect()
}

/// `text` in at most `width` characters, cut in the middle: the ends of names distinguish them.
fn cut(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.into();
    }
    let end = (width - 1) / 2;
    text.chars().take(width - 1 - end).chain(['…']).chain(text.chars().skip(length - end)).collect()
}

/// `text` without characters that control a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, score: Option<f64>, state: State) -> Entry {
        let content = Content::Run {
            algorithm: "ppo".into(),
            env: "ALE/Breakout-v5".into(),
            seed: 1,
            steps: 1_050_000,
            total_steps: 10_000_000,
            score,
            mean_return: score,
            best_evaluation: None,
            seconds: 1.0,
            state,
        };
        Entry { name: name.into(), state: state.name(), bytes: 12_300_000, content }
    }

    #[test]
    fn every_line_fits_80_columns_and_names_keep_their_end() {
        let damaged = Content::Damaged { error: "config.toml: line 1: ".repeat(10) };
        let entries = [
            run(&"long-name-".repeat(10), Some(-123.456), State::NotStarted),
            run("short", None, State::Stopped),
            Entry { name: "b\n".repeat(40), state: "damaged", bytes: 0, content: damaged },
        ];
        let lines = table(&entries);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH && !line.contains('\n')), "{lines:#?}");
        assert!(lines[1].contains("…") && lines[1].contains("name-  ppo"), "{lines:#?}");
        assert!(lines[2].contains("stopped 10%") && lines[2].ends_with("12.3 MB"), "{lines:#?}");
        assert!(lines[3].contains("damaged: config.toml: line 1"), "{lines:#?}");
        assert_eq!(cut("abcdefgh", 5), "ab…gh");
    }

    #[test]
    fn runs_are_sorted_and_those_without_a_value_come_last() {
        let damaged =
            || Entry { name: "d".into(), state: "damaged", bytes: 9, content: Content::Damaged { error: "".into() } };
        let order = |key| {
            let mut entries = [
                damaged(),
                run("a", None, State::Running),
                run("b", Some(2.0), State::Finished),
                run("c", Some(30.0), State::NotStarted),
            ];
            entries.sort_by(|a, b| compare(a, b, key));
            entries.map(|entry| entry.name).concat()
        };
        let keys = [SortKey::Score, SortKey::Name, SortKey::State, SortKey::Size, SortKey::Seed];
        assert_eq!(keys.map(order), ["cbad", "dabc", "abcd", "abcd", "abcd"]);
    }
}
