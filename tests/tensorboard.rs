//! TensorBoard reads the event files of a run, including resumed ones.
#![cfg(feature = "python")]

mod common;

use common::{CARTPOLE, file, succeeds};
use std::path::Path;
use std::process::Command;

#[test]
fn tensorboard_lists_the_tags() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    succeeds(dir, &["train", "a.toml", "--run-dir", "run", "--steps", "2000"]);
    succeeds(dir, &["train", "--resume", "run", "--steps", "4000"]);
    let tensorboard = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/tensorboard");
    let output = Command::new(tensorboard).args(["--inspect", "--logdir"]).arg(dir.join("run")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for tag in [
        "rollout/ep_rew_mean",
        "rollout/ep_len_mean",
        "time/fps",
        "train/loss",
        "train/entropy_loss",
        "train/n_updates",
    ] {
        assert!(said.contains(tag), "{tag}: {said}");
    }
    assert!(said.contains("4000"), "the last point is at the last step: {said}");
}
