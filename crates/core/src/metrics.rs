//! What a run reports, and to whom.
//!
//! Tags are Stable-Baselines3's, so that curves of both lie in one plot; x is always agent steps.

use crate::{EpisodeEnd, Result};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A row of scalars at one moment of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Agent steps so far, over all environments.
    pub step: u64,
    /// Wall time so far, earlier sessions of a resumed run included.
    pub elapsed: Duration,
    /// Tag and value, in the order to show.
    pub values: Vec<(&'static str, f64)>,
}

/// A finished episode and when it finished.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpisodeRow {
    /// Agent steps so far, over all environments.
    pub step: u64,
    /// Wall time so far.
    pub elapsed: Duration,
    /// Its raw return and length.
    pub end: EpisodeEnd,
}

/// Where reports go: a file, TensorBoard, the console.
pub trait Sink {
    /// Takes a row of scalars.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn scalars(&mut self, row: &Row) -> Result<()>;

    /// Takes one scalar of each of several (threads, for example), called `tag/0`, `tag/1`, …; where there is none, `None`.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn each(&mut self, _step: u64, _tag: &str, _values: &[Option<f64>]) -> Result<()> {
        Ok(())
    }

    /// Takes a finished episode.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn episode(&mut self, _row: &EpisodeRow) -> Result<()> {
        Ok(())
    }

    /// Takes a line for whoever watches.
    fn say(&mut self, _line: &str) {}

    /// Learns how far the run is; called every few milliseconds, so it must be cheap.
    fn tick(&mut self, _step: u64) {}

    /// Everything taken so far is on disk when this returns.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl<S: Sink + ?Sized> Sink for Box<S> {
    fn scalars(&mut self, row: &Row) -> Result<()> {
        (**self).scalars(row)
    }
    fn each(&mut self, step: u64, tag: &str, values: &[Option<f64>]) -> Result<()> {
        (**self).each(step, tag, values)
    }
    fn episode(&mut self, row: &EpisodeRow) -> Result<()> {
        (**self).episode(row)
    }
    fn say(&mut self, line: &str) {
        (**self).say(line);
    }
    fn tick(&mut self, step: u64) {
        (**self).tick(step);
    }
    fn flush(&mut self) -> Result<()> {
        (**self).flush()
    }
}

/// The mean of the last values, as the learning curves of the field are drawn: the last 100 episodes.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Window {
    values: VecDeque<EpisodeEnd>,
}

impl Window {
    /// How many episodes it spans.
    pub const LEN: usize = 100;

    /// Adds an episode, forgetting the oldest beyond [`LEN`](Self::LEN).
    pub fn push(&mut self, end: EpisodeEnd) {
        while self.values.len() >= Self::LEN {
            self.values.pop_front();
        }
        self.values.push_back(end);
    }

    /// How many episodes it holds.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether it holds [`LEN`](Self::LEN) episodes: fewer may be luck.
    pub fn is_full(&self) -> bool {
        self.len() >= Self::LEN
    }

    /// Mean raw return, if there was an episode.
    pub fn mean_reward(&self) -> Option<f64> {
        self.mean(|e| e.reward)
    }

    /// Mean length in agent steps, if there was an episode.
    pub fn mean_length(&self) -> Option<f64> {
        self.mean(|e| e.length as f64)
    }

    fn mean(&self, of: impl Fn(&EpisodeEnd) -> f64) -> Option<f64> {
        (!self.is_empty()).then(|| self.values.iter().map(of).sum::<f64>() / self.len() as f64)
    }
}

/// Where the time goes: milliseconds per call of each phase of a training loop, averaged between two reports.
#[derive(Clone, Debug, Default)]
pub struct PhaseTimer {
    phases: Vec<(&'static str, Duration, u32)>,
}

impl PhaseTimer {
    /// Runs `work` and adds its time to the phase `tag`.
    pub fn time<T>(&mut self, tag: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(tag, Some(start.elapsed()));
        result
    }

    /// Adds a time that was measured elsewhere, where there is one.
    pub fn add(&mut self, tag: &'static str, elapsed: Option<Duration>) {
        let Some(elapsed) = elapsed else { return };
        match self.phases.iter_mut().find(|(t, ..)| *t == tag) {
            Some((_, sum, count)) => (*sum, *count) = (*sum + elapsed, *count + 1),
            None => self.phases.push((tag, elapsed, 1)),
        }
    }

    /// Milliseconds per call since the last report, and starts anew.
    pub fn take(&mut self) -> Vec<(&'static str, f64)> {
        let mean = |(tag, sum, count): (_, Duration, u32)| (tag, sum.as_secs_f64() * 1e3 / f64::from(count));
        self.phases.drain(..).map(mean).collect()
    }
}
