//! Bounds, defaults and automatic values of DQN's settings.

#[path = "../../test_fakes.rs"]
mod test_fakes;

use playfield_core::group::{self, Group, SingleProcess};
use playfield_core::{ActionSpace, Algorithm as _, Dtype, EnvSpec, Schedule, StepBatch};
use playfield_dqn::learner::{Learner, Losses};
use playfield_dqn::replay::Replay;
use playfield_dqn::{Config, Distribution, Dqn};
use playfield_nn::optim::{Adam, OptimizerConfig};
use playfield_replay::PriorityConfig;
use playfield_replay::prioritized::PriorityKind;
use std::sync::Arc;
use test_fakes::{Envs, Lost, envs};

/// The schedules of ε and β begin with learning, at step 200 here, and end with the run.
#[test]
fn automatic_values_are_resolved_once() {
    let config = Config {
        learning_rate: Schedule::linear(1e-3, 0.0, 0),
        exploration_epsilon: Schedule::linear(1.0, 0.1, 0),
        learning_starts: 200,
        device: "cpu".into(),
        ..Config::default()
    };
    let resolved = Dqn::resolve(&config, 1000, &envs(1)).unwrap();
    let schedules = |config: &Config| [config.learning_rate, config.exploration_epsilon, config.beta];
    let over = |run, annealed| {
        [Schedule::linear(1e-3, 0.0, run), Schedule::linear(1.0, 0.1, annealed), Schedule::linear(0.4, 1.0, annealed)]
    };
    assert_eq!(schedules(&resolved), over(1000, 800));
    assert_eq!((resolved.num_threads, resolved.overlap), (1, false), "a small network acts and learns in turn");
    assert_ne!(resolved.network, config.network, "the torso and others are chosen");
    assert_eq!(Dqn::resolve(&resolved, 1000, &envs(1)).unwrap(), resolved);
    let extended = Dqn::extend(&resolved, 1000, 5000);
    assert_eq!(schedules(&extended), over(5000, 4800));
    let [learning_rate, exploration_epsilon, beta] = over(1000, 800);
    assert_eq!(Config { learning_rate, exploration_epsilon, beta, ..extended }, resolved);
    let from_the_start = Config { anneal_from_learning_starts: false, ..config.clone() };
    assert_eq!(schedules(&Dqn::resolve(&from_the_start, 1000, &envs(1)).unwrap()), over(1000, 1000));
    let chosen = Dqn::resolve(&Config { num_threads: 3, ..config.clone() }, 1000, &envs(1)).unwrap();
    assert_eq!((chosen.num_threads, chosen.overlap), (3, true), "a number that was set stays");
    // Pixels: two threads, one of which also acts.
    let pixels = Envs(EnvSpec::new("t", &[84, 84], Dtype::U8, ActionSpace::Discrete { n: 3 }).with_frame_stack(4), 1);
    let large = Dqn::resolve(&config, 1000, &pixels).unwrap();
    assert_eq!((large.num_threads, large.overlap), (config.threads(), true));
}

/// Choices that bring published values of their own, and nothing else.
#[test]
fn some_choices_have_their_own_defaults() {
    let default = Config::default;
    assert_eq!(Dqn::defaults(&default()), default());
    let adam = Dqn::defaults(&Config { optimizer: Adam { eps: 0.5, ..Adam::default() }.into(), ..default() });
    assert_eq!(adam, Config { optimizer: Adam::default().into(), ..default() });
    let by_rank = PriorityConfig { by: PriorityKind::Rank, ..PriorityConfig::default() };
    let ranks = Dqn::defaults(&Config { priority: by_rank, ..default() });
    assert_eq!((ranks.priority.exponent, ranks.beta), (0.7, Schedule::linear(0.5, 1.0, 0)));
    let quantile = Dqn::defaults(&Config { distribution: Distribution::Quantile, ..default() });
    assert_eq!((quantile.atoms, default().atoms), (200, 51));
}

