//! The invariants of the house, asked of Cargo itself: who may know whom.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Every package of the workspace and all it depends on in a normal build, however far down.
fn dependencies(features: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--offline"]).args(features);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["id"].as_str().unwrap(), p["name"].as_str().unwrap()))
        .collect();
    let normal = |dep: &&Value| dep["dep_kinds"].as_array().unwrap().iter().any(|k| k["kind"].is_null());
    let direct: BTreeMap<&str, Vec<&str>> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            let deps = node["deps"].as_array().unwrap().iter().filter(normal).map(|d| d["pkg"].as_str().unwrap());
            (node["id"].as_str().unwrap(), deps.collect())
        })
        .collect();
    let members = metadata["workspace_members"].as_array().unwrap().iter().map(|m| m.as_str().unwrap());
    members
        .map(|member| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![member]);
            while let Some(id) = open.pop() {
                for &dep in &direct[id] {
                    if seen.insert(names[dep].to_string()) {
                        open.push(dep);
                    }
                }
            }
            (names[member].to_string(), seen)
        })
        .collect()
}

#[test]
fn who_knows_whom() {
    let known = dependencies(&[]);
    let knows = |who: &str, whom: &str| known[who].contains(whom);
    let plain = ["core", "wrappers", "replay", "kernels", "classic", "log"].map(|name| format!("playfield-{name}"));
    for plain in &plain {
        assert!(!knows(plain, "tch") && !knows(plain, "pyo3"), "{plain} must depend on neither libtorch nor Python");
    }
    for lowest in ["playfield-core", "playfield-kernels"] {
        let own: Vec<_> = known[lowest].iter().filter(|d| d.starts_with("playfield")).collect();
        assert!(own.is_empty(), "{lowest} must not depend on {own:?}");
    }
    for (package, deps) in &known {
        let python = deps.contains("pyo3");
        let may = ["playfield", "playfield-cli", "playfield-gymnasium"].contains(&package.as_str());
        assert!(!python || may, "{package}: Python stands behind envs/gymnasium alone");
    }
    let agents = ["playfield-a3c", "playfield-dqn", "playfield-paac"];
    for agent in agents.into_iter().chain(["playfield-actor-critic"]) {
        for stranger in
            ["playfield-classic", "playfield-gymnasium", "playfield-wrappers", "playfield-cli", "playfield-log"]
        {
            assert!(!knows(agent, stranger), "{agent} sees no {stranger}");
        }
        let others: Vec<_> = agents.iter().filter(|a| **a != agent && knows(agent, a)).collect();
        assert!(others.is_empty(), "{agent} sees another agent: {others:?}");
    }
}

/// The tricks are for anybody's network: they know layers and losses, and nobody who plays.
#[test]
fn tricks_know_no_player() {
    let known = dependencies(&[]);
    let own: Vec<_> = known["playfield-tricks"].iter().filter(|d| d.starts_with("playfield")).collect();
    assert_eq!(own, ["playfield-core", "playfield-kernels", "playfield-losses", "playfield-nn"]);
}

/// The lab measures with agents and small environments: it needs neither the command line nor Python.
#[test]
fn the_lab_stands_below_the_command_line() {
    let known = dependencies(&[]);
    for stranger in ["playfield-cli", "playfield-log", "playfield-gymnasium", "pyo3"] {
        assert!(!known["playfield-lab"].contains(stranger), "the lab sees {stranger}");
    }
}

/// Python stands behind a default feature: without it nothing of it is left.
#[test]
fn a_build_without_python_has_none() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--no-default-features",
            "-p",
            "playfield",
            "-e",
            "normal",
            "--prefix",
            "none",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && tree.contains("playfield-cli"), "{tree}");
    assert!(!tree.contains("pyo3") && !tree.contains("playfield-gymnasium"), "{tree}");
}

/// Libraries never print and never exit: the workspace's lints say so and every crate obeys them. The command line obeys them,
/// too: it prints through a module that cannot panic.
#[test]
fn nobody_prints_past_the_command_lines_output() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let lints = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for lint in ["print_stdout", "print_stderr", "exit"] {
        assert!(lints.contains(&format!("{lint} = \"deny\"")), "{lint}");
    }
    let mut manifests = Vec::new();
    for folder in ["crates", "crates/agents", "envs"] {
        manifests.extend(std::fs::read_dir(root.join(folder)).unwrap().map(|e| e.unwrap().path().join("Cargo.toml")));
    }
    let manifests: Vec<_> = manifests.into_iter().filter(|m| m.exists()).collect();
    assert!(manifests.len() >= 9);
    for manifest in manifests {
        let text = std::fs::read_to_string(&manifest).unwrap();
        assert!(text.contains("[lints]\nworkspace = true"), "{}", manifest.display());
        let library = manifest.with_file_name("src").join("lib.rs");
        let exempt = std::fs::read_to_string(&library).unwrap().contains("allow(clippy::print");
        assert!(!exempt, "{}", library.display());
    }
}
