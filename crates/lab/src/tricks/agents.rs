//! Agents on small environments: what the experiments on reinforcement learning share.

use crate::Trial;
use playfield_agents::ALGORITHMS;
use playfield_collect::{Collector, evaluate};
use playfield_core::metrics::{EpisodeRow, Row};
use playfield_core::run::Stop;
use playfield_core::{EnvConfig, EnvFactory as _, EnvSource, Error, Mode, Policy, Result, Run, Sink, rng};
use playfield_wrappers::Factory;
use std::sync::{Arc, Mutex};
use toml::{Table, Value};

/// A trained agent and how it got there.
pub(super) struct Trained {
    pub policy: Box<dyn Policy>,
    /// Every episode of its training.
    pub episodes: Vec<EpisodeRow>,
    pub factory: Factory,
}

/// The setting `key` of `section` shall be `value`.
pub(super) type Change<'a> = (&'a str, &'a str, Value);

/// A recipe of `configs/` with changes.
pub(super) fn recipe(text: &str, changes: &[Change<'_>]) -> Result<Table> {
    let mut table: Table = text.parse().map_err(Error::other)?;
    for (section, key, value) in changes {
        let at = section.split('.').filter(|s| !s.is_empty()).try_fold(&mut table, |at, name| {
            at.entry(name).or_insert_with(|| Value::Table(Table::new())).as_table_mut()
        });
        let at = at.ok_or_else(|| Error::config(format!("`{section}` is no section")))?;
        at.insert((*key).into(), value.clone());
    }
    Ok(table)
}

/// Trains the agent of `recipe` from the trial's seed, on `source` or else on the environment that the recipe names.
pub(super) fn train(trial: &Trial, recipe: &Table, source: Option<Arc<dyn EnvSource>>) -> Result<Trained> {
    let section = |name: &str| recipe.get(name).and_then(Value::as_table).cloned().unwrap_or_default();
    let text = |table: &Table, key: &str| table.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
    let (name, id) = (text(recipe, "algorithm"), text(&section("env"), "id"));
    let algorithm = ALGORITHMS.into_iter().find(|a| a.name == name);
    let algorithm = algorithm.ok_or_else(|| Error::config(format!("unknown algorithm '{name}'")))?;
    let known = || playfield_classic::sources().into_iter().find(|(known, ..)| *known == id).map(|(.., source)| source);
    let source = source.or_else(known).ok_or_else(|| Error::config(format!("unknown environment '{id}'")))?;
    let env = EnvConfig::resolve(&section("env"), source.defaults())?;
    let factory = Factory::new(source, env)?;
    let steps = recipe.get("steps").and_then(Value::as_integer).unwrap_or_default() as u64;
    let diary = Diary::default();
    let mut run = Run::new(trial.seed(), steps).with_stop(trial.stop()).with_sink(diary.clone());
    let policy = algorithm.parse(recipe)?.train(&factory, &mut run)?;
    let episodes = std::mem::take(&mut *diary.0.lock().expect("no holder panics"));
    Ok(Trained { policy, episodes, factory })
}

impl Trained {
    /// The mean raw return of the last 100 episodes up to agent step `step`; that of all where there are fewer.
    pub fn lately(&self, step: u64) -> f64 {
        let until: Vec<f64> = self.episodes.iter().filter(|e| e.step <= step).map(|e| e.end.episode_return).collect();
        let last = &until[until.len().saturating_sub(100)..];
        last.iter().sum::<f64>() / last.len() as f64
    }

    /// The mean raw return of `episodes` episodes, played greedily.
    pub fn greedy(&mut self, seed: u64, episodes: usize) -> Result<f64> {
        let mut collector = Collector::new(self.factory.vec(&rng::seeds(seed, "eval", 1))?, None)?;
        let ends = evaluate(&mut collector, &mut *self.policy, Mode::Greedy, episodes, &Stop::default(), || ())?;
        Ok(ends.iter().map(|e| e.episode_return).sum::<f64>() / ends.len() as f64)
    }

    /// Draws the return as the curve of `variant`: at each twentieth of `steps` agent steps the mean of the last 100 episodes; x is
    /// in units of `unit` steps.
    pub fn draw(&self, trial: &mut Trial, variant: &str, steps: u64, unit: f64) {
        for i in 1..=20 {
            let step = steps * i / 20;
            trial.point(variant, step as f64 * unit, self.lately(step));
        }
    }
}

/// Keeps every episode.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<EpisodeRow>>>);

impl Sink for Diary {
    fn scalars(&mut self, _row: &Row) -> Result<()> {
        Ok(())
    }

    fn episode(&mut self, row: &EpisodeRow) -> Result<()> {
        self.0.lock().expect("no holder panics").push(*row);
        Ok(())
    }
}
