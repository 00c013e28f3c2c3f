//! Bounds, defaults and automatic values of the asynchronous methods' settings.

use playfield_a3c::{A3c, Config, Exploration};
#[path = "../../test_fakes.rs"]
mod test_fakes;

use playfield_core::{Algorithm as _, Schedule};
use playfield_nn::optim::{Adam, OptimizerConfig};
use test_fakes::envs;

#[test]
fn automatic_values_are_resolved_once() {
    let entropy_coefficient = Schedule::linear(0.1, 0.0, 0);
    let learning_rate = Schedule::linear(7e-4, 0.0, 0);
    let config = Config { entropy_coefficient, learning_rate, num_threads: 2, ..Config::default() };
    let resolved = A3c::resolve(&config, 1000, &envs(4)).unwrap();
    let over = |steps| [7e-4, 0.1].map(|start| Schedule::linear(start, 0.0, steps));
    let schedules = |config: &Config| [config.learning_rate, config.entropy_coefficient];
    assert_eq!((schedules(&resolved), resolved.num_threads, resolved.device.as_str()), (over(1000), 2, "cpu"));
    assert_ne!(resolved.network, config.network, "the torso and others are chosen");
    assert_eq!(A3c::resolve(&resolved, 1000, &envs(4)).unwrap(), resolved);
    let extended = A3c::extend(&resolved, 1000, 5000);
    assert_eq!(schedules(&extended), over(5000));
    let [learning_rate, entropy_coefficient] = over(1000);
    assert_eq!(Config { learning_rate, entropy_coefficient, ..extended }, resolved);
    let one_each = Config { num_threads: 0, ..config };
    assert_eq!(A3c::resolve(&one_each, 1000, &envs(4)).unwrap().num_threads, 4);
}

/// The rule that is chosen has its published values, or those of the paper.
#[test]
fn each_rule_has_its_defaults() {
    let with = |optimizer: OptimizerConfig| A3c::defaults(&Config { optimizer, ..Config::default() });
    assert_eq!(with(Config::default().optimizer), Config::default());
    let adam = with(Adam { eps: 0.5, ..Adam::default() }.into());
    assert_eq!(adam, Config { optimizer: Adam::default().into(), ..Config::default() });
}

#[test]
fn values_that_cannot_work_are_refused_with_their_bounds() {
    let default = Config::default;
    assert!(A3c::check(&default()).is_ok());
    let exploring = |exploration| Config { exploration, ..default() };
    let e = Exploration::default;
    for (config, expected) in [
        (Config { rollout_steps: 0, ..default() }, "`rollout_steps` must be at least 1"),
        (Config { target_update_interval: 0, ..default() }, "`target_update_interval` must be at least 1"),
        (Config { gamma: 1.1, ..default() }, "`gamma` = 1.1 must lie between 0 and 1"),
        (Config { learning_rate: Schedule::constant(-1.0), ..default() }, "`learning_rate` = -1"),
        (Config { value_coefficient: -1.0, ..default() }, "`value_coefficient` = -1"),
        (Config { optimizer: Adam { eps: -1.0, ..Adam::default() }.into(), ..default() }, "eps"),
        (exploring(Exploration { evaluation: 1.1, ..e() }), "1.1 must lie between 0 and 1"),
        (exploring(Exploration { final_epsilons: vec![0.1, 2.0, 0.5], ..e() }), "2 must lie between 0 and 1"),
        (exploring(Exploration { final_epsilons: vec![], probabilities: vec![], ..e() }), "needs one value or more"),
        (exploring(Exploration { final_epsilons: vec![0.1], ..e() }), "and `probabilities` as many"),
        (exploring(Exploration { probabilities: vec![0.4, 0.3, 0.2], ..e() }), "must sum to 1"),
        (exploring(Exploration { probabilities: vec![0.4, 0.3, 0.4], ..e() }), "must sum to 1"),
        (exploring(Exploration { range: vec![0.1], ..e() }), "`range` is [low, high]"),
        (exploring(Exploration { range: vec![0.5, 0.1], ..e() }), "`range` is [low, high]"),
        (exploring(Exploration { resample_steps: 0, ..e() }), "`resample_steps` must be at least 1"),
    ] {
        let message = A3c::check(&config).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert_eq!(A3c::resolve(&config, 10, &envs(2)).unwrap_err().to_string(), message);
    }
    for exploration in [
        Exploration { range: vec![0.1, 0.5], ..e() },
        Exploration { range: vec![0.1, 0.1], ..e() },
        Exploration { final_epsilons: vec![1.0], probabilities: vec![1.0], resample_steps: 1, ..e() },
    ] {
        assert!(A3c::check(&exploring(exploration)).is_ok());
    }
}
