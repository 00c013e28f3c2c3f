//! Every algorithm trains with each torso and with each norm, PAAC with each pair of them, and its policy can be evaluated.

use crate::common::{checkpoints, file, refuses, succeeds};
use playfield::core::checkpoint::read;

const TORSOS: [&str; 6] = ["nature", "nips", "small", "impala", "mlp", "lstm"];
const NORMS: [&str; 3] = ["none", "batch", "layer"];

#[test]
fn ppo_trains_with_every_torso() {
    trains("ppo", &in_turn(), "rollout_steps = 4\nminibatch_size = 4");
}

#[test]
fn paac_trains_with_every_torso_and_norm() {
    let pairs: Vec<_> = TORSOS.iter().flat_map(|torso| NORMS.map(|norm| (*torso, norm))).collect();
    trains("paac", &pairs, "rollout_steps = 4");
}

#[test]
fn a3c_trains_with_every_torso() {
    trains("a3c", &in_turn(), "rollout_steps = 4");
}

#[test]
fn n_step_q_trains_with_every_torso() {
    trains("a3c", &in_turn(), "method = 'n_step_q'\nrollout_steps = 4\ntarget_update_interval = 40");
}

#[test]
fn dqn_trains_with_every_torso() {
    trains("dqn", &in_turn(), "learning_starts = 40\nbuffer_size = 200\nbatch_size = 8\ntarget_update_interval = 20");
}

/// Each torso with one of the norms.
fn in_turn() -> Vec<(&'static str, &'static str)> {
    TORSOS.into_iter().zip(NORMS.into_iter().cycle()).collect()
}

/// Catch on a board that is large enough for DQN's convolutions.
fn trains(algorithm: &str, torsos_and_norms: &[(&str, &str)], settings: &str) {
    for &(torso, norm) in torsos_and_norms {
        // Q-networks are not recurrent.
        if torso == "lstm" && (algorithm == "dqn" || settings.contains("method")) {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let text = format!(
            "algorithm = '{algorithm}'\nsteps = 96\n[env]\nid = 'Catch'\nnum_envs = 2\nkwargs = {{ rows = 36, columns = 36 }}\n[network]\ntorso = '{torso}'\nnorm = '{norm}'\nhidden = [16, 16]\n[{algorithm}]\nnum_threads = 1\n{settings}\n"
        );
        file(dir, "a.toml", &text);
        succeeds(dir, &["train", "a.toml", "--run-dir", "run"]);
        let params = read(checkpoints(&dir.join("run")).last().unwrap()).unwrap().params;
        let named = |part: &str| params.keys().any(|name| name.contains(part));
        assert_eq!(named("running_mean"), norm == "batch", "{algorithm}, {torso}, {norm}");
        assert_eq!(named("norm.weight"), norm != "none", "{algorithm}, {torso}, {norm}");
        assert_eq!(named("lstm."), torso == "lstm", "{algorithm}, {torso}, {norm}");
        for (_, array) in params.iter().filter(|(name, _)| name.contains("running_mean")) {
            let values = array.values::<f32>().unwrap();
            assert!(values.iter().all(|x| x.is_finite()), "{algorithm}, {torso}");
        }
        let moved = params.iter().any(|(name, array)| {
            name.contains("running_var") && array.values::<f32>().unwrap().iter().any(|&x| x != 1.0)
        });
        assert_eq!(
            moved,
            norm == "batch",
            "{algorithm}, {torso}, {norm}: running statistics are updated by batch norm alone"
        );
        let json = succeeds(dir, &["eval", "run", "--episodes", "1", "--json"]);
        assert!(json.contains("mean_return"), "{json}");
    }
}

/// With each norm Identity is solved as without: a policy with running statistics acts like the learned one.
#[test]
fn paac_learns_with_each_norm() {
    for norm in NORMS {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let text = format!(
            "algorithm = 'paac'\nsteps = 4000\n[env]\nid = 'Identity'\nnum_envs = 8\n[network]\ninit = 'orthogonal'\nhidden = [32]\nnorm = '{norm}'\n[paac]\nnum_threads = 1\nrollout_steps = 2\ngamma = 0.0\nlearning_rate.start = 0.02\nentropy_coefficient = 0.0\nsum_over_time = false\n[paac.optimizer]\nrule = 'adam'\nbeta2 = 0.999\neps = 1e-5\n"
        );
        file(dir, "a.toml", &text);
        succeeds(dir, &["train", "a.toml", "--run-dir", "run"]);
        let json = succeeds(dir, &["eval", "run", "--episodes", "4", "--deterministic", "--json"]);
        let reached = serde_json::from_str::<serde_json::Value>(&json).unwrap()["mean_return"].as_f64().unwrap();
        assert!(reached >= 99.0, "{norm}: {reached}");
    }
}

#[test]
fn invalid_networks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (algorithm, env, network, said) in [
        ("paac", "CartPole", "torso = 'impala'", "u8 frames"),
        ("dqn", "CartPole", "torso = 'lstm'", "Q-networks have no LSTM"),
        ("paac", "CartPole", "torso = 'lstm'\nshared = false", "shared = true"),
        ("paac", "CartPole", "norm = 'group'", "group"),
    ] {
        let text = format!("algorithm = '{algorithm}'\nsteps = 100\n[env]\nid = '{env}'\n[network]\n{network}\n");
        file(dir.path(), "a.toml", &text);
        let refusal = refuses(dir.path(), &["train", "a.toml"]);
        assert!(refusal.contains(said), "{network}: {refusal}");
    }
}
