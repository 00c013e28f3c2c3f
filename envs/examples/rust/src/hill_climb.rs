//! Hill climbing on a linear policy: a complete algorithm outside playfield's workspace.

use playfield::collect::{Collector, Evaluator, evaluate};
use playfield::core::algorithm::check_counts;
use playfield::core::resume::environment_seeds;
use playfield::core::rng::{self, Rng};
use playfield::core::{
    ActionSpace, Actions, Algorithm, Array, EnvFactory, EnvSpec, Error, Mode, Obs, Persist, Policy, Result, Run,
    Snapshot, run::Stop,
};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

/// The `[hill_climb]` section.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Evaluation episodes per candidate.
    pub episodes: usize,
    /// The largest change of a weight from the best candidate so far to the next.
    pub noise: f32,
}

impl Default for Config {
    fn default() -> Self {
        Self { episodes: 4, noise: 0.5 }
    }
}

pub struct HillClimb;

impl Algorithm for HillClimb {
    const NAME: &'static str = "hill_climb";
    const ABOUT: &'static str = "random changes to a linear policy, kept where the return does not fall";
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        check_counts(Self::NAME, &[("episodes", config.episodes as u64)])
    }

    fn resolve(config: &Config, _steps: u64, _envs: &dyn EnvFactory) -> Result<Config> {
        Ok(config.clone())
    }

    fn train(config: &Config, envs: &dyn EnvFactory, run: &mut Run) -> Result<Box<dyn Policy>> {
        let snapshot = run.take_resume();
        let mut policy = Linear::new(envs.spec())?;
        let rng = rng::stream(run.seed(), "search");
        let mut search = Search { policy: policy.clone(), best: f64::NEG_INFINITY, rng };
        if let Some(snapshot) = &snapshot {
            search.policy = search.policy.load(snapshot)?;
            (search.best, search.rng) = snapshot.get("hill_climb")?;
        }
        let seeds = environment_seeds(run.seed(), envs.num_envs(), None);
        let mut collector = Collector::new(envs.vec(&seeds)?, snapshot.as_ref())?;
        let mut evaluator = Evaluator::new(envs, run, collector.steps())?;
        run.describe("hill_climb/best_return", "mean return of the best candidate so far");

        let trained = (|| {
            while run.should_continue(collector.steps())? {
                policy.weights = search.propose(config.noise);
                collector.reset()?; // every candidate is evaluated on the same episodes
                let ends =
                    evaluate(&mut collector, &mut policy, Mode::Greedy, config.episodes, &Stop::default(), || ())?;
                let step = collector.steps();
                run.progress(step, ends.iter().map(|end| (step, *end)))?;
                let mean_return = ends.iter().map(|end| end.episode_return).sum::<f64>() / ends.len() as f64;
                if mean_return >= search.best {
                    (search.policy, search.best) = (policy.clone(), mean_return);
                }

                if run.log_due() {
                    run.log(step, &[("hill_climb/best_return", search.best)])?;
                }
                if evaluator.is_due(step) {
                    run.evaluated(step, &evaluator.evaluate(step, &mut search.policy.clone(), None)?)?;
                }
                if run.save_due() {
                    run.save(step, &mut [&mut search, &mut collector])?;
                }
            }
            Ok(())
        })();
        run.finish(trained, collector.steps(), &mut [&mut search, &mut collector])?;
        Ok(Box::new(search.policy))
    }

    fn load(_config: &Config, spec: &EnvSpec, snapshot: &Snapshot) -> Result<Box<dyn Policy>> {
        Ok(Box::new(Linear::new(spec)?.load(snapshot)?))
    }
}

/// The best policy so far, its mean return, and the random stream of the search.
struct Search {
    policy: Linear,
    best: f64,
    rng: Rng,
}

impl Search {
    fn propose(&mut self, noise: f32) -> Vec<f32> {
        self.policy.weights.iter().map(|w| w + noise * (2.0 * self.rng.random::<f32>() - 1.0)).collect()
    }
}

impl Persist for Search {
    fn save(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        snapshot.params.insert("weights".into(), Array::new(&[self.policy.weights.len()], &self.policy.weights));
        snapshot.put("hill_climb", &(self.best, &self.rng));
        Ok(())
    }
}

/// One weight for each action and element of the observation.
#[derive(Clone)]
struct Linear {
    weights: Vec<f32>,
    obs_len: usize,
}

impl Linear {
    fn new(spec: &EnvSpec) -> Result<Self> {
        let ActionSpace::Discrete { n } = spec.actions else {
            return Err(Error::config("hill_climb needs discrete actions; paac has continuous ones, too"));
        };
        Ok(Self { weights: vec![0.0; n * spec.obs_len()], obs_len: spec.obs_len() })
    }

    fn load(self, snapshot: &Snapshot) -> Result<Self> {
        let weights = snapshot.params.get("weights").and_then(Array::values).filter(|w| w.len() == self.weights.len());
        Ok(Self { weights: weights.ok_or_else(|| Error::checkpoint("weights", "of another environment"))?, ..self })
    }
}

impl Policy for Linear {
    fn act(&mut self, obs: &Obs, _action_mask: &[bool], _mode: Mode, actions: &mut Actions) -> Result<()> {
        let (Obs::F32(obs), Actions::Discrete(actions)) = (obs, actions) else {
            return Err(Error::other("hill_climb observes vectors of f32"));
        };
        for (obs, action) in obs.chunks_exact(self.obs_len).zip(actions) {
            let score = |weights: &[f32]| weights.iter().zip(obs).map(|(w, x)| w * x).sum::<f32>();
            let scores = self.weights.chunks_exact(self.obs_len).map(score).enumerate();
            *action = scores.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(index, _)| index as i64);
        }
        Ok(())
    }

    fn seed(&mut self, _seed: u64) {}
}
