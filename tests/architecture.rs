//! The allowed dependencies between crates, from Cargo's metadata.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Cargo's description of the workspace and of every crate that it uses on Linux: a fresh machine has downloaded no other.
fn metadata() -> Value {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--offline"]);
    cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Every package of the workspace and its transitive dependencies in a normal build.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
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
fn crates_depend_downward() {
    let graph = dependencies();
    let depends = |package: &str, on: &str| graph[package].contains(on);
    let plain = ["core", "collect", "wrappers", "replay", "kernels", "classic", "log", "report"];
    for plain in plain.map(|name| format!("playfield-{name}")) {
        assert!(!depends(&plain, "tch") && !depends(&plain, "pyo3"), "{plain} depends on libtorch or Python");
    }
    for lowest in ["playfield-core", "playfield-kernels"] {
        let own: Vec<_> = graph[lowest].iter().filter(|d| d.starts_with("playfield")).collect();
        assert!(own.is_empty(), "{lowest} depends on {own:?}");
    }
    for (package, deps) in &graph {
        let python = deps.contains("pyo3");
        let is_allowed = ["playfield", "playfield-cli", "playfield-gymnasium"].contains(&package.as_str());
        assert!(!python || is_allowed, "{package} depends on Python, which only envs/gymnasium may");
    }
    let agents = ["playfield-a3c", "playfield-dqn", "playfield-paac", "playfield-ppo"];
    for agent in agents.into_iter().chain(["playfield-actor-critic"]) {
        for forbidden in
            ["playfield-classic", "playfield-gymnasium", "playfield-wrappers", "playfield-cli", "playfield-log"]
        {
            assert!(!depends(agent, forbidden), "{agent} depends on {forbidden}");
        }
        let others: Vec<_> = agents.iter().filter(|a| **a != agent && depends(agent, a)).collect();
        assert!(others.is_empty(), "{agent} depends on another agent: {others:?}");
    }
}

/// The tricks work with any network: they depend on layers and losses, and on no agent.
#[test]
fn tricks_depend_on_no_agent() {
    let graph = dependencies();
    let own: Vec<_> = graph["playfield-tricks"].iter().filter(|d| d.starts_with("playfield")).collect();
    assert_eq!(own, ["playfield-core", "playfield-kernels", "playfield-losses", "playfield-nn"]);
}

/// The lab uses agents and small environments: it depends neither on the command line nor on Python.
#[test]
fn the_lab_does_not_depend_on_the_command_line() {
    let graph = dependencies();
    for forbidden in ["playfield-cli", "playfield-log", "playfield-gymnasium", "pyo3"] {
        assert!(!graph["playfield-lab"].contains(forbidden), "the lab depends on {forbidden}");
    }
}

/// Dependencies are from crates.io, under the licenses that `deny.toml` allows; none of those that it denies is among them.
/// (`make audit` checks the same and known vulnerabilities with cargo-deny, whose build takes longer than many of the tests.)
#[test]
fn dependencies_have_allowed_licenses_and_sources() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    let deny: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    let allowed = deny["licenses"]["allow"].as_array().unwrap();
    let denied = deny["bans"]["deny"].as_array().unwrap();
    let is_allowed = |license: &str| allowed.iter().any(|l| l.as_str() == Some(license.trim_matches(['(', ')', ' '])));
    for package in metadata()["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let license = package["license"].as_str().unwrap_or_else(|| panic!("{name} has no license"));
        // An SPDX expression; some old crates write `/` instead of `OR`.
        let accepted = license.replace('/', " OR ");
        let accepted = accepted.split(" AND ").all(|part| part.split(" OR ").any(is_allowed));
        assert!(accepted, "{name}: {license}");
        let source = package["source"].as_str();
        let registry = "registry+https://github.com/rust-lang/crates.io-index";
        assert!(source.is_none_or(|source| source == registry), "{name}: {source:?}");
        assert!(denied.iter().all(|entry| entry["crate"].as_str() != Some(name)), "{name} is denied");
    }
}

/// Python is a default feature: without it no dependency on Python is left.
#[test]
fn a_build_without_the_feature_has_no_python() {
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

/// Libraries never print and never exit: every crate inherits the workspace's lints, without an exception. The command line
/// does, too: it prints through a module that cannot panic.
#[test]
fn libraries_do_not_print() {
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
