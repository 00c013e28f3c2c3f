//! A trained agent, as its run's folder holds it: what everything that plays begins with.

use crate::experiment::Experiment;
use crate::output::note;
use crate::{Registry, folder, paths};
use playfield_core::{EnvFactory as _, Policy, Result, Snapshot, VecEnv, rng};
use playfield_wrappers::Factory;
use std::path::Path;

/// An agent at rest.
pub struct Agent {
    pub experiment: Experiment,
    pub snapshot: Snapshot,
    pub factory: Factory,
}

impl Agent {
    /// The agent of the run in `run`: its latest checkpoint or its best, on another device where one is named.
    pub fn open(registry: &Registry, run: &Path, device: Option<&str>, best: bool) -> Result<Self> {
        let mut table = folder::settings(run)?;
        if let Some(device) = device {
            table.insert("device".into(), device.into());
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
        let Experiment { algorithm, settings, .. } = &self.experiment;
        let mut policy = (algorithm.load)(settings, self.factory.spec(), &self.snapshot)?;
        policy.seed(rng::derive(seed, purpose, 0));
        Ok(policy)
    }

    /// Environments that it plays in, as many as there are seeds.
    pub fn envs(&self, seeds: &[u64]) -> Result<Box<dyn VecEnv>> {
        self.prepared(self.factory.vec(seeds)?)
    }

    /// One environment that shows pictures of itself, where it can.
    pub fn stage(&self, seed: u64) -> Result<Box<dyn VecEnv>> {
        self.prepared(self.factory.render_env(seed)?)
    }

    /// A normalizer's statistics belong to what was learned: playing uses them and leaves them as they are.
    fn prepared(&self, mut env: Box<dyn VecEnv>) -> Result<Box<dyn VecEnv>> {
        if let Some(statistics) = self.snapshot.state.get("env.statistics").filter(|s| !s.is_null()) {
            env.load_statistics(statistics, true)?;
        }
        Ok(env)
    }
}
