//! A report of several runs as one HTML file: no external resource, no script. Charts are inline SVG, videos are data URIs.

use crate::chart::{Line, Lines, line_color, svg};
use crate::curve::{Axis, Quantity};
use crate::format::{bytes, count, number};
use crate::group::{Group, differences};
use crate::plot::line;
use crate::run::{RunFolder, State};
use crate::stats::{mean, median, quantile};
use data_encoding::BASE64;
use playfield_core::{Error, Result, files};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// The largest video that is embedded, in bytes.
const LARGEST_VIDEO: u64 = 4_000_000;
/// The size of all embedded videos together.
const ALL_VIDEOS: u64 = 16_000_000;

/// Charts are drawn at twice the size of the page, because SVG coordinates are whole pixels.
const SIZE: (u32, u32) = (1000, 580);
const TEXT: u32 = 30;

/// What a report contains besides its runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The date, as `2026-01-31`.
    pub date: String,
    /// Number of episodes of the moving mean.
    pub window: usize,
    /// Returns to mark, and to count the steps to. Empty: one per environment, chosen by the runs.
    pub levels: Vec<f64>,
}

/// The report of `groups`, and the videos that it leaves out because of their size.
///
/// # Errors
/// [`Error::Io`] if a video cannot be read, [`Error::Other`] if a chart cannot be drawn.
pub fn html(groups: &[Group], options: &Options) -> Result<(String, Vec<PathBuf>)> {
    let mut envs: Vec<&str> = Vec::new();
    for run in runs(groups) {
        if !envs.contains(&&*run.env) {
            envs.push(&run.env);
        }
    }
    let title = envs.join(", ");
    let mut body = String::new();
    let plural = |n: usize, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    let (n, of) = (plural(runs(groups).count(), "run"), plural(groups.len(), "configuration"));
    let _ = write!(body, "<header><h1>{}</h1><p>{n} of {of} · {}</p></header>", escape(&title), escape(&options.date));
    body += &explanation(groups, options);
    for env in envs {
        body += &section(env, groups, options)?;
    }
    body += &settings(groups);
    let (videos, left_out) = videos(groups)?;
    body += &videos;
    body += &machines(groups);
    body += &all_runs(groups);
    let title = escape(&title);
    let page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{title}: training runs</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    );
    Ok((page, left_out))
}

fn runs(groups: &[Group]) -> impl Iterator<Item = &RunFolder> {
    groups.iter().flat_map(|group| &group.runs)
}

/// Replaces the characters that have a meaning in HTML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c => escaped.push(c),
        }
    }
    escaped
}

/// The learning curves, results and settings of the groups of one environment.
fn section(env: &str, groups: &[Group], options: &Options) -> Result<String> {
    let groups: Vec<&Group> = groups.iter().filter(|group| group.runs[0].env == env).collect();
    let chosen: Vec<f64> = match options.levels.is_empty() {
        true => level(&groups).into_iter().collect(),
        false => options.levels.clone(),
    };
    let mut text = format!("<section><h2>{}</h2><ul class=\"legend\">", escape(env));
    for (i, group) in groups.iter().enumerate() {
        let color = line_color(i);
        let _ = write!(
            text,
            "<li><span class=\"swatch\" style=\"background:rgb({},{},{})\"></span>{}</li>",
            color.0,
            color.1,
            color.2,
            escape(&group.label())
        );
    }
    text += "</ul>";
    let returns = Quantity::Return { window: options.window };
    let evaluations = Quantity::Column { tag: "eval/mean_reward".into(), window: 1 };
    let described = returns.describe();
    let mut figures = String::new();
    for (quantity, what) in [(&returns, &*described), (&evaluations, "mean return of evaluations in training")] {
        for axis in [Axis::Steps, Axis::Minutes] {
            figures += &figure(env, &groups, quantity, axis, what, &options.levels)?;
        }
    }
    text += &match figures.is_empty() {
        true => "<p class=\"note\">No episode has finished yet.</p>".into(),
        false => format!("<div class=\"charts\">{figures}</div>"),
    };
    text += &results(&groups, &chosen);
    Ok(text + &compared(&groups) + "</section>")
}

