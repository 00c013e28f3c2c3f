//! Signals at random times: in the start, in training, in a save. Then the run resumes.

use crate::campaign::{ALGORITHMS, Class, Finding, Group, Running, Size, program, random};
use crate::common::{checkpoints, file, playfield};
use playfield::core::checkpoint::read;
use std::path::Path;
use std::time::Duration;

/// Signals, and the exit codes with which they may end the program.
const SIGNALS: [(&[&str], &[i32]); 5] = [
    (&["INT"], &[130]),
    (&["TERM"], &[143]),
    (&["HUP"], &[129]),
    (&["INT", "INT"], &[130]),
    (&["TERM", "HUP"], &[143, 129]),
];

/// The time in which a program that was asked to stop must end.
const STOPPING: Duration = Duration::from_secs(30);

/// The row of the table.
pub fn class(size: Size) -> Vec<Class> {
    let (algorithms, repetitions) = if size == Size::Full { (4, 12) } else { (1, 1) };
    let groups = ALGORITHMS[..algorithms].iter().map(move |(name, config)| {
        Group::new(*name, move |folder, tally| {
            file(folder, "a.toml", &config.replace("steps = 6", "steps = 90000000000"));
            for (i, (signals, codes)) in SIGNALS.iter().cycle().take(SIGNALS.len() * repetitions).enumerate() {
                let milliseconds = random(name, i, 2500);
                let finding = interrupt(folder, signals, codes, milliseconds as u64);
                let _ = std::fs::remove_dir_all(folder.join("run"));
                tally.add(format!("{signals:?} after {milliseconds} ms"), finding);
            }
        })
    });
    vec![Class { name: "a signal, or two, at a random time", groups: groups.collect() }]
}

fn interrupt(folder: &Path, signals: &[&str], codes: &[i32], milliseconds: u64) -> Finding {
    // A shell starts background processes with SIGINT ignored, and `nohup` those of a test with SIGHUP.
    let train = playfield(folder, &["train", "a.toml", "--run-dir", "run", "--set", "checkpoint_seconds=0.2"]);
    let mut command = std::process::Command::new("env");
    command.arg("--default-signal=INT,HUP").arg(train.get_program()).args(train.get_args()).current_dir(folder);
    let running = Running::start(folder, command);
    std::thread::sleep(Duration::from_millis(milliseconds));
    for (i, signal) in signals.iter().enumerate() {
        std::thread::sleep(Duration::from_millis(50 * i as u64));
        running.signal(signal);
    }
    let ended = running.wait(STOPPING);
    // Before the program has handlers, a signal ends it.
    let is_early = ended.status.is_err() && !ended.hung && !folder.join("run/config.toml").exists();
    if !is_early {
        ended.has_code(codes)?;
    }
    if !folder.join("run/config.toml").exists() {
        return Ok(());
    }
    let saved = checkpoints(&folder.join("run")).last().map_or(Ok(0), |path| read(path).map(|saved| saved.step));
    let steps = (saved.map_err(|error| error.to_string())? + 100).to_string();
    program(folder, &["train", "--resume", "run", "--steps", &steps]).has_code(&[0])
}
