//! The steps of docs/add-an-algorithm.md: its commands run, and its code is the code of this crate.

use std::fs;
use std::path::Path;
use std::process::Command;

const PAGE: &str = include_str!("../../../../docs/add-an-algorithm.md");

/// The contents of the page's code blocks of `language`.
fn blocks(language: &str) -> Vec<&'static str> {
    let start = format!("```{language}\n");
    PAGE.split(start.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

fn playfield(dir: &Path, arguments: &str) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_corridor")).args(arguments.split(' ')).current_dir(dir).output().unwrap();
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "{arguments}: {stdout}{stderr}");
    stdout
}

#[test]
fn the_commands_of_the_page_run() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy("hill_climb.toml", dir.path().join("hill_climb.toml")).unwrap();
    let commands: Vec<&str> = blocks("sh").concat().leak().lines().collect();
    assert!(commands.len() >= 4);
    for command in &commands {
        let arguments = command.split('#').next().unwrap().trim().strip_prefix("cargo run --release -- ").unwrap();
        playfield(dir.path(), arguments);
    }
    let run = dir.path().join("runs/hill_climb-cartpole-1");
    let csv = fs::read_to_string(run.join("progress.csv")).unwrap();
    let header = csv.lines().next().unwrap();
    assert!(header.contains("hill_climb/best_return") && header.contains("eval/mean_reward"), "{header}");
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(
        config.contains("[hill_climb]") && config.contains("episodes = 4") && config.contains("steps = 30000"),
        "{config}"
    );
    let event_file =
        fs::read_dir(&run).unwrap().map(|e| e.unwrap().path()).find(|p| p.to_string_lossy().contains("tfevents"));
    let events = fs::read(event_file.unwrap()).unwrap();
    let holds = |text: &str| events.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("hill_climb/best_return") && holds("mean return of the best candidate so far"));

    // An interrupted run equals a whole one.
    playfield(dir.path(), "train hill_climb.toml --steps 30000 --run-dir whole");
    let eval = |run: &str| playfield(dir.path(), &format!("eval {run} --episodes 10 --deterministic --json"));
    assert_eq!(eval("whole"), eval("runs/hill_climb-cartpole-1"));
    let report: serde_json::Value = serde_json::from_str(&eval("whole")).unwrap();
    assert!(report["mean_return"].as_f64().unwrap() > 150.0, "{report}");
}

#[test]
fn the_code_of_the_page_is_the_code_of_the_crate() {
    let sources = ["src/hill_climb.rs", "src/main.rs", "hill_climb.toml"].map(|path| fs::read_to_string(path).unwrap());
    let plain = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let snippets = [blocks("rust"), blocks("toml")].concat();
    assert!(snippets.len() >= 4);
    for snippet in snippets {
        // `…` stands for lines that are left out.
        for part in snippet.split('…').map(|part| plain(part.trim())) {
            assert!(sources.iter().any(|source| plain(source).contains(&part)), "{part}");
        }
    }
    assert!(sources[0].lines().count() < 150);
}
