//! Several seeds, TensorBoard, videos in the terminal, completions and man pages.

use crate::common::{CARTPOLE, checkpoints, file, playfield, refuses, stderr, succeeds};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn signal(child: &Child, name: &str) {
    // The id is valid: the child was not waited for yet.
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Waits until the run in `folder` has logged its first row: before its first update it has nothing to save.
fn wait_for_row(folder: &Path) {
    let (start, path) = (Instant::now(), folder.join("progress.csv"));
    while fs::read_to_string(&path).map_or(0, |text| text.lines().count()) < 2 {
        assert!(start.elapsed() < Duration::from_secs(60), "no row in {}", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Each seed is a run of its own, equal to one that is trained alone; the table has their final returns.
#[test]
fn several_seeds_are_trained_and_reported_together() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    let output = playfield(dir, &["train", "a.toml", "--seeds", "3", "--seed", "5"]).output().unwrap();
    let (said, progress) = (String::from_utf8_lossy(&output.stdout).into_owned(), stderr(&output));
    assert!(output.status.success(), "{progress}");
    let group = dir.join("runs/paac-cartpole-seeds-1");
    let words: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["seed", "steps", "return"], "{said}");
    let mut returns = Vec::new();
    for (row, seed) in words[1..4].iter().zip(["5", "6", "7"]) {
        assert_eq!(row[..2], [seed, "4,000"], "{said}");
        returns.push(row[2].parse::<f64>().unwrap());
        assert!(progress.contains(&format!("seed-{seed} done after 4,000 steps, return {}", row[2])), "{progress}");
    }
    let summary = |name: &str| words.iter().find(|row| row[0] == name).unwrap()[1].parse::<f64>().unwrap();
    let mean = returns.iter().sum::<f64>() / 3.0;
    assert!((summary("mean") - mean).abs() < 0.011, "{said}");
    returns.sort_by(f64::total_cmp);
    assert_eq!(["min", "median", "max"].map(summary), returns[..]);
    succeeds(dir, &["train", "a.toml", "--seed", "6", "--run-dir", "alone"]);
    let weights = |run: &Path| fs::read(checkpoints(run).last().unwrap().join("model.safetensors")).unwrap();
    assert_eq!(weights(&group.join("seed-6")), weights(&dir.join("alone")));

    let said = refuses(dir, &["train", "--resume", "runs/paac-cartpole-seeds-1"]);
    assert!(
        said.contains("has completed its 4,000 steps: to continue training, give --steps more than that"),
        "{said}"
    );
    // The whole folder is extended, and then one of its runs.
    let said = succeeds(dir, &["train", "--resume", "runs/paac-cartpole-seeds-1", "--steps", "5000"]);
    assert_eq!(said.matches(" 5,000 ").count(), 3, "{said}");
    succeeds(dir, &["report", "runs/paac-cartpole-seeds-1"]);
    assert!(fs::read_to_string(dir.join("report.html")).unwrap().contains(", 3 seeds"), "one group of its runs");
    succeeds(dir, &["train", "--resume", "runs/paac-cartpole-seeds-1/seed-7", "--steps", "5400"]);
    assert!(refuses(dir, &["eval", "runs/paac-cartpole-seeds-1"]).contains("give the folder of one of them"));
    let again = ["train", "a.toml", "--seeds", "2", "--run-dir", "runs/paac-cartpole-seeds-1"];
    assert!(refuses(dir, &again).contains("already contains runs of several seeds: resume them"));
}

/// Ctrl-C saves every run, also one that is not first, and `--resume` completes them.
#[test]
fn interrupted_seeds_resume() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", &CARTPOLE.replace("4000", "2000000"));
    let args = ["train", "a.toml", "--seeds", "3", "--jobs", "2", "--run-dir", "group"];
    let child = playfield(dir, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let group = dir.join("group");
    ["seed-1", "seed-2"].iter().for_each(|seed| wait_for_row(&group.join(seed)));
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("interrupted") && said.contains("playfield train --resume group\n"), "{said}");
    for seed in ["seed-1", "seed-2"] {
        assert_eq!(checkpoints(&group.join(seed)).len(), 1, "{seed} is saved");
    }
    assert!(!group.join("seed-3").exists());
    let text = fs::read_to_string(group.join("experiment.toml")).unwrap();
    let step = |seed: &str| {
        let saved = checkpoints(&group.join(seed)).pop().unwrap();
        saved.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap()
    };
    let steps = step("seed-1").max(step("seed-2")) + 1000;
    assert!(text.contains("steps = 2000000"), "{text}");
    let said = succeeds(dir, &["train", "--resume", "group", "--steps", &steps.to_string()]);
    assert!(!said.contains("interrupted") && !said.contains("failed"), "{said}");
    for seed in ["seed-1", "seed-2", "seed-3"] {
        assert!(step(seed) >= steps, "{seed}: {} of {steps}", step(seed));
    }
}

/// The error of the first run that failed; the others are trained.
#[test]
fn seeds_that_fail_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", &format!("{CARTPOLE}[network]\ntorso = 'nature'\n"));
    let said = refuses(dir, &["train", "a.toml", "--seeds", "2"]);
    assert!(said.contains("2 of 2 runs failed; seed-1: ") && said.contains("torso"), "{said}");
    file(dir, "b.toml", CARTPOLE);
    assert!(refuses(dir, &["train", "b.toml", "--jobs", "2"]).contains("--seeds"));
    assert!(refuses(dir, &["train", "b.toml", "--seeds", "2", "--set", "gama=1"]).contains("did you mean 'gamma'?"));
    assert!(!dir.join("runs/paac-cartpole-seeds-2").exists());
}

