//! `playfield check`: whether an environment keeps the contract that algorithms rely on.
//!
//! Everything is observed from outside: batches of one and of three environments take random actions. So it works for every
//! [`EnvSource`], and a source adds what only it can see ([`EnvSource::inspect`]). Rewards and observations are examined as the
//! environment returns them, without clipping and normalization.

use crate::Factory;
use crate::workers::guard;
use playfield_core::check::{Finding, Level};
use playfield_core::config::ClipReward;
use playfield_core::rng::{self, Rng};
use playfield_core::space::random_action;
use playfield_core::text::thousands;
use playfield_core::{
    ActionSpace, Actions, Dtype, EnvConfig, EnvFactory, EnvSource, EnvSpec, EpisodeEnd, Error, Obs, ObsRef, Result,
    StepBatch, VecEnv,
};
use rand::RngExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The largest number of steps in the comparison of two environments.
const COMPARED_STEPS: u64 = 300;
/// A pass over the environment ends after this time, however slow its steps are.
const LONGEST_PASS: Duration = Duration::from_secs(20);
/// Rewards above this size, and observations, are unusual inputs of a network.
const LARGE: f32 = 100.0;
/// An episode at least this long, always ended by `terminated` at the same step, was probably cut by a time limit.
const SUSPICIOUS_LENGTH: u64 = 50;

/// Checks the environment of `source` with the settings of `config`, over `steps` random actions. The findings are ordered by
/// check; the first error may prevent later checks.
pub fn check_env(source: &Arc<dyn EnvSource>, config: &EnvConfig, steps: u64) -> Vec<Finding> {
    let raw = EnvConfig {
        clip_reward: ClipReward::None,
        normalize_obs: false,
        normalize_reward: false,
        episodic_life: false,
        num_threads: 1,
        ..config.clone()
    };
    let mut findings = Vec::new();
    if let Err((check, error)) = check_all(source, &raw, steps.max(1), &mut findings) {
        findings.push(failure(check, error));
    }
    findings
}

fn failure(check: &str, error: Error) -> Finding {
    let advice = "fix what the message names; --verbose prints the traceback";
    let detail = match &error {
        Error::Env { detail, .. } => detail.clone(),
        _ => None,
    };
    Finding { detail, ..Finding::error(check, error.to_string(), advice) }
}

/// Adds findings until an error, which is returned with the name of its check.
fn check_all(
    source: &Arc<dyn EnvSource>,
    config: &EnvConfig,
    steps: u64,
    findings: &mut Vec<Finding>,
) -> std::result::Result<(), (&'static str, Error)> {
    let named = |check: &'static str| move |error: Error| (check, error);
    if config.step_timeout().is_some() {
        // The limit is that of a batch: a source that examines an environment which hangs would wait for it.
        let factory = Factory::new(source.clone(), config.clone()).map_err(named("create"))?;
        Sample::new(&factory, steps).map_err(named("step"))?;
    }
    let inspection = source.inspect(config, steps).map_err(named("create"))?;
    if let Some(inspection) = &inspection {
        findings.extend(inspection.findings.iter().cloned());
    }
    // Other checks would fail for the same reason.
    if findings.iter().any(|finding| finding.level == Level::Error) {
        return Ok(());
    }
    let factory = Factory::new(source.clone(), config.clone()).map_err(named("create"))?;
    findings.insert(0, spaces(factory.spec()));
    if inspection.is_none() {
        findings.extend(guard(&config.id, || flags(source, config, steps)).map_err(named("step"))?);
    }

    let sample = Sample::new(&factory, steps).map_err(named("step"))?;
    findings.extend(sample.observations(factory.spec()));
    findings.push(sample.rewards());
    findings.extend(sample.ends(findings));

    let compared = steps.min(COMPARED_STEPS);
    let repeated = difference(&factory, [1, 1], compared).map_err(named("seeds"))?;
    let other = difference(&factory, [1, 2], compared).map_err(named("seeds"))?;
    findings.push(seeds(repeated.as_deref(), other.as_deref()));
    if repeated.is_none() {
        findings.extend(sample.restarts(&factory).map_err(named("seeds"))?);
        findings.push(batch(&factory, compared).map_err(named("batch"))?);
    }
    if !findings.iter().any(|finding| finding.check == "rendering") {
        findings.push(rendering(&factory).unwrap_or_else(|error| Finding {
            level: Level::Warning, // training needs no frames
            ..failure("rendering", error)
        }));
    }
    let inside = inspection.and_then(|inspection| inspection.step_seconds);
    findings.push(sample.speed(inside.filter(|_| config.frame_skip == 1)));
    Ok(())
}

