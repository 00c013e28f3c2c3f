//! Wrappers of a batch: what each changes ([`VecEnvWrapper`]), and what all of them forward ([`WrappedVecEnv`]).

use crate::saved::{foreign, pack, unpack};
use playfield_core::{Actions, EnvSpec, Image, Normalizer, Result, State, StepBatch, VecEnv};

/// What a wrapper of a batch changes. Every method has a default that leaves actions and results as they are.
pub trait VecEnvWrapper {
    /// The wrapper's name in error messages.
    const NAME: &'static str;

    /// Processes the first observations after a reset of every environment.
    ///
    /// # Errors
    /// [`Error::Env`](playfield_core::Error::Env) for a batch that the wrapper refuses.
    fn reset(&mut self, _batch: &mut StepBatch) -> Result<()> {
        Ok(())
    }

    /// The actions to execute instead of `actions` (which are not checked yet), or `None` to leave them.
    fn send(&mut self, _actions: &Actions) -> Option<&Actions> {
        None
    }

    /// Processes the results of a step.
    ///
    /// # Errors
    /// [`Error::Env`](playfield_core::Error::Env) for a batch that the wrapper refuses.
    fn recv(&mut self, _batch: &mut StepBatch) -> Result<()> {
        Ok(())
    }

    /// The running statistics of observations and rewards, where this wrapper tracks them.
    fn normalizer(&self) -> Option<&Normalizer> {
        None
    }

    /// Replaces these statistics, where this wrapper tracks them.
    fn set_normalizer(&mut self, _normalizer: &Normalizer) {}

    /// The wrapper's own state.
    fn save(&self) -> State {
        State::Null
    }

    /// Restores [`save`](Self::save); `None` where `state` is not a state of this wrapper, which is unchanged then.
    fn load(&mut self, _state: &State) -> Option<()> {
        Some(())
    }

    /// The running statistics as a saved state, where this wrapper tracks them.
    fn save_statistics(&self) -> Option<State> {
        None
    }

    /// Restores [`save_statistics`](Self::save_statistics), no longer updated if `frozen`; `None` where they are of another
    /// wrapper, and this one is unchanged then.
    fn load_statistics(&mut self, _statistics: &State, _frozen: bool) -> Option<()> {
        Some(())
    }
}

/// A batch of environments inside a wrapper.
pub struct WrappedVecEnv<W> {
    inner: Box<dyn VecEnv>,
    spec: EnvSpec,
    wrapper: W,
}

impl<W: VecEnvWrapper> WrappedVecEnv<W> {
    /// Wraps `inner`.
    pub fn new(inner: Box<dyn VecEnv>, wrapper: W) -> Self {
        Self { spec: inner.spec().clone(), inner, wrapper }
    }

    /// Declares how many frames the consumer stacks into one observation. A batch holds one frame.
    #[must_use]
    pub fn with_frame_stack(mut self, frame_stack: usize) -> Self {
        self.spec.frame_stack = frame_stack;
        self
    }
}

impl<W: VecEnvWrapper> VecEnv for WrappedVecEnv<W> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn num_envs(&self) -> usize {
        self.inner.num_envs()
    }

    fn reset(&mut self, batch: &mut StepBatch) -> Result<()> {
        self.inner.reset(batch)?;
        self.wrapper.reset(batch)
    }

    fn send(&mut self, actions: &Actions) -> Result<()> {
        match self.wrapper.send(actions) {
            Some(replaced) => self.inner.send(replaced),
            None => self.inner.send(actions),
        }
    }

    fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
        self.inner.recv(batch)?;
        self.wrapper.recv(batch)
    }

    fn steps_in_background(&self) -> bool {
        self.inner.steps_in_background()
    }

    fn save_state(&mut self) -> Result<Option<State>> {
        let inner = self.inner.save_state()?;
        Ok(pack(self.wrapper.save(), inner))
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        let (own, inner) = unpack(&self.spec.id, W::NAME, state)?;
        self.inner.load_state(inner)?;
        self.wrapper.load(own).ok_or_else(|| foreign(&self.spec.id, W::NAME))
    }

    fn render(&mut self) -> Result<Option<Image>> {
        self.inner.render()
    }

    fn final_frame(&mut self) -> Result<Option<Image>> {
        self.inner.final_frame()
    }

    fn normalizer(&self) -> Option<&Normalizer> {
        self.wrapper.normalizer().or_else(|| self.inner.normalizer())
    }

    fn set_normalizer(&mut self, normalizer: &Normalizer) {
        self.wrapper.set_normalizer(normalizer);
        self.inner.set_normalizer(normalizer);
    }

    fn save_statistics(&self) -> Option<State> {
        let inner = self.inner.save_statistics();
        match self.wrapper.save_statistics() {
            Some(own) => pack(own, Some(inner.unwrap_or(State::Null))),
            None => inner,
        }
    }

    fn load_statistics(&mut self, statistics: &State, frozen: bool) -> Result<()> {
        if self.wrapper.save_statistics().is_none() {
            return self.inner.load_statistics(statistics, frozen);
        }
        let (own, inner) = unpack(&self.spec.id, W::NAME, statistics)?;
        if !inner.is_null() {
            self.inner.load_statistics(inner, frozen)?;
        }
        self.wrapper.load_statistics(own, frozen).ok_or_else(|| foreign(&self.spec.id, W::NAME))
    }
}
