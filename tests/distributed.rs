//! Training in several processes: settings, determinism, resuming, and failures.
#![cfg(target_os = "linux")] // finds processes in /proc

use crate::common::{CARTPOLE, checkpoints, copy, file, files, free_port, playfield, refuses, stderr, succeeds};
use playfield::core::Snapshot;
use playfield::core::checkpoint::read_with_parts;
use playfield::core::files::TEMPORARY;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The settings of a short run of each algorithm that trains in several processes.
fn experiments() -> [(&'static str, String); 4] {
    let paac = CARTPOLE.replace("num_envs = 4", "num_envs = 4\nnormalize_obs = true\nnormalize_reward = true");
    let paac = paac.replace("[env]", "[distributed]\noverlap_exchange = true\n[env]");
    let ppo = "algorithm = 'ppo'\n[distributed]\ngradient_precision = 'bf16'\n[env]\nid = 'Catch'\nnum_envs = 4\n[ppo]\nnum_threads = 1\nrollout_steps = 20\nminibatch_size = 40\n\
               learning_rate.steps = 4000\nclip_range.steps = 4000\n";
    let dqn = "algorithm = 'dqn'\n[env]\nid = 'CartPole'\nnum_envs = 4\nnormalize_obs = true\n[dqn]\nnum_threads = 1\nprioritized = true\n\
               beta.steps = 4000\nlearning_starts = 200\nbuffer_size = 1000\nnoisy_sigma = 0.5\n";
    [
        ("paac", paac.replace("steps = 4000\n", "") + "learning_rate.steps = 4000\n"),
        ("ppo", ppo.into()),
        ("ppo, approximated gradients", ppo.replace("[env]", "gradient_rank = 2\n[env]")),
        ("dqn", dqn.into()),
    ]
}

/// The last checkpoint of a run, without the time that it took: of all ranks.
fn last(run: &Path) -> Vec<Snapshot> {
    let (first, parts) = read_with_parts(checkpoints(run).last().unwrap()).unwrap();
    let mut all: Vec<_> = [vec![first], parts].concat();
    for snapshot in &mut all {
        snapshot.state.remove("run.elapsed_seconds");
        // Files of frames are per session.
        snapshot.state.remove("replay.segments");
    }
    all
}

/// The signal of `PLAYFIELD_FAULT=kill`: the process aborts.
const SIGABRT: i32 = 6;

const LAUNCH: [&str; 6] = ["launch", "--processes", "2", "--timeout", "60", "--"];

/// The settings reach the optimizer: other ones end with other parameters.
#[test]
fn the_exchange_of_gradients_changes_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let [(_, paac), ..] = experiments();
    file(dir, "a.toml", &paac);
    let run = |name: &str, precision: &str, overlap: &str| {
        let args = ["train", "a.toml", "--steps", "80", "--run-dir", name];
        let set = [
            "--set",
            &format!("gradient_precision={precision}"),
            "--set",
            &format!("distributed.overlap_exchange={overlap}"),
        ];
        succeeds(dir, &[&LAUNCH[..], &args, &set].concat());
        last(&dir.join(name)).remove(0)
    };
    let (bf16, fp32, overlap) = (run("a", "bf16", "false"), run("b", "fp32", "false"), run("c", "fp32", "true"));
    assert!(bf16.params != fp32.params && overlap.params != fp32.params);
    let pending = |snapshot: &Snapshot| snapshot.arrays.keys().any(|name| name.contains("pending_gradient"));
    assert!(pending(&overlap) && !pending(&fp32), "a checkpoint contains the gradient that has not been applied");
    let [_, (_, whole), (_, approximated), _] = experiments();
    let [whole, approximated] = [("whole", whole), ("approximated", approximated)].map(|(name, text)| {
        file(dir, "a.toml", &text);
        succeeds(dir, &[&LAUNCH[..], &["train", "a.toml", "--steps", "160", "--run-dir", name]].concat());
        last(&dir.join(name)).remove(0)
    });
    assert!(whole.params != approximated.params && whole.step == approximated.step);
    let left = |snapshot: &Snapshot| snapshot.arrays.keys().any(|name| name.starts_with("exchange.error."));
    assert!(left(&approximated) && !left(&whole), "a checkpoint contains what has not been exchanged");
}