fn spaces(spec: &EnvSpec) -> Finding {
    let shape = spec.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let observation = match spec.dtype {
        _ if !spec.parts.is_empty() => format!("parts {}", spec.observation_text()),
        Dtype::U8 if (2..=3).contains(&spec.shape.len()) => format!("images u8[{shape}]"),
        Dtype::U8 => format!("vectors u8[{shape}]"),
        Dtype::F32 => format!("vectors f32[{shape}]"),
    };
    let masked = if spec.action_mask { " with a mask of the valid ones" } else { "" };
    let found = format!("{observation}, {}{masked}", actions(&spec.actions));
    match &spec.actions {
        ActionSpace::Box { low, high } if low.iter().chain(high).any(|bound| !bound.is_finite()) => {
            let advice = "give the action space finite bounds: a policy's actions of −1 to 1 are then scaled to them";
            Finding::warning("spaces", format!("{found}; a bound is infinite"), advice)
        }
        _ if spec.dtype == Dtype::F32 && spec.shape.len() > 1 && spec.frame_len() > 4096 => {
            let advice = "if these are images, return uint8, or floats with bounds of 0..1 or 0..255: they get a convolutional network";
            Finding::warning("spaces", format!("{found}; a vector of {} elements", spec.frame_len()), advice)
        }
        _ => Finding::ok("spaces", found),
    }
}

fn actions(space: &ActionSpace) -> String {
    match space {
        ActionSpace::Discrete { n } => format!("{n} actions"),
        ActionSpace::MultiDiscrete { sizes } => format!("actions of {} components with {sizes:?} choices", sizes.len()),
        ActionSpace::Box { low, high } => {
            let same = |bounds: &[f32]| bounds.iter().all(|bound| *bound == bounds[0]);
            let range = match same(low) && same(high) {
                true => format!("from {} to {}", low[0], high[0]),
                false => "with bounds of their own".into(),
            };
            format!("continuous actions of dimension {}, {range}", low.len())
        }
    }
}

/// Random actions, one for each environment: uniform among the valid ones; continuous ones as a policy's, before they are scaled
/// to their bounds. `masks` holds the mask of each environment, or nothing.
fn random_actions(space: &ActionSpace, n: usize, masks: &[bool], rng: &mut Rng) -> Actions {
    let mut actions = Actions::zeros(space, n);
    if let Actions::Continuous { values, .. } = &mut actions {
        values.iter_mut().for_each(|value| *value = rng.random_range(-1.0..=1.0));
    }
    if let Some((indices, _)) = actions.indices_mut() {
        let mut rest = masks;
        for (index, &size) in indices.iter_mut().zip(space.sizes().iter().cycle()) {
            let (mask, after) = rest.split_at(size.min(rest.len()));
            *index = random_action(size, mask, rng) as i64;
            rest = after;
        }
    }
    actions
}

/// Whether a step sets both flags: visible only in an unwrapped environment.
fn flags(source: &Arc<dyn EnvSource>, config: &EnvConfig, steps: u64) -> Result<Option<Finding>> {
    let mut env = source.env(config)?;
    let spec = env.spec().clone();
    let mut obs = Obs::zeros(spec.dtype, spec.frame_len());
    let mut mask = vec![true; spec.mask_len()];
    let mut rng = rng::stream(1, "check");
    env.reset(Some(1), obs.as_mut())?;
    for step in 1..=steps {
        mask.fill(true);
        env.action_mask(&mut mask);
        let mut actions = random_actions(&spec.actions, 1, &mask, &mut rng);
        if let Actions::Continuous { values, .. } = &mut actions {
            spec.actions.to_bounds(values);
        }
        let result = env.step(actions.row(0), obs.as_mut())?;
        if result.terminated && result.truncated {
            let found = format!("`terminated` and `truncated` are both set (step {step}): it counts as terminated");
            let advice =
                "set `terminated` where the task ends, `truncated` where a limit cuts it (its value is bootstrapped)";
            return Ok(Some(Finding::warning("episodes", found, advice)));
        }
        if result.done() {
            env.reset(None, obs.as_mut())?;
        }
    }
    Ok(None)
}

/// Statistics of one environment over some random steps.
struct Sample {
    steps: u64,
    rewards: Vec<f32>,
    episodes: Vec<EpisodeEnd>,
    terminated: usize,
    truncated: usize,
    /// The smallest and the largest element of the observations.
    range: (f32, f32),
    /// Whether any observation differs from the first.
    varies: bool,
    /// The first observation of each episode, up to four.
    firsts: Vec<Obs>,
    /// Seconds of each step.
    durations: Vec<f64>,
}