/// A chart with its caption; empty if no run has a value.
fn figure(env: &str, groups: &[&Group], quantity: &Quantity, axis: Axis, what: &str, levels: &[f64]) -> Result<String> {
    let lines: Vec<Line> = groups.iter().enumerate().filter_map(|(i, group)| line(i, group, quantity, axis)).collect();
    if lines.is_empty() {
        return Ok(String::new());
    }
    let x = axis.describe();
    let chart = Lines {
        lines: &lines,
        axes: ("", ""),
        from_zero: true,
        x_label: axis.format(),
        log: false,
        levels,
        legend: None,
        text: TEXT,
    };
    let drawn = svg(SIZE, env, |area| chart.draw(area))?;
    let caption = format!("{what}, over {x}");
    let label = escape(&format!("{env}: {caption}"));
    // The color of text in the page, in light and in dark.
    let drawn = drawn.replace("#3C3C3C", "currentColor");
    let drawn = drawn.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{label}\" "), 1);
    let first = caption.chars().next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let caption = format!("{first}{}", caption.chars().skip(1).collect::<String>());
    Ok(format!("<figure>{drawn}<figcaption>{}</figcaption></figure>", escape(&caption)))
}

/// A return that separates slow from fast learning: 90 % of the way from the lowest first mean of 100 episodes to the best one.
fn level(groups: &[&Group]) -> Option<f64> {
    let runs = || groups.iter().flat_map(|group| &group.runs);
    let low = runs().filter_map(|run| run.windows().next()).map(|(_, value)| value).reduce(f64::min)?;
    let high = runs().filter_map(best_window).reduce(f64::max)?;
    // Rounded as it is shown.
    let level = number(low + 0.9 * (high - low)).parse().ok()?;
    (high > low).then_some(level)
}

fn best_window(run: &RunFolder) -> Option<f64> {
    run.windows().map(|(_, value)| value).reduce(f64::max)
}

/// The mean of several values and their quartiles, or a single value.
fn spread(values: &[f64], format: fn(f64) -> String) -> String {
    match values {
        [] => "–".into(),
        [value] => format(*value),
        values => {
            let [low, high] = [0.25, 0.75].map(|share| format(quantile(values, share)));
            let mean = format(mean(values));
            if low == mean && high == mean { mean } else { format!("{mean} <small>{low} to {high}</small>") }
        }
    }
}

fn results(groups: &[&Group], levels: &[f64]) -> String {
    let runs = || groups.iter().flat_map(|group| &group.runs);
    let evaluated = runs().any(|run| run.best_evaluation().is_some());
    let mut text = "<div class=\"scroll\"><table><thead><tr><th>configuration</th><th>seeds</th><th>steps</th>\
                    <th>final return</th><th>best return</th>"
        .to_string();
    if evaluated {
        text += "<th>best evaluation</th>";
    }
    for level in levels {
        let _ = write!(text, "<th>steps to {}</th>", number(*level));
    }
    text += "<th>minutes</th><th>steps/s</th></tr></thead><tbody>";
    for group in groups {
        let values = |of: &dyn Fn(&RunFolder) -> Option<f64>| group.runs.iter().filter_map(of).collect::<Vec<f64>>();
        let seeds: Vec<String> = group.runs.iter().map(|run| run.seed.to_string()).collect();
        let mut seeds = seeds.join(", ");
        for state in [State::Running, State::Stopped, State::NotStarted] {
            match group.runs.iter().filter(|run| run.state == state).count() {
                0 => {}
                n => _ = write!(seeds, " <small>{n} {}</small>", state.name()),
            }
        }
        let _ = write!(text, "<tr><th>{}</th><td>{seeds}</td>", escape(&group.name));
        let mut cell = |content: String| _ = write!(text, "<td>{content}</td>");
        cell(count(mean(&values(&|run| Some(run.step as f64)))));
        cell(spread(&values(&RunFolder::mean_return), number));
        cell(spread(&values(&best_window), number));
        if evaluated {
            cell(spread(&values(&RunFolder::best_evaluation), number));
        }
        for level in levels {
            let reached = values(&|run| Some(run.windows().find(|(_, value)| value >= level)?.0 as f64));
            let of = if reached.len() < group.runs.len() {
                format!(" <small>{} of {}</small>", reached.len(), group.runs.len())
            } else {
                String::new()
            };
            cell(if reached.is_empty() { "–".into() } else { count(median(&reached)) + &of });
        }
        cell(spread(&values(&|run| Some(run.seconds() / 60.0)), number));
        cell(spread(&values(&RunFolder::steps_per_second), number));
        text += "</tr>";
    }
    text + "</tbody></table></div>"
}