/// Only PAAC overlaps the exchange with a rollout, and then it exchanges whole gradients. One process ignores the settings.
#[test]
fn settings_of_the_exchange_that_an_algorithm_does_not_have_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [paac, ppo, _, dqn] = &experiments();
    let without = |text: &str| text.replace("overlap_exchange = true", "");
    for ((name, text), message) in [
        (ppo, "`distributed.overlap_exchange` must be false"),
        (dqn, "`distributed.overlap_exchange` must be false"),
        (paac, "`distributed.gradient_rank` must be 0"),
    ] {
        file(dir.path(), "a.toml", &without(text));
        let mut args = vec!["train", "a.toml", "--steps", "100", "--set", "distributed.overlap_exchange=true"];
        if message.contains("gradient_rank") {
            args.extend(["--set", "gradient_rank=2"]);
        }
        let said = refuses(dir.path(), &[&LAUNCH[..], &args].concat());
        assert!(said.contains(message), "{name}: {said}");
        succeeds(dir.path(), &args);
    }
}

/// An interrupted and resumed run of two processes equals an uninterrupted one, bit for bit. With another number of processes it
/// resumes, too, and a warning says that it is not exact.
#[test]
fn a_run_of_two_processes_is_deterministic_and_resumes_exactly() {
    for (name, text) in experiments() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        file(dir, "a.toml", &text);
        let launch = |args: &[&str]| succeeds(dir, &[&LAUNCH, args].concat());
        let said = launch(&["train", "a.toml", "--steps", "1200", "--run-dir", "whole"]);
        assert!(said.contains("1,200 of 1,200") && said.matches("\ncheckpoint ").count() == 1, "{name}: {said}");
        launch(&["train", "a.toml", "--steps", "600", "--run-dir", "halves"]);
        launch(&["train", "--resume", "halves", "--steps", "1200"]);
        let (whole, halves) = (last(&dir.join("whole")), last(&dir.join("halves")));
        assert_eq!(whole.len(), 2);
        assert_ne!(whole[0].state, whole[1].state, "{name}: ranks have their own random streams");
        for (rank, (whole, halves)) in whole.iter().zip(&halves).enumerate() {
            assert_eq!((whole.step, &whole.params), (halves.step, &halves.params), "{name}, rank {rank}");
            assert!(whole.arrays == halves.arrays && whole.state == halves.state, "{name}, rank {rank}");
        }
        let episodes = fs::read_to_string(dir.join("whole/episodes.csv")).unwrap();
        let steps: Vec<u64> = episodes.lines().skip(1).map(|l| l.split(',').next().unwrap().parse().unwrap()).collect();
        assert!(steps.is_sorted() && *steps.last().unwrap() > 1000, "{name}: {steps:?}");

        let output = playfield(dir, &["train", "--resume", "halves", "--steps", "1600"]).output().unwrap();
        let said = stderr(&output);
        let warning = |from: usize, to: usize| format!("the checkpoint is of {from} processes, and this run has {to}");
        assert!(output.status.success() && said.contains(&warning(2, 1)), "{name}: {said}");
        assert_eq!(last(&dir.join("halves")).len(), 1);
        let resume = [&LAUNCH[..], &["train", "--resume", "halves", "--steps", "2000"]].concat();
        let output = playfield(dir, &resume).output().unwrap();
        assert!(output.status.success() && stderr(&output).contains(&warning(1, 2)), "{name}: {}", stderr(&output));
        let all = last(&dir.join("halves"));
        assert_eq!((all.len(), all[0].step), (2, 2000), "{name}");
    }
}

