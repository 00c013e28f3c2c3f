//! Bounds, defaults and automatic values of PAAC's settings.

#[path = "../../test_fakes.rs"]
mod test_fakes;

use playfield_core::group::{self, Group};
use playfield_core::{Algorithm as _, Schedule};
use playfield_nn::NetworkConfig;
use playfield_nn::optim::{Adam, RmsProp};
use playfield_paac::learner::Learner;
use playfield_paac::{Config, Paac};
use std::sync::Arc;
use test_fakes::{Lost, envs};

#[test]
fn automatic_values_are_resolved_once() {
    let entropy_coefficient = Schedule::linear(0.1, 0.0, 0);
    let config = Config { entropy_coefficient, num_threads: 3, device: "cpu".into(), ..Config::default() };
    let resolved = Paac::resolve(&config, 1000, &envs(32)).unwrap();
    assert_eq!(resolved.learning_rate, Schedule::linear(0.0224, 0.0, 1000));
    assert_eq!(resolved.entropy_coefficient, Schedule::linear(0.1, 0.0, 1000));
    assert_eq!((resolved.num_splits, resolved.num_threads, resolved.device.as_str()), (2, 3, "cpu"));
    assert_ne!(resolved.network, config.network, "the torso and others are chosen");
    assert_eq!(Paac::resolve(&resolved, 1000, &envs(32)).unwrap(), resolved);
    let extended = Paac::extend(&resolved, 1000, 5000);
    let expected = Config {
        learning_rate: Schedule::linear(0.0224, 0.0, 5000),
        entropy_coefficient: Schedule::linear(0.1, 0.0, 5000),
        ..resolved
    };
    assert_eq!(extended, expected);
    // A recurrent policy acts for all environments at once.
    let recurrent = Config { network: NetworkConfig { lstm: 4, ..NetworkConfig::default() }, ..config.clone() };
    assert_eq!(Paac::resolve(&recurrent, 1000, &envs(32)).unwrap().num_splits, 1);
    let automatic = Config { device: "auto".into(), num_threads: 0, ..config };
    let automatic = Paac::resolve(&automatic, 1000, &envs(1)).unwrap();
    assert!(automatic.device != "auto" && automatic.num_threads > 0 && automatic.num_splits == 1);
}

/// The rule that is chosen has its published values, or those of the authors.
#[test]
fn each_rule_has_its_defaults() {
    let with = |optimizer| Paac::defaults(&Config { optimizer, ..Config::default() });
    assert_eq!(with(RmsProp::tensorflow().into()), Config::default());
    let adam = with(Adam { eps: 0.5, ..Adam::default() }.into());
    assert_eq!(adam, Config { optimizer: Adam::default().into(), ..Config::default() });
}

#[test]
fn values_that_cannot_work_are_refused_with_their_bounds() {
    let default = Config::default;
    assert!(Paac::check(&default()).is_ok());
    for (config, expected) in [
        (Config { rollout_steps: 0, ..default() }, "`rollout_steps` must be at least 1"),
        (Config { gamma: 1.1, ..default() }, "`gamma` = 1.1 must lie between 0 and 1"),
        (Config { gae_lambda: -0.1, ..default() }, "`gae_lambda` = -0.1"),
        (Config { learning_rate: Schedule::constant(-1.0), ..default() }, "`learning_rate` = -1"),
        (Config { entropy_coefficient: Schedule::constant(f64::NAN), ..default() }, "`entropy_coefficient` = NaN"),
        (Config { value_coefficient: -1.0, ..default() }, "`value_coefficient` = -1"),
        (Config { gradient_clip: f64::INFINITY, ..default() }, "`gradient_clip` = inf"),
        (Config { optimizer: Adam { eps: -1.0, ..Adam::default() }.into(), ..default() }, "eps"),
    ] {
        let message = Paac::check(&config).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert_eq!(Paac::resolve(&config, 10, &envs(2)).unwrap_err().to_string(), message);
    }
    let message = Paac::resolve(&Config { rollout_steps: 1_000_000_000, ..default() }, 10, &envs(100_000)).unwrap_err();
    assert!(message.to_string().contains("lower `rollout_steps`"), "{message}");
}

#[test]
fn a_learner_that_cannot_join_its_group_says_so() {
    let config = Config { device: "cpu".into(), ..Config::default() };
    let config = Paac::resolve(&config, 1000, &envs(2)).unwrap();
    let mut learner = Learner::new(&config, &envs(2).0, 2, 1).unwrap();
    let group: Arc<dyn Group> = Arc::new(Lost);
    let error = learner.join(&group, group::Config::default()).unwrap_err();
    assert_eq!(error.to_string(), "the connection is lost");
}
