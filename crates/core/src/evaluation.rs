//! Whole episodes played by a policy: what an evaluation is.

use crate::{Actions, EpisodeEnd, FrameStack, Mode, Policy, Result, StepBatch, VecEnv};

/// Plays `episodes` episodes. Environment `i` plays numbers `i`, `i + n`, …, decided beforehand: taking the first to end
/// would favor short episodes. `ended` is called after each that counts.
///
/// # Errors
/// Where an environment or the policy fails.
pub fn evaluate(
    env: &mut dyn VecEnv,
    policy: &mut dyn Policy,
    mode: Mode,
    episodes: usize,
    mut ended: impl FnMut(),
) -> Result<Vec<EpisodeEnd>> {
    let (spec, n) = (env.spec().clone(), env.num_envs());
    let mut batch = StepBatch::new(&spec, n);
    let mut history = FrameStack::new(&spec, n);
    let mut actions = Actions::zeros(&spec.actions, n);
    let mut ends = vec![None; episodes];
    let mut next: Vec<usize> = (0..n).collect();
    env.reset(&mut batch)?;
    history.reset(&batch);
    while ends.iter().any(Option::is_none) {
        policy.act(history.observations(), mode, &mut actions)?;
        env.step(&actions, &mut batch)?;
        history.push(&batch);
        for (end, next) in batch.episode.iter().zip(&mut next) {
            if let Some(end) = *end {
                if let Some(place) = ends.get_mut(*next) {
                    *place = Some(end);
                    ended();
                }
                *next += n;
            }
        }
        let done: Vec<_> = (0..n).map(|i| batch.done(i)).collect();
        policy.reset_states(&done);
    }
    Ok(ends.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ActionSpace, Dtype, EnvSpec, Obs, Step};

    /// Environment 0's episodes last one step and pay 1, environment 1's three steps and pay 10.
    struct Uneven {
        spec: EnvSpec,
        age: u64,
    }

    impl VecEnv for Uneven {
        fn spec(&self) -> &EnvSpec {
            &self.spec
        }
        fn num_envs(&self) -> usize {
            2
        }
        fn reset(&mut self, batch: &mut StepBatch) -> Result<()> {
            batch.clear();
            Ok(())
        }
        fn send(&mut self, _actions: &Actions) -> Result<()> {
            self.age += 1;
            Ok(())
        }
        fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
            batch.clear();
            for (i, length) in [1, 3].into_iter().enumerate() {
                if self.age.is_multiple_of(length) {
                    batch.set(i, Step { terminated: true, ..Step::default() });
                    batch.episode[i] = Some(EpisodeEnd { reward: [1.0, 10.0][i], length });
                }
            }
            Ok(())
        }
    }

    struct Idle;

    impl Policy for Idle {
        fn act(&mut self, _obs: &Obs, _mode: Mode, _actions: &mut Actions) -> Result<()> {
            Ok(())
        }
        fn seed(&mut self, _seed: u64) {}
    }

    /// Counting whatever ends first would give three episodes of 1 and one of 10.
    #[test]
    fn short_episodes_are_not_favored() {
        let actions = ActionSpace::Discrete { n: 2 };
        let spec = EnvSpec::new("u", &[1], Dtype::F32, actions);
        let mut counted = 0;
        let ends = evaluate(&mut Uneven { spec, age: 0 }, &mut Idle, Mode::Greedy, 4, || counted += 1).unwrap();
        let returns: Vec<f64> = ends.iter().map(|e| e.reward).collect();
        assert_eq!((returns, counted), (vec![1.0, 10.0, 1.0, 10.0], 4));
    }
}
