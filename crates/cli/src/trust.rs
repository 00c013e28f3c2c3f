//! Which runs may execute Python code.
//!
//! The environment of a run is named in its `config.toml`, and `module:Id` and `file.py:Class` are Python code. A run folder may come
//! from somebody else, and to evaluate, resume or record a run must not execute a stranger's code. The environments that this user
//! trains in are therefore listed outside of run folders, one per line, in `$XDG_STATE_HOME/playfield/environments` (by default
//! `~/.local/state/…`); a run with another one needs `--trust`. Code inside the run folder is never executed.

use crate::paths;
use playfield_core::{Error, Result};
use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Adds the environment `id` to the list, if it is Python code. Where the list cannot be written, its runs need `--trust`.
pub fn remember(id: &str) {
    let Some(list) = list().filter(|_| is_code(id)) else { return };
    if !is_listed(&list, id) {
        let append = || {
            list.parent().map_or(Ok(()), fs::create_dir_all)?;
            writeln!(OpenOptions::new().create(true).append(true).open(&list)?, "{id}")
        };
        // Training needs no list.
        let _ = append();
    }
}

/// Checks that the environment `id` of the run in the folder `run` may be created: it is no code, or listed, or `trusted`.
///
/// # Errors
/// [`Error::Config`] that says what to do.
pub fn check(id: &str, run: &Path, trusted: bool) -> Result<()> {
    if !is_code(id) {
        return Ok(());
    }
    let shown = paths::shown(run);
    if let Some(file) = inside(id, run) {
        return Err(Error::config(format!(
            "{}: the environment of a run is not imported from the run's own folder; if you trust it, move it elsewhere",
            paths::shown(&file)
        )));
    }
    if trusted || list().is_some_and(|list| is_listed(&list, id)) {
        return Ok(());
    }
    Err(Error::config(format!(
        "the environment of {shown} is Python code ({id}), and you have not trained in it on this machine: read that code, then add --trust"
    )))
}

fn is_code(id: &str) -> bool {
    id.contains(':')
}

fn list() -> Option<PathBuf> {
    let folder = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join("playfield/environments"))
}

fn is_listed(list: &Path, id: &str) -> bool {
    fs::read_to_string(list).is_ok_and(|text| has_line(&text, id))
}

fn has_line(text: &str, id: &str) -> bool {
    text.lines().any(|line| line == id)
}

/// The file in the folder `run` that an import for `id` would execute, if there is one.
fn inside(id: &str, run: &Path) -> Option<PathBuf> {
    let run = fs::canonicalize(run).ok()?;
    let (code, _) = id.rsplit_once(':')?;
    let module = code.split('.').next()?;
    let starts = fs::canonicalize(paths::start()).ok()?;
    let named = [paths::absolute(code), starts.join(module), starts.join(format!("{module}.py"))];
    named.into_iter().filter_map(|path| fs::canonicalize(path).ok()).find(|path| path.starts_with(&run))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_environments_are_whole_lines() {
        let text = "own:Game-v0\n/home/a/b.py:Class\n";
        assert!(has_line(text, "own:Game-v0") && has_line(text, "/home/a/b.py:Class"));
        assert!(!has_line(text, "own:Game") && !has_line(text, "") && !has_line("", "own:Game-v0"));
    }
}
