//! A trained agent, loaded from the folder of its run.

use crate::experiment::Experiment;
use crate::output::note;
use crate::{Registry, folder, paths};
use playfield_collect::Collector;
use playfield_core::{EnvFactory as _, Normalizer, Policy, Result, Snapshot, VecEnv, rng};
use playfield_wrappers::Factory;
use std::path::Path;

/// A trained agent.
pub struct Agent {
    pub experiment: Experiment,
    pub snapshot: Snapshot,
    /// The score of the checkpoint.
    pub score: Option<f64>,
    pub factory: Factory,
}

impl Agent {
    /// Loads the agent of the run in the folder `run` from its latest or best checkpoint, onto `device` (`None`: auto).
    pub fn open(registry: &Registry, run: &Path, device: Option<&str>, best: bool) -> Result<Self> {
        let mut table = registry.run_settings(run)?;
        // The device used in training may not exist on this machine.
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
        Ok(Self { experiment, snapshot: loaded.snapshot, score: loaded.score, factory })
    }

    /// The policy of the agent. Its random stream is derived from `seed` and `purpose`.
    pub fn policy(&self, seed: u64, purpose: &str) -> Result<Box<dyn Policy>> {
        // One thread per operation: small batches do not benefit from more.
        tch::set_num_threads(1);
        let mut policy = self.experiment.configured.load(self.factory.spec(), &self.snapshot)?;
        policy.seed(rng::derive(seed, purpose, 0));
        Ok(policy)
    }

    /// A collector with one environment per seed.
    pub fn collector(&self, seeds: &[u64]) -> Result<Collector> {
        Collector::new(self.normalized(self.factory.vec(seeds)?)?, None)
    }

    /// A collector with one environment that renders, if supported.
    pub fn rendering_collector(&self, seed: u64) -> Result<Collector> {
        Collector::new(self.normalized(self.factory.rendering(seed, &toml::Table::new())?)?, None)
    }

    /// The normalization statistics of the checkpoint, if the run normalizes observations or rewards.
    pub fn normalizer(&self) -> Result<Option<Normalizer>> {
        let env = &self.experiment.env;
        match env.normalize_obs || env.normalize_reward {
            true => Ok(self.normalized(self.factory.vec(&[0])?)?.normalizer().cloned()),
            false => Ok(None),
        }
    }

    /// `env` with the normalization statistics of the checkpoint, which are not updated.
    fn normalized(&self, mut env: Box<dyn VecEnv>) -> Result<Box<dyn VecEnv>> {
        if let Some(statistics) = self.snapshot.state.get("env.statistics").filter(|s| !s.is_null()) {
            env.load_statistics(statistics, true)?;
        }
        Ok(env)
    }
}
