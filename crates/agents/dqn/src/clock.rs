//! When updates are due: the intervals and schedules of DQN and its family as pure functions of the agent step.
//!
//! Steps count over all environments. Several may pass at once (one step of each environment, or a chunk of them); everything
//! that became due on the way is then done in the order of its step, an update before one of the target network at the same step.

use crate::config::Config;
use playfield_core::Schedule;

/// Something that is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Due {
    /// An update of the online network.
    Update {
        /// β of its importance weights.
        beta: f64,
        /// Its learning rate.
        learning_rate: f64,
    },
    /// An update of the target network.
    UpdateTarget {
        /// The share of the online network; 1 copies.
        tau: f64,
    },
}

/// The clocks of one run.
#[derive(Clone, Debug)]
pub struct Clock {
    learning_rate: Schedule,
    epsilon: Schedule,
    beta: Schedule,
    /// The step at which the schedules of ε and β begin.
    anneal_from: u64,
    learning_starts: u64,
    train_interval: u64,
    gradient_steps: u64,
    target_update_interval: u64,
    tau: f64,
}

impl Clock {
    /// The clocks of `config`, which is resolved.
    pub fn new(config: &Config) -> Self {
        // Noisy networks explore by their noise alone.
        let noisy = config.noisy_sigma > 0.0;
        Self {
            learning_rate: config.learning_rate,
            epsilon: if noisy { Schedule::constant(0.0) } else { config.exploration_epsilon },
            beta: config.beta,
            anneal_from: config.anneal_from(),
            learning_starts: config.learning_starts,
            train_interval: config.train_interval,
            gradient_steps: config.gradient_steps,
            target_update_interval: config.target_update_interval,
            tau: config.tau,
        }
    }

    /// ε of an action that is taken after `step` steps.
    pub fn epsilon(&self, step: u64) -> f64 {
        self.epsilon.at(step.saturating_sub(self.anneal_from))
    }

    /// β after `step` steps.
    pub fn beta(&self, step: u64) -> f64 {
        self.beta.at(step.saturating_sub(self.anneal_from))
    }

    /// The step at which the first update is due.
    pub fn first_update(&self) -> u64 {
        self.learning_starts.max(1).checked_next_multiple_of(self.train_interval).unwrap_or(u64::MAX)
    }

    /// What becomes due after more than `before` and up to `after` steps, in order. Updates of the target network without one
    /// of the online network between them are merged: k with share τ are one with share 1 − (1 − τ)ᵏ.
    pub fn due(&self, before: u64, after: u64) -> Vec<Due> {
        let next = |step: u64, every: u64| (step / every + 1).saturating_mul(every);
        let (mut due, mut targets) = (Vec::new(), 0_u32);
        let mut step = before.max(self.learning_starts.saturating_sub(1));
        loop {
            step = next(step, self.train_interval).min(next(step, self.target_update_interval));
            if step > after {
                break;
            }
            if step.is_multiple_of(self.train_interval) {
                due.extend(self.target(std::mem::take(&mut targets)));
                due.extend((0..self.gradient_steps).map(|_| self.update(step)));
            }
            targets += u32::from(step.is_multiple_of(self.target_update_interval));
        }
        due.extend(self.target(targets));
        due
    }

    fn update(&self, step: u64) -> Due {
        Due::Update { beta: self.beta(step), learning_rate: self.learning_rate.at(step) }
    }

