//! A trained agent, loaded from its run's folder: where every command that evaluates one begins.

use crate::experiment::Experiment;
use crate::output::note;
use crate::{Registry, folder, paths};
use playfield_collect::Collector;
use playfield_core::{EnvFactory as _, Policy, Result, Snapshot, VecEnv, rng};
use playfield_wrappers::Factory;
use std::path::Path;

/// A trained agent.
pub struct Agent {
    pub experiment: Experiment,
    pub snapshot: Snapshot,
    pub factory: Factory,
}

impl Agent {
    /// The agent of the run in `run`: its latest checkpoint or its best, on another device where one is named.
    pub fn open(registry: &Registry, run: &Path, device: Option<&str>, best: bool) -> Result<Self> {
        let mut table = folder::settings(run)?;
        // The device of training may be another machine's.
        if table.contains_key("device") {
            table.insert("device".into(), device.unwrap_or("auto").into());
        }
        let experiment = Experiment::new(table, &[], registry)?;
        let checkpoints = folder::checkpoints(run, experiment.intervals.keep_checkpoints);
        let loaded = if best { checkpoints.best()? } else { checkpoints.latest()? };
        for (path, reason) in &loaded.skipped {
            note!("warning: skipped the checkpoint {}: {reason}", paths::shown(path));
        }
        let factory = Factory::new(experiment.source.clone(), experiment.env.clone())?;
        Ok(Self { experiment, snapshot: loaded.snapshot, factory })
    }

    /// Its policy, whose random stream is that of `seed` and `purpose`.
    pub fn policy(&self, seed: u64, purpose: &str) -> Result<Box<dyn Policy>> {
        // One thread for each operation: small batches gain nothing from more.
        tch::set_num_threads(1);
        let mut policy = self.experiment.configured.load(self.factory.spec(), &self.snapshot)?;
        policy.seed(rng::derive(seed, purpose, 0));
        Ok(policy)
    }

    /// A collector of environments for it, as many as there are seeds.
    pub fn collector(&self, seeds: &[u64]) -> Result<Collector> {
        self.prepared(self.factory.vec(seeds)?)
    }

    /// A collector of one environment that renders, where it can.
    pub fn rendering_collector(&self, seed: u64) -> Result<Collector> {
        self.prepared(self.factory.render_env(seed)?)
    }

    /// The statistics of normalization belong to the policy: they are used and not updated.
    fn prepared(&self, mut env: Box<dyn VecEnv>) -> Result<Collector> {
        if let Some(statistics) = self.snapshot.state.get("env.statistics").filter(|s| !s.is_null()) {
            env.load_statistics(statistics, true)?;
        }
        Collector::new(env, None)
    }
}
