//! Interfaces of environments: one ([`Env`]), a batch ([`VecEnv`]), a factory of batches ([`EnvFactory`]), and a source of
//! unwrapped environments ([`EnvSource`]).
//!
//! All are object-safe, and every call may fail. Saving state is optional, and wrappers and thread pool pass it on. Where every
//! part saves its state, a resumed run equals an uninterrupted one bit for bit; elsewhere a resume starts new episodes.

use crate::check::Inspection;
use crate::{Action, Actions, EnvConfig, EnvSpec, Error, Normalizer, Obs, ObsMut, Result, Step, StepBatch};

/// A saved state. It is JSON, so that loading it executes no code.
pub type State = serde_json::Value;

/// An RGB frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `u8[height, width, 3]`, row-major: red, green and blue of each pixel.
    pub rgb: Vec<u8>,
}

/// Frames per second of environments that do not say otherwise: Gymnasium's default.
const RENDER_FPS: f64 = 30.0;

/// One environment. It is built on the thread that steps it, so it need not be `Send`.
pub trait Env {
    /// The observation space and the action space.
    fn spec(&self) -> &EnvSpec;

    /// Starts an episode and writes its first observation. A seed reseeds every random stream of the environment; without
    /// one, the streams continue.
    ///
    /// # Errors
    /// [`Error::Env`] where the environment fails.
    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step>;

    /// Executes `action` and writes the next observation. After a step that ended the episode, the next call must be
    /// [`reset`](Self::reset).
    ///
    /// # Errors
    /// [`Error::Env`] where the environment fails.
    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step>;

    /// The complete state, random streams included, or `None` where the environment cannot save it.
    fn save_state(&self) -> Option<State> {
        None
    }

    /// Restores a saved state.
    ///
    /// # Errors
    /// [`Error::Env`] where it is not a state of this environment.
    fn load_state(&mut self, _state: &State) -> Result<()> {
        Err(Error::env(&self.spec().id, "this environment cannot restore a saved state"))
    }

    /// Writes whether each discrete action is valid in the current state, for an environment whose spec says so
    /// ([`EnvSpec::action_mask`]). `mask` has an element for each choice of each component of an action, one component after the
    /// other, and is true everywhere before the call. Called after each [`reset`](Self::reset) and [`step`](Self::step).
    fn action_mask(&self, _mask: &mut [bool]) {}

    /// Renders the current state as an RGB frame; `None` where the environment does not render.
    ///
    /// # Errors
    /// [`Error::Env`] where the environment fails.
    fn render(&mut self) -> Result<Option<Image>> {
        Ok(None)
    }

    /// Lives left in the game; 0 where the environment has none.
    fn lives(&self) -> u32 {
        0
    }
}

/// A batch of environments with autoreset (see [`StepBatch`]).
///
/// [`send`](Self::send) and [`recv`](Self::recv) are separate, so that a learner can compute while environments step.
pub trait VecEnv {
    /// The observation space and the action space of each environment.
    fn spec(&self) -> &EnvSpec;

    /// The number of environments.
    fn num_envs(&self) -> usize;

    /// Starts an episode in every environment, from the seeds that the batch was created with.
    ///
    /// # Errors
    /// [`Error::Env`] where an environment fails.
    fn reset(&mut self, batch: &mut StepBatch) -> Result<()>;

    /// Starts a step with one action for each environment. Returns at once where environments have their own threads.
    ///
    /// # Errors
    /// [`Error::Config`] for an action outside the action space; [`Error::Env`] where an environment fails.
    fn send(&mut self, actions: &Actions) -> Result<()>;

    /// Waits for the step that [`send`](Self::send) started and writes its results into `batch`.
    ///
    /// # Errors
    /// [`Error::Env`] where an environment failed. It never blocks forever.
    fn recv(&mut self, batch: &mut StepBatch) -> Result<()>;

    /// [`send`](Self::send), then [`recv`](Self::recv).
    ///
    /// # Errors
    /// As for those two.
    fn step(&mut self, actions: &Actions, batch: &mut StepBatch) -> Result<()> {
        self.send(actions)?;
        self.recv(batch)
    }

