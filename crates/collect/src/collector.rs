use playfield_core::group::{Group, SingleProcess};
use playfield_core::metrics::PhaseTimer;
use playfield_core::resume::{restore_environments, save_environments};
use playfield_core::run::Persist;
use playfield_core::{
    Actions, EnvSpec, EpisodeEnd, Error, FrameStack, Image, Mode, Normalizer, Obs, Policy, Result, Rollout, Snapshot,
    StepBatch, VecEnv, calls,
};
use playfield_core::{RolloutPolicy, State};
use std::mem::take;
use std::sync::Arc;

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

/// Environments, and everything that stepping a policy in them needs.
pub struct Collector {
    env: Box<dyn VecEnv>,
    frames: FrameStack,
    experience: Experience,
    /// The normalized copy of the observations, where the environments' are raw.
    normalized: Option<Obs>,
    raw: bool,
    group: Arc<dyn Group>,
    /// The running statistics when all ranks had the same.
    merged: Option<Normalizer>,
    steps: u64,
    restored: bool,
    episodes: Vec<(u64, EpisodeEnd)>,
    /// Milliseconds of each phase; the algorithm adds its own.
    pub timer: PhaseTimer,
}

impl Collector {
    /// A collector of `env`. Every environment starts an episode, or continues where `snapshot` left it; where the environments
    /// could not be saved ([`is_restored`](Self::is_restored) is false), running episodes are discarded and new ones start.
    ///
    /// # Errors
    /// Where an environment fails, or the snapshot is of other environments.
    pub fn new(env: Box<dyn VecEnv>, snapshot: Option<&Snapshot>) -> Result<Self> {
        let (spec, n) = (env.spec().clone(), env.num_envs());
        let mut collector = Self {
            env,
            frames: FrameStack::new(&spec, n),
            experience: Experience::new(&spec, n),
            normalized: None,
            raw: false,
            group: SingleProcess::shared(),
            merged: None,
            steps: 0,
            restored: false,
            episodes: Vec::new(),
            timer: PhaseTimer::default(),
        };
        if let Some(snapshot) = snapshot {
            collector.steps = snapshot.step;
            collector.restored = restore_environments(&mut *collector.env, &mut collector.frames, snapshot)?;
        }
        // The same on every rank: new, or those of the snapshot. A reset updates them.
        collector.merged = collector.env.normalizer().cloned();
        if !collector.restored {
            collector.reset()?;
        }
        Ok(collector)
    }

    /// The same for environments that do not normalize ([`EnvFactory::unnormalized`]): [`experience`](Self::experience) holds raw
    /// observations, for a replay buffer, and the policy receives normalized ones.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// [`EnvFactory::unnormalized`]: playfield_core::EnvFactory::unnormalized
    pub fn unnormalized(env: Box<dyn VecEnv>, snapshot: Option<&Snapshot>) -> Result<Self> {
        Ok(Self { raw: true, ..Self::new(env, snapshot)? })
    }

    /// The collector of one rank of `group`: it counts the steps of all ranks, and [merges](Self::merge_statistics) their running
    /// statistics with each rollout.
    #[must_use]
    pub fn with_group(mut self, group: Arc<dyn Group>) -> Self {
        self.group = group;
        self
    }

    /// Merges the running statistics of all ranks, where they are tracked. Between two calls each rank normalizes by the merged
    /// statistics and its own observations since then.
    ///
    /// # Errors
    /// [`Error::Group`](playfield_core::Error::Group).
    pub fn merge_statistics(&mut self) -> Result<()> {
        let Self { env, group, merged, .. } = self;
        if let (true, Some(current), Some(base)) = (group.is_distributed(), env.normalizer(), &merged) {
            let all = current.merged(base, &**group)?;
            env.set_normalizer(&all);
            *merged = Some(all);
        }
        Ok(())
    }

    /// Starts an episode in every environment, from the seeds that the environments were made with.
    ///
    /// # Errors
    /// Where an environment fails.
    pub fn reset(&mut self) -> Result<()> {
        let call = calls::begin();
        self.env.reset(&mut self.experience.batch)?;
        drop(call);
        self.frames.reset(&self.experience.batch);
        Ok(())
    }

    /// Whether the environments continue where the snapshot left them.
    pub fn is_restored(&self) -> bool {
        self.restored
    }

    /// What the environments observe and accept.
    pub fn spec(&self) -> &EnvSpec {
        self.env.spec()
    }

    /// The number of environments.
    pub fn num_envs(&self) -> usize {
        self.env.num_envs()
    }

    /// Agent steps so far, over all environments of all ranks. Steps that ignored the action do not count.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The current observations with their stacked frames, as the policy receives them.
    pub fn observations(&mut self) -> &Obs {
        let Self { env, frames, normalized, raw, .. } = self;
        observations(frames, env.normalizer().filter(|_| *raw), normalized)
    }

