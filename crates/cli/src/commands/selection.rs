//! The runs that a command compares: `[NAME=]RUN[,RUN…]` arguments as groups. A folder of several seeds stands for its runs.

use crate::{folder, suggest};
use playfield_core::{Error, Result};
use playfield_report::{Group, RunFolder, group};
use std::fs;
use std::path::Path;

/// The groups of `arguments`. A path is a run, grouped with the other runs that differ only in their seed. `NAME=RUN,RUN` and
/// `RUN,RUN` are groups as they stand. A run that is named twice counts once.
///
/// # Errors
/// [`Error::Config`] if a folder does not exist or contains no run, with the most similar name beside it, or if a group has several
/// environments.
pub fn groups(arguments: &[String]) -> Result<Vec<Group>> {
    let (mut explicit, mut plain, mut order, mut seen) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for argument in &arguments.iter().flat_map(|argument| expand(argument)).collect::<Vec<_>>() {
        if Path::new(argument).exists() || !argument.contains(['=', ',']) {
            let run = read(argument)?;
            let path = fs::canonicalize(&run.path).unwrap_or_default();
            if !seen.contains(&path) {
                order.push(run.path.clone());
                plain.push(run);
                seen.push(path);
            }
            continue;
        }
        let (name, paths) = argument.split_once('=').unwrap_or(("", argument));
        let runs = paths.split(',').flat_map(expand).map(|path| read(&path)).collect::<Result<Vec<_>>>()?;
        if let Some(other) = runs.iter().find(|run| run.env != runs[0].env) {
            let (first, second) = (&runs[0].env, &other.env);
            return Err(Error::config(format!(
                "{argument}: a group has one environment, not both {first} and {second}"
            )));
        }
        order.push(runs[0].path.clone());
        explicit.push(if name.is_empty() { Group::of(runs) } else { Group::new(name, runs) });
    }
    let mut groups: Vec<Group> = group::group(plain).into_iter().chain(explicit).collect();
    groups.sort_by_key(|group| order.iter().position(|path| *path == group.runs[0].path));
    Ok(groups)
}

/// The runs that `path` stands for: those in a folder of several seeds, else itself.
fn expand(path: &str) -> Vec<String> {
    let folder = Path::new(path);
    if !folder::is_group(folder) {
        return vec![path.into()];
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let runs = entries.filter(|path| path.join("config.toml").is_file());
    let mut runs: Vec<_> = runs.map(|path| path.to_string_lossy().into_owned()).collect();
    runs.sort();
    runs
}

fn read(path: &str) -> Result<RunFolder> {
    let path = Path::new(path);
    if path.exists() {
        return RunFolder::read(path);
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut names: Vec<_> = beside.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hint = suggest::hint(&name, names.iter().map(String::as_str));
    Err(Error::config(format!("the run {} does not exist{hint} (`playfield runs` lists all runs)", path.display())))
}
