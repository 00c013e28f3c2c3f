//! The lab from the command line.

use crate::common::{refuses, succeeds};

#[test]
fn a_trick_is_listed_explained_and_measured() {
    let dir = tempfile::tempdir().unwrap();
    let list = succeeds(dir.path(), &["trick", "list"]);
    assert!(list.contains(" 1  init ") && list.contains("28  fold "), "{list}");
    let shown = succeeds(dir.path(), &["trick", "show", "log-softmax"]);
    assert!(shown.contains("crates/losses/src/softmax.rs: large_logits_stay_finite"), "{shown}");

    let said = succeeds(dir.path(), &["trick", "run", "log-softmax", "--seeds", "4"]);
    assert!(said.contains("4 seeds in") && said.contains("helps, here (p = 0.029)"), "{said}");
    let written = |ending| std::fs::read(dir.path().join(format!("tricks/log-softmax.{ending}"))).unwrap();
    assert!(written("svg").starts_with(b"<svg") && written("png").starts_with(b"\x89PNG"));

    let json = succeeds(dir.path(), &["trick", "run", "log-softmax", "--seeds", "4", "--json", "--out", "elsewhere"]);
    let outcome: serde_json::Value = serde_json::from_str(&json).unwrap();
    let fused = outcome["variants"].as_array().unwrap().iter().find(|v| v["name"] == "log-softmax").unwrap();
    assert_eq!(fused["values"].as_array().unwrap().len(), 4);
    assert_eq!(fused["verdict"][0], "helps");
    // The same seeds give the same values.
    let first: serde_json::Value = serde_json::from_slice(&written("json")).unwrap();
    assert_eq!(first["variants"], outcome["variants"]);
}

#[test]
fn unknown_tricks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let said = refuses(dir.path(), &["trick", "run", "log-softmacks"]);
    assert!(said.contains("did you mean 'log-softmax'?"), "{said}");
    let said = refuses(dir.path(), &["trick", "show", "zzzz"]);
    assert!(said.contains("unknown trick 'zzzz'") && said.contains("playfield trick list"), "{said}");
    refuses(dir.path(), &["trick", "run", "log-softmax", "--seeds", "0"]);
    crate::common::file(dir.path(), "taken", "");
    let said = refuses(dir.path(), &["trick", "run", "log-softmax", "--seeds", "1", "--out", "taken"]);
    assert!(said.contains("taken"), "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was written");
}
