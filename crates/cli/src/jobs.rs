//! Training runs in processes of their own, several at a time, on separate cores: the trials of a sweep, the seeds of an experiment.

use crate::{folder, paths, process};
use playfield_core::{Error, Result};
use playfield_report::run::CsvTable;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::available_parallelism;

/// A run with its folder and log, and how far it is.
#[derive(Clone, Debug)]
pub struct Training {
    /// The name of the folder; the log is `<name>.log`.
    pub name: String,
    /// Agent steps so far.
    pub step: u64,
    /// The mean return of the last training episodes.
    pub score: Option<f64>,
    /// The mean return of the last evaluation.
    pub evaluated: Option<f64>,
}

impl Training {
    /// A run that has not started.
    pub fn new(name: String) -> Self {
        Self { name, step: 0, score: None, evaluated: None }
    }

    /// The log of the run in `folder`.
    pub fn log(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.log", self.name))
    }

    /// The error in the log, if there is one.
    pub fn error(&self, folder: &Path) -> String {
        let log = self.log(folder);
        let text = fs::read_to_string(&log).unwrap_or_default();
        let reason = text.lines().rev().find_map(|line| line.strip_prefix("error: "));
        reason.map_or_else(|| format!("see {}", paths::shown(&log)), |reason| format!("{}: {reason}", self.name))
    }

    /// Reads the progress of the run, and calls `row` with the step and the return of each row.
    pub fn read_progress(&mut self, folder: &Path, mut row: impl FnMut(u64, Option<f64>)) {
        // The run may be about to create or to replace the file.
        let table = CsvTable::read(&folder.join(&self.name).join("progress.csv")).unwrap_or_default();
        let columns = ["time/total_timesteps", "rollout/ep_rew_mean", "eval/mean_reward"];
        let [steps, scores, evaluations] = columns.map(|tag| table.cells(tag));
        for ((step, score), evaluated) in steps.into_iter().zip(scores).zip(evaluations) {
            let Some(step) = step else { continue };
            self.step = step as u64;
            (self.score, self.evaluated) = (score.or(self.score), evaluated.or(self.evaluated));
            row(self.step, score);
        }
    }

    /// The command that starts the run in `folder` from the configuration file `config` with further `arguments`, or resumes it with
    /// `resumed`.
    pub fn command(&self, folder: &Path, config: &Path, arguments: &[String], resumed: &[String]) -> Result<Command> {
        let run = folder.join(&self.name);
        let mut command = Command::new(std::env::current_exe().map_err(Error::other)?);
        if run.join("checkpoints").is_dir() {
            command.args(["train", "--resume"]).arg(&run).args(resumed);
        } else {
            // Removes the files of an earlier session that saved no checkpoint.
            let _ = fs::remove_dir_all(&run);
            command.arg("train").arg(config).arg("--run-dir").arg(&run).args(arguments);
        }
        Ok(command)
    }

    /// Whether the last checkpoint of the run in `folder` is that of step `steps` or later.
    pub fn is_complete(&self, folder: &Path, steps: u64) -> bool {
        let checkpoints = folder::checkpoints(&folder.join(&self.name), 1).list().unwrap_or_default();
        let step = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
        checkpoints.iter().filter_map(step).any(|step| step >= steps)
    }
}

/// The processes of runs, each in a slot with its share of the cores.
pub struct Jobs {
    slots: usize,
    cores: Vec<usize>,
    running: Vec<Job>,
    interrupted: bool,
}

struct Job {
    slot: usize,
    index: usize,
    child: Child,
}

impl Jobs {
    /// `slots` slots for `count` runs (`None`: one per core).
    pub fn new(slots: Option<usize>, count: usize) -> Self {
        let slots = slots.unwrap_or(available_parallelism().map_or(1, usize::from)).min(count).max(1);
        Self { slots, cores: process::allowed_cores(), running: Vec::new(), interrupted: false }
    }

    /// The number of slots.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Whether another run can start.
    pub fn has_free_slot(&self) -> bool {
        self.running.len() < self.slots
    }

    /// Whether no run has a process.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether run `index` has a process.
    pub fn contains(&self, index: usize) -> bool {
        self.running.iter().any(|job| job.index == index)
    }

    /// Starts `command`, run `index`, on the cores of a free slot. Its output goes to `log`. It does not receive Ctrl-C from the
    /// terminal: see [`interrupt_all`](Self::interrupt_all).
    pub fn start(&mut self, index: usize, mut command: Command, log: &Path) -> Result<()> {
        let slot = (0..self.slots).find(|slot| self.running.iter().all(|job| job.slot != *slot)).expect("a free slot");
        let file = File::create(log).map_err(Error::io("write", log))?;
        let errors = file.try_clone().map_err(Error::io("write", log))?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let cores = process::share_of_cores(&self.cores, slot, self.slots);
        // An environment may have changed the working directory of this process.
        command.current_dir(paths::start());
        let child = process::spawn_on(&mut command, &cores).map_err(Error::io("start", log))?;
        self.running.push(Job { slot, index, child });
        Ok(())
    }

    /// Makes run `index` save and end.
    pub fn interrupt(&self, index: usize) {
        self.running.iter().filter(|job| job.index == index).for_each(|job| process::interrupt(&job.child));
    }

    /// Makes every run save and end, at the first call.
    pub fn interrupt_all(&mut self) {
        if !std::mem::replace(&mut self.interrupted, true) {
            self.running.iter().for_each(|job| process::interrupt(&job.child));
        }
    }

    /// Removes and returns the runs whose processes have ended.
    pub fn take_ended(&mut self) -> Result<Vec<(usize, ExitStatus)>> {
        let mut ended = Vec::new();
        for place in (0..self.running.len()).rev() {
            let Job { index, child, .. } = &mut self.running[place];
            if let Some(status) = child.try_wait().map_err(Error::other)? {
                ended.push((*index, status));
                self.running.swap_remove(place);
            }
        }
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_by_the_names_of_columns() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        let text = "time/total_timesteps,time/time_elapsed,eval/mean_reward,rollout/ep_rew_mean\n\
                    10,0.5,,\n20,1.0,,3.5\n20,1.1,7.25,\n30,1.5,,4.5\n40,1.6,,5";
        fs::write(dir.path().join("run/progress.csv"), text).unwrap();
        let (mut run, mut rows) = (Training::new("run".into()), Vec::new());
        run.read_progress(dir.path(), |step, score| rows.push((step, score)));
        assert_eq!((run.step, run.score, run.evaluated), (30, Some(4.5), Some(7.25)));
        assert_eq!(rows, [(10, None), (20, Some(3.5)), (20, None), (30, Some(4.5))]);
    }
}
