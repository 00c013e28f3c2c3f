//! Policy distillation and embeddings of a trained agent.

use crate::common::{file, playfield, refuses, stderr, succeeds};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

/// Trains an agent on Identity, or another one.
fn train(dir: &Path, algorithm: &str, settings: &str, steps: u64) {
    let text = format!("algorithm = '{algorithm}'\nsteps = {steps}\n[env]\nid = 'Identity'\nnum_envs = 4\n{settings}");
    file(dir, "a.toml", &text);
    succeeds(dir, &["train", "a.toml", "--seed", "1", "--run-dir", "teacher"]);
}

const PAAC: &str = "[network]\ninit = 'orthogonal'\n[paac]\nrollout_steps = 2\ngamma = 0.0\nlearning_rate.start = 0.02\n\
    entropy_coefficient = 0.0\nsum_over_time = false\n[paac.optimizer]\nrule = 'adam'\nbeta2 = 0.999\neps = 1e-5\n";

const DQN: &str = "[dqn]\ngamma = 0.0\nlearning_starts = 100\nbuffer_size = 1000\ntarget_update_interval = 50\n\
    exploration_epsilon.steps = 1000\nlearning_rate = 3e-3\noverlap = false\n[dqn.optimizer]\nrule = 'adam'\nbeta2 = 0.999\neps = 1e-8\n";

#[test]
fn a_student_acts_like_its_teacher() {
    for (algorithm, settings) in [("paac", PAAC), ("dqn", DQN)] {
        let dir = tempfile::tempdir().unwrap();
        train(dir.path(), algorithm, settings, 3000);
        let json = succeeds(dir.path(), &["distill", "teacher", "--steps", "4k", "--learning-rate", "0.01", "--json"]);
        let report: Value = serde_json::from_str(&json).unwrap();
        let number = |who: &str, what: &str| report[who][what].as_f64().unwrap();
        assert!(number("student", "mean_return") >= 0.95 * number("teacher", "mean_return"), "{algorithm}: {json}");
        assert!(number("teacher", "mean_return") >= 90.0, "{algorithm}: {json}");
        assert!(number("student", "parameters") < 0.5 * number("teacher", "parameters"), "{algorithm}: {json}");
        // The student is a run folder, too.
        let json = succeeds(dir.path(), &["eval", "teacher-small-1", "--episodes", "4", "--deterministic", "--json"]);
        let eval: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(eval["mean_return"].as_f64().unwrap(), number("student", "mean_return"));
        // It cannot be resumed: it has no optimizer state.
        let said = refuses(dir.path(), &["train", "--resume", "teacher-small-1", "--steps", "9000"]);
        assert!(said.contains("teacher-small-1 contains a distilled student, not a training run"), "{said}");
        let said = succeeds(dir.path(), &["distill", "teacher", "--steps", "400", "--episodes", "2"]);
        assert!(said.contains("teacher-small-2") && said.contains("% of the parameters"), "{said}");
    }
}

/// The student of an MLP is a smaller MLP whatever the observations, its progress is written, and one that is no smaller is refused.
#[test]
fn a_student_is_smaller_than_its_teacher() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", "algorithm = 'ppo'\nsteps = 2000\n[env]\nid = 'Catch'\nnum_envs = 4\n");
    succeeds(dir, &["train", "a.toml", "--run-dir", "teacher"]);
    for arguments in [&["distill", "teacher"][..], &["distill", "teacher", "--torso", "mlp"]] {
        let json = succeeds(dir, &[arguments, &["--steps", "400", "--episodes", "2", "--json"]].concat());
        let report: Value = serde_json::from_str(&json).unwrap();
        // 50·64 + 64, 64·64 + 64, 3·64 + 3, 64 + 1; and with layers of half the width.
        assert_eq!(report["teacher"]["parameters"], 7684, "{json}");
        assert_eq!(report["student"]["parameters"], 2820, "{json}");
        let run = dir.join(report["run"].as_str().unwrap());
        let progress = std::fs::read_to_string(run.join("progress.csv")).unwrap();
        let header =
            "time/total_timesteps,time/time_elapsed,train/learning_rate,train/n_updates,distill/kl_divergence\n";
        assert!(progress.starts_with(header) && progress.lines().count() > 50, "{progress}");
        assert!(std::fs::read_to_string(run.join("episodes.csv")).unwrap().lines().count() > 10);
    }
    let said = refuses(dir, &["distill", "teacher", "--torso", "impala"]);
    assert!(said.contains("the teacher has 7684: choose a smaller torso"), "{said}");
    assert!(!dir.join("teacher-impala-1").exists());
}

/// A recurrent teacher is imitated, with a warning: the student has no recurrent state.
#[test]
fn a_student_of_a_recurrent_teacher_is_trained_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), "paac", "[network]\nlstm = 8\n", 400);
    let args = ["distill", "teacher", "--steps", "400", "--episodes", "2"];
    let output = playfield(dir.path(), &args).output().unwrap();
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("warning: the teacher has an LSTM and the student has none"), "{said}");
}

#[test]
fn a_hidden_layer_is_embedded() {
    for (algorithm, settings) in [("paac", PAAC), ("dqn", DQN), ("a3c", "[a3c]\nmethod = 'n_step_q'\n")] {
        let dir = tempfile::tempdir().unwrap();
        train(dir.path(), algorithm, settings, 400);
        let said = succeeds(dir.path(), &["embed", "teacher", "--points", "60", "--perplexity", "10"]);
        let map = said.lines().find_map(|l| l.strip_prefix("map        ")).unwrap();
        assert!(std::fs::read(dir.path().join(map)).unwrap().starts_with(b"\x89PNG"), "{algorithm}");
    }
}

/// Ctrl-C ends the computation of the map: no map is written. The map would otherwise be written in the end.
#[test]
fn an_interrupted_map_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), "paac", PAAC, 400);
    // A shell starts background processes with SIGINT ignored.
    let embed = playfield(dir.path(), &["embed", "teacher", "--points", "1500", "--out", "map.png"]);
    let mut command = std::process::Command::new("env");
    command.arg("--default-signal=INT").arg(embed.get_program()).args(embed.get_args()).current_dir(dir.path());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("computing a t-SNE map") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it ended");
    }
    std::process::Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut said, &mut rest).unwrap();
    assert!(rest.contains("stopping: no map is written"), "{rest}");
    assert!(!dir.path().join("map.png").exists());
}

#[test]
fn invalid_arguments_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), "paac", PAAC, 400);
    for (args, expected) in [
        (&["embed", "teacher", "--points", "20", "--perplexity", "20"][..], "less than the number of points, 20"),
        (&["embed", "nothing"], "contains no run"),
        (&["distill", "nothing"], "contains no run"),
        (&["distill", "teacher", "--temperature", "0"], "`temperature` = 0 must be greater than 0"),
        (&["distill", "teacher", "--learning-rate", "0"], "must be greater than 0"),
        (&["distill", "teacher", "--torso", "smal"], "smal"),
        (&["distill", "teacher", "--torso", "nips"], "u8 frames"),
    ] {
        let said = refuses(dir.path(), args);
        assert!(said.contains(expected), "{args:?}: {said}");
    }
    let entries = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(entries, 2, "only a.toml and the teacher are left");
    file(dir.path(), "b.toml", "algorithm = 'paac'\nsteps = 100\n[env]\nid = 'IdentityBox'\nnum_envs = 2\n");
    succeeds(dir.path(), &["train", "b.toml", "--run-dir", "box"]);
    assert!(refuses(dir.path(), &["distill", "box"]).contains("continuous actions"));
}
