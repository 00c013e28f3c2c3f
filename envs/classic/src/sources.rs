//! The registry entries of this crate's environments.

use crate::{Acrobot, CartPole, Catch, Identity, IdentityBox, MountainCar, Pendulum, Recall, TicTacToe};
use playfield_core::{Env, EnvConfig, EnvSource, Result};
use std::sync::Arc;

type Row = (&'static str, &'static str, Arc<dyn EnvSource>);

/// Every environment of this crate: its id, a description, and its source.
///
/// `[env.kwargs]` is the environment's `…Config`; an unknown key is an error. By default episodes are as long as in Gymnasium
/// (`max_episode_steps`), and one thread steps all environments, as a step takes less time than the hand-over to another
/// thread.
pub fn sources() -> Vec<Row> {
    vec![
        row("CartPole", "balance a pole on a cart; solved at 475 of 500", 500, 50.0, |c| {
            without_kwargs(c, CartPole::new)
        }),
        row("Acrobot", "swing the end of two links up", 500, 15.0, |c| without_kwargs(c, Acrobot::new)),
        row("MountainCar", "gain momentum to leave a valley", 200, 30.0, |c| Ok(MountainCar::new(c.parse_kwargs()?))),
        row("Pendulum", "swing a pendulum up; continuous actions", 200, 30.0, |c| Ok(Pendulum::new(c.parse_kwargs()?))),
        row("Catch", "catch a falling ball; frames of 10 × 5", 0, 5.0, |c| Catch::new(c.parse_kwargs()?)),
        row("Recall", "recall a cue after ten steps; for recurrent policies", 0, 5.0, |c| {
            Recall::new(&c.parse_kwargs()?)
        }),
        row("TicTacToe", "three in a row against a random opponent; action masks", 0, 1.0, |c| {
            without_kwargs(c, TicTacToe::new)
        }),
        row("Identity", "repeat the observed state; a test of algorithms", 100, 5.0, |c| {
            Identity::new(&c.parse_kwargs()?)
        }),
        row("IdentityMultiDiscrete", "the same with several components", 100, 5.0, |c| {
            without_kwargs(c, Identity::multi_discrete)
        }),
        row("IdentityBox", "the same with continuous actions", 100, 5.0, |c| without_kwargs(c, IdentityBox::new)),
    ]
}

/// An environment without `[env.kwargs]`.
fn without_kwargs<E>(config: &EnvConfig, make: fn() -> E) -> Result<E> {
    config.refuse_kwargs().map(|()| make())
}

/// A kind of environment: its constructor, the limit to its episodes, and its steps per second of a video (Gymnasium's).
struct Classic<F> {
    max_episode_steps: i64,
    render_fps: f64,
    make: F,
}

impl<E: Env + 'static, F: Fn(&EnvConfig) -> Result<E> + Send + Sync> EnvSource for Classic<F> {
    fn defaults(&self) -> toml::Table {
        let limit = ("max_episode_steps".to_string(), self.max_episode_steps.into());
        let threads = ("num_threads".to_string(), 1.into());
        [limit, threads].into_iter().collect()
    }

    fn render_fps(&self) -> f64 {
        self.render_fps
    }

    fn env(&self, config: &EnvConfig) -> Result<Box<dyn Env>> {
        Ok(Box::new((self.make)(config)?))
    }
}

fn row<E, F>(id: &'static str, about: &'static str, max_episode_steps: i64, render_fps: f64, make: F) -> Row
where
    E: Env + 'static,
    F: Fn(&EnvConfig) -> Result<E> + Send + Sync + 'static,
{
    (id, about, Arc::new(Classic { max_episode_steps, render_fps, make }))
}