#[test]
fn settings_that_cannot_be_divided_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    let refuses = |args: &[&str]| refuses(dir, &[&LAUNCH, args].concat());
    let said = refuses(&["train", "a.toml", "--set", "num_envs=3"]);
    assert!(said.contains("error: `env.num_envs` = 3 must be a multiple of the number of processes, 2"), "{said}");
    file(dir, "a3c.toml", "algorithm = 'a3c'\nsteps = 100\n[env]\nid = 'CartPole'\nnum_envs = 4\n");
    let said = refuses(&["train", "a3c.toml"]);
    assert!(said.contains("algorithm = \"a3c\" trains in one process") && said.contains("use paac or ppo"), "{said}");
    assert!(!dir.join("runs").exists() || fs::read_dir(dir.join("runs")).unwrap().count() == 0, "nothing remains");
    for (args, expected) in [
        (&["eval", "x"][..], "the command must be `train`"),
        (&["train", "a.toml", "--seeds", "2"], "--seeds and --gif are for training in one process"),
        (&["train", "a.toml", "--stepz", "2"], "unexpected argument '--stepz'"),
    ] {
        assert!(refuses(args).contains(expected), "{}", refuses(args));
    }
}

/// Starts `rank` of two without the launcher.
fn start_rank(dir: &Path, rank: usize, port: u16, args: &[&str], variables: &[(&str, &str)]) -> Child {
    let mut command = playfield(dir, args);
    command.env("RANK", rank.to_string()).env("WORLD_SIZE", "2").env("PLAYFIELD_GROUP_TIMEOUT", "60");
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string()).envs(variables.iter().copied());
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Different settings: both ranks end, and the second names the key.
#[test]
fn ranks_with_different_settings_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path(), "a.toml", CARTPOLE);
    let port = free_port();
    let args = |set| ["train", "a.toml", "--run-dir", "run", "--set", set];
    let ranks = [(0, "gamma=0.99"), (1, "gamma=0.9")];
    let ranks = ranks.map(|(rank, set)| start_rank(dir.path(), rank, port, &args(set), &[]));
    let [first, second] = ranks.map(|rank| rank.wait_with_output().unwrap());
    assert_eq!((first.status.code(), second.status.code()), (Some(2), Some(2)));
    assert!(stderr(&first).contains("another rank has other settings"), "{}", stderr(&first));
    assert!(stderr(&second).contains("rank 1 has another value of `paac.gamma` than rank 0"), "{}", stderr(&second));
    assert!(!dir.path().join("run").exists());
}

/// A launched run that takes long, and saves often.
struct Launched {
    launcher: Child,
    dir: tempfile::TempDir,
}

