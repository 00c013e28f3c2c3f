//! TensorBoard reads the event files of a run, including resumed ones.
#![cfg(feature = "python")]

mod common;

use common::{CARTPOLE, file, refuses, succeeds};
use std::path::Path;
use std::process::Command;

/// With `eval.video` each evaluation adds a GIF to the run's images.
#[test]
fn a_video_of_the_evaluation_is_in_tensorboard() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let text = "algorithm = 'ppo'\nsteps = 128\n[env]\nid = 'ALE/Pong-v5'\nnum_envs = 2\n[network]\ntorso = 'small'\n[ppo]\n\
                rollout_steps = 16\nminibatch_size = 32\nepochs = 1\n[eval]\nevery_steps = 64\nepisodes = 1\nvideo = true\n\
                env = { max_episode_steps = 30 }\n";
    file(dir, "a.toml", text);
    succeeds(dir, &["train", "a.toml", "--run-dir", "run"]);
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let code = "import sys\nfrom tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n\
                events = EventAccumulator(sys.argv[1])\nevents.Reload()\n\
                for image in events.Images('eval/video'):\n\
                \x20   print(image.step, image.width, image.height, image.encoded_image_string[:6])\n";
    let output = Command::new(python).args(["-c", code]).arg(dir.join("run")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let images: Vec<_> = said.lines().collect();
    assert_eq!(images.len(), 2, "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(images[0].starts_with("64 ") && images.iter().all(|image| image.ends_with("b'GIF89a'")), "{said}");
    file(dir, "b.toml", &text.replace("ALE/Pong-v5", "Recall").replace("'small'", "'mlp'").replace("env = {", "# "));
    let said = refuses(dir, &["train", "b.toml"]);
    assert!(said.contains("Recall does not support rendering; set video = false"), "{said}");
}

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
