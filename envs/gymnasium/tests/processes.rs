//! Environments in processes of their own: their programs and the effect of Ctrl-C, from Linux's `/proc`.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "the interrupted program reports its progress")]

mod common;

use common::{WAYS, config, python, wrapped};
use playfield_core::{Actions, EnvFactory, EnvSource, Obs, StepBatch, VecEnv, rng};
use playfield_gymnasium::GymSource;
use playfield_wrappers::Factory;
use pyo3::prelude::*;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ENVS: usize = 3;
/// The environment variable with the role of this program when a test starts it again.
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

/// From a [`Simulator`] log: the numbers of environments created and closed, and the largest number at one time.
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

/// The `sleep` processes of a log that still run.
fn left(log: &std::path::Path) -> Vec<u32> {
    let text = std::fs::read_to_string(log).unwrap();
    let ids = text.lines().filter_map(|line| line.strip_prefix("made ")?.parse().ok());
    ids.filter(|id| std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z ")))
        .collect()
}

/// Environments that start a process: no more are created than requested, and each is closed, in all ways of stepping, also
/// during a step.
#[test]
fn every_environment_is_closed_and_no_extra_one_is_created() {
    let folder = tempfile::tempdir().unwrap();
    for (number, way) in WAYS.iter().enumerate() {
        for during_a_step in [false, true] {
            let log = folder.path().join(format!("{number}-{during_a_step}"));
            let settings = format!("kwargs = {{ log = '{}' }}\n{way}", log.display());
            python();
            let source = Arc::new(GymSource::new("tiny:Simulator-v0"));
            let factory = Factory::new(source.clone(), config(&*source, "tiny:Simulator-v0", &settings)).unwrap();
            assert_eq!(counts(&log), (1, 1, 1), "one is created for its spaces: {way}");
            let mut env = factory.vec(&rng::seeds(1, "env", ENVS)).unwrap();
            let mut batch = StepBatch::new(env.spec(), ENVS);
            env.reset(&mut batch).unwrap();
            env.step(&Actions::Discrete(vec![0; ENVS]), &mut batch).unwrap();
            if during_a_step {
                env.send(&Actions::Discrete(vec![0; ENVS])).unwrap();
            }
            drop(env);
            assert_eq!(counts(&log), (1 + ENVS, 1 + ENVS, ENVS as isize), "{way}");
            assert_eq!(left(&log), [0; 0], "{way}");
        }
    }
}

/// Processes that can be divided evenly among the cores are, one core each; others may use all of them.
#[test]
fn processes_are_divided_evenly_among_the_cores() {
    python();
    // Unlike `available_parallelism`, not reduced by a container's share of processor time.
    let affinity = |py: Python<'_>| py.import("os")?.call_method1("sched_getaffinity", (0,))?.len();
    let cores = Python::attach(affinity).unwrap();
    let allowed = |n: usize| -> Vec<Vec<f32>> {
        let mut env = wrapped("tiny:Cores-v0", "vectorization = 'async'", n);
        let mut batch = StepBatch::new(env.spec(), n);
        env.reset(&mut batch).unwrap();
        let Obs::F32(values) = batch.obs else { panic!("the observations are not f32") };
        values.chunks(2).map(<[f32]>::to_vec).collect()
    };
    let even = allowed(2 * cores);
    assert!(even.iter().all(|row| row[0] == 1.0), "{even:?}");
    for row in &even {
        assert_eq!(even.iter().filter(|other| other == &row).count(), 2, "{even:?}");
    }
    let uneven = allowed(2 * cores + 1);
    assert!(uneven.iter().all(|row| row[0] == cores as f32), "{uneven:?}");
}

/// A process that does not respond is killed after some seconds.
#[test]
fn an_environment_that_hangs_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let settings = format!("vectorization = 'async'\nkwargs = {{ log = '{}', hang = true }}", log.display());
    let mut env = wrapped("tiny:Simulator-v0", &settings, 2);
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

/// A killed program cannot close its environments; their processes close themselves.
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

/// The roles of this program when a test starts it again. As a test it does nothing.
#[test]
fn part() {
    let Ok(part) = std::env::var(PART) else { return };
    if part == "simulates" {
        let settings =
            format!("vectorization = 'async'\nkwargs = {{ log = '{}' }}", std::env::var("PLAYFIELD_TEST_LOG").unwrap());
        let _env = wrapped("tiny:Simulator-v0", &settings, ENVS);
        std::thread::sleep(Duration::from_secs(60));
        panic!("this program was not killed");
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
    println!("continued");
}

/// Starts this program with a role in its own process group, sends SIGINT to the group as a terminal does, and waits until all
/// processes have ended. Returns exit status, stdout and stderr.
fn interrupt(part: &str) -> (ExitStatus, String, String) {
    // A shell starts background processes with SIGINT ignored, which is inherited: restore the default.
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
    let mut stdout = String::new();
    while stdout.lines().last() != Some("ready") {
        assert_ne!(out.read_line(&mut stdout).unwrap(), 0, "it ended early: {stdout}");
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
    out.read_to_string(&mut stdout).unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    (status, stdout, errors)
}

#[test]
fn a_program_that_handles_ctrl_c_continues_with_its_environments() {
    let (status, stdout, errors) = interrupt("handles");
    assert!(status.success() && stdout.contains("continued"), "{status}: {stdout}{errors}");
    assert!(!errors.contains("Traceback") && !errors.contains("KeyboardInterrupt"), "{errors}");
}

#[test]
fn a_program_without_a_handler_ends_with_its_environments() {
    let (status, stdout, errors) = interrupt("ends");
    assert_eq!(status.signal(), Some(2), "{status}: {stdout}{errors}");
    assert!(!errors.contains("Traceback") && !errors.contains("KeyboardInterrupt"), "{errors}");
}
