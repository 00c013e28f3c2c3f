//! Results are written to stdout, everything else to stderr; and errors of either.

use crate::common::{CARTPOLE, checkpoints, file, playfield, stderr, succeeds};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Runs `line` in a shell in which `$playfield` is the program.
fn shell(folder: &Path, line: &str) -> Output {
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("set -o pipefail; {line}")]).current_dir(folder);
    bash.env("playfield", env!("CARGO_BIN_EXE_playfield")).env("PYTHONPATH", folder).output().unwrap()
}

/// A full device, as a file to write to.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// A reader that closes the pipe, such as `head` or `less`, is not an error.
/// Lists and details for people fit the narrowest usual terminal, with the name of the program as users type it.
#[test]
fn lists_fit_80_columns() {
    let dir = tempfile::tempdir().unwrap();
    let long = ["separate-weights", "exploration"].map(|name| ["trick", "show", name].to_vec());
    for args in long.into_iter().chain([vec!["trick", "list"], vec!["envs", "o"]]) {
        let text = succeeds(dir.path(), &args).replace(env!("CARGO_BIN_EXE_playfield"), "playfield");
        let wide: Vec<_> = text.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{args:?}: {wide:#?}");
    }
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    succeeds(dir, &["train", "a.toml", "--run-dir", "run", "--steps", "400"]);
    for line in [
        "$playfield envs | head -1",
        "$playfield eval run --episodes 2 | true",
        "$playfield eval run --episodes 2 --json | true",
        "$playfield trick list | head -1",
        "$playfield --help | true",
        "$playfield doctor | true",
        "$playfield train a.toml --steps 400 | true",
        "$playfield envs >&-",
        "$playfield train a.toml --steps 400 >&- 2>&-",
    ] {
        let output = shell(dir, line);
        assert_eq!(output.status.code(), Some(0), "{line}: {}", stderr(&output));
        assert!(
            !stderr(&output).contains("panicked") && !stderr(&output).contains("error"),
            "{line}: {}",
            stderr(&output)
        );
    }
}

/// Lost results are an error; lost messages are not.
#[test]
fn a_full_device() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    let args = ["train", "a.toml", "--run-dir", "run", "--steps", "2000", "--set", "log_seconds=0.01"];
    let output = playfield(dir, &args).stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("2,000 of 2,000"));
    // stderr is full, too.
    let output =
        shell(dir, "{ $playfield train a.toml --run-dir other --steps 400 2>&1 >/dev/null; echo $? >code; } | true");
    assert!(output.status.success());
    assert_eq!(fs::read_to_string(dir.join("code")).unwrap(), "0\n");
    assert_eq!(checkpoints(&dir.join("other")).len(), 1);

    for args in [&["eval", "run", "--json"][..], &["envs"]] {
        let output = playfield(dir, args).stdout(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).starts_with("error: cannot write stdout: No space left"), "{}", stderr(&output));
    }
}

/// Ctrl-C works, also the second one, if the program's messages cannot be written.
#[test]
fn signals_with_a_full_stderr() {
    for (signals, codes) in [(&["INT"][..], [130, 130]), (&["INT", "TERM"], [130, 143])] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        file(dir, "a.toml", CARTPOLE);
        let args = ["train", "a.toml", "--run-dir", "run", "--steps", "1000M"];
        let child = playfield(dir, &args).stdout(Stdio::piped()).stderr(full()).spawn().unwrap();
        let signal = |name: &str| {
            let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
            assert!(sent.success());
        };
        while !dir.join("run/progress.csv").exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(300));
        if let [first, second] = signals {
            // While it is stopped it cannot finish its update in between.
            ["STOP", first, second, "CONT"].into_iter().for_each(signal);
        } else {
            signal("INT");
        }
        let output = child.wait_with_output().unwrap();
        assert!(codes.map(Some).contains(&output.status.code()), "{:?}", output.status);
        assert_eq!(checkpoints(&dir.join("run")).len(), 2 - signals.len(), "the second signal ends it unsaved");
    }
}