    /// The last step: its actions, and what followed. After a reset, the first observations.
    pub fn experience(&self) -> &Experience {
        &self.experience
    }

    /// The same, to be exchanged for other buffers of the same size.
    pub fn experience_mut(&mut self) -> &mut Experience {
        &mut self.experience
    }

    /// The running statistics of observations and rewards, where they are tracked.
    pub fn normalizer(&self) -> Option<&Normalizer> {
        self.env.normalizer()
    }

    /// The statistics that the environments' wrappers have learned, for a policy in other environments.
    pub fn statistics(&self) -> Option<State> {
        self.env.save_statistics()
    }

    /// Uses `statistics` from now on, without updating them.
    ///
    /// # Errors
    /// Where they are of other environments.
    pub fn set_statistics(&mut self, statistics: &State) -> Result<()> {
        self.env.load_statistics(statistics, true)
    }

    /// An RGB frame of the first environment, where it renders.
    ///
    /// # Errors
    /// Where the environment fails.
    pub fn render(&mut self) -> Result<Option<Image>> {
        self.env.render()
    }

    /// The last frame of the first environment's episode, after a step that ended it: see [`VecEnv::final_frame`].
    ///
    /// # Errors
    /// Where the environment fails.
    pub fn final_frame(&mut self) -> Result<Option<Image>> {
        self.env.final_frame()
    }

    /// The episodes that have finished since the last call, each with the step at which it did.
    pub fn take_episodes(&mut self) -> Vec<(u64, EpisodeEnd)> {
        take(&mut self.episodes)
    }

    /// Selects an action for every environment, and steps them.
    ///
    /// # Errors
    /// Where the policy or an environment fails.
    pub fn step(&mut self, policy: &mut dyn Policy, mode: Mode) -> Result<()> {
        let Self { env, frames, experience, normalized, raw, timer, .. } = self;
        timer.time("time/phase_act_ms", || {
            let obs = observations(frames, env.normalizer().filter(|_| *raw), normalized);
            policy.act(obs, frames.action_mask(), mode, &mut experience.actions)
        })?;
        self.advance()?;
        policy.reset_states(&self.experience.batch.starts());
        Ok(())
    }

    /// Fills `rollout` with steps of the environments under actions sampled from `policy`.
    ///
    /// # Errors
    /// Where the policy or an environment fails: the rollout is not full then.
    pub fn collect(&mut self, policy: &mut dyn RolloutPolicy, rollout: &mut Rollout) -> Result<()> {
        rollout.clear();
        while !rollout.is_full() {
            let Self { frames, experience, timer, .. } = self;
            rollout.store_observations(frames);
            timer.time("time/phase_act_ms", || {
                let Experience { actions, .. } = experience;
                policy.sample(frames.observations(), frames.action_mask(), actions, rollout.decisions())
            })?;
            self.advance()?;
            let Experience { actions, batch } = &self.experience;
            rollout.record(actions, batch, |i| {
                policy.final_value(self.frames.final_observation(i), batch.final_mask_row(i), i)
            });
            policy.reset_states(&batch.starts());
        }
        rollout.store_observations(&self.frames);
        self.merge_statistics()
    }

    /// Sends the actions and takes in what followed.
    fn advance(&mut self) -> Result<()> {
        let Self { env, frames, experience: Experience { actions, batch }, timer, .. } = self;
        timer.time("time/phase_env_ms", || {
            let _call = calls::begin();
            env.step(actions, batch)
        })?;
        frames.push(batch);
        if self.group.is_distributed() && batch.ignored.contains(&true) {
            return Err(Error::config(
                "several processes cannot use a vector environment whose next step resets it: the processes would count \
                 different steps. Give it autoreset_mode = AutoresetMode.SAME_STEP, or use one process",
            ));
        }
        self.steps += (batch.transitions() * self.group.world_size()) as u64;
        self.episodes.extend(batch.episode.iter().flatten().map(|end| (self.steps, *end)));
        Ok(())
    }
}

/// The observations that a policy receives: those of `frames`, or a normalized copy.
fn observations<'a>(frames: &'a FrameStack, normalizer: Option<&Normalizer>, copy: &'a mut Option<Obs>) -> &'a Obs {
    let (Some(normalizer), Obs::F32(values)) = (normalizer, frames.observations()) else {
        return frames.observations();
    };
    let mut values = values.clone();
    normalizer.observations(&mut values, frames.depth());
    copy.insert(Obs::F32(values))
}

/// The state of the environments, where they can save it, and the statistics of their wrappers.
impl Persist for Collector {
    fn save(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        save_environments(&mut *self.env, &self.frames, snapshot);
        Ok(())
    }
}