/// TensorBoard runs until Ctrl-C, at the printed address.
#[cfg(feature = "python")]
#[test]
fn tensorboard_is_started_and_ended() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let said = refuses(dir, &["board"]);
    assert!(said.contains("runs: there is no such folder"), "{said}");
    file(dir, "a.toml", CARTPOLE);
    ["a", "b"].iter().for_each(|run| _ = succeeds(dir, &["train", "a.toml", "--steps", "400", "--run-dir", run]));
    let mut child = playfield(dir, &["board", "a", "b", "--port", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.strip_prefix("board      http://localhost:").unwrap_or_else(|| panic!("{line}"));
    let port: u16 = address.split('/').next().unwrap().parse().unwrap();
    let mut stream = std::net::TcpStream::connect(("localhost", port)).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /data/runs HTTP/1.0\r\n\r\n").unwrap();
    let mut page = String::new();
    std::io::Read::read_to_string(&mut stream, &mut page).unwrap();
    assert!(page.starts_with("HTTP/1.") && page.contains("200 OK"), "{page}");
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(std::net::TcpStream::connect(("localhost", port)).is_err(), "TensorBoard has ended");
}

#[test]
fn without_tensorboard_one_sentence_says_so() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("runs")).unwrap();
    let fake = dir.path().join("venv/bin");
    fs::create_dir_all(&fake).unwrap();
    // A TensorBoard that fails: its last line is the reason.
    let script = file(&fake, "tensorboard", "#!/bin/sh\necho 'No module named x' >&2\nexit 3\n");
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let output = playfield(dir.path(), &["board"]).env("PLAYFIELD_VENV", dir.path().join("venv")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output), "error: TensorBoard has ended (exit status: 3): No module named x\n");
}

