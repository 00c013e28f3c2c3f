//! The steps of docs/add-an-environment.md: its commands run, and its code is the code of the examples. The crate in Rust is compiled
//! and run by its own tests.

use crate::common::{file, playfield, stderr};
use std::fs;
use std::path::Path;
use std::process::Command;

const PAGE: &str = include_str!("../docs/add-an-environment.md");

/// The contents of the code blocks of `language` in the part of the page for Python or Rust.
fn blocks(part: &str, language: &str) -> Vec<&'static str> {
    let part = PAGE.split("\n## In ").find(|text| text.starts_with(part)).unwrap();
    let start = format!("```{language}\n");
    let starts = part.match_indices(start.as_str()).map(|(at, _)| &part[at + start.len()..]);
    starts.map(|rest| rest.split("```").next().unwrap()).collect()
}

fn example(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("envs/examples").join(path)).unwrap()
}

#[cfg(feature = "python")]
#[test]
fn the_steps_in_python_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (language, name) in [("python", "corridor.py"), ("toml", "config.toml")] {
        let [text] = blocks("Python", language)[..] else { panic!("one block of {language}") };
        assert_eq!(text, example(&format!("python/{name}")), "{name}");
        file(dir, name, text);
    }
    let run = |line: &str| {
        let args: Vec<_> = line.strip_prefix("playfield ").expect(line).split(' ').collect();
        let output = playfield(dir, &args).output().unwrap();
        assert!(output.status.success(), "{line}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let lines: Vec<_> = blocks("Python", "sh").into_iter().flat_map(str::lines).collect();
    assert_eq!(lines.len(), 5);
    let said: Vec<_> = lines.iter().map(|line| run(line)).collect();
    // The page shows the report of the check, whose speed differs.
    let [shown] = blocks("Python", "text")[..] else { panic!("one report") };
    let fixed = |text: &str| text.lines().filter(|l| !l.contains("speed")).map(str::to_string).collect::<Vec<_>>();
    assert_eq!(fixed(&said[0]), fixed(shown));
    // Six to eleven steps from the start to the end: 1 − 0.1 for each but the last.
    let returns = said[2].lines().find_map(|line| line.strip_prefix("return ")).unwrap();
    let mean: f64 = returns.split_whitespace().next().unwrap().parse().unwrap();
    assert!((0.0..=0.5).contains(&mean), "{}", said[2]);
    assert!(fs::read_dir(dir.join("runs/corridor/videos")).unwrap().count() == 1);
}

/// The copied example refers to this repository; its code is that of the page.
#[test]
fn the_steps_in_rust_are_those_of_the_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("corridor");
    fs::create_dir_all(copy.join(".cargo")).unwrap();
    for name in ["Cargo.toml", ".cargo/config.toml"] {
        fs::write(copy.join(name), example(&format!("rust/{name}"))).unwrap();
    }
    let [copying, running] = blocks("Rust", "sh")[..] else { panic!("two blocks") };
    let replace = copying.lines().find(|line| line.starts_with("sed ")).unwrap();
    let replace = replace.replace("../corridor", copy.to_str().unwrap());
    assert!(Command::new("sh").args(["-c", &replace]).current_dir(root).status().unwrap().success());
    let manifest: toml::Table = fs::read_to_string(copy.join("Cargo.toml")).unwrap().parse().unwrap();
    let path = |value: &toml::Value| Path::new(value.as_str().unwrap()).canonicalize().unwrap();
    assert_eq!(path(&manifest["dependencies"]["playfield"]["path"]), root.canonicalize().unwrap());
    let config: toml::Table = fs::read_to_string(copy.join(".cargo/config.toml")).unwrap().parse().unwrap();
    assert!(path(&config["env"]["LIBTORCH"]["value"]).join("lib").exists());
    assert!(path(&config["env"]["PYO3_PYTHON"]["value"]).exists());

    let sources = ["rust/src/corridor.rs", "rust/src/main.rs"].map(example);
    let plain = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    for snippet in blocks("Rust", "rust") {
        // `…` stands for lines that are left out.
        for part in snippet.split('…').map(|part| plain(part.trim())) {
            assert!(sources.iter().any(|source| plain(source).contains(&part)), "{part}");
        }
    }
    assert!(running.lines().all(|line| line.starts_with("cargo run --release -- ")), "{running}");
}