#[cfg(feature = "python")]
mod python {
    use super::*;
    use crate::common::{experiment, python};
    use serde_json::Value;

    /// Output of Python's `print`, C's `printf` and an environment's child processes goes to stderr.
    #[test]
    fn stdout_is_one_json_object_even_if_environments_print() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let talk = "
import ctypes
class Talk(Base):
    def reset(self, *, seed=None, options=None):
        print('printed')
        ctypes.CDLL(None).puts(b'put')
        subprocess.run(['echo', 'echoed'])
        return super().reset(seed=seed)
";
        python(dir, "talk", talk);
        file(dir, "a.toml", &experiment("talk:Talk-v0"));
        let said = succeeds(dir, &["train", "a.toml", "--run-dir", "run"]);
        assert!(said.starts_with("steps      400 of 400\n"), "{said}");
        for args in [
            &["eval", "run", "--episodes", "3", "--json"][..],
            &["distill", "run", "--steps", "200", "--episodes", "2", "--json"],
        ] {
            let output = playfield(dir, args).output().unwrap();
            let said = String::from_utf8(output.stdout.clone()).unwrap();
            assert!(serde_json::from_str::<Value>(&said).unwrap().is_object(), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            for printed in ["printed\n", "put\n", "echoed\n"] {
                assert!(stderr(&output).contains(printed), "{printed}: {}", stderr(&output));
            }
        }
    }

    /// Paths are relative to the folder in which the program was started, even if environments change the working directory.
    #[test]
    fn an_environment_that_changes_the_working_directory_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, elsewhere) = (dir.path().join("here"), dir.path().join("elsewhere"));
        fs::create_dir(&dir).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        let mut wanderers = format!("\nGOAL = {:?}\n", elsewhere.display().to_string());
        wanderers += "
class Importing(Base):
    pass
if os.environ.get('WHEN') == 'import':
    os.chdir(GOAL)
class Making(Base):
    def __init__(self, render_mode=None):
        os.chdir(GOAL)
class Resetting(Base):
    def reset(self, *, seed=None, options=None):
        os.chdir(GOAL)
        return super().reset(seed=seed)
";
        python(&dir, "wander", &wanderers);
        for (name, when) in [("Importing", "import"), ("Making", ""), ("Resetting", "")] {
            file(&dir, &format!("{name}.toml"), &experiment(&format!("wander:{name}-v0")));
            let does = |args: &[&str]| {
                let output = playfield(&dir, args).env("WHEN", when).output().unwrap();
                assert!(output.status.success(), "{args:?}: {}", stderr(&output));
                String::from_utf8(output.stdout).unwrap()
            };
            let run = format!("runs/paac-{}-1", name.to_lowercase());
            let said = does(&["train", &format!("{name}.toml")]);
            assert!(said.contains(&format!("run        {run}\n")), "{said}");
            assert!(said.contains(&format!("checkpoint {run}/checkpoints/000000000400\n")), "{said}");
            does(&["train", "--resume", &run, "--steps", "800"]);
            assert_eq!(checkpoints(&dir.join(&run)).len(), 2);
            does(&["eval", &run, "--episodes", "2"]);
            does(&["embed", &run, "--points", "20", "--perplexity", "5", "--out", &format!("{name}.png")]);
            assert!(dir.join(format!("{name}.png")).exists());
            does(&["distill", &run, "--steps", "200", "--episodes", "2"]);
            assert!(dir.join(format!("{run}-small-1/config.toml")).exists());
            let sweep = [
                "sweep",
                &format!("{name}.toml"),
                "--param",
                "learning_rate=1e-3..1e-2",
                "--trials",
                "1",
                "--dir",
                name,
            ];
            does(&sweep);
            assert!(dir.join(name).join("trial-000/checkpoints").exists());
            assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "{name}");
        }
    }
}
