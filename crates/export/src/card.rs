//! Model cards.

use crate::{Format, Head, Model, Origin};
use playfield_core::config::ClipReward;
use playfield_core::{ActionSpace, Dtype};
use std::fmt::Write as _;

impl Model<'_> {
    /// The model card, in Markdown, of the model in the file `file`.
    pub fn card(&self, format: Format, file: &str) -> String {
        let Origin { algorithm, step, score, env, spec, .. } = self.origin;
        let mut text =
            format!("# {file}\n\nA policy for {}, trained with playfield {}.\n\n", env.id, env!("CARGO_PKG_VERSION"));
        let mut line = |part: &str| _ = writeln!(text, "{part}");
        let score = score.map_or("none yet".into(), |score| {
            format!("{score:.2} (mean return of the last evaluation in training; without `[eval]`, of 100 training episodes)")
        });
        line("| | |\n|---|---|");
        for (what, value) in [
            ("algorithm", algorithm.into()),
            ("environment", env.id.clone()),
            ("agent steps", step.to_string()),
            ("score", score),
            ("parameters", self.parameters().to_string()),
            ("format", describe(format).into()),
        ] {
            line(&format!("| {what} | {value} |"));
        }
        line(
            "\n## Inputs and outputs\n\n`n` is the size of the batch.\n\n| name | type | shape | content |\n|---|---|---|---|",
        );
        for (name, dtype, shape) in self.graph.inputs() {
            let dtype = if dtype == Dtype::U8 { "uint8" } else { "float32" };
            let content = if name == "obs" {
                "input: observations"
            } else {
                "input: recurrent state; zeros at the start of an episode"
            };
            line(&format!("| `{name}` | {dtype} | {} | {content} |", batch(shape)));
        }
        for output in self.graph.outputs() {
            let content = match output.name.as_str() {
                "logits" => "output: unnormalized log-probabilities of the actions",
                "mean" => "output: mean of the Gaussian policy",
                "std" => "output: standard deviation of the Gaussian policy",
                "q_values" => "output: values of the actions",
                "value" if self.head() == Head::QValues => {
                    "output: value of the observation, the maximum of `q_values`"
                }
                "value" => "output: estimated value of the observation",
                _ => "output: recurrent state for the next observation",
            };
            line(&format!("| `{}` | float32 | {} | {content} |", output.name, batch(&output.shape)));
        }
        line("\n## Preprocessing\n");
        self.preprocessing().iter().for_each(|part| line(&format!("- {part}")));
        line("\n## Actions\n");
        match &spec.actions {
            ActionSpace::Box { low, .. } => line(&format!(
                "{} continuous dimensions. The policy acts in [−1, 1]: where both bounds are finite, an action is clipped to [−1, 1] and \
                 mapped linearly onto them; elsewhere it is clipped to the finite bound.",
                low.len()
            )),
            ActionSpace::MultiDiscrete { sizes } => line(&format!(
                "{} components with {sizes:?} choices each: the columns of `logits`, one component after the other.",
                sizes.len()
            )),
            ActionSpace::Discrete { n } if spec.action_names.is_empty() => line(&format!("Actions 0 to {}.", n - 1)),
            ActionSpace::Discrete { .. } => {
                let names = spec.action_names.iter().enumerate().map(|(i, name)| format!("{i} {name}"));
                line(&format!("Actions: {}.", names.collect::<Vec<_>>().join(", ")));
            }
        }
        if spec.action_mask {
            line(
                "\nThe environment states which actions are valid: the code excludes the others by a mask, which is all true there.",
            );
        }
        let sampled = match self.head() {
            Head::Logits => {
                let logits = "(logits + np.random.gumbel(size=logits.shape))";
                format!("{}{}", self.mask("logits", "np"), self.argmax(logits, "np"))
            }
            Head::Gaussian => format!("action = np.random.normal(mean, std)\n{}", self.to_bounds("np")),
            Head::QValues => format!(
                "epsilon = 0.05\nrandom = np.random.random(q_values.shape)\n{}{}\n\
                 explore = np.random.random(len(action)) < epsilon\naction = np.where(explore, random.argmax(1), action)",
                self.mask("q_values", "np"),
                self.argmax("q_values", "np")
                    + if spec.action_mask { "\nrandom = np.where(mask, random, -1)" } else { "" },
            ),
        };
        let sampling = if self.head() == Head::QValues { "ε-greedy" } else { "By sampling, as in training" };
        line(&format!("\nGreedy, with NumPy:\n\n```python\n{}\n```", self.greedy("np")));
        line(&format!("\n{sampling}:\n\n```python\n{sampled}\n```"));
        line(&format!("\n## Python\n\n```python\n{}```", self.snippet(format, file)));
        text
    }

    /// One sentence for each step from the environment to the network.
    fn preprocessing(&self) -> Vec<String> {
        let Origin { env, spec, normalizer, .. } = self.origin;
        let mut parts = Vec::new();
        let mut add = |condition: bool, text: String| parts.extend(condition.then_some(text));
        let p = env.repeat_action_probability;
        add(p > 0.0, format!("Sticky actions: each emulator frame repeats the previous action with probability {p}."));
        add(
            env.noop_max > 0,
            format!("An episode begins with a random number of no-op frames, fewer than {}.", env.noop_max),
        );
        add(env.fire_reset, "FIRE is pressed when an episode begins, where the game has it.".into());
        add(env.fire_on_life_loss, "FIRE is pressed after a lost life.".into());
        add(env.frame_skip > 1, format!("Each action is repeated for {} frames.", env.frame_skip));
        add(env.max_pool, "A frame is the elementwise maximum of the last two frames of the emulator.".into());
        if let [height, width] = env.resize[..] {
            add(
                true,
                format!("A frame is gray, reduced to {height}×{width} by area interpolation (OpenCV's `INTER_AREA`)."),
            );
        }
        let normalized = normalizer.is_some_and(|normalizer| normalizer.observations.is_some());
        let missing = if normalized { "the mean (`normalize_obs.mean`)" } else { "zero" };
        add(
            spec.frame_stack > 1,
            format!(
                "The last {} frames are stacked along the last axis, oldest first: {}. At the beginning of an episode the missing ones \
                 are {missing}.",
                spec.frame_stack,
                batch(&self.obs_shape())
            ),
        );
        add(env.max_episode_steps > 0, format!("An episode is truncated after {} steps.", env.max_episode_steps));
        let clip = match env.clip_reward {
            ClipReward::None => None,
            ClipReward::Sign => Some("their sign"),
            ClipReward::Clamp => Some("clipped to [−1, 1]"),
        };
        add(clip.is_some(), format!("In training only: rewards are {}.", clip.unwrap_or_default()));
        add(
            env.normalize_reward,
            "In training only: rewards are divided by the running standard deviation of the return.".into(),
        );
        add(env.episodic_life, "In training only: a lost life ends the episode.".into());
        add(
            normalized,
            "Inside the model: observations are normalized by the running statistics of the run and clipped at ±10."
                .into(),
        );
        add(
            spec.dtype == Dtype::U8,
            "Inside the model: bytes become floats; images are divided by 255, or standardized (`network.standardize`)."
                .into(),
        );
        add(true, "Nothing else: `obs` is what the environment returns.".into());
        parts
    }
}

fn describe(format: Format) -> &'static str {
    match format {
        Format::Onnx => "ONNX, operator set 18, float32",
        Format::TorchScript => {
            "TorchScript, traced, float32; `forward` returns the outputs side by side, in this order"
        }
        Format::SafeTensors => "safetensors, float32, with the names of the checkpoint; the code below is the network",
    }
}

/// `[n, shape…]`.
fn batch(shape: &[usize]) -> String {
    let axes: Vec<_> = ["n".to_string()].into_iter().chain(shape.iter().map(usize::to_string)).collect();
    format!("[{}]", axes.join(", "))
}
