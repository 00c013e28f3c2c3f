use crate::Collector;
use playfield_core::run::{EvalConfig, Stop};
use playfield_core::{EnvFactory, EpisodeEnd, Error, Evaluation, Image, Mode, Policy, Result, Run, State, VecEnv, rng};

/// The size of a video's frames in memory, in bytes: 660 frames of an Atari game.
const VIDEO_BYTES: usize = 64 << 20;

/// Plays `episodes` whole episodes in newly reset environments, with a policy whose recurrent states are reset. Environment `i`
/// plays episodes `i`, `i + n`, …, fixed beforehand: counting the first to end would favor short episodes. `ended` is called after
/// each episode that counts. If `stop` is requested, only the episodes that have ended are returned.
///
/// # Errors
/// Where an environment or the policy fails.
pub fn evaluate(
    collector: &mut Collector,
    policy: &mut dyn Policy,
    mode: Mode,
    episodes: usize,
    stop: &Stop,
    mut ended: impl FnMut(),
) -> Result<Vec<EpisodeEnd>> {
    let n = collector.num_envs();
    policy.begin(n);
    let mut ends = vec![None; episodes];
    let mut next: Vec<usize> = (0..n).collect();
    while ends.iter().any(Option::is_none) && stop.requested().is_none() {
        collector.step(policy, mode)?;
        for (end, next) in collector.experience().batch.episode.iter().zip(&mut next) {
            if let Some(end) = *end {
                if let Some(place) = ends.get_mut(*next) {
                    *place = Some(end);
                    ended();
                }
                *next += n;
            }
        }
    }
    collector.take_episodes();
    Ok(ends.into_iter().flatten().collect())
}

/// Evaluation in training: every few steps, whole episodes in a separate set of environments, with raw rewards. Every evaluation
/// starts from the same seed, and neither the training environments nor the training policy's random stream advance.
pub struct Evaluator {
    config: EvalConfig,
    collector: Option<Collector>,
    /// One environment that renders, where a video is wanted.
    rendering: Option<Collector>,
    video_fps: f64,
    /// The step from which the next evaluation is due.
    next: u64,
}

impl Evaluator {
    /// The evaluator that `run` asks for, which has trained for `step` steps. Without evaluation no environment is made, and of
    /// several processes rank 0 evaluates.
    ///
    /// # Errors
    /// Where an environment cannot be made; [`Error::Config`] where a video is wanted and it does not render.
    pub fn new(envs: &dyn EnvFactory, run: &Run, step: u64) -> Result<Self> {
        let config = run.evaluation().clone();
        let enabled = config.every_steps > 0 && run.group().rank() == 0;
        let collector = || Collector::new(environments(envs, &config)?, None);
        let collector = enabled.then(collector).transpose()?;
        let seed = rng::derive(config.seed, "eval/video", 0);
        let rendering = || Collector::new(envs.rendering(seed, &config.env)?, None);
        let mut rendering = (enabled && config.video).then(rendering).transpose()?;
        if let Some(collector) = &mut rendering {
            render(collector)?;
        }
        let next = (step / config.every_steps.max(1) + 1) * config.every_steps;
        Ok(Self { config, collector, rendering, video_fps: envs.render_fps(), next })
    }

    /// Whether an evaluation is due after `step` steps.
    pub fn is_due(&self, step: u64) -> bool {
        self.config.every_steps > 0 && step >= self.next
    }

    /// Evaluates `policy` after `step` steps, with the [statistics](Collector::statistics) of the training environments. Ranks other than
    /// 0 return an empty evaluation.
    ///
    /// # Errors
    /// Where an environment or the policy fails.
    pub fn evaluate(&mut self, step: u64, policy: &mut dyn Policy, statistics: Option<State>) -> Result<Evaluation> {
        let EvalConfig { every_steps, episodes, deterministic, seed, .. } = self.config;
        self.next = (step / every_steps + 1) * every_steps;
        let Some(collector) = &mut self.collector else { return Ok(Evaluation::default()) };
        for collector in [Some(&mut *collector), self.rendering.as_mut()].into_iter().flatten() {
            statistics.as_ref().map_or(Ok(()), |statistics| collector.set_statistics(statistics))?;
            collector.reset()?;
        }
        policy.seed(rng::derive(seed, "eval/actions", 0));
        let mode = if deterministic { Mode::Greedy } else { Mode::Sample };
        let episodes = evaluate(collector, policy, mode, episodes, &Stop::default(), || ())?;
        let video = self.rendering.as_mut().map_or(Ok(Vec::new()), |collector| record(collector, policy, mode))?;
        Ok(Evaluation { episodes, video, video_fps: self.video_fps })
    }
}

/// Renders the beginning of an episode in a newly reset environment.
fn record(collector: &mut Collector, policy: &mut dyn Policy, mode: Mode) -> Result<Vec<Image>> {
    policy.begin(1);
    let mut frames = Vec::new();
    while frames.len() * frames.first().map_or(0, |frame: &Image| frame.rgb.len()) < VIDEO_BYTES {
        frames.push(render(collector)?);
        collector.step(policy, mode)?;
        if collector.experience().batch.done(0) {
            frames.extend(collector.final_frame()?);
            break;
        }
    }
    Ok(frames)
}

fn render(collector: &mut Collector) -> Result<Image> {
    let frame = collector.render()?;
    frame.ok_or_else(|| {
        Error::config(format!("[eval]: {} does not support rendering; set video = false", collector.spec().id))
    })
}