impl Launched {
    fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let often = "steps = 400_000_000\n[run]\ncheckpoint_seconds = 0.2\n";
        file(
            dir.path(),
            "a.toml",
            &CARTPOLE.replace("steps = 4000\n", "").replacen("[env]", &format!("{often}[env]"), 1),
        );
        let args = [&["launch", "--processes", "2"], options, &["--", "train", "a.toml", "--run-dir", "run"]].concat();
        let mut command = playfield(dir.path(), &args);
        let launcher = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        Self { launcher, dir }
    }

    /// The process ids of the ranks: children of the launcher with the variable RANK.
    fn ranks(&self) -> Vec<i32> {
        let parent = format!("PPid:\t{}", self.launcher.id());
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let rank = |id: i32| {
            let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            status.lines().find(|line| *line == parent)?;
            let variables = fs::read(format!("/proc/{id}/environ")).ok()?;
            let of = |variable: &[u8]| String::from_utf8_lossy(variable.strip_prefix(b"RANK=")?).parse::<usize>().ok();
            Some((variables.split(|byte| *byte == 0).find_map(of)?, id))
        };
        let mut found: Vec<_> = ids.filter_map(rank).collect();
        found.sort();
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// Waits until `count` checkpoints have been written, and returns the last one's step.
    fn wait_for_checkpoint(&self, after: u64) -> u64 {
        let started = Instant::now();
        loop {
            let steps = checkpoints(&self.dir.path().join("run"));
            let steps = steps.iter().filter_map(|path| path.file_name()?.to_str()?.parse::<u64>().ok());
            if let Some(step) = steps.max().filter(|step| *step > after) {
                return step;
            }
            assert!(started.elapsed() < Duration::from_secs(120), "no checkpoint");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end; no process is left then.
    fn end(self, ranks: &[i32]) -> (Output, tempfile::TempDir) {
        let output = self.launcher.wait_with_output().unwrap();
        assert!(ranks.iter().all(|id| !Path::new(&format!("/proc/{id}")).exists()), "{ranks:?}: {}", stderr(&output));
        (output, self.dir)
    }
}

fn signal(id: i32, name: &str) {
    let status = std::process::Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status().unwrap();
    assert!(status.success());
}

/// Whichever rank is killed, the other ends, the error names the rank, and the last checkpoint is undamaged.
#[test]
fn a_killed_rank_ends_the_run() {
    for killed in [0, 1] {
        let run = Launched::start(&["--timeout", "30"]);
        run.wait_for_checkpoint(0);
        let ranks = run.ranks();
        assert_eq!(ranks.len(), 2);
        signal(ranks[killed], "KILL");
        let (output, dir) = run.end(&ranks);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("error: rank {killed} was ended by signal 9")), "{said}");
        let other = format!("error: rank {}: ", 1 - killed);
        assert!(said.contains(&other) && said.contains(&format!("rank {killed} has ended")), "{said}");
        assert_eq!(last(&dir.path().join("run")).len(), 2);
    }
}

/// A rank ends in the middle of a save: rank 0 while it writes the checkpoint, rank 1 while it writes the frames of its replay buffer.
/// The other ends and names it. The run resumes from the last complete checkpoint, bit for bit as if it had not been interrupted.
#[test]
fn a_rank_that_ends_in_a_save_leaves_a_complete_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let [.., (_, dqn)] = experiments();
    // Few operations on files beside the checkpoint.
    let text = dqn.replacen("[env]", "[run]\nlog_seconds = 1e6\nlog_steps = 1_000_000\n[env]", 1);
    file(dir, "a.toml", &text);
    let train = |args: &[&str]| succeeds(dir, &[&LAUNCH[..], &["train"], args].concat());
    train(&["a.toml", "--steps", "400", "--run-dir", "run"]);
    copy(&dir.join("run"), &dir.join("saved"));
    let resume = ["train", "--resume", "run", "--steps", "800"];
    train(&resume[1..]);
    let uninterrupted = last(&dir.join("run"));
    let unfinished = || files(&dir.join("run")).into_iter().filter(|name| name.contains(TEMPORARY)).collect::<Vec<_>>();
    for (killed, operation, file) in [(0, 30, "state.safetensors"), (0, 40, "rank-1.json"), (1, 3, "rank-1/replay/")] {
        fs::remove_dir_all(dir.join("run")).unwrap();
        copy(&dir.join("saved"), &dir.join("run"));
        let port = free_port();
        let fault = format!("kill:{operation}");
        let start = |rank| {
            let variables = [("PLAYFIELD_FAULT", fault.as_str())];
            start_rank(dir, rank, port, &resume, if rank == killed { &variables } else { &[] })
        };
        let ranks = [start(0), start(1)].map(|rank| rank.wait_with_output().unwrap());
        let (ended, said) = (&ranks[killed], stderr(&ranks[1 - killed]));
        assert_eq!(ended.status.signal(), Some(SIGABRT), "rank {killed}, {fault}: {}", stderr(ended));
        assert_eq!(ranks[1 - killed].status.code(), Some(3), "rank {killed}, {fault}: {said}");
        assert!(said.contains(&format!("rank {killed} has ended")), "rank {killed}, {fault}: {said}");
        assert!(unfinished().iter().any(|name| name.contains(file)), "{fault} is not in {file}: {:?}", unfinished());
        train(&resume[1..]);
        assert!(unfinished().is_empty(), "{:?}", unfinished());
        let resumed = last(&dir.join("run"));
        assert_eq!(resumed.len(), uninterrupted.len());
        for (resumed, uninterrupted) in resumed.iter().zip(&uninterrupted) {
            assert_eq!((resumed.step, &resumed.params), (uninterrupted.step, &uninterrupted.params));
            assert!(resumed.arrays == uninterrupted.arrays && resumed.state == uninterrupted.state);
        }
    }
}

