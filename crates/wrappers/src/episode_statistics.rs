//! Return and length of finished episodes, on raw rewards. A lost life does not end such an episode.
//!
//! This wrapper is inside those that change rewards. Sums are `f64`: a game's score can exceed the precision of `f32`.

use crate::VecEnvWrapper;
use playfield_core::{EpisodeEnd, Result, State, StepBatch};
use serde::{Deserialize, Serialize};

/// Fills [`StepBatch::episode`] in the step that ends an episode.
#[derive(Clone, Debug)]
pub struct RecordEpisodeStatistics {
    running: Vec<Running>,
}

/// An unfinished episode: the sum of its rewards, and its agent steps.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Running {
    /// Infinite if a reward was: rewards may be clipped outside this wrapper.
    /// Checkpoints of format 1 call it `reward`.
    #[serde(with = "playfield_core::json::float", alias = "reward")]
    episode_return: f64,
    length: u64,
}

impl RecordEpisodeStatistics {
    /// For `n` environments.
    pub fn new(n: usize) -> Self {
        Self { running: vec![Running::default(); n] }
    }
}

impl VecEnvWrapper for RecordEpisodeStatistics {
    const NAME: &'static str = "episode statistics";

    fn reset(&mut self, _batch: &mut StepBatch) -> Result<()> {
        self.running.fill(Running::default());
        Ok(())
    }

    fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
        for (i, running) in self.running.iter_mut().enumerate() {
            running.episode_return += f64::from(batch.reward[i]);
            running.length = running.length.saturating_add(u64::from(!batch.ignored[i]));
            batch.episode[i] = batch.done(i).then(|| {
                let Running { episode_return, length } = std::mem::take(running);
                EpisodeEnd { episode_return, length }
            });
        }
        Ok(())
    }

    fn save(&self) -> State {
        serde_json::json!(self.running)
    }

    fn load(&mut self, state: &State) -> Option<()> {
        let running = Vec::deserialize(state).ok().filter(|r: &Vec<_>| r.len() == self.running.len())?;
        self.running = running;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinite_returns_are_restored_from_json() {
        let of = |episode_return| Running { episode_return, length: 3 };
        let statistics = RecordEpisodeStatistics { running: vec![of(0.1), of(f64::INFINITY), of(f64::NEG_INFINITY)] };
        let text = statistics.save().to_string();
        let mut other = RecordEpisodeStatistics::new(3);
        other.load(&serde_json::from_str(&text).unwrap()).unwrap();
        let returns = |s: &RecordEpisodeStatistics| s.running.iter().map(|r| r.episode_return).collect::<Vec<_>>();
        assert_eq!(returns(&other), returns(&statistics));
    }
}