    /// Whether [`send`](Self::send) returns before the environments have stepped, so that the caller can compute meanwhile.
    fn steps_in_background(&self) -> bool {
        false
    }

    /// The complete state of all environments and wrappers, or `None` where some part cannot save its own.
    ///
    /// # Errors
    /// [`Error::Env`] where an environment fails.
    fn save_state(&mut self) -> Result<Option<State>> {
        Ok(None)
    }

    /// Restores a saved state. The next call is [`send`](Self::send).
    ///
    /// # Errors
    /// [`Error::Env`] where it is not a state of this batch.
    fn load_state(&mut self, _state: &State) -> Result<()> {
        Err(Error::env(&self.spec().id, "this environment cannot restore a saved state"))
    }

    /// Renders the first environment as an RGB frame; `None` where it does not render. Batches built for speed do not.
    ///
    /// # Errors
    /// [`Error::Env`] where the environment fails.
    fn render(&mut self) -> Result<Option<Image>> {
        Ok(None)
    }

    /// The last frame of the first environment's episode, after a step that ended it: [`render`](Self::render) shows the next episode
    /// then. `None` after any other step, and where the batch does not render.
    ///
    /// # Errors
    /// [`Error::Env`] where the environment fails.
    fn final_frame(&mut self) -> Result<Option<Image>> {
        Ok(None)
    }

    /// The running statistics of observations and rewards, where they are tracked.
    fn normalizer(&self) -> Option<&Normalizer> {
        None
    }

    /// Replaces the running statistics, where they are tracked: those of several processes are [merged](Normalizer::merged).
    fn set_normalizer(&mut self, _normalizer: &Normalizer) {}

    /// The running statistics as a saved state, or `None` where none are tracked. Evaluation needs them.
    /// Unlike [`save_state`](Self::save_state) it does not depend on the environments.
    fn save_statistics(&self) -> Option<State> {
        None
    }

    /// Restores [`save_statistics`](Self::save_statistics). `frozen` statistics are applied and no longer updated.
    ///
    /// # Errors
    /// [`Error::Env`] where they belong to other settings.
    fn load_statistics(&mut self, _statistics: &State, _frozen: bool) -> Result<()> {
        Ok(())
    }
}

/// Creates the wrapped environments of an algorithm.
pub trait EnvFactory: Send + Sync {
    /// The observation space and the action space of the wrapped environments.
    fn spec(&self) -> &EnvSpec;

    /// How many environments an algorithm steps together.
    fn num_envs(&self) -> usize;

    /// A batch of `seeds.len()` environments, each with its own seed.
    ///
    /// # Errors
    /// [`Error::Env`] where one cannot be created.
    fn vec(&self, seeds: &[u64]) -> Result<Box<dyn VecEnv>>;

    /// Whether environments [step in the background](VecEnv::steps_in_background) and do not depend on each other, as with running
    /// statistics. Two small batches are then as good as a large one.
    fn can_split(&self) -> bool {
        false
    }

    /// The same batch, for a replay buffer: `env.normalize_obs` and `env.normalize_reward` track their statistics
    /// ([`VecEnv::normalizer`]) and leave observations and rewards as they are. The caller normalizes what it samples.
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

    /// The same with one environment that [renders](VecEnv::render), where it can.
    ///
    /// # Errors
    /// As [`evaluation`](Self::evaluation).
    fn rendering(&self, seed: u64, overrides: &toml::Table) -> Result<Box<dyn VecEnv>> {
        self.evaluation(&[seed], overrides)
    }

    /// Agent steps per second at which a video shows the environment in real time.
    fn render_fps(&self) -> f64 {
        RENDER_FPS
    }
}