/// A rank that is stopped for longer than the timeout is killed.
#[test]
fn a_rank_that_does_not_respond_ends_the_run() {
    for stopped in [0, 1] {
        let run = Launched::start(&["--timeout", "4"]);
        run.wait_for_checkpoint(0);
        let ranks = run.ranks();
        signal(ranks[stopped], "STOP");
        let (output, _) = run.end(&ranks);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("error: rank {stopped} does not respond")), "{said}");
    }
}

/// A request to one rank, and then the launcher's, stop all: the run is saved.
#[test]
fn an_interrupted_rank_stops_and_saves_the_run() {
    for to_launcher in [false, true] {
        let run = Launched::start(&[]);
        let step = run.wait_for_checkpoint(0);
        let ranks = run.ranks();
        signal(if to_launcher { run.launcher.id() as i32 } else { ranks[1] }, "INT");
        let (output, dir) = run.end(&ranks);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(130), "{said}");
        let all = last(&dir.path().join("run"));
        assert!(all.len() == 2 && all[0].step >= step, "{said}");
    }
}

/// After a restart the run resumes from its last checkpoint.
#[test]
fn a_failed_run_restarts_from_its_last_checkpoint() {
    let run = Launched::start(&["--timeout", "30", "--max-restarts", "1"]);
    let step = run.wait_for_checkpoint(0);
    signal(run.ranks()[1], "KILL");
    let sessions = run.dir.path().join("run/command.txt");
    let started = Instant::now();
    while fs::read_to_string(&sessions).unwrap().lines().count() < 2 {
        assert!(started.elapsed() < Duration::from_secs(120), "no restart");
        thread::sleep(Duration::from_millis(20));
    }
    run.wait_for_checkpoint(step + 1);
    let ranks = run.ranks();
    signal(run.launcher.id() as i32, "INT");
    let (output, dir) = run.end(&ranks);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("rank 1 was ended by signal 9; restart 1 of 1"), "{said}");
    assert!(fs::read_to_string(dir.path().join("run/command.txt")).unwrap().contains("train --resume"));
}

/// `torchrun` starts two ranks, for which it serves the store, and a second call resumes their run. Skipped where no Python imports
/// PyTorch: that of `make setup` has only the half of its wheel that playfield links.
#[test]
fn torchrun_starts_the_ranks() {
    let torchrun = |python: &str| {
        let mut command = Command::new(python);
        // Another libtorch than that of the wheel.
        command.env_remove("LD_LIBRARY_PATH").args(["-m", "torch.distributed.run"]);
        command
    };
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/.venv/bin/python");
    let imports = |python: &&str| torchrun(python).arg("--help").output().is_ok_and(|output| output.status.success());
    let Some(python) = [own, "python3"].into_iter().find(imports) else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    for (args, steps) in [(&["train", "a.toml", "--run-dir", "run"][..], 400), (&["train", "--resume", "run"], 800)] {
        let mut command = torchrun(python);
        command.args(["--no-python", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]);
        command.args(["--master-port", &free_port().to_string(), env!("CARGO_BIN_EXE_playfield")]);
        let output = command.args(args).args(["--steps", &steps.to_string()]).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let ranks = last(&dir.join("run"));
        assert_eq!((ranks.len(), ranks[0].step), (2, steps));
    }
}
