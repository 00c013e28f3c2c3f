//! Algorithms and environments by name.

use crate::args::{Cli, Command};
use crate::output::{self, note};
use crate::{TrainedPolicy, commands, folder, machine, paths, process, suggest, trust};
use clap::Parser;
use playfield_core::algorithm::Entry;
use playfield_core::{Algorithm, Env, EnvConfig, EnvSource, Error, Result, notices};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// The algorithms and environments available on the command line.
///
/// ```ignore
/// fn main() -> std::process::ExitCode {
///     playfield::Registry::standard()
///         .env("Corridor", "walk right to the end of a corridor", |_config| Ok(Corridor::new()))
///         .run()
/// }
/// ```
pub struct Registry {
    algorithms: Vec<Entry>,
    envs: Vec<Row>,
    /// Whether the environments of all runs may be created.
    trusts_runs: bool,
}

/// An environment in the registry.
pub(crate) struct Row {
    pub id: String,
    pub about: String,
    pub source: Arc<dyn EnvSource>,
}

impl Registry {
    /// The algorithms and environments of playfield. Gymnasium environments are looked up by id when needed.
    pub fn standard() -> Self {
        let envs = playfield_classic::sources();
        Self {
            algorithms: playfield_agents::ALGORITHMS.to_vec(),
            envs: envs
                .into_iter()
                .map(|(id, about, source)| Row { id: id.into(), about: about.into(), source })
                .collect(),
            trusts_runs: false,
        }
    }

    /// Creates the environments of all runs, as `--trust` does: also of runs whose environment is Python code that this user has not
    /// trained in on this machine.
    #[must_use]
    pub fn trusting_runs(self) -> Self {
        Self { trusts_runs: true, ..self }
    }

    /// Adds an environment. `make` creates it from the `[env]` section (for example from its `kwargs`) on the thread that steps it.
    /// An environment with the same id is replaced.
    pub fn env<E, F>(self, id: impl Into<String>, about: impl Into<String>, make: F) -> Self
    where
        E: Env + 'static,
        F: Fn(&EnvConfig) -> Result<E> + Send + Sync + 'static,
    {
        self.source(id, about, playfield_core::env::source(make))
    }

    /// Adds an environment with its own defaults or its own batched implementation. An environment with the same id is replaced.
    pub fn source(mut self, id: impl Into<String>, about: impl Into<String>, source: impl EnvSource + 'static) -> Self {
        let row = Row { id: id.into(), about: about.into(), source: Arc::new(source) };
        self.envs.retain(|r| r.id != row.id);
        self.envs.push(row);
        self
    }

    /// Adds an algorithm. An algorithm with the same name is replaced.
    pub fn algorithm<A: Algorithm>(mut self) -> Self {
        self.algorithms.retain(|entry| entry.name != A::NAME);
        self.algorithms.push(Entry::of::<A>());
        self
    }

    /// Runs the command of the process's arguments. The exit code is 0 on success, 2 on an error, 3 if another process of the run has
    /// failed, and 130, 143 or 129 after Ctrl-C,
    /// SIGTERM or SIGHUP.
    ///
    /// Call this first in `main`. Afterwards stdout is reserved for results: other output of the process and its children is
    /// redirected to stderr.
    pub fn run(mut self) -> ExitCode {
        process::prepare();
        let mut verbose = false;
        let result = arguments().and_then(|cli| {
            verbose = cli.verbose;
            self.trusts_runs |= cli.trust;
            cli.cpu.into_iter().for_each(machine::limit);
            output::claim_stdout()?;
            let code = self.dispatch(&cli)?;
            output::finish().map(|()| code)
        });
        notices::take().iter().for_each(|notice| note!("{notice}"));
        result.unwrap_or_else(|error| {
            note!("error: {error}");
            if let (true, Error::Env { detail: Some(detail), .. }) = (verbose, &error) {
                note!("\n{}", detail.trim_end());
            }
            ExitCode::from(if matches!(error, Error::Group { .. }) { OTHER_RANK_FAILED } else { 2 })
        })
    }

    /// The policy of the run in the folder `run`, from its latest checkpoint. The registry must have the run's environment and
    /// algorithm.
    ///
    /// # Errors
    /// Where the folder has no run or no undamaged checkpoint, or its environment cannot be created.
    pub fn load_policy(&self, run: impl AsRef<Path>) -> Result<TrainedPolicy> {
        TrainedPolicy::load(self, run.as_ref(), false)
    }

    /// The same from the best checkpoint.
    ///
    /// # Errors
    /// As [`load_policy`](Self::load_policy).
    pub fn load_best_policy(&self, run: impl AsRef<Path>) -> Result<TrainedPolicy> {
        TrainedPolicy::load(self, run.as_ref(), true)
    }

