//! Environments in processes of their own: which programs these are, and what Ctrl-C does to them. Linux's `/proc` tells.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "the part that is interrupted says how far it has come")]

mod common;

use common::{config, python};
use playfield_core::{Actions, EnvSource, StepBatch, VecEnv, rng};
use playfield_gymnasium::GymSource;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ENVS: usize = 3;
/// Tells this program, started by itself, which part to play.
const PART: &str = "PLAYFIELD_TEST_PART";

fn processes() -> (Box<dyn VecEnv>, StepBatch) {
    python();
    let source = GymSource::new("CartPole-v1");
    let config = config(&source, "CartPole-v1", "vectorisation = 'async'");
    let mut vec = source.batch(&config, &rng::seeds(1, "env", ENVS)).unwrap().unwrap();
    let mut batch = StepBatch::new(vec.spec(), ENVS);
    vec.reset(&mut batch).unwrap();
    (vec, batch)
}

/// Every process of process group `group`, as `(id, program)`, zombies left out.
fn group(group: u32) -> Vec<(u32, PathBuf)> {
    let ids = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect();
        (fields[2].parse() == Ok(group) && fields[0] != "Z")
            .then(|| std::fs::read_link(format!("/proc/{id}/exe")).ok().map(|exe| (id, exe)))?
    })
    .collect()
}

/// The parts that this program plays when a test starts it again; as a test of its own it does nothing.
#[test]
fn part() {
    let Ok(part) = std::env::var(PART) else { return };
    let interrupted = Arc::new(AtomicBool::new(false));
    if part == "handles" {
        signal_hook::flag::register(2, interrupted.clone()).unwrap();
    }
    let (mut vec, mut batch) = processes();
    let ours = std::env::current_exe().unwrap();
    let found = group(std::process::id());
    let (playfields, pythons): (Vec<_>, Vec<_>) = found.iter().partition(|(_, exe)| *exe == ours);
    assert_eq!(playfields.len(), 1, "{found:?}");
    assert!(
        pythons.len() >= ENVS && pythons.iter().all(|(_, exe)| exe.to_string_lossy().contains("python")),
        "{found:?}"
    );
    println!("\nready");
    let (start, actions) = (Instant::now(), Actions::Discrete(vec![1; ENVS]));
    let mut after = 0;
    while start.elapsed() < Duration::from_secs(60) && after < 500 {
        vec.step(&actions, &mut batch).unwrap();
        after += usize::from(interrupted.load(Ordering::Relaxed));
    }
    assert_eq!(after, 500, "no signal arrived");
    println!("went on");
}

/// Starts a part in a process group of its own, sends SIGINT to the whole group as a terminal does, and waits for
/// everything to end: how it ended, and what it wrote.
fn interrupt(part: &str) -> (ExitStatus, String, String) {
    // A shell starts what runs in its background with SIGINT ignored, and that is inherited: back to the default first.
    let mut child = Command::new("env")
        .arg("--default-signal=INT")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "part", "--nocapture"])
        .env(PART, part)
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    while said.lines().last() != Some("ready") {
        assert_ne!(out.read_line(&mut said).unwrap(), 0, "it ended early: {said}");
    }
    std::thread::sleep(Duration::from_millis(200));
    let id = child.id();
    assert!(Command::new("kill").args(["-INT", "--", &format!("-{id}")]).status().unwrap().success());
    let status = child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !group(id).is_empty() {
        assert!(Instant::now() < deadline, "left behind: {:?}", group(id));
        std::thread::sleep(Duration::from_millis(20));
    }
    out.read_to_string(&mut said).unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    (status, said, errors)
}

#[test]
fn a_program_that_handles_ctrl_c_goes_on_and_so_do_its_environments() {
    let (status, said, errors) = interrupt("handles");
    assert!(status.success() && said.contains("went on"), "{status}: {said}{errors}");
    assert!(!errors.contains("Traceback") && !errors.contains("KeyboardInterrupt"), "{errors}");
}

#[test]
fn a_program_that_does_not_ends_and_leaves_nothing_behind() {
    let (status, said, errors) = interrupt("ends");
    assert_eq!(status.signal(), Some(2), "{status}: {said}{errors}");
    assert!(!errors.contains("Traceback") && !errors.contains("KeyboardInterrupt"), "{errors}");
}
