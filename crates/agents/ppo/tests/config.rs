//! Defaults and automatic values of PPO's settings.

#[path = "../../test_fakes.rs"]
mod test_fakes;

use playfield_core::group::{self, Group, SingleProcess};
use playfield_core::{Algorithm as _, Schedule};
use playfield_nn::NetworkConfig;
use playfield_nn::optim::{Adam, RmsProp};
use playfield_ppo::learner::Learner;
use playfield_ppo::{Config, Ppo};
use std::sync::Arc;
use test_fakes::{Lost, envs};

#[test]
fn automatic_values_are_resolved_once() {
    let entropy_coefficient = Schedule::linear(0.1, 0.0, 0);
    let config = Config { entropy_coefficient, num_threads: 3, device: "cpu".into(), ..Config::default() };
    let resolved = Ppo::resolve(&config, 1000, &envs(32)).unwrap();
    let over = |steps| [(2.5e-4, 0.0), (0.1, 0.0), (0.1, 0.0)].map(|(start, end)| Schedule::linear(start, end, steps));
    let schedules = |config: &Config| [config.learning_rate, config.clip_range, config.entropy_coefficient];
    assert_eq!(schedules(&resolved), over(1000));
    assert_eq!((resolved.num_splits, resolved.num_threads, resolved.device.as_str()), (2, 3, "cpu"));
    assert_ne!(resolved.network, config.network, "the torso and others are chosen");
    assert_eq!(Ppo::resolve(&resolved, 1000, &envs(32)).unwrap(), resolved);
    let extended = Ppo::extend(&resolved, 1000, 5000);
    assert_eq!(schedules(&extended), over(5000));
    let [learning_rate, clip_range, entropy_coefficient] = over(1000);
    assert_eq!(Config { learning_rate, clip_range, entropy_coefficient, ..extended }, resolved);
    // A recurrent policy acts for all environments at once.
    let recurrent = Config { network: NetworkConfig { lstm: 4, ..NetworkConfig::default() }, ..config.clone() };
    assert_eq!(Ppo::resolve(&recurrent, 1000, &envs(32)).unwrap().num_splits, 1);
    let automatic = Config { device: "auto".into(), num_threads: 0, ..config.clone() };
    let automatic = Ppo::resolve(&automatic, 1000, &envs(2)).unwrap();
    assert!(automatic.device != "auto" && automatic.num_threads > 0 && automatic.num_splits == 1);
    let message = Ppo::resolve(&config, 1000, &envs(1)).unwrap_err().to_string();
    assert!(message.contains("`minibatch_size` = 256 must be at most the 128 transitions"), "{message}");
}

/// The rule that is chosen has its published values, or those of the Atari settings.
#[test]
fn each_rule_has_its_defaults() {
    let with = |optimizer| Ppo::defaults(&Config { optimizer, ..Config::default() });
    assert_eq!(with(Adam { eps: 0.5, ..Adam::default() }.into()), Config::default());
    let rms_prop = with(RmsProp { eps: 0.5, ..RmsProp::tensorflow() }.into());
    assert_ne!(rms_prop, Config::default());
    assert_eq!(Config { optimizer: Config::default().optimizer, ..rms_prop }, Config::default());
}

/// Two ranks have half of a minibatch each, and one process all of it.
#[test]
fn a_rank_has_its_part_of_each_minibatch() {
    let config = Config { minibatch_size: 64, ..Config::default() };
    assert_eq!(config.of_rank(&Lost).unwrap(), Config { minibatch_size: 32, ..config.clone() });
    assert_eq!(config.of_rank(&SingleProcess).unwrap(), config);
    let message = Config { minibatch_size: 65, ..config }.of_rank(&Lost).unwrap_err().to_string();
    assert!(
        message.contains("`ppo.minibatch_size` = 65 must be a multiple of the number of processes, 2"),
        "{message}"
    );
}

#[test]
fn a_learner_that_cannot_join_its_group_says_so() {
    let config = Config { device: "cpu".into(), ..Config::default() };
    let config = Ppo::resolve(&config, 1000, &envs(32)).unwrap();
    let mut learner = Learner::new(&config, &envs(32).0, 2, 1).unwrap();
    let group: Arc<dyn Group> = Arc::new(Lost);
    let error = learner.join(&group, group::Config::default()).unwrap_err();
    assert_eq!(error.to_string(), "the connection is lost");
}
