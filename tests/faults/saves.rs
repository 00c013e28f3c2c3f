//! The process ends, or the disk is full, at each operation of a session that resumes a run and saves it.

use crate::campaign::{ALGORITHMS, Class, Finding, Group, Size, copy, files, program, with_fault};
use crate::common::{checkpoints, file};
use playfield::core::checkpoint::read;
use playfield::core::files::TEMPORARY;
use std::fs;
use std::path::Path;

/// The rows of the table.
pub fn class(size: Size) -> Vec<Class> {
    let class = |name, kind: &'static str| {
        let algorithms = ALGORITHMS.iter().filter(move |(name, _)| match (size, kind) {
            (Size::Full, _) => true,
            (Size::Selection, "kill") => *name == "dqn",
            (Size::Selection, _) => *name == "ppo",
        });
        let groups = algorithms.map(move |(name, config)| {
            Group::new(*name, move |folder, tally| {
                prepare(folder, config);
                let stride = if size == Size::Full { 1 } else { 9 };
                for operation in (stride..).step_by(stride) {
                    let run = folder.join("run");
                    let _ = fs::remove_dir_all(&run);
                    copy(&folder.join("saved"), &run);
                    let (ended, finding) = strike(folder, kind, operation);
                    tally.add(format!("operation {operation}"), finding);
                    if ended {
                        break;
                    }
                }
            })
        });
        Class { name, groups: groups.collect() }
    };
    vec![class("process ends at an operation of a save", "kill"), class("disk is full from an operation on", "full")]
}

/// A saved run of `config`.
fn prepare(folder: &Path, config: &str) {
    file(folder, "a.toml", config);
    let trained = program(folder, &["train", "a.toml", "--run-dir", "saved"]);
    assert_eq!(trained.status, Ok(0), "{}", trained.stderr);
}

/// Resumes the run with a fault, and then to later steps without. The first result: whether the session ended before the operation.
fn strike(folder: &Path, kind: &str, operation: usize) -> (bool, Finding) {
    let resume = ["train", "--resume", "run", "--steps", "96"];
    let hit = with_fault(folder, &resume, &format!("{kind}:{operation}"));
    if hit.status == Ok(0) {
        return (true, Ok(()));
    }
    let check = || {
        match kind {
            "kill" if hit.status == Err(6) && !hit.hung => {}
            "kill" => return Err(format!("it is not killed: {:?} {}", hit.status, hit.stderr)),
            _ => hit.has_code(&[2])?,
        }
        let saved = checkpoints(&folder.join("run"));
        let newest = saved.iter().rev().find_map(|path| read(path).ok());
        let step = newest.map(|snapshot| snapshot.step).ok_or("no checkpoint loads")?;
        if step < 60 {
            return Err(format!("the checkpoint is that of step {step}"));
        }
        program(folder, &["train", "--resume", "run", "--steps", "128"]).has_code(&[0])?;
        let left: Vec<_> = files(&folder.join("run")).into_iter().filter(|name| name.contains(TEMPORARY)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("unfinished files are left: {left:?}")) }
    };
    (false, check())
}
