//! Environments in processes of their own: which programs these are, and what Ctrl-C does to them. Linux's `/proc` tells.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "the part that is interrupted says how far it has come")]

mod common;

use common::{WAYS, config, python, stack};
use playfield_core::{Actions, EnvFactory, EnvSource, StepBatch, VecEnv, rng};
use playfield_gymnasium::GymSource;
use playfield_wrappers::Factory;
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
    let config = config(&source, "CartPole-v1", "vectorization = 'async'");
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

/// What a [`Simulator`] log says: how many were made, how many were closed, and the most that were there at a time.
fn counts(log: &std::path::Path) -> (usize, usize, isize) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let (mut made, mut closed, mut most) = (0, 0, 0);
    for line in text.lines() {
        match line.split_once(' ').unwrap().0 {
            "made" => made += 1,
            _ => closed += 1,
        }
        most = most.max(made as isize - closed as isize);
    }
    (made, closed, most)
}

/// The processes `sleep` of a log that are still there.
fn left(log: &std::path::Path) -> Vec<u32> {
    let text = std::fs::read_to_string(log).unwrap();
    let ids = text.lines().filter_map(|line| line.strip_prefix("made ")?.parse().ok());
    ids.filter(|id| std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z ")))
        .collect()
}

/// Environments that start a process of their own: as many as were asked for, and every one of them is closed, in all ways
/// of stepping, also where a step is under way.
#[test]
fn every_environment_is_closed_and_none_is_made_too_many() {
    let folder = tempfile::tempdir().unwrap();
    for (number, way) in WAYS.iter().enumerate() {
        for under_way in [false, true] {
            let log = folder.path().join(format!("{number}-{under_way}"));
            let settings = format!("kwargs = {{ log = '{}' }}\n{way}", log.display());
            python();
            let source = Arc::new(GymSource::new("tiny:Simulator-v0"));
            let factory = Factory::new(source.clone(), config(&*source, "tiny:Simulator-v0", &settings)).unwrap();
            assert_eq!(counts(&log), (1, 1, 1), "one is made to ask for its spaces: {way}");
            let mut env = factory.vec(&rng::seeds(1, "env", ENVS)).unwrap();
            let mut batch = StepBatch::new(env.spec(), ENVS);
            env.reset(&mut batch).unwrap();
            env.step(&Actions::Discrete(vec![0; ENVS]), &mut batch).unwrap();
            if under_way {
                env.send(&Actions::Discrete(vec![0; ENVS])).unwrap();
            }
            drop(env);
            assert_eq!(counts(&log), (1 + ENVS, 1 + ENVS, ENVS as isize), "{way}");
            assert_eq!(left(&log), [0; 0], "{way}");
        }
    }
}

/// One that does not answer is ended after some seconds.
#[test]
fn an_environment_that_hangs_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let settings = format!("vectorization = 'async'\nkwargs = {{ log = '{}', hang = true }}", log.display());
    let mut env = stack("tiny:Simulator-v0", &settings, 2);
    let mut batch = StepBatch::new(env.spec(), 2);
    env.reset(&mut batch).unwrap();
    env.step(&Actions::Discrete(vec![0; 2]), &mut batch).unwrap();
    env.send(&Actions::Discrete(vec![0; 2])).unwrap();
    let start = Instant::now();
    drop(env);
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    for id in left(&log) {
        Command::new("kill").arg(id.to_string()).status().unwrap();
    }
}

/// A program that is killed closes nothing, but its environments notice and close themselves.
#[test]
fn the_environments_of_a_killed_program_close_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "part", "--nocapture"])
        .env(PART, "simulates")
        .env("PLAYFIELD_TEST_LOG", &log)
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let wait = |until: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !until() {
            assert!(Instant::now() < deadline, "{:?}", counts(&log));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait(&|| counts(&log).0 == 1 + ENVS);
    child.kill().unwrap();
    child.wait().unwrap();
    wait(&|| counts(&log).1 == 1 + ENVS);
    assert_eq!(left(&log), [0; 0]);
}

/// The parts that this program plays when a test starts it again; as a test of its own it does nothing.
#[test]
fn part() {
    let Ok(part) = std::env::var(PART) else { return };
    if part == "simulates" {
        let settings =
            format!("vectorization = 'async'\nkwargs = {{ log = '{}' }}", std::env::var("PLAYFIELD_TEST_LOG").unwrap());
        let _env = stack("tiny:Simulator-v0", &settings, ENVS);
        std::thread::sleep(Duration::from_secs(60));
        panic!("nobody killed this program");
    }
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