    fn dispatch(&self, cli: &Cli) -> Result<ExitCode> {
        match &cli.command {
            Command::Train(args) => commands::train(self, args),
            Command::Launch(args) => commands::launch(self, args),
            Command::Eval(args) => commands::eval(self, args),
            Command::Watch(args) => commands::watch(self, args),
            Command::Board(args) => commands::board(args, cli.verbose),
            Command::Envs { filter } => commands::envs(self, filter.as_deref()),
            Command::Check(args) => commands::check(self, args, cli.verbose),
            Command::Doctor { bench: false } => commands::doctor(),
            Command::Doctor { bench: true } => commands::bench(),
            Command::Distill(args) => commands::distill(self, args),
            Command::Embed(args) => commands::embed(self, args),
            Command::Export(args) => commands::export(self, args),
            Command::Sweep(args) => commands::sweep(self, args),
            Command::Trick(args) => commands::trick(args),
            Command::Runs(args) => commands::runs(args),
            Command::Plot(args) => commands::plot(args),
            Command::Report(args) => commands::report(args),
            Command::Completions { shell } => commands::completions(*shell),
            Command::Man { out } => commands::man(out.as_deref()),
        }
    }

    /// The complete settings of the run in the folder `run`, whose environment may be created.
    ///
    /// # Errors
    /// [`Error::Config`] if the folder contains no run, its settings cannot be read, or its environment is a stranger's code.
    pub(crate) fn run_settings(&self, run: &Path) -> Result<toml::Table> {
        let table = folder::settings(run)?;
        self.check_trust(&table, run)?;
        Ok(table)
    }

    /// Checks that the environment of the settings `table` in the folder `run` may be created.
    ///
    /// # Errors
    /// [`Error::Config`] if it is a stranger's code.
    pub(crate) fn check_trust(&self, table: &toml::Table, run: &Path) -> Result<()> {
        let id = table.get("env").and_then(|env| env.get("id")).and_then(toml::Value::as_str).unwrap_or_default();
        match self.envs.iter().any(|row| row.id == id) {
            true => Ok(()),
            false => trust::check(id, run, self.trusts_runs),
        }
    }

    /// The option that passes the trust in runs on to a child process, if there is one.
    pub(crate) fn trust_option(&self) -> Option<String> {
        self.trusts_runs.then(|| "--trust".into())
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.envs
    }

    pub(crate) fn find_algorithm(&self, name: &str) -> Result<Entry> {
        let names = || self.algorithms.iter().map(|a| a.name);
        self.algorithms.iter().copied().find(|a| a.name == name).ok_or_else(|| {
            let all = names().collect::<Vec<_>>().join(", ");
            let hint = suggest::hint(name, names());
            Error::config(format!("unknown algorithm '{name}'{hint} (available: {all})"))
        })
    }

    pub(crate) fn find_env(&self, id: &str) -> Result<Arc<dyn EnvSource>> {
        if let Some(row) = self.envs.iter().find(|r| r.id == id) {
            return Ok(row.source.clone());
        }
        if let Some(source) = external::lookup(id) {
            return Ok(source);
        }
        let others = external::ids().unwrap_or_default();
        let ids = self.envs.iter().map(|r| r.id.as_str()).chain(others.iter().map(String::as_str));
        let hint = suggest::hint(id, ids);
        Err(Error::config(format!("unknown environment '{id}'{hint} (`{} envs` lists them all)", paths::program())))
    }
}

/// The exit code of a rank that ends because another one has failed or does not respond.
pub(crate) const OTHER_RANK_FAILED: u8 = 3;

/// Parses the arguments and makes paths absolute. For `--help` and for invalid arguments clap prints a message and exits the process.
fn arguments() -> Result<Cli> {
    paths::store_start()?;
    if let Some(invalid) = std::env::args_os().skip(1).find(|argument| argument.to_str().is_none()) {
        return Err(Error::config(format!("the argument '{}' is not UTF-8", invalid.to_string_lossy())));
    }
    Ok(Cli::parse())
}

/// Environments registered in Python.
#[cfg(feature = "python")]
pub(crate) use playfield_gymnasium as external;

/// Environments registered in Python: none in this build.
#[cfg(not(feature = "python"))]
pub(crate) mod external {
    use playfield_core::{EnvSource, Result};
    use std::path::Path;
    use std::sync::Arc;

    pub fn absolute(id: &str, _folder: &Path) -> String {
        id.into()
    }

    pub fn lookup(_id: &str) -> Option<Arc<dyn EnvSource>> {
        None
    }

    pub fn ids() -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}
