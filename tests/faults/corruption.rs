//! Each file of a run is damaged, one at a time; then the run is evaluated, listed, reported and resumed.

use crate::campaign::{ALGORITHMS, Class, Finding, Group, Size, copy, files, program, random};
use crate::common::file;
use std::fs;
use std::path::Path;

/// The damaged content, from the content and a random number; `None` removes the file.
type Damage = fn(Vec<u8>, usize) -> Option<Vec<u8>>;

/// The kinds of damage.
const DAMAGES: [(&str, Damage); 6] = [
    ("one bit", |mut bytes, at| {
        let len = 8 * bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at % len / 8) {
            *byte ^= 1 << (at % 8);
        }
        Some(bytes)
    }),
    ("another byte", |mut bytes, at| {
        let len = bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at % len) {
            *byte = (at / len) as u8;
        }
        Some(bytes)
    }),
    ("truncated", |bytes, at| Some(bytes[..at % (bytes.len() + 1)].to_vec())),
    ("zeros", |bytes, _| Some(vec![0; bytes.len()])),
    ("empty", |_, _| Some(Vec::new())),
    ("removed", |_, _| None),
];

/// The row of the table.
pub fn class(size: Size) -> Vec<Class> {
    let algorithms = ALGORITHMS.iter().enumerate().filter(move |(_, (name, _))| size == Size::Full || *name == "dqn");
    let groups = algorithms.map(|(number, (name, config))| {
        Group::new(*name, move |folder, tally| {
            file(folder, "a.toml", config);
            for args in [
                &["train", "a.toml", "--run-dir", "saved"][..],
                &["train", "--resume", "saved", "--steps", "96"],
                &["train", "--resume", "saved", "--steps", "128"],
            ] {
                program(folder, args).has_code(&[0]).unwrap();
            }
            let evaluation = evaluate(folder, "saved").1;
            let all = files(&folder.join("saved"));
            let tries = all.iter().flat_map(|name| DAMAGES.iter().map(move |damage| (name, damage)));
            let tries = tries.filter(|(name, _)| *name != ".lock").enumerate();
            for (i, (name, (kind, damage))) in tries.filter(|(i, _)| size == Size::Full || i % 23 == 7) {
                let run = folder.join("run");
                let _ = fs::remove_dir_all(&run);
                copy(&folder.join("saved"), &run);
                let path = run.join(name);
                match damage(fs::read(&path).unwrap(), random("damage", 1000 * number + i, usize::MAX)) {
                    Some(bytes) => fs::write(&path, bytes).unwrap(),
                    None => fs::remove_file(&path).unwrap(),
                }
                tally.add(format!("{name}, {kind}"), use_run(folder, name, &evaluation));
            }
        })
    });
    vec![Class { name: "a file of a run is damaged", groups: groups.collect() }]
}

/// Its messages, and its results.
fn evaluate(folder: &Path, run: &str) -> (Result<String, String>, String) {
    let ended = program(folder, &["eval", run, "--episodes", "2", "--json"]);
    (ended.is_graceful().map(|()| ended.stderr.clone()), ended.stdout)
}

fn use_run(folder: &Path, damaged: &str, evaluation: &str) -> Finding {
    let (messages, results) = evaluate(folder, "run");
    let messages = messages.map_err(|what| format!("eval: {what}"))?;
    // Another setting may be as good as the one that was saved.
    let is_silent = !messages.contains("skipped") && damaged != "config.toml";
    if is_silent && !results.is_empty() && results != evaluation {
        return Err(format!("eval: other returns without a warning: {results}"));
    }
    for args in [
        &["runs", "."][..],
        &["report", "run", "--out", "report.html"],
        &["train", "--resume", "run", "--steps", "160"],
        &["eval", "run", "--episodes", "1"],
    ] {
        program(folder, args).is_graceful().map_err(|what| format!("{}: {what}", args[0]))?;
    }
    Ok(())
}
