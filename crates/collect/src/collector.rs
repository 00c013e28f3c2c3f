use crate::split::{Experience, Split};
use playfield_core::calls;
use playfield_core::group::{Group, SingleProcess};
use playfield_core::metrics::PhaseTimer;
use playfield_core::resume::{restore_environments, save_environments};
use playfield_core::run::Persist;
use playfield_core::{
    EnvFactory, EnvSpec, EpisodeEnd, Error, FrameStack, Image, Mode, Normalizer, Obs, Policy, Result, Rollout,
    RolloutPolicy, Snapshot, State, VecEnv,
};
use std::mem::take;
use std::sync::Arc;

/// Environments, and everything that stepping a policy in them needs.
pub struct Collector {
    /// One, or several that step in turn.
    splits: Vec<Split>,
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
        Self::of_batches(vec![env], snapshot)
    }

    /// The same for environments of `envs`, one for each of `seeds`, in `num_splits` batches: while one steps, the policy acts for the
    /// next one (double-buffered sampling; Petrenko et al. 2020, *Sample Factory*, section 3.2). Only [`collect`](Self::collect) steps
    /// them. See [`resolve_splits`](crate::resolve_splits).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn in_splits(
        envs: &dyn EnvFactory,
        seeds: &[u64],
        num_splits: usize,
        snapshot: Option<&Snapshot>,
    ) -> Result<Self> {
        let bound = |split: usize| split * seeds.len() / num_splits;
        let batches = (0..num_splits).map(|split| envs.vec(&seeds[bound(split)..bound(split + 1)]));
        Self::of_batches(batches.collect::<Result<_>>()?, snapshot)
    }

    fn of_batches(batches: Vec<Box<dyn VecEnv>>, snapshot: Option<&Snapshot>) -> Result<Self> {
        let mut first = 0;
        let splits = batches.into_iter().map(|env| {
            let split = Split::new(first, env);
            first += split.env.num_envs();
            split
        });
        let mut collector = Self {
            splits: splits.collect(),
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
            collector.restored = true;
            for split in &mut collector.splits {
                let scope = split.scope();
                collector.restored &= restore_environments(&scope, &mut *split.env, &mut split.frames, snapshot)?;
            }
        }
        // The same on every rank: new, or those of the snapshot. A reset updates them.
        collector.merged = collector.normalizer().cloned();
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
        let Self { splits, group, merged, .. } = self;
        let env = &mut splits[0].env;
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
        for split in &mut self.splits {
            let call = calls::begin();
            let reset = split.env.reset(&mut split.experience.batch);
            drop(call);
            reset.map_err(|error| split.locate(error))?;
            split.frames.reset(&split.experience.batch);
        }
        Ok(())
    }

    /// Whether the environments continue where the snapshot left them.
    pub fn is_restored(&self) -> bool {
        self.restored
    }

    /// What the environments observe and accept.
    pub fn spec(&self) -> &EnvSpec {
        self.splits[0].env.spec()
    }

    /// The number of environments.
    pub fn num_envs(&self) -> usize {
        self.splits.iter().map(|split| split.env.num_envs()).sum()
    }

    /// Agent steps so far, over all environments of all ranks. Steps that ignored the action do not count.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The current observations with their stacked frames, as the policy receives them.
    pub fn observations(&mut self) -> &Obs {
        let Self { splits, normalized, raw, .. } = self;
        let Split { env, frames, .. } = &splits[0];
        observations(frames, env.normalizer().filter(|_| *raw), normalized)
    }

    /// The last step: its actions, and what followed. After a reset, the first observations.
    pub fn experience(&self) -> &Experience {
        &self.splits[0].experience
    }

    /// The same, to be exchanged for other buffers of the same size.
    pub fn experience_mut(&mut self) -> &mut Experience {
        &mut self.splits[0].experience
    }

    /// The running statistics of observations and rewards, where they are tracked.
    pub fn normalizer(&self) -> Option<&Normalizer> {
        self.splits[0].env.normalizer()
    }

    /// The statistics that the environments' wrappers have learned, for a policy in other environments.
    pub fn statistics(&self) -> Option<State> {
        self.splits[0].env.save_statistics()
    }

    /// Uses `statistics` from now on, without updating them.
    ///
    /// # Errors
    /// Where they are of other environments.
    pub fn set_statistics(&mut self, statistics: &State) -> Result<()> {
        self.splits[0].env.load_statistics(statistics, true)
    }

    /// An RGB frame of the first environment, where it renders.
    ///
    /// # Errors
    /// Where the environment fails.
    pub fn render(&mut self) -> Result<Option<Image>> {
        self.splits[0].env.render()
    }

    /// The last frame of the first environment's episode, after a step that ended it: see [`VecEnv::final_frame`].
    ///
    /// # Errors
    /// Where the environment fails.
    pub fn final_frame(&mut self) -> Result<Option<Image>> {
        self.splits[0].env.final_frame()
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
        let Self { splits, normalized, raw, timer, .. } = self;
        let Split { env, frames, experience, .. } = &mut splits[0];
        timer.time("time/phase_act_ms", || {
            let obs = observations(frames, env.normalizer().filter(|_| *raw), normalized);
            policy.act(obs, frames.action_mask(), mode, &mut experience.actions)
        })?;
        self.splits[0].send()?;
        self.receive(0)?;
        policy.reset_states(&self.experience().batch.starts());
        Ok(())
    }

    /// Fills `rollout` with steps of the environments under actions sampled from `policy`; a recurrent policy needs them in one batch.
    ///
    /// # Errors
    /// Where the policy or an environment fails: the rollout is not full then.
    pub fn collect(&mut self, policy: &mut dyn RolloutPolicy, rollout: &mut Rollout) -> Result<()> {
        rollout.clear();
        let filled = self.fill(policy, rollout);
        if filled.is_err() {
            // Environments can be saved between two steps only.
            let in_progress: Vec<_> = (0..self.splits.len()).filter(|&i| self.splits[i].is_stepping()).collect();
            in_progress.into_iter().for_each(|i| _ = self.receive(i));
        }
        filled?;
        self.merge_statistics()
    }

    /// The steps of a rollout. While a split steps, the policy acts for the next one.
    fn fill(&mut self, policy: &mut dyn RolloutPolicy, rollout: &mut Rollout) -> Result<()> {
        for t in 0..=rollout.steps() {
            for i in 0..self.splits.len() {
                if t > 0 {
                    self.receive(i)?;
                    let Split { first, frames, experience: Experience { actions, batch }, .. } = &self.splits[i];
                    rollout.record(*first, actions, batch, |row| {
                        policy.final_value(frames.final_observation(row), batch.final_mask_row(row), row)
                    });
                    policy.reset_states(&batch.starts());
                }
                let Self { splits, timer, .. } = self;
                let Split { first, frames, experience: Experience { actions, batch }, .. } = &mut splits[i];
                rollout.store_observations(*first, frames);
                if t == rollout.steps() {
                    policy.store_observations(t, *first, frames, &batch.obs);
                    continue;
                }
                timer.time("time/phase_act_ms", || {
                    policy.store_observations(t, *first, frames, &batch.obs);
                    let decisions = rollout.decisions(*first, actions.len());
                    policy.sample(frames.observations(), frames.action_mask(), actions, decisions)
                })?;
                splits[i].send()?;
            }
        }
        Ok(())
    }

    /// Waits for the step of split `i`, and counts it.
    fn receive(&mut self, i: usize) -> Result<()> {
        let took = self.splits[i].receive()?;
        self.timer.add("time/phase_env_ms", Some(took));
        let batch = &self.splits[i].experience.batch;
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
        for split in &mut self.splits {
            let scope = split.scope();
            save_environments(&scope, &mut *split.env, &split.frames, snapshot);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve_splits;
    use playfield_core::rollout::Decisions;
    use playfield_core::{ActionSpace, Actions, Dtype, ObsRef, Step, StepBatch};
    use std::sync::Mutex;

    type Log = Arc<Mutex<Vec<String>>>;

    /// Environments that count: an observation is `100 · seed` plus the steps so far. Every `seed + 2` steps an episode is truncated.
    /// The environment of seed 3 fails at step `fails_at`.
    struct Counters {
        spec: EnvSpec,
        seeds: Vec<u64>,
        steps: Vec<u64>,
        actions: Option<Vec<i64>>,
        fails_at: u64,
        log: Log,
    }

    impl Counters {
        fn write(&self, batch: &mut StepBatch) {
            let obs = self.seeds.iter().zip(&self.steps).map(|(seed, steps)| (100 * seed + steps) as f32);
            batch.obs = Obs::F32(obs.collect());
        }

        fn note(&self, what: &str) {
            self.log.lock().unwrap().push(format!("{what} {}", self.seeds[0]));
        }
    }

    impl VecEnv for Counters {
        fn spec(&self) -> &EnvSpec {
            &self.spec
        }

        fn num_envs(&self) -> usize {
            self.seeds.len()
        }

        fn reset(&mut self, batch: &mut StepBatch) -> Result<()> {
            batch.clear();
            self.write(batch);
            Ok(())
        }

        fn send(&mut self, actions: &Actions) -> Result<()> {
            self.note("send");
            let Actions::Discrete(actions) = actions else { unreachable!() };
            assert!(self.actions.replace(actions.clone()).is_none(), "sent twice");
            Ok(())
        }

        fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
            self.note("recv");
            let actions = self.actions.take().expect("sent");
            for (i, action) in actions.iter().enumerate() {
                self.steps[i] += 1;
                if self.seeds[i] == 3 && self.steps[i] == self.fails_at {
                    return Err(Error::env("Counters", format!("environment {i} fails")));
                }
                let truncated = self.steps[i].is_multiple_of(self.seeds[i] + 2);
                batch.set(i, Step { reward: *action as f32, terminated: false, truncated, life_lost: false });
                batch.final_obs_row_mut(i).f32()[0] = -(self.steps[i] as f32);
            }
            self.write(batch);
            Ok(())
        }

        fn save_state(&mut self) -> Result<Option<State>> {
            assert!(self.actions.is_none(), "saved during a step");
            Ok(Some(State::from(self.steps.clone())))
        }

        fn load_state(&mut self, state: &State) -> Result<()> {
            let steps = state.as_array().expect("numbers").iter();
            self.steps = steps.map(|steps| steps.as_u64().expect("a number")).collect();
            Ok(())
        }
    }

    struct Factory {
        spec: EnvSpec,
        fails_at: u64,
        log: Log,
        splits: bool,
    }

    fn factory() -> Factory {
        let spec = EnvSpec::new("Counters", &[1], Dtype::F32, ActionSpace::Discrete { n: 5 }).with_frame_stack(2);
        Factory { spec, fails_at: u64::MAX, log: Log::default(), splits: true }
    }

    impl EnvFactory for Factory {
        fn spec(&self) -> &EnvSpec {
            &self.spec
        }

        fn num_envs(&self) -> usize {
            5
        }

        fn can_split(&self) -> bool {
            self.splits
        }

        fn vec(&self, seeds: &[u64]) -> Result<Box<dyn VecEnv>> {
            let Self { spec, fails_at, log, .. } = self;
            let (spec, seeds, steps, log) = (spec.clone(), seeds.to_vec(), vec![0; seeds.len()], log.clone());
            Ok(Box::new(Counters { spec, seeds, steps, actions: None, fails_at: *fails_at, log }))
        }
    }

    /// Each action, log-probability and value is a function of the observation.
    struct Table(Log);

    impl Policy for Table {
        fn act(&mut self, _: &Obs, _: &[bool], _: Mode, _: &mut Actions) -> Result<()> {
            unreachable!("rollouts are sampled")
        }

        fn seed(&mut self, _: u64) {}
    }

    impl RolloutPolicy for Table {
        fn store_observations(&mut self, t: usize, first: usize, frames: &FrameStack, newest: &Obs) {
            let (Obs::F32(obs), Obs::F32(newest)) = (frames.observations(), newest) else { unreachable!() };
            assert!(t == 0 || obs.chunks(2).map(|frames| frames[1]).eq(newest.iter().copied()));
            self.0.lock().unwrap().push(format!("store {t} {first}"));
        }

        fn sample(&mut self, obs: &Obs, _: &[bool], actions: &mut Actions, decisions: Decisions<'_>) -> Result<()> {
            let (Obs::F32(obs), Actions::Discrete(actions)) = (obs, actions) else { unreachable!() };
            self.0.lock().unwrap().push(format!("act {}", obs[1] as u64 / 100));
            for (i, frames) in obs.chunks(2).enumerate() {
                actions[i] = (frames[0] + frames[1]) as i64 % 5;
                decisions.log_probs[i] = -frames[1];
                decisions.values[i] = frames[1] / 2.0;
            }
            Ok(())
        }

        fn final_value(&mut self, obs: ObsRef<'_>, _: &[bool], _: usize) -> f32 {
            obs.f32()[1]
        }
    }

    const SEEDS: [u64; 5] = [0, 1, 2, 3, 4];

    fn rollout() -> Rollout {
        Rollout::new(&factory().spec, SEEDS.len(), 4, 0.9)
    }

    /// Everything that two rollouts in `splits` batches hold, the steps, and the episodes; resumed between the two.
    fn two_rollouts(splits: usize) -> Vec<String> {
        let (envs, mut rollout, mut all) = (factory(), rollout(), Vec::new());
        let mut snapshot = None;
        for _ in 0..2 {
            let mut collector = Collector::in_splits(&envs, &SEEDS, splits, snapshot.as_ref()).unwrap();
            assert_eq!((collector.is_restored(), collector.num_envs()), (snapshot.is_some(), 5));
            collector.collect(&mut Table(Log::default()), &mut rollout).unwrap();
            all.push(format!("{rollout:?} {}", collector.steps()));
            let saved = snapshot.insert(Snapshot { step: collector.steps(), ..Snapshot::default() });
            collector.save(saved).unwrap();
        }
        all
    }

    /// The order of steps does not change what is collected, nor does a checkpoint.
    #[test]
    fn splits_collect_the_same_as_one_batch() {
        let one = two_rollouts(1);
        assert_ne!(one[0], one[1]);
        assert!(one[0].ends_with(" 20") && one[1].ends_with(" 40"));
        for splits in [2, 3, 5] {
            assert_eq!(two_rollouts(splits), one);
        }
    }

    /// The policy acts for a split while the other one steps.
    #[test]
    fn the_policy_acts_while_environments_step() {
        let envs = factory();
        let mut collector = Collector::in_splits(&envs, &SEEDS, 2, None).unwrap();
        let mut rollout = Rollout::new(&envs.spec, SEEDS.len(), 2, 0.9);
        collector.collect(&mut Table(envs.log.clone()), &mut rollout).unwrap();
        let start = ["store 0 0", "act 0", "send 0", "store 0 2", "act 2", "send 2"];
        let step = ["recv 0", "store 1 0", "act 0", "send 0", "recv 2", "store 1 2", "act 2", "send 2"];
        let end = ["recv 0", "store 2 0", "recv 2", "store 2 2"];
        assert_eq!(*envs.log.lock().unwrap(), [&start[..], &step, &end].concat());
    }

    /// After a failure no environment is left in a step, so that the others can be saved. The error says which environments it counts.
    #[test]
    fn a_failure_leaves_no_step_in_progress() {
        for (splits, expected) in
            [(1, "environment 3 fails"), (2, "among the environments from 2, environment 1 fails")]
        {
            let envs = Factory { fails_at: 2, ..factory() };
            let mut collector = Collector::in_splits(&envs, &SEEDS, splits, None).unwrap();
            let error = collector.collect(&mut Table(Log::default()), &mut rollout()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            let mut snapshot = Snapshot::default();
            collector.save(&mut snapshot).unwrap();
            assert!(snapshot.state.contains_key("env.state"));
        }
    }

    #[test]
    fn the_number_of_splits_is_chosen_and_checked() {
        let of = |num_splits, recurrent, splits| {
            let envs = Factory { splits, ..factory() };
            resolve_splits(num_splits, recurrent, &envs).map_err(|error| error.to_string())
        };
        // Five environments are too few for two batches.
        assert_eq!([of(0, false, true), of(0, true, true), of(0, false, false)], [Ok(1), Ok(1), Ok(1)]);
        assert_eq!([of(1, true, false), of(5, false, true)], [Ok(1), Ok(5)]);
        assert!(of(6, false, true).unwrap_err().contains("`num_splits` = 6: there are fewer environments"));
        assert!(of(2, true, true).unwrap_err().contains("recurrent"));
        assert!(of(2, false, false).unwrap_err().contains("running statistics"));
    }
}
