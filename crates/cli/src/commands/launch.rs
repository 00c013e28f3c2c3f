//! One training run in several processes on this machine.
//!
//! Each rank runs `playfield train` on its share of the cores. Rank 0 prints as usual, and the others only their errors. When a rank
//! fails, the others notice and end; ranks that do not are killed. A restart resumes from the last checkpoint.

use crate::args::{Cli, Command as Parsed, Launch, Train};
use crate::commands::train::fresh;
use crate::folder;
use crate::output::{self, note};
use crate::process::{allowed_cores, interrupt, share_of_cores, spawn_on};
use crate::registry::OTHER_RANK_FAILED;
use crate::{Registry, paths, signals};
use clap::Parser as _;
use playfield_core::run::Stop;
use playfield_core::{Error, Result};
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The time in which the ranks end by themselves after one has failed: longer than they ask each other who is still there.
const GRACE: Duration = Duration::from_secs(15);

/// The time in which the ranks end after one has ended without a failure: they do so together.
const END: Duration = Duration::from_secs(60);

/// Time between two looks at the processes.
const POLL: Duration = Duration::from_millis(20);

/// `playfield launch`.
pub fn launch(registry: &Registry, args: &Launch) -> Result<ExitCode> {
    let train = parse(&args.command)?;
    let stop = signals::listen(signals::SAVES)?;
    // The folder is known before training, so that a restart can resume from it.
    let folder = match (&train.resume, &train.run_dir) {
        (Some(path), _) | (None, Some(path)) => path.clone(),
        (None, None) => folder::next_free(&paths::absolute("runs"), &fresh(registry, &train)?.name())?,
    };
    let mut attempt = 0;
    let ended = loop {
        let arguments =
            if attempt == 0 { first(args, &train, &folder) } else { again(registry, args, &train, &folder) };
        match run(args, &arguments, &stop)? {
            Ended::Failed(why) if attempt < args.max_restarts && stop.requested().is_none() => {
                attempt += 1;
                note!("{why}; restart {attempt} of {} from the last checkpoint", args.max_restarts);
            }
            ended => break ended,
        }
    };
    // A run that failed at its start leaves an empty folder: best effort.
    let _ = fs::remove_dir(&folder);
    match ended {
        Ended::Code(code) => Ok(ExitCode::from(code)),
        Ended::Failed(why) => Err(Error::config(why)),
    }
}

/// The arguments of `train`.
fn parse(command: &[String]) -> Result<Train> {
    let cli = Cli::try_parse_from(std::iter::once("playfield").chain(command.iter().map(String::as_str)));
    match cli.map(|cli| cli.command) {
        Ok(Parsed::Train(train)) if train.seeds.is_some() || train.gif => {
            Err(Error::config("launch: --seeds and --gif are for training in one process"))
        }
        Ok(Parsed::Train(train)) => Ok(train),
        Ok(_) => Err(Error::config("launch: the command must be `train`, with its arguments, after --")),
        Err(error) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            Err(Error::config(format!("launch: after --: {line}")))
        }
    }
}

/// The arguments of each rank, with the folder of the run.
fn first(args: &Launch, train: &Train, folder: &Path) -> Vec<String> {
    let is_named = train.resume.is_some() || train.run_dir.is_some();
    let run_dir = (!is_named).then(|| ["--run-dir".into(), folder.to_string_lossy().into_owned()]);
    args.command.iter().cloned().chain(run_dir.into_iter().flatten()).collect()
}

/// The arguments of each rank after a failure: they resume the run, where it has begun.
fn again(registry: &Registry, args: &Launch, train: &Train, folder: &Path) -> Vec<String> {
    if train.resume.is_some() || !folder.join("config.toml").exists() {
        return first(args, train, folder);
    }
    let device = train.device.iter().flat_map(|device| ["--device".into(), device.clone()]);
    let resume = ["train".into(), "--resume".into(), folder.to_string_lossy().into_owned()];
    resume.into_iter().chain(device).chain(registry.trust_option()).collect()
}

/// How all ranks have ended.
enum Ended {
    /// With the exit code of rank 0: success, or saved after a signal.
    Code(u8),
    /// Which rank has failed, and how.
    Failed(String),
}

/// A process that trains.
struct Rank {
    child: Child,
    /// Forward its output.
    readers: Vec<JoinHandle<()>>,
    ended: Option<ExitStatus>,
}

