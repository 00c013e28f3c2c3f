//! The tries of a campaign, how they run, and the table of their results.

use crate::common::playfield;
pub use crate::common::{copy, files};
use playfield::core::rng;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How many tries are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// A few, always the same.
    Selection,
    /// All.
    Full,
}

/// What was wrong, if anything.
pub type Finding = Result<(), String>;

type Tries = dyn FnOnce(&Path, &mut Tally) + Send;

/// A group of tries that share a folder.
pub struct Group {
    name: String,
    run: Box<Tries>,
}

impl Group {
    /// A group that makes its tries in an empty folder and adds each to the tally.
    pub fn new(name: impl Into<String>, run: impl FnOnce(&Path, &mut Tally) + Send + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// A class of faults: a row of the table.
pub struct Class {
    /// Its name.
    pub name: &'static str,
    /// Its groups of tries.
    pub groups: Vec<Group>,
}

/// The tries of a group.
#[derive(Default)]
pub struct Tally {
    tries: usize,
    failures: Vec<String>,
}

impl Tally {
    /// Counts a try.
    pub fn add(&mut self, name: impl Into<String>, finding: Finding) {
        self.tries += 1;
        if let Err(what) = finding {
            self.failures.push(format!("{}: {what}", name.into()));
        }
    }
}

/// Runs all groups, one per core at a time (two to eight), prints the table, and fails if a try did. The variable `FAULTS` selects
/// classes by a part of their name.
pub fn run(mut classes: Vec<Class>) {
    let selected = std::env::var("FAULTS").unwrap_or_default();
    classes.retain(|class| class.name.contains(&selected));
    let names: Vec<_> = classes.iter().map(|class| class.name).collect();
    let queue: VecDeque<_> =
        classes.into_iter().enumerate().flat_map(|(i, class)| class.groups.into_iter().map(move |g| (i, g))).collect();
    let (queue, results) = (Mutex::new(queue), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8) {
            scope.spawn(|| {
                while let Some((class, group)) = { queue.lock().unwrap().pop_front() } {
                    let (folder, mut tally, start) = (folder(), Tally::default(), Instant::now());
                    (group.run)(folder.path(), &mut tally);
                    results.lock().unwrap().push((class, group.name, tally, start.elapsed()));
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    let mut table = format!("\n{:<44} {:>6} {:>9} {:>8}\n", "class", "tries", "failures", "seconds");
    let mut failures = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let (mut tries, mut failed, mut seconds) = (0, 0, 0.0);
        for (_, group, tally, time) in results.iter().filter(|(class, ..)| *class == i) {
            (tries, failed, seconds) =
                (tries + tally.tries, failed + tally.failures.len(), seconds + time.as_secs_f64());
            failures.extend(tally.failures.iter().map(|failure| format!("{name}, {group}: {failure}")));
        }
        table += &format!("{name:<44} {tries:>6} {failed:>9} {seconds:>8.0}\n");
    }
    // Not captured by the test harness: the table is the result.
    let _ = std::io::stderr().write_all(table.as_bytes());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// A new folder, in memory where the system has such a file system: saves flush every file.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, or the signal that ended it.
    pub status: Result<i32, i32>,
    /// Its results.
    pub stdout: String,
    /// Its messages.
    pub stderr: String,
    /// Whether it had to be ended after the limit.
    pub hung: bool,
}

impl Ended {
    /// Checks that it ended with exit code 0, or with 2 and one error message.
    pub fn is_graceful(&self) -> Finding {
        self.has_code(&[0, 2])
    }

    /// The same with other exit codes.
    pub fn has_code(&self, codes: &[i32]) -> Finding {
        let Self { status, stderr, .. } = self;
        let last: String = stderr.lines().rev().take(12).collect::<Vec<_>>().join(" | ");
        if self.hung {
            return Err(format!("it does not end: {last}"));
        }
        let broken = ["panicked", "Traceback", "memory allocation of", "core dumped"];
        if let Some(word) = broken.iter().find(|word| stderr.contains(**word)) {
            return Err(format!("{word}: {last}"));
        }
        let errors = stderr.lines().filter(|line| line.starts_with("error")).count();
        match status {
            Ok(code) if !codes.contains(code) => Err(format!("exit code {code}: {last}")),
            Ok(2) if errors != 1 => Err(format!("{errors} error messages: {last}")),
            Ok(_) => Ok(()),
            Err(signal) => Err(format!("ended by signal {signal}: {last}")),
        }
    }
}

/// A program that runs in a process group of its own.
pub struct Running {
    child: std::process::Child,
    folder: std::path::PathBuf,
}

/// The time that a command may take.
pub const LIMIT: Duration = Duration::from_secs(120);

impl Running {
    /// Starts `command`; its output goes to files in `folder`.
    pub fn start(folder: &Path, mut command: Command) -> Self {
        let output = |name: &str| Stdio::from(File::create(folder.join(name)).unwrap());
        command.stdin(Stdio::null()).stdout(output(".stdout")).stderr(output(".stderr")).process_group(0);
        Self { child: command.spawn().unwrap(), folder: folder.to_path_buf() }
    }

    /// Sends a signal to the program.
    pub fn signal(&self, name: &str) {
        // The program may have ended.
        let _ = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).stderr(Stdio::null()).status();
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, and ends its process group after `limit`.
    pub fn wait(mut self, limit: Duration) -> Ended {
        let (start, mut hung) = (Instant::now(), false);
        while self.is_running() {
            if start.elapsed() > limit {
                hung = true;
                let group = format!("-{}", self.child.id());
                let _ = Command::new("kill").args(["-s", "KILL", "--", &group]).status();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = self.child.wait().unwrap();
        let read = |name: &str| String::from_utf8_lossy(&fs::read(self.folder.join(name)).unwrap()).into_owned();
        let status = status.code().ok_or(status.signal().unwrap_or(0));
        Ended { status, stdout: read(".stdout"), stderr: read(".stderr"), hung }
    }
}

/// Runs playfield in `folder`.
pub fn program(folder: &Path, args: &[&str]) -> Ended {
    Running::start(folder, playfield(folder, args)).wait(LIMIT)
}

/// The same with a fault in the file system (`PLAYFIELD_FAULT`).
pub fn with_fault(folder: &Path, args: &[&str], fault: &str) -> Ended {
    let mut command = playfield(folder, args);
    command.env("PLAYFIELD_FAULT", fault);
    Running::start(folder, command).wait(LIMIT)
}

/// A random number below `n`, the `i`-th of the stream `name`: the same in every run of the campaign.
pub fn random(name: &str, i: usize, n: usize) -> usize {
    (rng::derive(1, name, i as u64) % n.max(1) as u64) as usize
}

/// Small networks on small environments, one for each algorithm: the text of a configuration.
pub const ALGORITHMS: [(&str, &str); 4] = [
    (
        "ppo",
        "algorithm = 'ppo'\nsteps = 64\n[env]\nid = 'CartPole'\nnum_envs = 2\nnormalize_obs = true\n[network]\nhidden = [4]\n[ppo]\nrollout_steps = 16\nminibatch_size = 16\nepochs = 2\nnum_threads = 1\n",
    ),
    (
        "paac",
        "algorithm = 'paac'\nsteps = 60\n[env]\nid = 'Catch'\nnum_envs = 2\n[network]\nhidden = [4]\nlstm = 4\n[paac]\nnum_threads = 1\n",
    ),
    ("a3c", "algorithm = 'a3c'\nsteps = 60\n[env]\nid = 'CartPole'\nnum_envs = 2\n[network]\nhidden = [4]\n"),
    (
        "dqn",
        "algorithm = 'dqn'\nsteps = 64\n[env]\nid = 'Catch'\nnum_envs = 2\nframe_stack = 2\n[network]\nhidden = [4]\n[dqn]\nbuffer_size = 100\nlearning_starts = 20\nbatch_size = 8\nprioritized = true\nnum_threads = 1\noverlap = false\n",
    ),
];
