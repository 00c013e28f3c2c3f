//! The policy as evaluation, export and players use it.

use playfield_actor_critic::Actor;
use playfield_core::graph::Graph;
use playfield_core::{ActionSpace, Actions, Dtype, EnvSpec, Mode, Obs, Policy as _, rng};
use playfield_nn::config::Precision;
use playfield_nn::{ActorCritic, NetworkConfig};

const ACTIONS: usize = 3;

/// An actor for two environments with observations of two numbers.
fn actor(lstm: i64) -> Actor {
    let spec = EnvSpec::new("t", &[2], Dtype::F32, ActionSpace::Discrete { n: ACTIONS });
    let config = NetworkConfig { hidden: vec![8], lstm, precision: Precision::Fp32, ..NetworkConfig::default() };
    let net = ActorCritic::new(&config, &spec, "cpu", &mut rng::stream(3, "init")).unwrap();
    Actor::new(net, 2, rng::stream(4, "actions"))
}

/// Different observations of `n` environments.
fn observations(n: usize) -> Obs {
    Obs::F32((0..2 * n).map(|i| (i as f32 * 1.7).sin() * 3.0).collect())
}

fn act(actor: &mut Actor, mode: Mode, n: usize) -> Vec<i64> {
    let mut actions = Actions::Discrete(vec![-1; n]);
    actor.act(&observations(n), &vec![true; n * ACTIONS], mode, &mut actions).unwrap();
    let Actions::Discrete(actions) = actions else { unreachable!() };
    actions
}

/// Greedy actions have the largest logits that are reported; the number of environments may change.
#[test]
fn a_policy_acts_as_its_outputs_say() {
    let mut actor = actor(0);
    for n in [2, 5, 1] {
        let outputs = actor.outputs(&observations(n), n).unwrap();
        assert!(!outputs.are_values && outputs.values.len() == n && outputs.features.len() == 8 * n);
        let best = |logits: &[f32]| (0..ACTIONS).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as i64;
        let expected: Vec<_> = outputs.preferences.chunks(ACTIONS).map(best).collect();
        assert_eq!(act(&mut actor, Mode::Greedy, n), expected);
    }
}

#[test]
fn sampled_actions_depend_on_the_seed() {
    let mut actor = actor(0);
    let mut sample = |seed: u64| {
        actor.seed(seed);
        (0..50).flat_map(|_| act(&mut actor, Mode::Sample, 2)).collect::<Vec<_>>()
    };
    let first = sample(1);
    assert!(first == sample(1) && first != sample(2));
}

/// A recurrent policy has one state per environment, which advances and starts anew.
#[test]
fn a_recurrent_policy_keeps_the_states_of_its_environments() {
    let mut actor = actor(4);
    let values = |actor: &mut Actor, n: usize| actor.outputs(&observations(n), n).map(|outputs| outputs.values);
    let start = values(&mut actor, 2).unwrap();
    assert_eq!(values(&mut actor, 2).unwrap(), start, "outputs do not advance it");
    act(&mut actor, Mode::Greedy, 2);
    let later = values(&mut actor, 2).unwrap();
    assert!(later[0] != start[0] && later[1] != start[1]);
    actor.reset_states(&[false, true]);
    let one = values(&mut actor, 2).unwrap();
    assert!(one[0] == later[0] && one[1] == start[1]);

    let error = values(&mut actor, 3).unwrap_err().to_string();
    assert!(error.contains("states of 2 environments acts in 3: call `begin(3)`"), "{error}");
    let mut actions = Actions::Discrete(vec![0; 3]);
    let refused = actor.act(&observations(3), &[true; 3 * ACTIONS], Mode::Greedy, &mut actions);
    assert_eq!(refused.unwrap_err().to_string(), error);
    actor.begin(3);
    assert_eq!(values(&mut actor, 3).unwrap()[..2], start[..]);
    actor.begin(2);
    assert_eq!(values(&mut actor, 2).unwrap(), start);
}

#[test]
fn the_network_is_exported() {
    let mut graph = Graph::default();
    let input = graph.input("obs", Dtype::F32, &[2]);
    actor(0).export(&mut graph, input).unwrap();
    assert!(graph.constants().count() > 0 && !graph.outputs().is_empty());
}
