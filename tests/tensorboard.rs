//! TensorBoard reads the event files of a run, including resumed ones.
#![cfg(feature = "python")]

use crate::common::{CARTPOLE, browser, file, playfield, refuses, succeeds};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

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

/// In a browser, TensorBoard shows curves and histograms, the resolved settings as text, and in its table of hyperparameters the
/// settings that differ first, with the final metrics.
#[test]
#[expect(clippy::print_stderr, reason = "says why the test is skipped")]
fn a_browser_shows_curves_histograms_texts_and_hyperparameters() {
    let Some(browser) = browser() else {
        eprintln!("skipped: no chromium or google-chrome is installed");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", &format!("{CARTPOLE}[run]\nhistograms = true\n[eval]\nevery_steps = 400\nepisodes = 2\n"));
    for gamma in ["gamma=0.75", "gamma=0.99"] {
        succeeds(dir, &["train", "a.toml", "--steps", "800", "--set", gamma, "--run-dir", &format!("runs/{gamma}")]);
    }
    let mut board = Board(playfield(dir, &["board", "--port", "0"]).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(board.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split_whitespace().nth(1).unwrap_or_else(|| panic!("{line}")).to_string();
    // The text of a tab, shadow roots included, once it has all `expected` words.
    let shown = |tab: &str, expected: &[&str]| {
        let script = format!(
            "(async () => {{
                const text = node => node.nodeType === Node.TEXT_NODE ? node.data :
                    ['STYLE', 'SCRIPT'].includes(node.tagName) ? '' :
                    [...(node.shadowRoot ? node.shadowRoot.childNodes : []), ...node.childNodes].map(text).join(' ');
                const shown = () => text(document.body).replace(/\\s+/g, ' ');
                const missing = () => {expected:?}.some(word => !shown().includes(word));
                for (let i = 0; i < 600 && missing(); i++) await new Promise(next => setTimeout(next, 100));
                return shown();
            }})()"
        );
        let devtools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/devtools.py");
        let mut python = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python"));
        python.arg(devtools).args([&browser, &format!("{address}#{tab}")]);
        let mut python = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        python.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success());
        let page: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(page["errors"], serde_json::json!([]), "{tab}");
        let text = page["value"].as_str().unwrap().to_string();
        expected.iter().for_each(|word| assert!(text.contains(word), "{tab}: no {word} in {text}"));
        text
    };
    shown("timeseries", &["/mean_reward", "gamma=0.75", "gamma=0.99"]);
    shown("histograms", &["parameters/policy.weight", "gradients/torso.fc1.bias"]);
    shown("text", &["algorithm = \"paac\"", "[paac.optimizer]"]);
    let table = shown("hparams", &["paac.gamma", "eval/mean_reward", "0.75000", "0.99000"]);
    let place = |name: &str| table.find(name).unwrap();
    assert!(place("paac.gamma") < place("algorithm"), "the settings that differ are first: {table}");
}

/// A running `playfield board`, which ends with the test, also where that fails.
struct Board(Child);

impl Drop for Board {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-s", "INT", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}
