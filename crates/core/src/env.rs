//! Environments: one ([`Env`]), a batch ([`VecEnv`]), and what makes batches ([`EnvFactory`]).
//!
//! All are object-safe and fallible. Saving state is optional and passes through wrappers and pool: where every part
//! can, a resumed run equals an uninterrupted one bit for bit; elsewhere running episodes are cut, and that is said.

use crate::{Action, Actions, EnvConfig, EnvSpec, Error, Normalizer, ObsMut, Result, Step, StepBatch};

/// A saved state: JSON, so that loading it executes nothing.
pub type State = serde_json::Value;

/// A picture in colors, as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Red, green and blue of each pixel, row by row.
    pub rgb: Vec<u8>,
}

/// One environment. It is built on the thread that steps it, so it need not be `Send`.
pub trait Env {
    /// What it observes and accepts.
    fn spec(&self) -> &EnvSpec;

    /// Starts an episode and writes its first observation. With a seed, everything random starts anew from it;
    /// without, the random stream goes on.
    ///
    /// # Errors
    /// [`Error::Env`] where the environment fails.
    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step>;

    /// Does `action` and writes the observation that follows. After a step that ended the episode, [`reset`](Self::reset)
    /// must come next.
    ///
    /// # Errors
    /// [`Error::Env`] where the environment fails.
    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step>;

    /// Everything that decides the future, or `None` where it cannot be saved.
    fn save_state(&self) -> Option<State> {
        None
    }

    /// Continues from a saved state.
    ///
    /// # Errors
    /// [`Error::Env`] where it is not this environment's state.
    fn load_state(&mut self, _state: &State) -> Result<()> {
        Err(Error::env(&self.spec().id, "this environment cannot restore a saved state"))
    }

    /// A picture of how it stands, or `None` where it has none. Wrappers pass it on.
    ///
    /// # Errors
    /// [`Error::Env`] where the environment fails.
    fn render(&mut self) -> Result<Option<Image>> {
        Ok(None)
    }

    /// Lives left in the game (0 where the environment has none), for wrappers that act on a lost life.
    fn lives(&self) -> u32 {
        0
    }
}

/// A batch of environments that reset themselves (same-step: see [`StepBatch`]).
///
/// [`send`](Self::send) and [`recv`](Self::recv) are apart so that a learner can work while environments do.
pub trait VecEnv {
    /// What each environment observes and accepts.
    fn spec(&self) -> &EnvSpec;

    /// How many environments.
    fn num_envs(&self) -> usize;

    /// Starts an episode in every environment, from the seeds the batch was made with.
    ///
    /// # Errors
    /// [`Error::Env`] where an environment fails.
    fn reset(&mut self, batch: &mut StepBatch) -> Result<()>;

    /// Hands one action to each environment and returns at once where environments have threads of their own.
    ///
    /// # Errors
    /// [`Error::Config`] for an action that is not in the space; [`Error::Env`] where an environment fails.
    fn send(&mut self, actions: &Actions) -> Result<()>;

    /// Waits for the outcome of the last [`send`](Self::send).
    ///
    /// # Errors
    /// [`Error::Env`] where an environment failed; never a hang.
    fn recv(&mut self, batch: &mut StepBatch) -> Result<()>;

    /// [`send`](Self::send) and [`recv`](Self::recv).
    ///
    /// # Errors
    /// As those two.
    fn step(&mut self, actions: &Actions, batch: &mut StepBatch) -> Result<()> {
        self.send(actions)?;
        self.recv(batch)
    }

    /// Everything that decides the future, or `None` where some part cannot be saved.
    fn save_state(&mut self) -> Result<Option<State>> {
        Ok(None)
    }

    /// Continues from a saved state: the next call is [`send`](Self::send).
    ///
    /// # Errors
    /// [`Error::Env`] where it is not this batch's state.
    fn load_state(&mut self, _state: &State) -> Result<()> {
        Err(Error::env(&self.spec().id, "this environment cannot restore a saved state"))
    }