    fn target(&self, updates: u32) -> Option<Due> {
        (updates > 0).then(|| Due::UpdateTarget { tau: 1.0 - (1.0 - self.tau).powi(updates as i32) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            learning_starts: 10,
            train_interval: 4,
            gradient_steps: 1,
            target_update_interval: 8,
            tau: 1.0,
            beta: Schedule::linear(0.4, 1.0, 100),
            exploration_epsilon: Schedule::linear(1.0, 0.1, 90),
            ..Config::default()
        }
    }

    /// `u`: an update, `1`: a copy of the target network, at steps 1, 2, …
    fn table(config: &Config, steps: u64) -> Vec<String> {
        let clock = Clock::new(config);
        let letter = |due: &Due| match due {
            Due::Update { .. } => "u".to_string(),
            Due::UpdateTarget { tau } => tau.to_string(),
        };
        (1..=steps).map(|step| clock.due(step - 1, step).iter().map(letter).collect::<Vec<_>>().concat()).collect()
    }

    /// Nothing before step 10, an update at each multiple of 4, a copy at each of 8, after the update.
    #[test]
    fn updates_and_target_moves_by_step() {
        let expected = ["", "", "", "", "", "", "", "", "", "", "", "u", "", "", "", "u1", "", "", "", "u"];
        assert_eq!(table(&config(), 20), expected);
        let often = Config { learning_starts: 0, gradient_steps: 2, target_update_interval: 3, ..config() };
        assert_eq!(table(&often, 12), ["", "", "1", "uu", "", "1", "", "uu", "1", "", "", "uu1"]);
        // A start that is a multiple itself counts.
        let start = Config { learning_starts: 4, ..config() };
        assert_eq!(table(&start, 8), ["", "", "", "u", "", "", "", "u1"]);
    }

    /// Steps that pass at once make the same things due, in the same order; nothing is lost where many pass.
    #[test]
    fn rounds_of_any_size_make_the_same_due() {
        for (target_every, rate) in [(8, 1.0), (1, 0.1), (3, 0.5), (64, 1.0)] {
            let config = Config { target_update_interval: target_every, tau: rate, ..config() };
            let clock = Clock::new(&config);
            let whole = |size: u64| -> Vec<Due> {
                let mut merged: Vec<Due> = Vec::new();
                for due in (0..96 / size).flat_map(|i| clock.due(i * size, (i + 1) * size)) {
                    match (merged.last_mut(), due) {
                        (Some(Due::UpdateTarget { tau }), Due::UpdateTarget { tau: more }) => {
                            *tau = 1.0 - (1.0 - *tau) * (1.0 - more);
                        }
                        _ => merged.push(due),
                    }
                }
                merged
            };
            let one = whole(1);
            assert_eq!(one.iter().filter(|d| matches!(d, Due::Update { .. })).count(), 22);
            for size in [2, 4, 8, 16, 96] {
                let other = whole(size);
                assert_eq!(one.len(), other.len(), "rounds of {size}, target every {target_every}");
                for (a, b) in one.iter().zip(&other) {
                    let close = match (a, b) {
                        (Due::Update { .. }, Due::Update { .. }) => a == b,
                        (Due::UpdateTarget { tau: a }, Due::UpdateTarget { tau: b }) => (a - b).abs() < 1e-12,
                        _ => false,
                    };
                    assert!(close, "{a:?}, {b:?} in rounds of {size}");
                }
            }
        }
    }

    /// Three soft moves of .5 between two updates go 1 − ½³ of the way.
    #[test]
    fn each_due_soft_move_is_made_where_it_belongs() {
        let config = Config { learning_starts: 0, target_update_interval: 1, tau: 0.5, ..config() };
        let due = Clock::new(&config).due(0, 9);
        let rates: Vec<_> =
            due.iter().map(|d| if let Due::UpdateTarget { tau } = d { *tau } else { f64::NAN }).collect();
        assert_eq!(rates.len(), 5);
        for (rate, expected) in rates.iter().zip([0.875, f64::NAN, 0.9375, f64::NAN, 0.75]) {
            assert!((rate - expected).abs() < 1e-12 || rate.is_nan() && expected.is_nan(), "{rates:?}");
        }
    }

    /// ε and β are constant until learning starts at 10, then change: ε by .01 a step to .1 after 90, β to 1 at the end, 110.
    #[test]
    fn epsilon_and_beta_by_step() {
        let clock = Clock::new(&config());
        for (step, epsilon, beta) in
            [(0, 1.0, 0.4), (10, 1.0, 0.4), (11, 0.99, 0.406), (60, 0.5, 0.7), (100, 0.1, 0.94), (110, 0.1, 1.0)]
        {
            let found = (clock.epsilon(step), clock.beta(step));
            assert!((found.0 - epsilon).abs() < 1e-12 && (found.1 - beta).abs() < 1e-12, "{step}: {found:?}");
        }
        let zero = Clock::new(&Config {
            anneal_from_learning_starts: false,
            beta: Schedule::linear(0.4, 1.0, 60),
            ..config()
        });
        for (step, epsilon, beta) in [(0, 1.0, 0.4), (10, 0.9, 0.5), (60, 0.4, 1.0), (90, 0.1, 1.0)] {
            let found = (zero.epsilon(step), zero.beta(step));
            assert!((found.0 - epsilon).abs() < 1e-12 && (found.1 - beta).abs() < 1e-12, "{step}: {found:?}");
        }
        let noisy = Clock::new(&Config { noisy_sigma: 0.5, ..config() });
        assert_eq!([0, 50, 110].map(|step| noisy.epsilon(step)), [0.0; 3]);
        // An update has the β of its own step.
        assert_eq!(clock.due(10, 16)[1], Due::Update { beta: clock.beta(16), learning_rate: 2.5e-4 });
    }
}