impl Sample {
    fn new(factory: &Factory, steps: u64) -> Result<Self> {
        let mut env = factory.vec(&[1])?;
        let spec = env.spec().clone();
        let mut batch = StepBatch::new(&spec, 1);
        let mut rng = rng::stream(1, "check");
        env.reset(&mut batch)?;
        let mut sample = Self {
            steps: 0,
            rewards: Vec::new(),
            episodes: Vec::new(),
            terminated: 0,
            truncated: 0,
            range: (f32::INFINITY, f32::NEG_INFINITY),
            varies: false,
            firsts: vec![batch.obs.clone()],
            durations: Vec::new(),
        };
        let begin = Instant::now();
        while sample.steps < steps && begin.elapsed() < LONGEST_PASS {
            sample.steps += 1;
            let actions = random_actions(&spec.actions, 1, &batch.action_mask, &mut rng);
            let start = Instant::now();
            env.step(&actions, &mut batch)?;
            sample.durations.push(start.elapsed().as_secs_f64());
            sample.rewards.push(batch.reward[0]);
            sample.episodes.extend(batch.episode[0]);
            sample.terminated += usize::from(batch.terminated[0]);
            sample.truncated += usize::from(batch.truncated[0]);
            let last = if batch.done(0) { batch.final_obs_row(0) } else { batch.obs_row(0) };
            sample.observe(last);
            if batch.done(0) {
                sample.observe(batch.obs_row(0));
                if sample.firsts.len() < 4 {
                    sample.firsts.push(batch.obs.clone());
                }
            }
        }
        Ok(sample)
    }

    fn observe(&mut self, obs: ObsRef<'_>) {
        let extend = |(low, high): (f32, f32), x: f32| (low.min(x), high.max(x));
        self.range = match obs {
            ObsRef::U8(values) => values.iter().fold(self.range, |range, x| extend(range, f32::from(*x))),
            ObsRef::F32(values) => values.iter().fold(self.range, |range, x| extend(range, *x)),
        };
        self.varies |= self.firsts[0].as_ref() != obs;
    }

    fn observations(&self, spec: &EnvSpec) -> Option<Finding> {
        let (low, high) = self.range;
        let is_image = spec.dtype == Dtype::U8 && (2..=3).contains(&spec.shape.len());
        if !self.varies {
            let found = format!("the observation was the same in {} steps", thousands(self.steps));
            return Some(Finding::warning("observation", found, "return what the action changes"));
        }
        if is_image && high <= 1.0 {
            let found = format!("pixels from {low} to {high}, of 255");
            return Some(Finding::warning(
                "observation",
                found,
                "scale the pixels to 0..255, or give the space its bounds",
            ));
        }
        let is_large = spec.dtype == Dtype::F32 && low.abs().max(high.abs()) > LARGE;
        is_large.then(|| {
            let found = format!("elements from {low} to {high}");
            Finding::warning("observation", found, "scale them to about −1..1, or set env.normalize_obs = true")
        })
    }

    fn rewards(&self) -> Finding {
        let (low, high) = self.rewards.iter().fold((f32::MAX, f32::MIN), |(low, high), r| (low.min(*r), high.max(*r)));
        let mean = self.rewards.iter().map(|r| f64::from(*r)).sum::<f64>() / self.rewards.len() as f64;
        let returns = || self.episodes.iter().map(|end| end.episode_return);
        let (worst, best) = (returns().fold(f64::INFINITY, f64::min), returns().fold(f64::NEG_INFINITY, f64::max));
        let found = format!("from {low} to {high}, mean {mean:.3}");
        let found = match self.episodes.is_empty() {
            true => found,
            false => format!("{found}; returns of episodes from {worst:.3} to {best:.3}"),
        };
        let largest = low.abs().max(high.abs());
        match () {
            () if low == high && (self.episodes.len() < 2 || worst == best) => Finding::warning(
                "reward",
                format!("every reward is {low}, and every return is the same"),
                "random actions change nothing: reward what is wanted, or, if it is rare, reward steps towards it",
            ),
            () if largest > LARGE => Finding::warning(
                "reward",
                found,
                "divide it to about −1..1, or set env.normalize_reward = true or env.clip_reward = \"clamp\"",
            ),
            () if largest < 1e-3 => {
                Finding::warning("reward", found, "multiply it to about −1..1, or set env.normalize_reward = true")
            }
            () => Finding::ok("reward", found),
        }
    }