/// Creates unwrapped environments of one id: an entry of a registry.
///
/// A setting of `[env]` is never ignored. Where a configuration sets one of [`EnvConfig::inner_settings`], it is implemented by
/// the source's own batch ([`batch_settings`](Self::batch_settings)), by the environment ([`env_settings`](Self::env_settings)),
/// or by a wrapper; else creating the environment is an error that names the key.
///
/// [`source`] makes a source from a closure that creates an [`Env`].
pub trait EnvSource: Send + Sync {
    /// The values of `[env]` keys that a configuration leaves out (Atari's preprocessing).
    fn defaults(&self) -> toml::Table {
        toml::Table::new()
    }

    /// Changes `config` so that an environment created from it [renders](Env::render), where that is a setting.
    fn enable_rendering(&self, _config: &mut EnvConfig) {}

    /// Whether an environment created from `config` [renders](Env::render). The default creates one.
    ///
    /// # Errors
    /// As [`env`](Self::env).
    fn renders(&self, config: &EnvConfig) -> Result<bool> {
        let mut config = config.clone();
        self.enable_rendering(&mut config);
        let mut env = self.env(&config)?;
        let mut obs = Obs::zeros(env.spec().dtype, env.spec().frame_len());
        env.reset(Some(0), obs.as_mut())?;
        Ok(env.render()?.is_some())
    }

    /// Steps of an unwrapped environment per second at which a video shows it in real time (Gymnasium's `render_fps`).
    fn render_fps(&self) -> f64 {
        RENDER_FPS
    }

    /// The keys of [`EnvConfig::inner_settings`] that [`env`](Self::env) implements.
    fn env_settings(&self) -> &'static [&'static str] {
        &["kwargs"]
    }

    /// `config` with the settings that are chosen by a measurement (`vectorization = "auto"`) replaced by their values. Each choice is
    /// reported as a [notice](crate::notices).
    ///
    /// # Errors
    /// As [`env`](Self::env).
    fn resolve(&self, config: &EnvConfig) -> Result<EnvConfig> {
        Ok(config.clone())
    }

    /// Creates one environment, unwrapped. Called on the thread that steps it.
    ///
    /// # Errors
    /// [`Error::Env`] where it cannot be created.
    fn env(&self, config: &EnvConfig) -> Result<Box<dyn Env>>;

    /// Examines one environment over `steps` random actions, for properties that its converted results no longer show; `None` where
    /// there are none.
    ///
    /// # Errors
    /// [`Error::Env`] where it cannot be created.
    fn inspect(&self, _config: &EnvConfig, _steps: u64) -> Result<Option<Inspection>> {
        Ok(None)
    }

    /// The keys of [`EnvConfig::inner_settings`] that [`batch`](Self::batch) implements. Where a configuration sets another
    /// key, single environments and wrappers are used instead.
    fn batch_settings(&self) -> &'static [&'static str] {
        &[]
    }

    /// Creates a batch that implements the settings of `config` itself, faster than a thread pool of wrapped environments;
    /// `None` where the source has no such batch.
    ///
    /// # Errors
    /// [`Error::Env`] where it cannot be created.
    fn batch(&self, _config: &EnvConfig, _seeds: &[u64]) -> Result<Option<Box<dyn VecEnv>>> {
        Ok(None)
    }
}