/// What the numbers mean.
fn explanation(groups: &[Group], options: &Options) -> String {
    let mut text = "<p class=\"note\">Final return: the mean of the last 100 training episodes. Best return: the highest mean of 100 \
                    consecutive ones. Steps to a return: until that mean first reaches it"
        .to_string();
    if options.levels.is_empty() {
        text += "; the return is 90 % of the way from the lowest first mean to the best";
    }
    if groups.iter().any(|group| group.runs.len() > 1) {
        text += ". With several seeds, a line and a number are the mean, a band and small numbers the quartiles, and steps to a return \
                 the median of the seeds that reach it";
    }
    text + ".</p>"
}

/// The settings in which the groups differ; empty if there are none.
fn compared(groups: &[&Group]) -> String {
    let differences = differences(groups);
    if differences.is_empty() {
        return String::new();
    }
    let mut text = "<div class=\"scroll\"><table><thead><tr><th>setting</th>".to_string();
    groups.iter().for_each(|group| _ = write!(text, "<th>{}</th>", escape(&group.name)));
    text += "</tr></thead><tbody>";
    for (key, values) in differences {
        let _ = write!(text, "<tr><th>{}</th>", escape(&key));
        values.iter().for_each(|value| _ = write!(text, "<td>{}</td>", escape(value.as_deref().unwrap_or("–"))));
        text += "</tr>";
    }
    text + "</tbody></table></div>"
}

/// All settings of each group.
fn settings(groups: &[Group]) -> String {
    let mut text = "<section><h2>Settings</h2>".to_string();
    for group in groups {
        let settings = escape(&group.runs[0].config.to_string());
        let _ = write!(
            text,
            "<details><summary>All settings of {}</summary><pre>{settings}</pre></details>",
            escape(&group.name)
        );
    }
    text + "</section>"
}

/// The newest video of each run, and the videos that are left out.
fn videos(groups: &[Group]) -> Result<(String, Vec<PathBuf>)> {
    let (mut figures, mut left_out, mut total) = (String::new(), Vec::new(), 0);
    for run in runs(groups) {
        let Some(path) = run.videos().pop() else { continue };
        let size = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
        if size > LARGEST_VIDEO || total + size > ALL_VIDEOS {
            left_out.push(path);
            continue;
        }
        total += size;
        let data = BASE64.encode(&files::read(&path).map_err(Error::io("read", &path))?);
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let caption = escape(&format!("{}, seed {}: {file}, {}", run.name(), run.seed, bytes(size)));
        let _ = write!(
            figures,
            "<figure><img alt=\"an episode of {caption}\" src=\"data:image/gif;base64,{data}\"><figcaption>{caption}</figcaption></figure>"
        );
    }
    if figures.is_empty() && left_out.is_empty() {
        return Ok((figures, left_out));
    }
    let mut note = format!(
        "The newest video of each run; none above {}, all together at most {}.",
        bytes(LARGEST_VIDEO),
        bytes(ALL_VIDEOS)
    );
    if !left_out.is_empty() {
        let paths: Vec<_> = left_out.iter().map(|path| escape(&path.display().to_string())).collect();
        let _ = write!(note, " Left out: {}.", paths.join(", "));
    }
    let text =
        format!("<section><h2>Videos</h2><p class=\"note\">{note}</p><div class=\"videos\">{figures}</div></section>");
    Ok((text, left_out))
}