    fn ends(&self, findings: &[Finding]) -> Option<Finding> {
        let mut lengths: Vec<u64> = self.episodes.iter().map(|end| end.length).collect();
        lengths.sort_unstable();
        let (Some(shortest), Some(longest)) = (lengths.first(), lengths.last()) else {
            let found = format!("no episode ended in {} steps", thousands(self.steps));
            let advice = "set env.max_episode_steps, or, if episodes are that long, check with more --steps";
            return Some(Finding::warning("episodes", found, advice));
        };
        let found = format!(
            "{} of {} to {} steps: {} terminated, {} truncated",
            lengths.len(),
            thousands(*shortest),
            thousands(*longest),
            self.terminated,
            self.truncated
        );
        if self.truncated == 0 && lengths.len() >= 3 && shortest == longest && *longest >= SUSPICIOUS_LENGTH {
            let advice = "if this is a time limit, return truncated = True there, or leave it to env.max_episode_steps";
            return Some(Finding::warning("episodes", found, advice));
        }
        let is_reported = findings.iter().any(|finding| finding.check == "episodes");
        (!is_reported).then(|| Finding::ok("episodes", found))
    }

    /// Where seeds change the first observation, later episodes of one seed must change it, too.
    fn restarts(&self, factory: &Factory) -> Result<Option<Finding>> {
        if self.firsts.len() < 4 || self.firsts.iter().any(|obs| *obs != self.firsts[0]) {
            return Ok(None);
        }
        let [second, third] = [first_observations(factory, &[2])?, first_observations(factory, &[3])?];
        let depend = second != self.firsts[0] && third != self.firsts[0] && second != third;
        Ok(depend.then(|| {
            let found = "each episode of a seed begins with the same observation, which other seeds change";
            let advice = "without a seed, reset must continue the random stream: call super().reset(seed=seed) and draw from \
                self.np_random";
            Finding::warning("seeds", found, advice)
        }))
    }

    /// `step_seconds`: of a step without playfield.
    fn speed(&self, step_seconds: Option<f64>) -> Finding {
        let median = median(&self.durations);
        let found = format!(
            "{} steps/s with one environment ({:.1} µs, median)",
            thousands((1.0 / median) as u64),
            median * 1e6
        );
        let Some(inside) = step_seconds else { return Finding::ok("speed", found) };
        let own = (median - inside).max(0.0);
        let share = 100.0 * own / median;
        Finding::ok("speed", format!("{found}; of that playfield's own part {:.1} µs ({share:.0} %)", own * 1e6))
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2].max(1e-9)
}

/// Steps two environments with the same actions. Describes the first difference.
fn difference(factory: &Factory, seeds: [u64; 2], steps: u64) -> Result<Option<String>> {
    let mut envs = seeds.iter().map(|seed| factory.vec(&[*seed])).collect::<Result<Vec<_>>>()?;
    let spec = factory.spec();
    let mut batches = [StepBatch::new(spec, 1), StepBatch::new(spec, 1)];
    let (mut rng, begin) = (rng::stream(1, "check"), Instant::now());
    for step in (0..=steps).take_while(|_| begin.elapsed() < LONGEST_PASS) {
        let actions = random_actions(&spec.actions, 1, &batches[0].action_mask, &mut rng);
        for (env, batch) in envs.iter_mut().zip(&mut batches) {
            if step == 0 { env.reset(batch)? } else { env.step(&actions, batch)? }
        }
        if let Some(part) = differing_part(&batches[0], 0, &batches[1], 0) {
            return Ok(Some(format!("{part} of step {step}")));
        }
    }
    Ok(None)
}

/// The first part of row `i` of `a` that differs from row `j` of `b`.
fn differing_part(a: &StepBatch, i: usize, b: &StepBatch, j: usize) -> Option<&'static str> {
    differing_result(a, i, b, j).or_else(|| differing_observation(a, i, b, j))
}

/// The same of the results of the last action.
fn differing_result(a: &StepBatch, i: usize, b: &StepBatch, j: usize) -> Option<&'static str> {
    match () {
        () if a.terminated[i] != b.terminated[j] || a.truncated[i] != b.truncated[j] => Some("the end"),
        () if a.reward[i] != b.reward[j] => Some("the reward"),
        () if a.done(i) && a.final_obs_row(i) != b.final_obs_row(j) => Some("the final observation"),
        () => None,
    }
}

