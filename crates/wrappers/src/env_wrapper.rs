//! Wrappers of one environment: what each changes ([`EnvWrapper`]), and what all of them forward ([`WrappedEnv`]).

use crate::saved::{foreign, pack, unpack};
use playfield_core::{Action, Env, EnvSpec, Image, ObsMut, Result, State, Step};

/// What a wrapper of one environment changes. Every method has a default that forwards to the wrapped environment.
pub trait EnvWrapper {
    /// The wrapper's name in error messages.
    const NAME: &'static str;

    /// The spaces of the wrapped environment, where those of the environment inside are `inner`.
    fn spec(&self, inner: &EnvSpec) -> EnvSpec {
        inner.clone()
    }

    /// Resets `env` and writes the first observation: see [`Env::reset`].
    ///
    /// # Errors
    /// Those of `env`.
    fn reset(&mut self, env: &mut dyn Env, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        env.reset(seed, obs)
    }

    /// Steps `env` and writes the next observation: see [`Env::step`].
    ///
    /// # Errors
    /// Those of `env`.
    fn step(&mut self, env: &mut dyn Env, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        env.step(action, obs)
    }

    /// The wrapper's own state; `None` for a wrapper that has none.
    fn save(&self) -> Option<State> {
        None
    }

    /// Restores [`save`](Self::save); `None` where `state` is not a state of this wrapper.
    fn load(&mut self, _state: &State) -> Option<()> {
        Some(())
    }
}

/// An environment inside a wrapper.
pub struct WrappedEnv<W> {
    inner: Box<dyn Env>,
    spec: EnvSpec,
    wrapper: W,
}

impl<W: EnvWrapper> WrappedEnv<W> {
    /// Wraps `inner`.
    pub fn new(inner: Box<dyn Env>, wrapper: W) -> Self {
        Self { spec: wrapper.spec(inner.spec()), inner, wrapper }
    }
}

impl<W: EnvWrapper> Env for WrappedEnv<W> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        self.wrapper.reset(self.inner.as_mut(), seed, obs)
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        self.wrapper.step(self.inner.as_mut(), action, obs)
    }

    fn save_state(&self) -> Option<State> {
        match self.wrapper.save() {
            Some(own) => pack(own, self.inner.save_state()),
            None => self.inner.save_state(),
        }
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        if self.wrapper.save().is_none() {
            return self.inner.load_state(state);
        }
        let (own, inner) = unpack(&self.spec.id, W::NAME, state)?;
        self.inner.load_state(inner)?;
        self.wrapper.load(own).ok_or_else(|| foreign(&self.spec.id, W::NAME))
    }

    fn render(&mut self) -> Result<Option<Image>> {
        self.inner.render()
    }

    fn lives(&self) -> u32 {
        self.inner.lives()
    }

    fn action_mask(&self, mask: &mut [bool]) {
        self.inner.action_mask(mask);
    }
}