impl Rank {
    fn start(args: &Launch, arguments: &[String], rank: usize, port: u16) -> Result<Self> {
        let program = std::env::current_exe().map_err(Error::other)?;
        let mut command = Command::new(&program);
        command.args(arguments).current_dir(paths::start()).stdin(Stdio::null());
        let variables =
            [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", args.processes), ("MASTER_PORT", port.into())];
        command.envs(variables.map(|(name, value)| (name, value.to_string()))).env("MASTER_ADDR", "127.0.0.1");
        command.envs(args.timeout.map(|seconds| (playfield_distributed::TIMEOUT, seconds.to_string())));
        for other in ["GLOO_SOCKET_IFNAME", "TORCHELASTIC_USE_AGENT_STORE"] {
            command.env_remove(other);
        }
        command.stdout(if rank == 0 { Stdio::piped() } else { Stdio::null() });
        command.stderr(if rank == 0 { Stdio::inherit() } else { Stdio::piped() });
        let cores = share_of_cores(&allowed_cores(), rank, args.processes);
        let mut child = spawn_on(&mut command, &cores).map_err(Error::io("start", &program))?;
        let results = child.stdout.take().map(|pipe| forward(pipe, |line| output::write(&format!("{line}\n"))));
        let errors = child.stderr.take().map(|pipe| {
            forward(pipe, move |line| {
                if line.starts_with("error: ") || line.contains("panicked at") {
                    note!("[rank {rank}] {line}");
                }
            })
        });
        Ok(Self { child, readers: results.into_iter().chain(errors).collect(), ended: None })
    }

    /// Whether it is still running.
    fn is_running(&mut self) -> Result<bool> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().map_err(Error::other)?;
        }
        Ok(self.ended.is_none())
    }
}

impl Drop for Rank {
    /// Leaves no process behind, and forwards all of its output.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

/// Calls `line` with each line of `pipe`, in a thread.
fn forward(pipe: impl Read + Send + 'static, line: impl Fn(&str) + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || BufReader::new(pipe).lines().map_while(std::io::Result::ok).for_each(|text| line(&text)))
}

/// Runs all ranks until they have ended.
fn run(args: &Launch, arguments: &[String], stop: &Stop) -> Result<Ended> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).map_err(Error::other)?.port();
    let ranks = (0..args.processes).map(|rank| Rank::start(args, arguments, rank, port));
    let mut ranks = ranks.collect::<Result<Vec<_>>>()?;
    let (mut interrupted, mut ended_at, mut failed_at) = (false, None, None);
    loop {
        let mut running = Vec::new();
        for (i, rank) in ranks.iter_mut().enumerate() {
            if rank.is_running()? {
                running.push(i);
            }
        }
        if running.len() < ranks.len() {
            ended_at.get_or_insert_with(Instant::now);
        }
        if failed_at.is_none() && failure(&ranks, &[]).is_some() {
            failed_at = Some(Instant::now());
        }
        let longer = |since: Option<Instant>, limit: Duration| since.is_some_and(|since| since.elapsed() > limit);
        let is_over = running.is_empty() || longer(failed_at, GRACE) || longer(ended_at, END);
        if is_over {
            let code = || ranks[0].ended.and_then(|status| status.code()).unwrap_or_default();
            // Ranks that still run are killed when they are dropped.
            return Ok(failure(&ranks, &running).map_or_else(|| Ended::Code(code() as u8), Ended::Failed));
        }
        if stop.requested().is_some() && !std::mem::replace(&mut interrupted, true) {
            running.iter().for_each(|i| interrupt(&ranks[*i].child));
        }
        thread::sleep(POLL);
    }
}

/// Which rank has failed, and how. `hanging` are those that have not ended although another one has failed.
fn failure(ranks: &[Rank], hanging: &[usize]) -> Option<String> {
    let ended = || ranks.iter().enumerate().filter_map(|(i, rank)| Some((i, rank.ended?)));
    // A rank that has saved after a signal has not failed.
    let code = |status: ExitStatus| status.code().filter(|code| ![0, 129, 130, 143].contains(code));
    let by_signal =
        || ended().find_map(|(i, status)| Some(format!("rank {i} was ended by signal {}", status.signal()?)));
    let by_itself = || {
        let other = i32::from(OTHER_RANK_FAILED);
        let found = ended().find_map(|(i, status)| Some((i, code(status).filter(|code| *code != other)?)));
        found.map(|(i, code)| format!("rank {i} failed with exit code {code}"))
    };
    let not_responding = || hanging.first().map(|i| format!("rank {i} does not respond"));
    let any = || ended().find_map(|(i, status)| Some(format!("rank {i} failed with exit code {}", code(status)?)));
    by_signal().or_else(by_itself).or_else(not_responding).or_else(any)
}