/// The same of the newest observation.
fn differing_observation(a: &StepBatch, i: usize, b: &StepBatch, j: usize) -> Option<&'static str> {
    match () {
        () if a.obs_row(i) != b.obs_row(j) => Some("the observation"),
        () if a.mask_row(i) != b.mask_row(j) => Some("the action mask"),
        () => None,
    }
}

fn seeds(repeated: Option<&str>, other: Option<&str>) -> Finding {
    match (repeated, other) {
        (Some(part), _) => Finding::error(
            "seeds",
            format!("two environments with the same seed and actions differ: {part}"),
            "draw every random number from self.np_random, seeded by super().reset(seed=seed); in Rust, reseed with each Some(seed)",
        ),
        (None, Some(_)) => Finding::ok("seeds", "a seed determines the episodes, and another seed changes them"),
        (None, None) => {
            Finding::ok("seeds", "a seed determines the episodes; every seed gives the same (nothing is random)")
        }
    }
}

/// Whether three environments of a batch equal three alone, autoreset included. With next-step autoreset a row of the batch starts its
/// next episode one step after the environment alone, which always resets at once.
fn batch(factory: &Factory, steps: u64) -> Result<Finding> {
    const SEEDS: [u64; 3] = [1, 2, 3];
    let spec = factory.spec();
    let mut together = (factory.vec(&SEEDS)?, StepBatch::new(spec, SEEDS.len()));
    let alone = |seed: &u64| Ok((factory.vec(&[*seed])?, StepBatch::new(spec, 1)));
    let mut alone = SEEDS.iter().map(alone).collect::<Result<Vec<(Box<dyn VecEnv>, StepBatch)>>>()?;
    let (mut rng, mut resets, begin) = (rng::stream(1, "check"), 0, Instant::now());
    for step in (0..=steps).take_while(|_| begin.elapsed() < LONGEST_PASS) {
        let (env, rows) = &mut together;
        let actions = random_actions(&spec.actions, SEEDS.len(), &rows.action_mask, &mut rng);
        if step == 0 {
            env.reset(rows)?
        } else {
            env.step(&actions, rows)?
        }
        for (i, (env, row)) in alone.iter_mut().enumerate() {
            let result = if step == 0 {
                env.reset(row)?;
                None
            } else if rows.ignored[i] {
                None
            } else {
                env.step(&actions.select(&[i]), row)?;
                differing_result(rows, i, row, 0)
            };
            let starts_later = rows.done(i) && rows.obs_row(i) == rows.final_obs_row(i);
            let observation = || if starts_later { None } else { differing_observation(rows, i, row, 0) };
            if let Some(part) = result.or_else(observation) {
                if rows_share_a_seed(factory)? {
                    return Ok(Finding::ok("batch", "not compared with single environments: its rows have one seed"));
                }
                return Ok(Finding::error(
                    "batch",
                    format!("environment {i} of a batch differs from the same one alone: {part} of step {step}"),
                    "keep all state in self, not in the class or the module; a vector environment must reset each row by itself",
                ));
            }
            resets += usize::from(rows.done(i));
        }
    }
    Ok(Finding::ok("batch", format!("{} environments equal {0} alone, over {resets} resets", SEEDS.len())))
}

/// The first observations of environments with these seeds.
fn first_observations(factory: &Factory, seeds: &[u64]) -> Result<Obs> {
    let mut env = factory.vec(seeds)?;
    let mut batch = StepBatch::new(env.spec(), seeds.len());
    env.reset(&mut batch)?;
    Ok(batch.obs)
}

/// Whether the seed of the first row determines all rows of a batch, as in some vector environments, although seeds differ.
fn rows_share_a_seed(factory: &Factory) -> Result<bool> {
    let first = |seeds: &[u64]| first_observations(factory, seeds);
    Ok(first(&[1, 2, 3])? == first(&[1, 4, 5])? && first(&[2])? != first(&[4])?)
}

fn rendering(factory: &Factory) -> Result<Finding> {
    let mut env = factory.rendering(1, &toml::Table::new())?;
    let mut batch = StepBatch::new(env.spec(), 1);
    env.reset(&mut batch)?;
    Ok(match env.render()? {
        Some(image) => Finding::ok("rendering", format!("frames of {} × {} pixels", image.width, image.height)),
        None => Finding {
            advice: Some("for `playfield watch`, implement render (in Python with render_mode = \"rgb_array\")".into()),
            ..Finding::ok("rendering", "no frames")
        },
    })
}
