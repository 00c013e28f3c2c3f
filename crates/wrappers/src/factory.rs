//! Environments as the `[env]` section of a configuration asks for them.

use crate::{
    ClipReward, Finite, FireOnLifeLoss, FireReset, FrameSkip, LifeLoss, NoOp, Normalize, Over, Pool, Resize,
    ScaleActions, Statistics, StickyAction, TimeLimit,
};
use playfield_core::config::ClipReward as Clip;
use playfield_core::{ActionSpace, Env, EnvConfig, EnvFactory, EnvSource, EnvSpec, Error, Result, VecEnv};
use std::sync::Arc;

/// Makes batches of environments from a source and the `[env]` section.
///
/// A source's own batch is used where it has one, else a [`Pool`] of its environments, wrapped as in ALE's vector
/// environment. Innermost first: sticky actions, FIRE, no-ops, frame skip with max-pool, time limit, resize. StickyAction
/// actions, FIRE and no-ops are a matter of emulator frames, so they stand inside the frame skip; the time limit counts
/// agent steps, so it stands outside.
pub struct Factory {
    source: Arc<dyn EnvSource>,
    config: EnvConfig,
    spec: EnvSpec,
}

impl Factory {
    /// Environments from `source` as `config` asks. One is made at once and dropped, to find out what they observe and
    /// whether they can be made at all.
    ///
    /// # Errors
    /// What the source returns; [`Error::Config`](playfield_core::Error::Config) where a wrapper does not fit the
    /// environment.
    pub fn new(source: Arc<dyn EnvSource>, config: EnvConfig) -> Result<Self> {
        let spec = batch(&source, &config, &[0], false)?.spec().clone();
        Ok(Self { source, config, spec })
    }

    /// A batch of one environment that shows pictures of itself, where the environment can: playfield's own wrappers in
    /// place of a source's fast batch, which they equal frame for frame.
    ///
    /// # Errors
    /// [`Error::Env`](playfield_core::Error::Env) where it cannot be made.
    pub fn rendering(&self, seed: u64) -> Result<Box<dyn VecEnv>> {
        let mut config = self.config.clone();
        self.source.enable_rendering(&mut config);
        over(pool(&self.source, &config, &[seed])?, &config, false)
    }
}

impl EnvFactory for Factory {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn num_envs(&self) -> usize {
        self.config.num_envs
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
}

/// The source's own batch or a pool, and what stands over it. `raw`: statistics are tracked and not applied.
fn batch(source: &Arc<dyn EnvSource>, config: &EnvConfig, seeds: &[u64], raw: bool) -> Result<Box<dyn VecEnv>> {
    let bare = match source.batch(config, seeds)? {
        Some(batch) => batch,
        None => pool(source, config, seeds)?,
    };
    over(bare, config, raw)
}

fn pool(source: &Arc<dyn EnvSource>, config: &EnvConfig, seeds: &[u64]) -> Result<Box<dyn VecEnv>> {
    let (source, config, threads) = (source.clone(), config.clone(), config.thread_count());
    Ok(Box::new(Pool::new(seeds, threads, move |_| inside(source.env(&config)?, &config))?))
}

/// What wraps one environment, innermost first.
fn inside(mut env: Box<dyn Env>, config: &EnvConfig) -> Result<Box<dyn Env>> {
    let mut pressed = 0;
    if config.repeat_action_probability > 0.0 {
        env = Box::new(StickyAction::new(env, config.repeat_action_probability));
    }
    if config.fire_reset {
        let fire = FireReset::new(env);
        pressed = u32::from(fire.presses());
        env = Box::new(fire);
    }
    if config.noop_max > 0 {
        env = Box::new(NoOp::new(env, config.noop_max, pressed)?);
    }
    if config.frame_skip > 1 || config.max_pool {
        env = Box::new(FrameSkip::new(env, config.frame_skip, config.max_pool)?);
    }
    if config.max_episode_steps > 0 {
        env = Box::new(TimeLimit::new(env, config.max_episode_steps));
    }
    if let &[height, width] = config.resize.as_slice() {
        env = Box::new(Resize::new(env, height, width)?);
    }
    Ok(env)
}

/// What stands over a batch, innermost first.
fn over(bare: Box<dyn VecEnv>, config: &EnvConfig, raw: bool) -> Result<Box<dyn VecEnv>> {
    let (n, spec) = (bare.num_envs(), bare.spec().clone());
    if spec.frame_len() == 0 || matches!(&spec.actions, ActionSpace::Box { low, .. } if low.is_empty()) {
        let message = "its observations or actions hold no numbers: there is nothing to learn from";
        return Err(Error::env(&spec.id, message));
    }
    let clips = config.clip_reward != Clip::None && !config.normalize_reward;
    let mut batch: Box<dyn VecEnv> = Box::new(Over::new(bare, Finite::new(&spec, clips)));
    if matches!(spec.actions, ActionSpace::Box { .. }) {
        batch = Box::new(Over::new(batch, ScaleActions::new(&spec.actions, n)));
    }
    batch = Box::new(Over::new(batch, Statistics::new(n)).with_frame_stack(config.frame_stack));
    if config.fire_on_life_loss {
        batch = Box::new(Over::new(batch, FireOnLifeLoss::new(&spec, n)));
    }
    batch = Box::new(Over::new(batch, LifeLoss { episodic: config.episodic_life }));
    if config.normalize_obs || config.normalize_reward {
        let (obs, reward, gamma) = (config.normalize_obs, config.normalize_reward, config.normalize_gamma);
        let rule = Normalize::new(&spec, n, obs, reward, gamma)?;
        batch = Box::new(Over::new(batch, if raw { rule.passive() } else { rule }));
    }
    if config.clip_reward != Clip::None {
        batch = Box::new(Over::new(batch, ClipReward(config.clip_reward)));
    }
    Ok(batch)
}
