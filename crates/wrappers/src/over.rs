//! What a wrapper over a batch changes ([`Rule`]), apart from the passing through that all of them share ([`Over`]).

use crate::saved::{foreign, pack, unpack};
use playfield_core::{Actions, EnvSpec, Image, Normalizer, Result, State, StepBatch, VecEnv};

/// Arithmetic on a batch. A rule overrides what it changes; the rest passes through.
pub trait Rule {
    /// What the rule is called in an error message.
    const NAME: &'static str;

    /// Every environment has begun an episode with the observations in `batch`.
    ///
    /// # Errors
    /// [`Error::Env`](playfield_core::Error::Env) for a batch that the rule refuses.
    fn reset(&mut self, _batch: &mut StepBatch) -> Result<()> {
        Ok(())
    }

    /// The actions to execute in place of `actions` (which nobody has checked yet), or `None` to leave them.
    fn act(&mut self, _actions: &Actions) -> Option<&Actions> {
        None
    }

    /// Every environment has made a step, whose outcome is in `batch`.
    ///
    /// # Errors
    /// [`Error::Env`](playfield_core::Error::Env) for a batch that the rule refuses.
    fn outcome(&mut self, _batch: &mut StepBatch) -> Result<()> {
        Ok(())
    }

    /// The running statistics of observations and rewards, of a rule that tracks them.
    fn normalizer(&self) -> Option<&Normalizer> {
        None
    }

    /// What decides the rule's future.
    fn save(&self) -> State {
        State::Null
    }

    /// Continues from [`save`](Self::save); `None` where it is something else, and then nothing has changed.
    fn load(&mut self, _state: &State) -> Option<()> {
        Some(())
    }

    /// What the rule has learned from data and a player needs, if it is of the kind that learns.
    fn statistics(&self) -> Option<State> {
        None
    }

    /// Restores [`statistics`](Self::statistics), to be updated no more if `frozen`; `None` where they are something
    /// else, and then nothing has changed.
    fn set_statistics(&mut self, _statistics: &State, _frozen: bool) -> Option<()> {
        Some(())
    }
}

/// A batch of environments with a [`Rule`] over it.
pub struct Over<R> {
    inner: Box<dyn VecEnv>,
    spec: EnvSpec,
    rule: R,
}

impl<R: Rule> Over<R> {
    /// `rule` over `inner`.
    pub fn new(inner: Box<dyn VecEnv>, rule: R) -> Self {
        Self { spec: inner.spec().clone(), inner, rule }
    }

    /// Declares how many frames make one observation, which is for whoever consumes them: batches know one frame.
    pub fn with_frame_stack(mut self, history: usize) -> Self {
        self.spec.frame_stack = history;
        self
    }
}

impl<R: Rule> VecEnv for Over<R> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn num_envs(&self) -> usize {
        self.inner.num_envs()
    }

    fn reset(&mut self, batch: &mut StepBatch) -> Result<()> {
        self.inner.reset(batch)?;
        self.rule.reset(batch)
    }

    fn send(&mut self, actions: &Actions) -> Result<()> {
        match self.rule.act(actions) {
            Some(replaced) => self.inner.send(replaced),
            None => self.inner.send(actions),
        }
    }

    fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
        self.inner.recv(batch)?;
        self.rule.outcome(batch)
    }

    fn save_state(&mut self) -> Result<Option<State>> {
        let inner = self.inner.save_state()?;
        Ok(pack(self.rule.save(), inner))
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        let (own, inner) = unpack::<State>(&self.spec.id, R::NAME, state)?;
        self.inner.load_state(inner)?;
        self.rule.load(&own).ok_or_else(|| foreign(&self.spec.id, R::NAME))
    }

    fn render(&mut self) -> Result<Option<Image>> {
        self.inner.render()
    }

    fn normalizer(&self) -> Option<&Normalizer> {
        self.rule.normalizer().or_else(|| self.inner.normalizer())
    }

    fn save_statistics(&self) -> Option<State> {
        let inner = self.inner.save_statistics();
        match self.rule.statistics() {
            Some(own) => pack(own, Some(inner.unwrap_or(State::Null))),
            None => inner,
        }
    }

    fn load_statistics(&mut self, statistics: &State, frozen: bool) -> Result<()> {
        if self.rule.statistics().is_none() {
            return self.inner.load_statistics(statistics, frozen);
        }
        let (own, inner) = unpack::<State>(&self.spec.id, R::NAME, statistics)?;
        if !inner.is_null() {
            self.inner.load_statistics(inner, frozen)?;
        }
        self.rule.set_statistics(&own, frozen).ok_or_else(|| foreign(&self.spec.id, R::NAME))
    }
}