    /// A picture of how the first environment stands, or `None` where it has none. Batches that are made for speed have
    /// none.
    ///
    /// # Errors
    /// [`Error::Env`] where the environment fails.
    fn render(&mut self) -> Result<Option<Image>> {
        Ok(None)
    }

    /// The running statistics of observations and rewards, where they are tracked.
    fn normalizer(&self) -> Option<&Normalizer> {
        None
    }

    /// What wrappers learned from data and a player needs (running mean and variance), or `None` where nothing was.
    /// Unlike [`save_state`](Self::save_state) it exists whatever the environments can save.
    fn save_statistics(&self) -> Option<State> {
        None
    }

    /// Restores [`save_statistics`](Self::save_statistics); `frozen` statistics are used and no longer updated.
    ///
    /// # Errors
    /// [`Error::Env`] where they belong to something else.
    fn load_statistics(&mut self, _statistics: &State, _frozen: bool) -> Result<()> {
        Ok(())
    }
}

/// What makes an algorithm's environments, wrappers included.
pub trait EnvFactory: Send + Sync {
    /// What the environments observe and accept, wrappers included.
    fn spec(&self) -> &EnvSpec;

    /// How many environments an algorithm steps together.
    fn num_envs(&self) -> usize;

    /// A batch of `seeds.len()` environments, each with its own seed.
    ///
    /// # Errors
    /// [`Error::Env`] where one cannot be made.
    fn vec(&self, seeds: &[u64]) -> Result<Box<dyn VecEnv>>;

    /// The same batch, whose observations and rewards are left as they are where `env.normalize_obs` or `normalize_reward` is
    /// set: their statistics are tracked ([`VecEnv::normalizer`]), and normalizing is the caller's. For a replay buffer.
    ///
    /// # Errors
    /// As [`vec`](Self::vec).
    fn unnormalized(&self, seeds: &[u64]) -> Result<Box<dyn VecEnv>> {
        self.vec(seeds)
    }

    /// A batch for evaluation: rewards are raw, a lost life ends no episode, and `overrides` (keys of `[env]`) apply.
    ///
    /// # Errors
    /// As [`vec`](Self::vec), and [`Error::Config`] for a key that does not exist.
    fn evaluation(&self, seeds: &[u64], _overrides: &toml::Table) -> Result<Box<dyn VecEnv>> {
        self.vec(seeds)
    }
}

/// Where environments of one id come from, before any wrapper: what a registry holds.
///
/// A closure that makes an [`Env`] is a source: see [`source`].
pub trait EnvSource: Send + Sync {
    /// The keys of `[env]` that this kind of environment sets when a configuration does not (Atari's preprocessing).
    fn defaults(&self) -> toml::Table {
        toml::Table::new()
    }

    /// Changes `config` so that an environment made from it shows [pictures](Env::render), where that must be asked for.
    fn enable_rendering(&self, _config: &mut EnvConfig) {}

    /// One environment, unwrapped. Called on the thread that will step it.
    ///
    /// # Errors
    /// [`Error::Env`] where it cannot be made.
    fn env(&self, config: &EnvConfig) -> Result<Box<dyn Env>>;

    /// A batch that already does everything `config` asks of the inside of one environment (skip, resize, no-ops, FIRE at
    /// reset, sticky actions, time limit), faster than a pool could; `None` where there is no such thing.
    ///
    /// # Errors
    /// [`Error::Env`] where it cannot be made.
    fn batch(&self, _config: &EnvConfig, _seeds: &[u64]) -> Result<Option<Box<dyn VecEnv>>> {
        Ok(None)
    }
}

/// Turns a closure that makes an environment from `[env]` (its `kwargs`, for example) into an [`EnvSource`].
pub fn source<E, F>(make: F) -> impl EnvSource
where
    E: Env + 'static,
    F: Fn(&EnvConfig) -> Result<E> + Send + Sync,
{
    struct Make<F>(F);
    impl<E: Env + 'static, F: Fn(&EnvConfig) -> Result<E> + Send + Sync> EnvSource for Make<F> {
        fn env(&self, config: &EnvConfig) -> Result<Box<dyn Env>> {
            Ok(Box::new((self.0)(config)?))
        }
    }
    Make(make)
}