/// Makes an [`EnvSource`] from a closure that creates an environment. The closure reads `config.kwargs`: see
/// [`EnvConfig::parse_kwargs`] and [`EnvConfig::refuse_kwargs`].
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ActionSpace, Dtype};

    /// An environment that implements nothing more than it must.
    struct Plain(EnvSpec);

    impl Plain {
        fn new() -> Self {
            Self(EnvSpec::new("Plain", &[1], Dtype::F32, ActionSpace::Discrete { n: 2 }))
        }
    }

    impl Env for Plain {
        fn spec(&self) -> &EnvSpec {
            &self.0
        }
        fn reset(&mut self, _: Option<u64>, _: ObsMut<'_>) -> Result<Step> {
            Ok(Step::default())
        }
        fn step(&mut self, _: Action<'_>, _: ObsMut<'_>) -> Result<Step> {
            Ok(Step::default())
        }
    }

    /// A batch that implements nothing more than it must; its log says what was called.
    struct PlainVec(EnvSpec, Vec<&'static str>);

    impl VecEnv for PlainVec {
        fn spec(&self) -> &EnvSpec {
            &self.0
        }
        fn num_envs(&self) -> usize {
            1
        }
        fn reset(&mut self, _: &mut StepBatch) -> Result<()> {
            Ok(())
        }
        fn send(&mut self, _: &Actions) -> Result<()> {
            self.1.push("send");
            Ok(())
        }
        fn recv(&mut self, _: &mut StepBatch) -> Result<()> {
            self.1.push("recv");
            Ok(())
        }
    }

    struct PlainFactory(EnvSpec);

    impl EnvFactory for PlainFactory {
        fn spec(&self) -> &EnvSpec {
            &self.0
        }
        fn num_envs(&self) -> usize {
            1
        }
        fn vec(&self, _: &[u64]) -> Result<Box<dyn VecEnv>> {
            Ok(Box::new(PlainVec(self.0.clone(), Vec::new())))
        }
    }

    /// An environment that renders where its settings say so.
    struct Drawn(Plain, bool);

    impl Env for Drawn {
        fn spec(&self) -> &EnvSpec {
            self.0.spec()
        }
        fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
            self.0.reset(seed, obs)
        }
        fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
            self.0.step(action, obs)
        }
        fn render(&mut self) -> Result<Option<Image>> {
            Ok(self.1.then(|| Image { width: 1, height: 1, rgb: vec![0; 3] }))
        }
    }

    #[test]
    fn an_environment_is_created_to_see_whether_it_renders() {
        let source = source(|config| Ok(Drawn(Plain::new(), config.kwargs.contains_key("draw"))));
        let config = EnvConfig::default();
        let drawn = EnvConfig { kwargs: "draw = true".parse().unwrap(), ..config.clone() };
        assert_eq!([config, drawn].map(|config| source.renders(&config).unwrap()), [false, true]);
    }

    /// What an environment that implements nothing more than it must claims: no state, no lives, no pictures, no statistics.
    #[test]
    fn an_environment_claims_nothing_that_it_does_not_implement() {
        let mut env = Plain::new();
        assert!(env.save_state().is_none() && env.lives() == 0 && env.render().unwrap().is_none());
        let message = env.load_state(&State::default()).unwrap_err().to_string();
        assert!(message.contains("Plain") && message.contains("cannot restore"), "{message}");

        let mut batch = PlainVec(env.0.clone(), Vec::new());
        batch.step(&Actions::Discrete(vec![0]), &mut StepBatch::new(&env.0, 1)).unwrap();
        assert_eq!(batch.1, ["send", "recv"]);
        assert!(!batch.steps_in_background() && batch.save_state().unwrap().is_none());
        assert!(batch.load_state(&State::default()).unwrap_err().to_string().contains("cannot restore"));
        assert!(batch.render().unwrap().is_none() && batch.final_frame().unwrap().is_none());
        assert!(batch.normalizer().is_none() && batch.save_statistics().is_none());

        let factory = PlainFactory(env.0.clone());
        assert!(!factory.can_split() && factory.render_fps() == 30.0);
        for vec in [factory.unnormalized(&[1]), factory.evaluation(&[1], &toml::Table::new())] {
            assert_eq!(vec.unwrap().num_envs(), 1);
        }

        let (source, config) = (source(|_| Ok(Plain::new())), EnvConfig { num_envs: 7, ..EnvConfig::default() });
        assert!(
            source.defaults().is_empty() && source.env_settings() == ["kwargs"] && source.batch_settings().is_empty()
        );
        assert_eq!((source.resolve(&config).unwrap(), source.render_fps()), (config.clone(), 30.0));
        assert!(source.inspect(&config, 1).unwrap().is_none() && source.batch(&config, &[1]).unwrap().is_none());
        assert!(source.env(&config).unwrap().spec().id == "Plain" && !source.renders(&config).unwrap());
    }
}
