//! Every algorithm learns: environments with a known answer, within a known number of steps.

mod common;

use common::{file, succeeds};
use std::path::Path;

/// What each algorithm needs to solve an identity environment in 2,000 steps.
const ALGORITHMS: &[(&str, &str)] = &[(
    "paac",
    "[network]\ninit = 'orthogonal'\nhidden = [32]\n[paac]\nthreads = 1\nt_max = 1\ngamma = 0.0\nlearning_rate = 0.02\nentropy_coefficient = 0.0\nsum_over_time = false\n[paac.optimizer]\nrule = 'adam'\ndecay = 0.999\neps = 1e-5\n",
)];

fn greedy(dir: &Path, run: &str, episodes: &str) -> f64 {
    let json = succeeds(dir, &["eval", run, "--episodes", episodes, "--deterministic", "--json"]);
    serde_json::from_str::<serde_json::Value>(&json).unwrap()["mean_return"].as_f64().unwrap()
}

/// Repeat the number seen, 100 times an episode: the best return is 100 (discrete), 0 (continuous:
/// minus the squared distance; guessing at random gives some −70).
#[test]
fn identity_is_solved_in_2000_steps() {
    for (algorithm, settings) in ALGORITHMS {
        for (env, solved) in [("Identity", 99.0), ("IdentityBox", -2.0)] {
            for seed in ["1", "2", "3"] {
                let dir = tempfile::tempdir().unwrap();
                let text =
                    format!("algorithm = '{algorithm}'\nsteps = 2000\n[env]\nid = '{env}'\nnum_envs = 4\n{settings}");
                file(dir.path(), "a.toml", &text);
                succeeds(dir.path(), &["train", "a.toml", "--seed", seed, "--run-dir", "run"]);
                let reached = greedy(dir.path(), "run", "4");
                assert!(reached >= solved, "{algorithm} on {env}, seed {seed}: {reached} < {solved}");
            }
        }
    }
}

/// `configs/paac/cartpole.toml` holds the pole up for 475 of 500 steps and more, from each of three seeds.
#[test]
fn cartpole_is_solved_from_three_seeds() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/paac/cartpole.toml");
    for seed in ["1", "2", "3"] {
        let dir = tempfile::tempdir().unwrap();
        succeeds(dir.path(), &["train", config.to_str().unwrap(), "--seed", seed, "--run-dir", "run"]);
        let reached = greedy(dir.path(), "run", "20");
        assert!(reached >= 475.0, "seed {seed}: {reached}");
    }
}
