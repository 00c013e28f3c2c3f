//! Training in several processes: joining the group, and what rank 0 sends to the others before training.

use crate::Registry;
use crate::experiment::Experiment;
use playfield_core::group::SingleProcess;
use playfield_core::{Error, Group, Result, Snapshot};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use toml::Table;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The group that the environment variables name (`WORLD_SIZE` and others), or one process.
///
/// # Errors
/// [`Error::Config`] naming a wrong variable; [`Error::Group`] if the other ranks do not join.
pub fn join() -> Result<Arc<dyn Group>> {
    Ok(match playfield_distributed::Group::from_env()? {
        Some(group) => Arc::new(group),
        None => SingleProcess::shared(),
    })
}

/// What all ranks train.
pub struct Job {
    pub experiment: Experiment,
    /// The run folder, on the machine of rank 0.
    pub folder: PathBuf,
    /// The checkpoint to resume from: the snapshot of rank 0, and the parts of the others.
    pub checkpoint: Option<(Snapshot, Vec<Snapshot>)>,
}

/// The beginning of a [`Job`] on its way from rank 0.
#[derive(Serialize, Deserialize)]
struct Header {
    version: String,
    settings: String,
    folder: PathBuf,
    /// The number of snapshots that follow.
    snapshots: usize,
}

/// Sends the job of rank 0 to the other ranks.
///
/// # Errors
/// [`Error::Config`] if a rank has other settings or another version; [`Error::Group`].
pub fn send(group: &dyn Group, job: &Job) -> Result<()> {
    if !group.is_distributed() {
        return Ok(());
    }
    let snapshots = job.checkpoint.iter().flat_map(|(snapshot, parts)| [snapshot].into_iter().chain(parts));
    let header = Header {
        version: VERSION.into(),
        settings: job.experiment.to_table()?.to_string(),
        folder: job.folder.clone(),
        snapshots: snapshots.clone().count(),
    };
    group.broadcast(&mut serde_json::to_vec(&header).map_err(Error::other)?)?;
    if group.any(false)? {
        return Err(other_settings());
    }
    snapshots.into_iter().try_for_each(|snapshot| group.broadcast(&mut snapshot.to_bytes()?))
}

fn other_settings() -> Error {
    Error::config(
        "another rank has other settings or another version of playfield: start all ranks with the same command",
    )
}

/// Receives the job of rank 0. `own` is the experiment of this rank's configuration file; a resumed run has none.
///
/// # Errors
/// As [`send`], naming a setting that differs.
pub fn receive(registry: &Registry, group: &dyn Group, own: Option<Experiment>) -> Result<Job> {
    let mut bytes = Vec::new();
    group.broadcast(&mut bytes)?;
    let header: Header = serde_json::from_slice(&bytes).map_err(Error::other)?;
    let settings: Table =
        header.settings.parse().map_err(|error| Error::other(format!("rank 0's settings: {error}")))?;
    let experiment = match own {
        Some(own) => Ok(own),
        None => registry
            .check_trust(&settings, &header.folder)
            .and_then(|()| Experiment::new(settings.clone(), &[], registry)),
    };
    let agrees = check_version(group.rank(), &header.version).and(experiment).and_then(|experiment| {
        check_settings(group.rank(), &experiment.to_table()?, &settings)?;
        Ok(experiment)
    });
    let experiment = match (group.any(agrees.is_err())?, agrees) {
        (true, Ok(_)) => return Err(other_settings()),
        (_, agrees) => agrees?,
    };
    let next = || {
        let mut bytes = Vec::new();
        group.broadcast(&mut bytes)?;
        Snapshot::from_bytes(&bytes)
    };
    let checkpoint = match header.snapshots {
        0 => None,
        n => Some((next()?, (1..n).map(|_| next()).collect::<Result<_>>()?)),
    };
    Ok(Job { experiment, folder: header.folder, checkpoint })
}

/// Refuses to train with another version of playfield than that of rank 0: its settings and random streams may have another meaning.
fn check_version(rank: usize, of_rank_0: &str) -> Result<()> {
    match of_rank_0 {
        VERSION => Ok(()),
        other => Err(Error::config(format!(
            "rank {rank} runs playfield {VERSION}, and rank 0 {other}: install the same version on all machines"
        ))),
    }
}

/// Refuses settings, `own`, that differ from those of rank 0.
fn check_settings(rank: usize, own: &Table, of_rank_0: &Table) -> Result<()> {
    match difference("", own, of_rank_0) {
        None => Ok(()),
        Some(key) => Err(Error::config(format!(
            "rank {rank} has another value of `{key}` than rank 0: start all ranks with the same configuration"
        ))),
    }
}

/// The first key whose values differ. Each rank may have its own device.
fn difference(path: &str, own: &Table, other: &Table) -> Option<String> {
    own.keys().chain(other.keys()).find_map(|key| {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (own.get(key), other.get(key)) {
            _ if path == "device" => None,
            (Some(toml::Value::Table(own)), Some(toml::Value::Table(other))) => difference(&path, own, other),
            (own, other) => (own != other).then_some(path),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused() {
        assert!(check_version(1, VERSION).is_ok());
        let message = check_version(1, "0.0.9").unwrap_err().to_string();
        assert!(message.contains(&format!("rank 1 runs playfield {VERSION}, and rank 0 0.0.9")), "{message}");
    }

    #[test]
    fn the_first_setting_that_differs_is_named() {
        let table = |text: &str| text.parse::<Table>().unwrap();
        let own = table("steps = 1\ndevice = 'cpu'\n[env]\nid = 'a'\nnum_envs = 2");
        let find = |other: &str| difference("", &own, &table(other));
        assert_eq!(find("steps = 1\ndevice = 'cuda:1'\n[env]\nid = 'a'\nnum_envs = 2"), None);
        assert_eq!(find("steps = 1\n[env]\nid = 'a'\nnum_envs = 4").as_deref(), Some("env.num_envs"));
        assert_eq!(find("steps = 1\nseed = 2\n[env]\nid = 'a'\nnum_envs = 2").as_deref(), Some("seed"));
    }
}
