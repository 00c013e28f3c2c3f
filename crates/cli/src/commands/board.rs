use crate::args::Board as Args;
use crate::output::{note, out};
use crate::{paths, process, signals};
use playfield_core::{Error, Result};
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long TensorBoard may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// `playfield board`: runs TensorBoard until Ctrl-C.
pub fn board(args: &Args, verbose: bool) -> Result<ExitCode> {
    let stop = signals::listen("TensorBoard ends")?;
    let runs = if args.runs.is_empty() { vec![paths::absolute("runs")] } else { args.runs.clone() };
    if let Some(missing) = runs.iter().find(|run| !run.is_dir()) {
        return Err(Error::config(format!("{}: there is no such folder of runs", paths::shown(missing))));
    }
    let mut command = Command::new(program());
    command.current_dir(paths::start()).args(["--host", "localhost"]);
    if let Some(port) = args.port {
        command.args(["--port", &port.to_string()]);
    }
    match &runs[..] {
        [run] => command.arg("--logdir").arg(run),
        runs => command.arg("--logdir_spec").arg(named(runs)?),
    };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = process::spawn_on(&mut command, &process::allowed_cores()).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::config(
            "TensorBoard is not installed: run `make setup` in playfield's folder, or `pip install tensorboard`",
        ),
        _ => Error::other(error),
    })?;
    let (lines, mut last) = (lines(&mut child), String::new());
    loop {
        if let Some(signal) = stop.requested() {
            end(&mut child);
            return Ok(ExitCode::from(128 + signal as u8));
        }
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => {
                if let Some(address) = address(&line) {
                    out!("board      {address} (Ctrl-C ends it)");
                } else if verbose {
                    note!("{line}");
                }
                // The last line that explains something.
                if !line.trim().is_empty() {
                    last = line;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.wait().map_err(Error::other)?;
                return Err(Error::config(format!("TensorBoard has ended ({status}): {}", last.trim())));
            }
        }
    }
}

/// `tensorboard` of the nearest virtual environment, or that of the `PATH`.
fn program() -> PathBuf {
    let above = |path: &Path| path.ancestors().map(|folder| folder.join(".venv")).collect::<Vec<_>>();
    let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let executable = std::env::current_exe().unwrap_or_default();
    let compiled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv");
    let venvs = named("PLAYFIELD_VENV").into_iter().chain(above(paths::start())).chain(above(&executable));
    let venvs = venvs.chain(named("VIRTUAL_ENV")).chain([compiled]);
    venvs.map(|venv| venv.join("bin/tensorboard")).find(|program| program.exists()).unwrap_or("tensorboard".into())
}

/// Several folders as TensorBoard's `name:path,name:path`.
fn named(runs: &[PathBuf]) -> Result<String> {
    let spec = |run: &PathBuf| match paths::shown(run) {
        name if name.contains([',', ':']) => {
            Err(Error::config(format!("{name}: several folders are shown only if no path contains a comma or a colon")))
        }
        name => Ok(format!("{name}:{}", run.display())),
    };
    Ok(runs.iter().map(spec).collect::<Result<Vec<_>>>()?.join(","))
}

/// The address in a line of TensorBoard's output.
fn address(line: &str) -> Option<&str> {
    let start = line.find("http://").filter(|_| line.starts_with("TensorBoard "))?;
    line[start..].split_whitespace().next()
}

/// The lines that the child writes to stderr, read by a thread until it ends.
fn lines(child: &mut Child) -> Receiver<String> {
    let (sender, lines) = channel();
    let stderr = child.stderr.take().expect("stderr is piped");
    std::thread::spawn(move || {
        let lines = BufReader::new(stderr).split(b'\n').map_while(std::result::Result::ok);
        lines.map(|line| String::from_utf8_lossy(&line).into_owned()).try_for_each(|line| sender.send(line))
    });
    lines
}

/// Ends TensorBoard, by force if it takes long.
fn end(child: &mut Child) {
    process::interrupt(child);
    let start = Instant::now();
    while child.try_wait().is_ok_and(|status| status.is_none()) {
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_tensorboard_s_output() {
        let line = "TensorBoard 2.20.0 at http://localhost:6006/ (Press CTRL+C to quit)";
        assert_eq!(address(line), Some("http://localhost:6006/"));
        assert_eq!(address("Serving TensorBoard on localhost; to expose to the network, use a proxy"), None);
    }

    #[test]
    fn several_folders_have_names() {
        let spec = named(&["/a/runs/x-1".into(), "/a/runs/x-2".into()]).unwrap();
        assert_eq!(spec, "/a/runs/x-1:/a/runs/x-1,/a/runs/x-2:/a/runs/x-2");
        assert!(named(&["/a/x,y".into(), "/b".into()]).is_err());
    }
}