fn machines(groups: &[Group]) -> String {
    let mut machines: Vec<(String, usize)> = Vec::new();
    for run in runs(groups) {
        let recorded = Some(run.machines()).filter(|lines| !lines.is_empty());
        for machine in recorded.unwrap_or_else(|| vec!["not recorded (runs of an earlier version)".into()]) {
            match machines.iter_mut().find(|(known, _)| *known == machine) {
                Some((_, runs)) => *runs += 1,
                None => machines.push((machine, 1)),
            }
        }
    }
    let mut text = "<section><h2>Machine</h2><ul>".to_string();
    for (machine, runs) in &machines {
        let of = if machines.len() > 1 { format!(" <small>{runs} of the runs</small>") } else { String::new() };
        let _ = write!(text, "<li>{}{of}</li>", escape(machine));
    }
    text + "</ul></section>"
}

fn all_runs(groups: &[Group]) -> String {
    let mut text = "<section><h2>Runs</h2><div class=\"scroll\"><table><thead><tr><th>run</th><th>algorithm</th><th>environment</th>\
                    <th>seed</th><th>state</th><th>steps</th><th>final return</th><th>minutes</th><th class=\"text\">command</th></tr></thead><tbody>"
        .to_string();
    for run in runs(groups) {
        let score = run.mean_return().map_or("–".into(), number);
        let name = escape(&run.path.display().to_string());
        let (algorithm, env, state) = (escape(&run.algorithm), escape(&run.env), run.state.name());
        let (seed, steps, minutes) = (run.seed, count(run.step as f64), number(run.seconds() / 60.0));
        let commands = escape(&run.commands().join("\n"));
        let _ = write!(
            text,
            "<tr><th>{name}</th><td>{algorithm}</td><td>{env}</td><td>{seed}</td><td>{state}</td><td>{steps}</td><td>{score}</td>\
             <td>{minutes}</td><td class=\"text\"><code>{commands}</code></td></tr>"
        );
    }
    text + "</tbody></table></div></section>"
}

