//! The steps of docs/add-a-layer-or-a-trick.md: its code is the code of the files that it names, and its commands run.

use crate::common::{file, playfield, stderr};
use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../docs/add-a-layer-or-a-trick.md");

/// The part of the page with this heading.
fn part(heading: &str) -> &'static str {
    PAGE.split("\n## ").find(|part| part.starts_with(heading)).unwrap()
}

/// The contents of the code blocks of `language`.
fn blocks(part: &'static str, language: &str) -> Vec<&'static str> {
    let start = format!("```{language}\n");
    part.split(start.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

fn source(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Without indentation.
fn plain(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}

/// Each snippet is part of one of the files; `…` stands for lines that are left out.
fn is_code_of(part: &'static str, files: &[&str]) {
    let sources: Vec<_> = files.iter().map(|file| plain(&source(file))).collect();
    let snippets = blocks(part, "rust");
    assert!(snippets.len() >= 5);
    for piece in snippets.iter().flat_map(|snippet| snippet.split('…')).map(|piece| plain(piece.trim())) {
        assert!(sources.iter().any(|source| source.contains(&piece)), "not in {files:?}:\n{piece}");
    }
}

/// Runs the commands of the page and returns what they print.
fn run(part: &'static str, folder: &Path) -> Vec<String> {
    let commands = blocks(part, "sh").into_iter().flat_map(str::lines).filter_map(|l| l.strip_prefix("playfield "));
    let run = |command: &str| {
        let output = playfield(folder, &command.split(' ').collect::<Vec<_>>()).output().unwrap();
        assert!(output.status.success(), "{command}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    commands.map(run).collect()
}

#[test]
fn the_steps_of_a_layer_run() {
    let layer = part("A layer");
    let noisy = "crates/nn/src/layers/noisy.rs";
    is_code_of(layer, &[noisy, "crates/nn/src/layers/mod.rs", "crates/nn/src/networks/q_network.rs"]);
    // The command of the tests selects those of this file.
    assert!(blocks(layer, "sh")[0].trim() == "cargo test -p playfield-nn noisy" && source(noisy).contains("#[test]"));
    let dir = tempfile::tempdir().unwrap();
    let config = "configs/dqn/cartpole.toml";
    fs::create_dir_all(dir.path().join("configs/dqn")).unwrap();
    file(dir.path(), config, &source(config));
    assert_eq!(run(layer, dir.path()).len(), 2);
    let resolved = fs::read_to_string(dir.path().join("runs/dqn-cartpole-1/config.toml")).unwrap();
    assert!(resolved.contains("noisy_sigma = 0.5"), "{resolved}");
}

#[test]
fn the_steps_of_a_trick_run() {
    let trick = part("A trick");
    let files = ["lab/src/tricks/log_softmax.rs", "lab/src/tricks/mod.rs", "losses/src/softmax.rs"];
    is_code_of(trick, &files.map(|file| format!("crates/{file}")).each_ref().map(String::as_str));
    let dir = tempfile::tempdir().unwrap();
    let said = run(trick, dir.path());
    assert!(said[0].contains("large_logits_stay_finite") && said[1].contains("4 seeds in"), "{said:?}");
    assert!(dir.path().join("tricks/log-softmax.svg").exists());
}