fn environments(envs: &dyn EnvFactory, config: &EvalConfig) -> Result<Box<dyn VecEnv>> {
    let n = envs.num_envs().min(config.episodes);
    envs.evaluation(&rng::seeds(config.seed, "eval", n), &config.env)
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::{ActionSpace, Actions, Dtype, EnvSpec, Obs, Step, StepBatch};

    /// Environment 0's episodes last one step and pay 1, environment 1's three steps and pay 10. The age restarts at a reset.
    struct Uneven {
        spec: EnvSpec,
        age: u64,
    }

    impl Uneven {
        fn new() -> Self {
            let actions = ActionSpace::Discrete { n: 2 };
            let spec = EnvSpec::new("u", &[1], Dtype::F32, actions);
            Self { spec, age: 0 }
        }
    }

    impl VecEnv for Uneven {
        fn spec(&self) -> &EnvSpec {
            &self.spec
        }
        fn num_envs(&self) -> usize {
            2
        }
        fn reset(&mut self, batch: &mut StepBatch) -> Result<()> {
            self.age = 0;
            batch.clear();
            Ok(())
        }
        fn send(&mut self, _actions: &Actions) -> Result<()> {
            self.age += 1;
            Ok(())
        }
        fn render(&mut self) -> Result<Option<Image>> {
            Ok(Some(Image { width: 1, height: 1, rgb: vec![self.age as u8; 3] }))
        }
        fn final_frame(&mut self) -> Result<Option<Image>> {
            Ok(Some(Image { width: 1, height: 1, rgb: vec![99; 3] }))
        }
        fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
            batch.clear();
            for (i, length) in [1, 3].into_iter().enumerate() {
                if self.age.is_multiple_of(length) {
                    batch.set(i, Step { terminated: true, ..Step::default() });
                    batch.episode[i] = Some(EpisodeEnd { episode_return: [1.0, 10.0][i], length });
                }
            }
            Ok(())
        }
    }

    struct Factory(EnvSpec);

    impl EnvFactory for Factory {
        fn spec(&self) -> &EnvSpec {
            &self.0
        }
        fn num_envs(&self) -> usize {
            2
        }
        fn vec(&self, _seeds: &[u64]) -> Result<Box<dyn VecEnv>> {
            Ok(Box::new(Uneven::new()))
        }
        fn render_fps(&self) -> f64 {
            12.0
        }
    }

    /// Counts the seeds it was given.
    #[derive(Default)]
    struct Idle(Vec<u64>);

    impl Policy for Idle {
        fn act(&mut self, _obs: &Obs, _action_mask: &[bool], _mode: Mode, _actions: &mut Actions) -> Result<()> {
            Ok(())
        }
        fn seed(&mut self, seed: u64) {
            self.0.push(seed);
        }
    }

    /// Counting whatever ends first would give three episodes of 1 and one of 10.
    #[test]
    fn short_episodes_are_not_favored() {
        let mut collector = Collector::new(Box::new(Uneven::new()), None).unwrap();
        let mut counted = 0;
        let ends =
            evaluate(&mut collector, &mut Idle::default(), Mode::Greedy, 4, &Stop::default(), || counted += 1).unwrap();
        let returns: Vec<f64> = ends.iter().map(|e| e.episode_return).collect();
        assert_eq!((returns, counted), (vec![1.0, 10.0, 1.0, 10.0], 4));
        assert_eq!(collector.steps(), 12);
    }

    /// A video is of the first environment's episode, which ends at its first step, with its last frame. It has the frame rate of the
    /// environments.
    #[test]
    fn a_video_is_of_one_episode() {
        let factory = Factory(Uneven::new().spec);
        let config = EvalConfig { every_steps: 10, episodes: 1, video: true, ..EvalConfig::default() };
        let run = Run::new(1, 100).with_evaluation(config);
        let mut evaluator = Evaluator::new(&factory, &run, 0).unwrap();
        for step in [10, 20] {
            let evaluation = evaluator.evaluate(step, &mut Idle::default(), None).unwrap();
            assert_eq!(evaluation.video.iter().map(|frame| frame.rgb[0]).collect::<Vec<_>>(), [0, 99]);
            assert_eq!(evaluation.video_fps, 12.0);
        }
    }

    /// Evaluations are due at multiples of the interval, once each, and resume there; each starts from the same seed.
    #[test]
    fn evaluations_are_due_at_multiples_of_the_interval() {
        let factory = Factory(Uneven::new().spec);
        let config = EvalConfig { every_steps: 10, episodes: 3, ..EvalConfig::default() };
        let run = Run::new(1, 100).with_evaluation(config);
        let (mut evaluator, mut policy) = (Evaluator::new(&factory, &run, 0).unwrap(), Idle::default());
        let mut due = Vec::new();
        for step in (4..40).step_by(4) {
            if evaluator.is_due(step) {
                due.push(step);
                let evaluation = evaluator.evaluate(step, &mut policy, None).unwrap();
                assert_eq!((evaluation.episodes.len(), evaluation.video.len()), (3, 0));
            }
        }
        assert_eq!(due, [12, 20, 32]);
        assert!(policy.0.len() == 3 && policy.0.iter().all(|seed| *seed == policy.0[0]));
        assert!(!Evaluator::new(&factory, &run, 20).unwrap().is_due(28));
        assert!(!Evaluator::new(&factory, &Run::new(1, 100), 0).unwrap().is_due(50));
    }
}
