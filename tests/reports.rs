//! The list of runs, plots and reports.

use crate::common::{CARTPOLE, browser, file, playfield, refuses, stderr, succeeds};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Trains CartPole with `settings` added, as `runs/{name}`.
fn train(dir: &Path, name: &str, settings: &[&str]) {
    file(dir, "pole.toml", &CARTPOLE.replace("4000", "800"));
    let run = format!("runs/{name}");
    let mut args = vec!["train", "pole.toml", "--run-dir", &run];
    settings.iter().for_each(|set| args.extend(["--set", *set]));
    succeeds(dir, &args);
}

/// The line of a run in the table.
fn line<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.unwrap_or_else(|| panic!("no line of {name}: {table}")).split_whitespace().collect()
}

#[test]
fn runs_are_listed_with_their_state() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let said = refuses(dir, &["runs"]);
    assert!(said.contains("the folder runs does not exist: train first (playfield train CONFIG)"), "{said}");
    train(dir, "done-2", &["seed=2"]);
    assert!(succeeds(dir, &["runs", "runs/done-2/checkpoints"]).starts_with("no runs in"));
    train(dir, "evaluated", &["eval.every_steps=400", "eval.episodes=2"]);

    // A run in another process: running, then stopped.
    let args = ["train", "pole.toml", "--steps", "1000M", "--run-dir", "runs/long", "--set", "log_seconds=0.05"];
    let child = playfield(dir, &args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let rows = || fs::read_to_string(dir.join("runs/long/progress.csv")).map_or(0, |text| text.lines().count());
    while rows() < 3 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let running = succeeds(dir, &["runs"]);
    assert_eq!(line(&running, "long")[6..8], ["running", "0%"], "{running}");
    assert!(Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));

    let copy = |name: &str, files: &[&str]| {
        fs::create_dir(dir.join("runs").join(name)).unwrap();
        let of = |file: &&str| fs::copy(dir.join("runs/done-2").join(file), dir.join("runs").join(name).join(file));
        files.iter().for_each(|file| _ = of(file).unwrap());
    };
    copy("new", &["config.toml", ".lock"]);
    copy("damaged-a", &["config.toml", "episodes.csv"]);
    fs::write(dir.join("runs/damaged-a/episodes.csv"), "step,time,return,length\n1,x,3,4\n").unwrap();
    copy("damaged-b", &["episodes.csv"]);
    copy("damaged-c", &["config.toml", ".lock"]);
    fs::write(dir.join("runs/damaged-c/config.toml"), "algorithm = 'a'\nsecond line\n").unwrap();
    copy("foreign", &["config.toml"]);
    fs::write(dir.join("runs/a file"), "").unwrap();

    let table = succeeds(dir, &["runs"]);
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert_eq!(line(&table, "run"), ["run", "algo", "env", "seed", "steps", "score", "state", "size"]);
    let done = line(&table, "done-2");
    assert_eq!((&done[..5], done[6]), (&["done-2", "paac", "CartPole", "2", "800"][..], "finished"), "{table}");
    assert_eq!(line(&table, "long")[6..8], ["stopped", "0%"], "{table}");
    assert_eq!(line(&table, "new")[4..8], ["0", "-", "not", "started"], "{table}");
    assert!(table.contains("damaged: episodes.csv: row 1: 'x' is not a number"), "{table}");
    assert!(table.contains("damaged: contains no run: config.toml is missing"), "{table}");
    assert!(table.contains("damaged: config.toml: line 2: "), "{table}");
    assert!(!table.contains("foreign") && !table.contains("a file"), "{table}");
    assert_eq!(table.lines().count(), 8, "{table}");

    let json = succeeds(dir, &["runs", "--json", "--sort", "score"]);
    let runs: Value = serde_json::from_str(&json).unwrap();
    let runs = runs["runs"].as_array().unwrap();
    let run = |name: &str| runs.iter().find(|run| run["name"] == name).unwrap();
    let episodes = fs::read_to_string(dir.join("runs/done-2/episodes.csv")).unwrap();
    let returns: Vec<f64> = episodes.lines().skip(1).map(|l| l.split(',').nth(2).unwrap().parse().unwrap()).collect();
    let mean = returns.iter().sum::<f64>() / returns.len() as f64;
    assert!(returns.len() <= 100 && (run("done-2")["score"].as_f64().unwrap() - mean).abs() < 1e-9, "{json}");
    let evaluated = run("evaluated");
    assert!(evaluated["best_evaluation"].is_f64() && evaluated["score"] == evaluated["best_evaluation"], "{json}");
    assert!(run("damaged-c")["error"].is_string() && run("damaged-c")["state"] == "damaged", "{json}");
    assert_eq!(run("long")["total_steps"], 1_000_000_000);
    let scores: Vec<_> = runs.iter().filter_map(|run| run["score"].as_f64()).collect();
    assert!(scores.len() == 3 && scores.is_sorted_by(|a, b| a >= b), "{json}");
    assert_eq!(runs.last().unwrap()["state"], "damaged");
}

