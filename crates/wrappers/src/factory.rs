//! Creation of environments from the `[env]` section of a configuration.

use crate::{
    CheckActionMask, CheckFinite, ClipReward, EnvWrapper, EpisodicLife, FireOnLifeLoss, FireReset, FrameSkip,
    NoopReset, Normalize, Pool, RecordEpisodeStatistics, Resize, ScaleActions, StickyAction, TimeLimit, VecEnvWrapper,
    WrappedEnv, WrappedVecEnv,
};
use playfield_core::config::{ClipReward as Clip, Vectorization};
use playfield_core::{ActionSpace, Env, EnvConfig, EnvFactory, EnvSource, EnvSpec, Error, Result, VecEnv, calls};
use std::sync::Arc;

/// The keys of [`EnvConfig::inner_settings`] that a wrapper inside one environment implements.
const WRAPPER_SETTINGS: [&str; 8] = [
    "repeat_action_probability",
    "fire_reset",
    "noop_max",
    "frame_skip",
    "max_pool",
    "max_episode_steps",
    "resize",
    "step_timeout_seconds", // of the pool
];

/// Creates batches of environments from a source and the `[env]` section.
///
/// The source's own batch is used where it implements every setting, else a [`Pool`] of its environments, wrapped as in ALE's
/// vector environment. Innermost first: sticky actions, FIRE, no-ops, frame skip with max-pooling, time limit, resizing. Sticky
/// actions, FIRE and no-ops count emulator frames, so they are inside the frame skip; the time limit counts agent steps, so it
/// is outside.
pub struct Factory {
    source: Arc<dyn EnvSource>,
    config: EnvConfig,
    spec: EnvSpec,
    can_split: bool,
}

impl Factory {
    /// A factory of environments from `source` with the settings of `config`, [resolved](EnvSource::resolve). It creates one environment and drops it, for its
    /// spaces and to report errors early.
    ///
    /// # Errors
    /// Those of the source; [`Error::Config`] where the environment does not support a setting.
    pub fn new(source: Arc<dyn EnvSource>, config: EnvConfig) -> Result<Self> {
        let config = source.resolve(&config)?;
        let one = batch(&source, &config, &[0], false)?;
        let (spec, can_split) = (one.spec().clone(), one.steps_in_background() && one.normalizer().is_none());
        check_fire(source.as_ref(), &config, &spec)?;
        Ok(Self { source, config, spec, can_split })
    }

    /// The settings, resolved.
    pub fn config(&self) -> &EnvConfig {
        &self.config
    }

    /// Whether the environments [render](VecEnv::render).
    ///
    /// # Errors
    /// As [`EnvSource::renders`].
    pub fn renders(&self) -> Result<bool> {
        self.source.renders(&self.config)
    }
}

impl EnvFactory for Factory {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn num_envs(&self) -> usize {
        self.config.num_envs
    }

    fn can_split(&self) -> bool {
        self.can_split
    }

    fn vec(&self, seeds: &[u64]) -> Result<Box<dyn VecEnv>> {
        batch(&self.source, &self.config, seeds, false)
    }

    fn unnormalized(&self, seeds: &[u64]) -> Result<Box<dyn VecEnv>> {
        batch(&self.source, &self.config, seeds, true)
    }

    fn evaluation(&self, seeds: &[u64], overrides: &toml::Table) -> Result<Box<dyn VecEnv>> {
        batch(&self.source, &self.config.evaluation(overrides)?, seeds, false)
    }

    /// Uses wrappers instead of the source's own batch; both produce the same frames.
    fn rendering(&self, seed: u64, overrides: &toml::Table) -> Result<Box<dyn VecEnv>> {
        let mut config = self.config.evaluation(overrides)?;
        // A pool with a time limit has threads, and does not render.
        config.step_timeout_seconds = 0.0;
        self.source.enable_rendering(&mut config);
        let pool = pool(&self.source, &config, &[seed])?.keep_final_frames();
        wrap_batch(Box::new(pool), &config, false)
    }

    fn render_fps(&self) -> f64 {
        self.source.render_fps() / self.config.frame_skip.max(1) as f64
    }
}

/// The source's own batch or a pool, and the wrappers over it. `track_only`: running statistics are tracked and not applied.
fn batch(source: &Arc<dyn EnvSource>, config: &EnvConfig, seeds: &[u64], track_only: bool) -> Result<Box<dyn VecEnv>> {
    let _call = calls::begin();
    let supported = source.batch_settings();
    let own = match config.inner_settings().iter().all(|key| supported.contains(key)) {
        true => source.batch(config, seeds)?,
        false => None,
    };
    let bare = match own {
        Some(batch) => batch,
        None => Box::new(pool(source, config, seeds)?),
    };
    wrap_batch(bare, config, track_only)
}