/// On a terminal, an episode is shown in color and the terminal is restored.
#[cfg(feature = "python")]
#[test]
fn an_episode_is_shown_in_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    succeeds(dir, &["train", "a.toml", "--steps", "400", "--run-dir", "run"]);
    let code = "import fcntl, os, pty, struct, sys, termios\n\
                pid, terminal = pty.fork()\n\
                if pid == 0:\n\
                \x20   fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 20, 60, 0, 0))\n\
                \x20   os.execv(sys.argv[1], sys.argv[1:])\n\
                try:\n\
                \x20   while data := os.read(terminal, 65536):\n\
                \x20       os.write(1, data)\n\
                except OSError:\n\
                \x20   pass\n\
                sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n";
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let watch = [env!("CARGO_BIN_EXE_playfield"), "watch", "run", "--overlay"];
    let output = Command::new(python).args(["-c", code]).args(watch).current_dir(dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", stderr(&output));
    let frames: Vec<&str> = said.split("\x1b[H").skip(1).collect();
    assert!(frames[0].contains("step 0  return 0.00  value ") && frames[0].contains(" %"), "{}", frames[0]);
    assert!(frames[0].contains("\x1b[38;2;255;255;255;48;2;255;255;255m▀▀"), "{}", frames[0]);
    let rows = frames[0].split("\r\n").map(|row| row.matches('▀').count());
    assert_eq!(
        rows.collect::<Vec<_>>(),
        [[60; 10].as_slice(), &[0]].concat(),
        "300 × 100 pixels on 60 × 20 characters"
    );
    let (screen, after) = said.rsplit_once("\x1b[?1049l").unwrap();
    assert!(screen.contains("\x1b[?1049h") && after.contains("content    "), "{after}");
    let steps: usize = after.split("content    ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(frames.len(), steps + 1);
    assert!(!dir.join("run/videos").exists());
}

#[test]
fn completions_and_man_pages_cover_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (shell, part) in
        [("bash", "complete -F _playfield"), ("zsh", "#compdef playfield"), ("fish", "complete -c playfield")]
    {
        let script = succeeds(dir, &["completions", shell]);
        assert!(script.contains(part) && script.contains("run-dir") && script.contains("board"), "{shell}: {script}");
    }
    let script = file(dir, "playfield.bash", &succeeds(dir, &["completions", "bash"]));
    let complete = "source \"$0\"; COMP_WORDS=(playfield train --se); COMP_CWORD=2; _playfield playfield --se train; \
                    echo ${COMPREPLY[@]}";
    let output = Command::new("bash").args(["-c", complete]).arg(&script).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "--seed --seeds --set\n", "{}", stderr(&output));
    assert!(refuses(dir, &["completions", "fisch"]).contains("fish"));

    let page = succeeds(dir, &["man"]);
    assert!(page.contains(".TH playfield 1") && page.contains("Exit codes"), "{page}");
    let said = succeeds(dir, &["man", "--out", "pages"]);
    for name in ["playfield", "playfield-train", "playfield-board", "playfield-trick-run"] {
        assert!(said.contains(&format!("pages/{name}.1\n")), "{name}: {said}");
    }
    let train = fs::read_to_string(dir.join("pages/playfield-train.1")).unwrap();
    assert!(train.contains("playfield train") || train.contains("playfield\\-train"), "{train}");
}

/// The closest name is suggested for commands, options, their values, files and folders.
#[test]
fn misspelled_arguments_are_corrected() {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path(), "pole.toml", CARTPOLE);
    succeeds(dir.path(), &["train", "pole.toml", "--steps", "400"]);
    for (args, expected) in [
        (&["trian", "a.toml"][..], "'train'"),
        (&["train", "a.toml", "--sed", "3"], "'--seed'"),
        (&["trick", "run", "atention"], "did you mean 'attention'?"),
        (&["train", "poles.toml"], "did you mean 'pole.toml'?"),
        (&["eval", "runs/paac-cartpole-2"], "did you mean 'paac-cartpole-1'?"),
        (&["train", "pole.toml", "--env", "CartPol"], "did you mean 'CartPole'?"),
        (&["completions", "bsh"], "'bash'"),
    ] {
        let said = refuses(dir.path(), args);
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}

/// `--cpu` or `PLAYFIELD_CPU` limits the instructions in use, and the run folder says so.
#[test]
fn a_limit_to_the_processors_instructions_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    let train = |name| ["train", "a.toml", "--steps", "64", "--run-dir", name];
    let of = |name: &str| fs::read_to_string(dir.join(name).join("machine.txt")).unwrap();
    succeeds(dir, &train("free"));
    succeeds(dir, &[&["--cpu", "baseline"][..], &train("option")].concat());
    assert!(playfield(dir, &train("variable")).env("PLAYFIELD_CPU", "baseline").status().unwrap().success());
    assert_eq!(of("option"), of("variable"));
    if of("free").contains("(no AVX2)") {
        return; // nothing to limit
    }
    assert!(of("option").contains("(no AVX2, limited: the processor has AVX"), "{}", of("option"));
    assert!(refuses(dir, &["--cpu", "sse", "doctor"]).contains("avx512_bf16"));
}