const STYLE: &str = "\
:root { color-scheme: light dark; --back: #fff; --ink: #24292f; --soft: #57606a; --line: #d0d7de; --panel: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171c; --ink: #e3e7ec; --soft: #9aa4af; --line: #343b44; --panel: #1c2128; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 72rem; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.2; }
h2 { margin: 2.2rem 0 .6rem; font-size: 1.25rem; }
header p, .note, figcaption, small { color: var(--soft); }
header p { margin: .3rem 0; }
.note, figcaption { font-size: .85rem; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: 0 0 .6rem; padding: 0; list-style: none; }
.swatch { display: inline-block; width: 1.1rem; height: .25rem; margin-right: .45rem; vertical-align: middle; border-radius: 2px; }
.charts, .videos { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
.videos { grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr)); }
figure { margin: 0; padding: .6rem; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; }
figure svg { display: block; width: 100%; height: auto; color: var(--soft); }
figure img { display: block; max-width: 100%; margin: 0 auto; }
figcaption { margin-top: .3rem; text-align: center; }
.scroll { margin-top: 1rem; overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child { padding-left: 0; }
th:first-child, .text { text-align: left; }
tbody th { font-weight: 600; }
td code { white-space: pre; }
summary { cursor: pointer; }
pre { padding: .8rem; overflow-x: auto; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; }
pre, code { font: .85rem/1.4 ui-monospace, monospace; }
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::group;
    use crate::run::tests::{settings, write};

    fn options() -> Options {
        Options { date: "2026-01-31".into(), window: 100, levels: Vec::new() }
    }

    fn read(dir: &std::path::Path, name: &str, settings: &str, returns: &[f64]) -> RunFolder {
        write(&dir.join(name), settings, returns);
        RunFolder::read(&dir.join(name)).unwrap()
    }

    /// The text of the cells of the table rows that begin with `<tr><th>{name}`.
    fn rows(page: &str, name: &str) -> Vec<Vec<String>> {
        let rows = page.split("<tr>").filter(|row| row.starts_with(&format!("<th>{name}</th>")));
        let cells =
            |row: &str| row.split("<td>").skip(1).map(|cell| cell.split("</td>").next().unwrap().to_string()).collect();
        rows.map(cells).collect()
    }

    #[test]
    fn the_results_are_those_of_the_runs() {
        let dir = tempfile::tempdir().unwrap();
        let ramp = |top: f64| (0..200).map(|i| top * (f64::from(i) / 100.0).min(1.0)).collect::<Vec<_>>();
        let toy = |seed, rate| settings("ppo", "Toy", seed, rate).replace("steps = 1000", "steps = 2000");
        let runs = vec![
            read(dir.path(), "a-1", &toy(1, 0.1), &ramp(10.0)),
            read(dir.path(), "a-2", &toy(2, 0.1), &ramp(20.0)),
            read(dir.path(), "b-1", &toy(1, 0.2), &ramp(4.0)[..150]),
        ];
        let (page, left_out) = html(&group(runs), &options()).unwrap();
        assert!(left_out.is_empty());
        // Means of 100: from 2 (of b's first) to 20 (the last of a-2), so the level is 2 + 0.9 · 18 = 18.2, rounded.
        assert!(page.contains("<th>steps to 18.2</th>"), "{page}");
        let a = &rows(&page, "rate = 0.1")[0];
        assert_eq!(a[..4], ["1, 2", "2k", "15 <small>12.5 to 17.5</small>", "15 <small>12.5 to 17.5</small>"]);
        // 100 episodes of 10 steps, then the mean of a-2 rises by 0.2 · (100 − i)/100 per episode.
        assert!(a[4].ends_with(" <small>1 of 2</small>"), "{a:?}");
        assert_eq!(a[5..], ["1.67", "20"]);
        let b = &rows(&page, "rate = 0.2")[0];
        assert_eq!((&*b[0], &*b[1], &*b[4]), ("1 <small>1 stopped</small>", "1.5k", "–"));
        assert_eq!(rows(&page, "ppo.rate"), [["0.1", "0.2"]]);
        assert!(page.contains("not recorded"));
        // Returns over steps and minutes; no evaluation.
        assert_eq!(page.matches("<svg ").count(), 2);
        assert!(!page.contains("best evaluation") && !page.contains("<h2>Videos"));
        assert!(!page.contains("<script") && !page.contains("http://www.w3.org/1999/xlink"));
    }

    #[test]
    fn names_are_text() {
        let dir = tempfile::tempdir().unwrap();
        let env = "<script>alert(\\\"x\\\")</script>&";
        let text = settings("ppo", "Toy", 1, 0.1).replace("'Toy'", &format!("\"{env}\""));
        let run = read(dir.path(), "<b>'x'", &text, &[1.0, 2.0]);
        fs::write(run.path.join("command.txt"), "playfield train '<i>'\n").unwrap();
        fs::write(run.path.join("machine.txt"), "2 cores of <u>\n").unwrap();
        let (page, _) = html(&[Group::new("<b>name", vec![run])], &options()).unwrap();
        for forbidden in ["<script", "<b>", "<i>", "<u>", "alert(\""] {
            assert!(!page.contains(forbidden), "{forbidden}: {page}");
        }
        for expected in ["&lt;script&gt;", "&lt;b&gt;name", "&lt;b&gt;&#39;x&#39;", "&lt;i&gt;", "2 cores of &lt;u&gt;"]
        {
            assert!(page.contains(expected), "{expected}: {page}");
        }
    }

    #[test]
    fn videos_are_embedded_up_to_a_size() {
        let dir = tempfile::tempdir().unwrap();
        let video = |name: &str, size: u64| {
            let run = read(dir.path(), name, &settings("ppo", "Toy", 1, 0.1), &[]);
            fs::create_dir_all(run.path.join("videos")).unwrap();
            fs::write(run.path.join("videos/000000000100.gif"), "old").unwrap();
            fs::write(run.path.join("videos/000000000900.gif"), vec![b'G'; size as usize]).unwrap();
            run
        };
        let mut runs: Vec<_> = (0..4).map(|i| video(&format!("a-{i}"), LARGEST_VIDEO)).collect();
        runs.push(video("large", LARGEST_VIDEO + 1));
        runs.push(video("beyond", 1));
        let (page, left_out) = html(&[Group::new("a", runs)], &options()).unwrap();
        assert_eq!(page.matches("src=\"data:image/gif;base64,R0dH").count(), 4);
        let names: Vec<_> = left_out.iter().map(|p| p.iter().rev().nth(2).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["large", "beyond"]);
        assert!(page.contains("none above 4 MB, all together at most 16 MB. Left out: "), "{}", page.len());
        assert!(page.contains("No episode has finished yet.") && !page.contains("class=\"charts\""));
    }
}
