//! A part of the environments, which step together, and the number of such parts.

use playfield_core::calls::{self, Call};
use playfield_core::{Actions, EnvFactory, EnvSpec, Error, FrameStack, Result, StepBatch, VecEnv};
use std::time::{Duration, Instant};

/// One step of all environments: the actions that were sent, and what followed.
#[derive(Clone, Debug)]
pub struct Experience {
    /// The actions that the policy selected, one for each environment.
    pub actions: Actions,
    /// Observations, rewards and ends of episodes.
    pub batch: StepBatch,
}

impl Experience {
    /// Buffers for `n` environments of `spec`.
    pub fn new(spec: &EnvSpec, n: usize) -> Self {
        Self { actions: Actions::zeros(&spec.actions, n), batch: StepBatch::new(spec, n) }
    }
}

/// Environments that step together.
pub(crate) struct Split {
    /// The number of its first environment.
    pub first: usize,
    pub env: Box<dyn VecEnv>,
    pub frames: FrameStack,
    pub experience: Experience,
    /// The step in progress, and the time that it took to send it.
    call: Option<(Call, Duration)>,
}

impl Split {
    pub fn new(first: usize, env: Box<dyn VecEnv>) -> Self {
        let (spec, n) = (env.spec().clone(), env.num_envs());
        Self { first, env, frames: FrameStack::new(&spec, n), experience: Experience::new(&spec, n), call: None }
    }

    /// What its names in a checkpoint begin with.
    pub fn scope(&self) -> String {
        if self.first == 0 { String::new() } else { format!("split.{}.", self.first) }
    }

    /// Whether a step is in progress.
    pub fn is_stepping(&self) -> bool {
        self.call.is_some()
    }

    /// Starts a step with the selected actions.
    pub fn send(&mut self) -> Result<()> {
        let (call, start) = (calls::begin(), Instant::now());
        let sent = self.env.send(&self.experience.actions);
        self.call = Some((call, start.elapsed()));
        sent.map_err(|error| self.locate(error))
    }

    /// Waits for the step. Returns the time that it took beside what the caller did meanwhile.
    pub fn receive(&mut self) -> Result<Duration> {
        let start = Instant::now();
        let received = self.env.recv(&mut self.experience.batch);
        let sent = self.call.take().map_or(Duration::ZERO, |(_, sent)| sent);
        received.map_err(|error| self.locate(error))?;
        let took = sent + start.elapsed();
        self.frames.push(&self.experience.batch);
        Ok(took)
    }

    /// Environments are numbered within the split in an error of theirs.
    pub fn locate(&self, error: Error) -> Error {
        match (self.first, error) {
            (1.., Error::Env { id, message, detail }) => {
                Error::Env { id, message: format!("among the environments from {}, {message}", self.first), detail }
            }
            (_, error) => error,
        }
    }
}

/// The fewest environments of a split that `auto` makes: smaller batches take more time for each observation.
const MIN_SPLIT: usize = 4;

/// The number of batches that `num_splits` means for environments of `envs`. 0, automatic: two where environments step in the
/// background and the policy is not `recurrent`, else one.
///
/// # Errors
/// [`Error::Config`] where that number of batches cannot step in turn.
pub fn resolve_splits(num_splits: usize, recurrent: bool, envs: &dyn EnvFactory) -> Result<usize> {
    let n = envs.num_envs();
    let refused = |why: &str| {
        Err(Error::config(format!("`num_splits` = {num_splits}: {why}; set it to 1, or 0 to choose automatically")))
    };
    match num_splits {
        0 if envs.can_split() && !recurrent && n >= 2 * MIN_SPLIT => Ok(2),
        0 | 1 => Ok(1),
        _ if num_splits > n => refused("there are fewer environments (`env.num_envs`)"),
        _ if recurrent => refused("a recurrent policy acts for all environments at once"),
        _ if !envs.can_split() => {
            refused("these environments step in turn with the policy, or share running statistics")
        }
        _ => Ok(num_splits),
    }
}
