//! An incomplete set-up: the error names the missing part and the command that installs it. Each case is a copy of this program
//! in a folder whose `.venv` is incomplete.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "the copy reports its errors to the test")]

use playfield_core::EnvSource;
use playfield_gymnasium::{AtariSource, GymSource, doctor, lookup};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

const PART: &str = "PLAYFIELD_TEST_PART";

/// The role of the copy: fails to create environments and prints the errors.
#[test]
fn part() {
    if std::env::var(PART).is_err() {
        return;
    }
    let config = playfield_core::EnvConfig::default();
    for source in
        [Box::new(AtariSource::new("ALE/Pong-v5")) as Box<dyn EnvSource>, Box::new(GymSource::new("CartPole-v1"))]
    {
        println!("\n{}", source.env(&config).err().expect("it should fail"));
        println!("{}", source.batch(&config, &[1]).map(|_| ()).err().map_or(String::new(), |e| e.to_string()));
    }
    for (_, found) in doctor() {
        println!("{}", found.map_or_else(|e| e.to_string(), |_| "ok".into()));
    }
    assert!(lookup("ALE/Pong-v5").is_some() && lookup("CartPole-v1").is_some());
}

/// The folder of the Python library of this program.
fn libraries() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.contains("/libpython")).expect("Python is linked");
    Path::new(&line[line.find('/').unwrap()..]).parent().unwrap().into()
}

/// The output of the copy, in a folder whose `.venv` (with the real Python) is completed by `prepare`.
fn output_of_copy(prepare: impl FnOnce(&Path, &str)) -> String {
    // One at a time: a program that is still open for writing, here or in a new child process, cannot be started.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv");
    let config = std::fs::read_to_string(real.join("pyvenv.cfg")).expect("a virtual environment: run `make setup`");
    let folder = tempfile::tempdir().unwrap();
    let venv = folder.path().join(".venv");
    std::fs::create_dir_all(venv.join("bin")).unwrap();
    std::os::unix::fs::symlink(real.join("bin/python").canonicalize().unwrap(), venv.join("bin/python")).unwrap();
    prepare(&venv, &config);
    let program = folder.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = Command::new(program)
        .args(["--exact", "part", "--nocapture"])
        .env(PART, "")
        .env_remove("PLAYFIELD_VENV")
        .env("LD_LIBRARY_PATH", libraries())
        .current_dir("/")
        .output()
        .unwrap();
    let (stdout, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !errors.contains("Traceback"), "{stdout}{errors}");
    stdout.into_owned()
}

#[test]
fn packages_that_are_missing() {
    let stdout = output_of_copy(|venv, config| std::fs::write(venv.join("pyvenv.cfg"), config).unwrap());
    assert!(stdout.contains("ALE/Pong-v5: the Python package `ale_py` is missing: run `make setup`"), "{stdout}");
    assert!(stdout.contains("CartPole-v1: the Python package `gymnasium` is missing: run `make setup`"), "{stdout}");
    assert_eq!(stdout.lines().filter(|line| *line == "ok").count(), 1, "the interpreter itself: {stdout}");
    assert!(stdout.contains("numpy: cannot be loaded"), "{stdout}");
}

#[test]
fn a_python_of_another_version() {
    let stdout = output_of_copy(|venv, _| {
        std::fs::write(venv.join("pyvenv.cfg"), "home = /usr/bin\nversion = 3.2.1\n").unwrap()
    });
    assert!(stdout.contains("holds Python 3.2, and this program was built for 3."), "{stdout}");
    assert!(stdout.contains("run `make setup`"), "{stdout}");
}

#[test]
fn a_python_that_is_gone() {
    let stdout = output_of_copy(|venv, _| {
        std::fs::write(venv.join("pyvenv.cfg"), "home = /nowhere/bin\n").unwrap();
        std::fs::remove_file(venv.join("bin/python")).unwrap();
    });
    assert!(stdout.contains("run `make setup`"), "{stdout}");
}
