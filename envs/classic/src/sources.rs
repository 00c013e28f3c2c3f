//! The rows of this crate in a registry.

use crate::{Acrobot, CartPole, Catch, Identity, IdentityBox, MountainCar, Pendulum, Recall};
use playfield_core::algorithm::parse_section;
use playfield_core::{Env, EnvConfig, EnvSource, Error, Result};
use serde::de::DeserializeOwned;
use std::sync::Arc;

type Row = (&'static str, &'static str, Arc<dyn EnvSource>);

/// Every environment of this crate: its id, a line about it, and where to have it from.
///
/// `[env.kwargs]` is an environment's `…Config`; a key that it does not have is an [`Error::Config`]. By default episodes
/// are as long as in Gymnasium (`max_episode_steps`), and one thread steps all environments, as their steps take less
/// time than handing them to another.
pub fn sources() -> Vec<Row> {
    vec![
        row("CartPole", "balance a pole on a cart; solved at 475 of 500", 500, |c| none(c, CartPole::new)),
        row("Acrobot", "swing the end of two links up", 500, |c| none(c, Acrobot::new)),
        row("MountainCar", "gain momentum to leave a valley", 200, |c| Ok(MountainCar::new(kwargs(c)?))),
        row("Pendulum", "swing a pendulum up; continuous actions", 200, |c| Ok(Pendulum::new(kwargs(c)?))),
        row("Catch", "catch a falling ball; frames of 10 × 5", 0, |c| Catch::new(kwargs(c)?)),
        row("Recall", "remember a cue for ten steps; for agents with a memory", 0, |c| Recall::new(&kwargs(c)?)),
        row("Identity", "repeat the number seen; a test of algorithms", 100, |c| Identity::new(&kwargs(c)?)),
        row("IdentityBox", "the same with continuous actions", 100, |c| none(c, IdentityBox::new)),
    ]
}

/// An environment's own settings.
fn kwargs<T: DeserializeOwned>(config: &EnvConfig) -> Result<T> {
    parse_section("env.kwargs", &config.kwargs)
}

/// An environment that takes no settings.
fn none<E>(config: &EnvConfig, make: fn() -> E) -> Result<E> {
    match config.kwargs.keys().next() {
        None => Ok(make()),
        Some(key) => Err(Error::config(format!("[env.kwargs]: unknown key `{key}`: {} takes none", config.id))),
    }
}

/// A kind of environment: how one is made, and the limit to its episodes.
struct Classic<F> {
    max_episode_steps: i64,
    make: F,
}

impl<E: Env + 'static, F: Fn(&EnvConfig) -> Result<E> + Send + Sync> EnvSource for Classic<F> {
    fn defaults(&self) -> toml::Table {
        let limit = ("max_episode_steps".to_string(), self.max_episode_steps.into());
        let threads = ("num_threads".to_string(), 1.into());
        [limit, threads].into_iter().collect()
    }

    fn env(&self, config: &EnvConfig) -> Result<Box<dyn Env>> {
        Ok(Box::new((self.make)(config)?))
    }
}

fn row<E, F>(id: &'static str, about: &'static str, max_episode_steps: i64, make: F) -> Row
where
    E: Env + 'static,
    F: Fn(&EnvConfig) -> Result<E> + Send + Sync + 'static,
{
    (id, about, Arc::new(Classic { max_episode_steps, make }))
}