/// A thread pool of wrapped environments.
fn pool(source: &Arc<dyn EnvSource>, config: &EnvConfig, seeds: &[u64]) -> Result<Pool> {
    let supported = |key: &&str| WRAPPER_SETTINGS.contains(key) || source.env_settings().contains(key);
    if let Some(key) = config.inner_settings().into_iter().find(|key| !supported(key)) {
        return Err(unsupported(&config.id, key));
    }
    let (source, config, threads) = (source.clone(), config.clone(), config.thread_count());
    // A process has its own limit, so that it can be ended.
    let limit = config.step_timeout().filter(|_| config.vectorization != Vectorization::Async);
    Pool::with_limit(seeds, threads, limit, move |_| wrap_env(source.env(&config)?, &config))
}

/// The error for a setting that neither the environment nor a wrapper implements.
fn unsupported(id: &str, key: &str) -> Error {
    let advice = match key {
        "full_action_space" => "is for Atari games (ALE/…); pass settings of other environments in [env.kwargs]",
        "on_failure" => "is for Gymnasium environments other than Atari, with `vectorization` = \"async\": remove it",
        "vectorization" => "is for Gymnasium environments other than Atari: remove it, and set `num_threads`",
        _ => "is not supported: remove it",
    };
    Error::config(format!("[env]: {id}: `{key}` {advice}"))
}

/// Refuses FIRE where the environment lacks that action. Sources that press FIRE by default have games with and without it.
fn check_fire(source: &dyn EnvSource, config: &EnvConfig, spec: &EnvSpec) -> Result<()> {
    let keys = [("fire_reset", config.fire_reset), ("fire_on_life_loss", config.fire_on_life_loss)];
    match keys.into_iter().find(|(_, is_set)| *is_set) {
        Some((key, _)) if spec.action_named("FIRE").is_none() && !source.defaults().contains_key("fire_reset") => {
            Err(Error::config(format!("[env]: `{key}`: {} has no action FIRE; set it to false", spec.id)))
        }
        _ => Ok(()),
    }
}

/// Wraps one environment, innermost wrapper first.
fn wrap_env(mut env: Box<dyn Env>, config: &EnvConfig) -> Result<Box<dyn Env>> {
    fn wrap<W: EnvWrapper + 'static>(env: Box<dyn Env>, wrapper: W) -> Box<dyn Env> {
        Box::new(WrappedEnv::new(env, wrapper))
    }
    let mut reset_frames = 0;
    if config.repeat_action_probability > 0.0 {
        env = wrap(env, StickyAction::new(config.repeat_action_probability));
    }
    if config.fire_reset {
        let fire = FireReset::new(env.spec());
        reset_frames = fire.frames();
        env = wrap(env, fire);
    }
    if config.noop_max > 0 {
        let noop = NoopReset::new(env.spec(), config.noop_max, reset_frames)?;
        env = wrap(env, noop);
    }
    if config.frame_skip > 1 || config.max_pool {
        let skip = FrameSkip::new(env.spec(), config.frame_skip, config.max_pool)?;
        env = wrap(env, skip);
    }
    if config.max_episode_steps > 0 {
        env = wrap(env, TimeLimit::new(config.max_episode_steps));
    }
    if let &[height, width] = config.resize.as_slice() {
        let resize = Resize::new(env.spec(), height, width)?;
        env = wrap(env, resize);
    }
    Ok(env)
}

/// Wraps a batch, innermost wrapper first.
fn wrap_batch(bare: Box<dyn VecEnv>, config: &EnvConfig, track_only: bool) -> Result<Box<dyn VecEnv>> {
    fn wrap<W: VecEnvWrapper + 'static>(batch: Box<dyn VecEnv>, wrapper: W) -> Box<dyn VecEnv> {
        Box::new(WrappedVecEnv::new(batch, wrapper))
    }
    let (n, spec) = (bare.num_envs(), bare.spec().clone());
    if spec.frame_len() == 0 || spec.actions.is_empty() {
        return Err(Error::env(&spec.id, "its observations or actions have no elements: there is nothing to learn"));
    }
    let clips = config.clip_reward != Clip::None && !config.normalize_reward;
    let mut batch = wrap(bare, CheckFinite::new(&spec, clips));
    if spec.action_mask {
        batch = wrap(batch, CheckActionMask::new(&spec));
    }
    if matches!(spec.actions, ActionSpace::Box { .. }) {
        batch = wrap(batch, ScaleActions::new(&spec.actions, n));
    }
    let statistics = WrappedVecEnv::new(batch, RecordEpisodeStatistics::new(n));
    batch = Box::new(statistics.with_frame_stack(config.frame_stack));
    if config.fire_on_life_loss {
        batch = wrap(batch, FireOnLifeLoss::new(&spec, n));
    }
    batch = wrap(batch, EpisodicLife { enabled: config.episodic_life });
    if config.normalize_obs || config.normalize_reward {
        let (obs, reward, gamma) = (config.normalize_obs, config.normalize_reward, config.normalize_gamma);
        let normalize = Normalize::new(&spec, n, obs, reward, gamma)?;
        batch = wrap(batch, if track_only { normalize.track_only() } else { normalize });
    }
    if config.clip_reward != Clip::None {
        batch = wrap(batch, ClipReward(config.clip_reward));
    }
    Ok(batch)
}