/// Removes the episodes and metrics of a copy of `runs/{name}`.
fn empty_copy(dir: &Path, name: &str, copy: &str) {
    fs::create_dir(dir.join("runs").join(copy)).unwrap();
    let config = Path::new("config.toml");
    fs::copy(dir.join("runs").join(name).join(config), dir.join("runs").join(copy).join(config)).unwrap();
}

#[test]
fn learning_curves_are_plotted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    train(dir, "a-1", &["seed=1"]);
    train(dir, "a-2", &["seed=2"]);
    train(dir, "b-1", &["gamma=0.9"]);
    empty_copy(dir, "a-1", "empty");
    let svg = |args: &[&str]| {
        let said = succeeds(dir, &[&["plot"], args, &["--out", "x.svg"]].concat());
        assert_eq!(said, "plot       x.svg\n");
        fs::read_to_string(dir.join("x.svg")).unwrap()
    };
    let one = svg(&["runs/a-1"]);
    assert!(
        one.contains("CartPole: mean return of the last 100 training episodes") && one.contains("\na-1\n"),
        "{one}"
    );
    assert!(!one.contains("<polygon"), "a single run has no band");
    let two = svg(&["runs/a-1", "runs/a-2", "runs/a-1"]);
    assert!(two.contains("\na, 2 seeds\n") && two.matches("<polygon").count() == 1, "{two}");
    let three = svg(&["runs/a-2", "runs/a-1", "runs/b-1", "--minutes", "--level", "-5", "--window", "1"]);
    for expected in ["gamma = 0.99, 2 seeds", "gamma = 0.9\n", "minutes of training", "return of training episodes"] {
        assert!(three.contains(expected), "{expected}: {three}");
    }
    assert!(three.matches("<polyline").count() > two.matches("<polyline").count() + 50, "the level is dashed: {three}");
    let named = svg(&["x & y=runs/a-1,runs/b-1", "runs/a-2", "--column", "train/n_updates"]);
    for expected in ["x &amp; y, 2 seeds", "\na-2\n", "CartPole: train/n_updates"] {
        assert!(named.contains(expected), "{expected}: {named}");
    }
    succeeds(dir, &["plot", "runs/a-1", "--out", "new/x.png"]);
    assert!(fs::read(dir.join("new/x.png")).unwrap().starts_with(b"\x89PNG"));

    // A run without episodes is left out, or there is nothing to plot.
    let output = playfield(dir, &["plot", "runs/a-2", "runs/empty"]).output().unwrap();
    assert!(output.status.success() && stderr(&output).contains("runs/empty is left out: no episode has finished"));
    assert!(dir.join("plot.svg").exists());
    for (args, expected) in [
        (&["runs/empty"][..], "nothing to plot yet: no episode has finished in runs/empty"),
        (&["runs/empty", "--column", "train/loss"], "nothing to plot yet: progress.csv is empty"),
        (
            &["runs/a-1", "--column", "train/los"],
            "the run has no column 'train/los' in progress.csv; similar columns are train/loss",
        ),
        (&["runs/a-1", "--column", "entropy"], "similar columns are train/entropy_loss"),
        (&["runs/a-1", "--column", "xyzzy"], "the columns are time/total_timesteps, time/time_elapsed, "),
        (&["runs/a-1", "--out", "x.pdf"], "--out x.pdf: the name of a plot must end in .svg or .png"),
        (&["runs/a-3"], "the run runs/a-3 does not exist; did you mean 'a-1'?"),
        (&["runs"], "runs contains no run: config.toml is missing"),
    ] {
        let said = refuses(dir, &[&["plot"], args].concat());
        assert!(said.contains(expected), "{expected}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// Two groups, one of them with a video and a name that is markup, and an evaluation.
fn report(dir: &Path) -> String {
    train(dir, "a-1", &["seed=1", "eval.every_steps=400", "eval.episodes=2"]);
    train(dir, "a-2", &["seed=2", "eval.every_steps=400", "eval.episodes=2"]);
    train(dir, "b", &["gamma=0.9"]);
    fs::create_dir(dir.join("runs/b/videos")).unwrap();
    // The smallest GIF: one transparent pixel.
    let gif = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";
    fs::write(dir.join("runs/b/videos/000000000800.gif"), gif).unwrap();
    let said = succeeds(dir, &["report", "runs/a-1", "runs/a-2", "<script>alert(1)</script>=runs/b,runs/b"]);
    assert!(said.contains("report     report.html, ") && said.contains("content    4 runs in 2 groups"), "{said}");
    fs::read_to_string(dir.join("report.html")).unwrap()
}

#[test]
fn a_report_is_one_file_with_curves_results_and_settings() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let page = report(dir);
    let expected = [
        "<h1>CartPole</h1>",
        "a, 2 seeds",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "<th>best evaluation</th>",
        "<th>paac.gamma</th><td>0.99</td><td>0.9</td>",
        "<th>eval.every_steps</th><td>400</td><td>0</td>",
        "data:image/gif;base64,R0lGODlh",
        "prefers-color-scheme: dark",
        "All settings of a<",
        " cores of ",
        "libtorch 2.",
        "<code>",
    ];
    for expected in expected {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    // Returns and evaluations, each over steps and minutes; one video, the newest of each run.
    assert_eq!((page.matches("<svg ").count(), page.matches("<img ").count()), (4, 2));
    assert!(!page.contains("<script") && !page.contains("<link rel=\"stylesheet\"") && !page.contains("@import"));
    let addresses = page.split("http").skip(1).filter(|rest| !rest.starts_with("://www.w3.org/2000/svg\""));
    assert_eq!(addresses.count(), 0, "no address but the namespace of SVG");
    // Every element is closed.
    for element in
        ["section", "table", "tr", "th", "td", "figure", "svg", "details", "pre", "ul", "li", "div", "p", "h2"]
    {
        let (open, close) = (
            page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count(),
            page.matches(&format!("</{element}>")).count(),
        );
        assert_eq!(open, close, "{element}");
    }
    let said = refuses(dir, &["report", "x=runs/a-1,runs/c"]);
    assert!(said.contains("the run runs/c does not exist"), "{said}");
}

/// In a browser, on a screen and on a phone: no console error, every chart and video drawn, nothing wider than the page.
#[test]
#[expect(clippy::print_stderr, reason = "says why the test is skipped")]
fn a_report_is_drawn_by_a_browser() {
    let Some(browser) = browser() else {
        eprintln!("skipped: no chromium or google-chrome is installed");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let page = report(dir);
    let probe = "<script>addEventListener('load', () => {
        const all = [...document.querySelectorAll('svg, img')];
        const drawn = all.filter(e => e.getBoundingClientRect().width > 100 || e.naturalWidth === 1);
        const lines = all.filter(e => e.querySelectorAll('polyline[stroke-width=\"4\"]').length > 0);
        parent.postMessage([innerWidth, document.documentElement.scrollWidth, drawn.length, lines.length].join(' '), '*');
    })</script></body>";
    file(dir, "probe.html", &page.replace("</body>", probe));
    for width in [1200, 390] {
        // A frame may be narrower than the narrowest window of the browser.
        let outer = format!(
            "<!DOCTYPE html><link rel='icon' href='data:,'><iframe src='probe.html' style='border: 0; width: {width}px'></iframe>
             <script>addEventListener('message', e => document.title = e.data)</script>"
        );
        let outer = file(dir, "outer.html", &outer);
        let mut command = Command::new(&browser);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1300,900"]);
        command.args(["--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom"]);
        command.arg(format!("--user-data-dir={}", dir.join("profile").display()));
        let output = command.arg(format!("file://{}", outer.display())).output().unwrap();
        let (dom, said) = (String::from_utf8_lossy(&output.stdout), stderr(&output));
        assert!(!said.contains("CONSOLE"), "{said}");
        let title = dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
        assert_eq!(title, Some(&*format!("{width} {width} 6 4")), "{said}");
    }
}

/// A reader that closes the pipe is not an error.
#[test]
fn a_closed_pipe_ends_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    train(dir, "a", &[]);
    for command in ["runs", "runs --json", "plot runs/a", "report runs/a"] {
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("set -o pipefail; \"$playfield\" {command} | true")]).current_dir(dir);
        let output = bash.env("playfield", env!("CARGO_BIN_EXE_playfield")).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{command}: {}", stderr(&output));
    }
}