#[test]
fn values_that_cannot_work_are_refused_with_their_bounds() {
    let default = Config::default;
    let wrong: OptimizerConfig = Adam { eps: -1.0, ..Adam::default() }.into();
    let categorical = || Config { distribution: Distribution::Categorical, ..default() };
    for (config, expected) in [
        (Config { gamma: 1.1, ..default() }, "`gamma` = 1.1 must lie between 0 and 1"),
        (Config { beta: Schedule::linear(0.4, 1.1, 0), ..default() }, "`beta` = 1.1"),
        (Config { learning_rate: Schedule::constant(-1.0), ..default() }, "`learning_rate` = -1"),
        (Config { noisy_sigma: -0.5, ..default() }, "`noisy_sigma` = -0.5"),
        (Config { optimizer: wrong, ..default() }, "eps"),
        (Config { batch_size: 0, ..default() }, "`batch_size` must be at least 1"),
        (Config { gradient_steps: 10_001, ..default() }, "`gradient_steps` = 10001 must be at most 10000"),
        (Config { buffer_size: 31, ..default() }, "`buffer_size` = 31 is smaller than `batch_size` = 32"),
        (Config { tau: 0.0, ..default() }, "`tau` = 0 would never move"),
        (Config { huber_bound: 0.0, ..default() }, "`huber_bound` must be greater than 0"),
        (Config { huber_bound: f64::NAN, ..default() }, "`huber_bound` must be greater than 0"),
        (Config { huber_bound: 2e30, ..default() }, "`huber_bound` must be greater than 0, and at most 1e30"),
        (Config { gradient_clip: 2e30, ..default() }, "`gradient_clip` = 2e30 must be at most 1e30"),
        (Config { value_max: 2e30, ..categorical() }, "`value_min` < `value_max`, at most 1e30 apart"),
        (Config { value_min: -2e30, ..categorical() }, "`value_min` < `value_max`, at most 1e30 apart"),
        (Config { atoms: 1, ..categorical() }, "needs `atoms` ≥ 2"),
        (Config { value_min: 10.0, ..categorical() }, "`value_min` < `value_max`"),
        (Config { value_min: f64::NAN, ..categorical() }, "`value_min` < `value_max`"),
        (Config { atoms: 0, ..default() }, "`atoms` must be at least 1"),
        (Config { atoms: -3, ..default() }, "`atoms` must be at least 1"),
    ] {
        let message = Dqn::check(&config).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert_eq!(Dqn::resolve(&config, 10, &envs(2)).unwrap_err().to_string(), message);
    }
    for config in [
        default(),
        Config { gradient_steps: 10_000, buffer_size: 32, tau: 1e-9, huber_bound: 1e-9, atoms: 1, ..default() },
        Config { huber_bound: 1e30, gradient_clip: 1e30, value_max: 1e300, ..default() },
        Config { atoms: 2, value_min: 9.9, ..categorical() },
        Config { value_min: 10.0, ..default() },
    ] {
        Dqn::check(&config).unwrap();
    }
}

/// A thread for 16 elements of a batch, on as many cores as there are.
#[test]
fn small_batches_have_few_threads() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = |num_threads, batch_size| Config { num_threads, batch_size, ..Config::default() }.threads();
    assert_eq!((threads(0, 8), threads(0, 32), threads(0, 1 << 20)), (1, cores.min(2), cores));
    assert_eq!((threads(3, 8), threads(1, 1024)), (3, 1));
}

#[test]
fn an_update_is_finite_if_its_loss_and_its_gradient_are() {
    let finite = |loss, grad_norm| Losses { loss, grad_norm, ..Losses::default() }.is_finite();
    assert_eq!([finite(1.0, 2.0), finite(f64::NAN, 2.0), finite(1.0, f64::INFINITY)], [true, false, false]);
}

/// Frames of 84 × 84 bytes with 9 more for each step; compressed ones are expected to need a sixth.
#[test]
fn the_memory_of_a_replay_buffer_is_said() {
    let spec = EnvSpec::new("t", &[84, 84], Dtype::U8, ActionSpace::Discrete { n: 3 }).with_frame_stack(4);
    let said = |buffer_size, buffer_compression| {
        Replay::size(&Config { buffer_size, buffer_compression, ..Config::default() }, &spec)
    };
    assert_eq!(said(1_000_000, false), "replay buffer: 1,000,000 steps, 7.07 GB when full");
    assert_eq!(said(300_000, true), "replay buffer: 300,000 steps, compressed, about 0.36 GB when full");
    let mut replay = Replay::new(&Config { buffer_size: 20, ..Config::default() }, &spec, 1, 1, None).unwrap();
    let batch = StepBatch::new(&spec, 1);
    replay.reset(&batch);
    assert_eq!((replay.is_empty(), replay.len()), (true, 0));
}

/// Two ranks have half of each batch and of the buffer, and act and learn in turn; one process keeps its settings.
#[test]
fn a_rank_has_its_part_of_batch_and_buffer() {
    let config = Config { batch_size: 32, buffer_size: 1000, overlap: true, ..Config::default() };
    let half = Config { batch_size: 16, buffer_size: 500, overlap: false, ..config.clone() };
    assert_eq!(config.of_rank(&Lost).unwrap(), half);
    assert!(!half.of_rank(&SingleProcess).unwrap().overlap);
    assert_eq!(config.of_rank(&SingleProcess).unwrap(), config);
    for (key, config) in [
        ("`dqn.batch_size` = 33", Config { batch_size: 33, ..config.clone() }),
        ("`dqn.buffer_size` = 1001", Config { buffer_size: 1001, ..config.clone() }),
    ] {
        let message = config.of_rank(&Lost).unwrap_err().to_string();
        assert!(message.contains(key), "{message}");
    }
}

/// A device is chosen once, and a learner that cannot join its group says so.
#[test]
fn a_learner_that_cannot_join_its_group_says_so() {
    let config = Dqn::resolve(&Config { device: "auto".into(), ..Config::default() }, 1000, &envs(1)).unwrap();
    assert_ne!(config.device, "auto");
    let mut learner = Learner::new(Config { device: "cpu".into(), ..config }, &envs(1).0, 1).unwrap();
    let group: Arc<dyn Group> = Arc::new(Lost);
    let error = learner.join(&group, group::Config::default()).unwrap_err();
    assert_eq!(error.to_string(), "the connection is lost");
}
