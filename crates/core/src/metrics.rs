//! The metrics of a run and their destinations.
//!
//! An algorithm reports any tag. The tags of Stable-Baselines3 are used where it has one, so that curves of both can be compared in
//! one plot; the x-axis is always agent steps. [`METRICS`] describes the tags that playfield's own algorithms report.

use crate::{EpisodeEnd, Image, Result};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The name of a metric: `group/name`. A metric of one of several threads ends in its index: `async/return/3`.
pub type Tag = Cow<'static, str>;

/// The description of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its tag; a last component `N` stands for an index.
    pub tag: &'static str,
    /// The unit of its values; empty where they have none.
    pub unit: &'static str,
    /// Its meaning, in Markdown.
    pub meaning: &'static str,
}

const fn metric(tag: &'static str, unit: &'static str, meaning: &'static str) -> Metric {
    Metric { tag, unit, meaning }
}

/// The metrics that playfield reports, in the order in which tables show them. `docs/metrics.md` is generated from this list.
pub const METRICS: &[Metric] = &[
    metric("time/total_timesteps", "steps", "agent steps so far, over all environments"),
    metric("time/time_elapsed", "s", "wall time of training so far, earlier sessions of a resumed run included"),
    metric("time/fps", "steps/s", "agent steps per second since the previous row, over all environments"),
    metric("rollout/ep_rew_mean", "return", "mean raw return of the last 100 training episodes"),
    metric("rollout/ep_len_mean", "steps", "mean length of the last 100 training episodes"),
    metric("rollout/exploration_rate", "", "ε: the probability of a random action; 0 with noisy networks"),
    metric(
        "train/loss",
        "",
        "total loss of the last update: the weighted sum of its terms. PPO: it and its terms are means over the minibatches of a rollout",
    ),
    metric("train/policy_loss", "", "mean of −log π(a\\|s)·A; its magnitude says little about progress"),
    metric("train/policy_gradient_loss", "", "the clipped objective, mean of −min(r·A, clip(r, 1 − ε, 1 + ε)·A) (PPO)"),
    metric("train/value_loss", "return²", "mean of (G − V)², G: the return that V is trained on"),
    metric(
        "train/entropy_loss",
        "nats",
        "−H(π): −log(number of actions) for a uniform policy, 0 for a deterministic one; a fast rise to 0 is a policy collapse",
    ),
    metric(
        "train/explained_variance",
        "",
        "1 − Var(G − V)/Var(G): near 1 the critic predicts returns well; a constant 0 usually means a constant V",
    ),
    metric(
        "train/approx_kl",
        "nats",
        "estimate of the KL divergence from the policy that acted, mean over minibatches (PPO)",
    ),
    metric("train/clip_fraction", "", "fraction of the probability ratios outside 1 ± ε, mean over minibatches (PPO)"),
    metric("train/clip_range", "", "ε: the clipping range of the probability ratio (PPO)"),
    metric("train/std", "", "mean standard deviation of a Gaussian policy, where actions are scaled to [−1, 1] (PPO)"),
    metric("train/learning_rate", "", "learning rate of the last update"),
    metric("train/grad_norm", "", "global L2 norm of the gradient before clipping"),
    metric("train/n_updates", "updates", "optimizer steps so far (DQN: those of the acting weights)"),
    metric("train/q_mean", "return", "mean Q-value of the actions of the last minibatch"),
    metric(
        "train/td_error",
        "return",
        "mean absolute TD error of the last minibatch; with a distributional head its mean loss",
    ),
    metric("train/per_beta", "", "β: the exponent of the importance-sampling weights of prioritized replay"),
    metric("train/replay_size", "transitions", "transitions in the replay buffer that can be sampled"),
    metric("eval/mean_reward", "return", "mean raw return of the episodes of an evaluation"),
    metric("eval/std_reward", "return", "population standard deviation of those returns"),
    metric("eval/mean_ep_length", "steps", "mean length of the episodes of an evaluation"),
    metric("time/phase_act_ms", "ms", "time per call to select the actions of all environments of a thread"),
    metric(
        "time/phase_env_ms",
        "ms",
        "time per call to step the environments of a thread; with several splits, those of one, without the time in which the policy acts",
    ),
    metric("time/phase_learn_ms", "ms", "time per update; PPO: per rollout, all its epochs"),
    metric("time/share_act", "", "fraction of the wall time that selecting actions takes (A3C: mean over threads)"),
    metric("time/share_env", "", "fraction of the wall time that stepping environments takes"),
    metric(
        "time/share_learn",
        "",
        "fraction of the wall time that updates take (DQN with `overlap`: beside the others)",
    ),
    metric(
        "async/policy_lag",
        "updates",
        "updates between copying the parameters and applying a gradient computed with them (A3C: mean over threads), or \
         computed while the actor uses older parameters (DQN)",
    ),
    metric("async/updates_per_second", "updates/s", "updates per second, over all threads"),
    metric("async/return/N", "return", "mean raw return of the episodes of thread N since the previous row"),
    metric("async/epsilon/N", "", "ε of thread N"),
];

impl Metric {
    /// The description of `tag`, where playfield has one.
    pub fn find(tag: &str) -> Option<&'static Metric> {
        METRICS.get(position(tag).0)
    }
}

/// The place of `tag` in tables: its position in [`METRICS`] and its index. Tags that are not described share the last place.
pub fn position(tag: &str) -> (usize, u64) {
    let (name, index) = match tag.rsplit_once('/').map(|(name, index)| (name, index.parse())) {
        Some((name, Ok(index))) => (Cow::from(format!("{name}/N")), index),
        _ => (Cow::from(tag), 0),
    };
    METRICS.iter().position(|metric| metric.tag == name).map_or((METRICS.len(), 0), |place| (place, index))
}

/// Scalars at one moment of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Agent steps so far, over all environments.
    pub step: u64,
    /// Wall time so far, earlier sessions of a resumed run included.
    pub elapsed: Duration,
    /// Tags and values, `time/total_timesteps` and `time/time_elapsed` first.
    pub values: Vec<(Tag, f64)>,
}

impl Row {
    /// A row of `values` after `step` agent steps.
    pub fn new(step: u64, elapsed: Duration, values: impl IntoIterator<Item = (Tag, f64)>) -> Self {
        let time = [("time/total_timesteps".into(), step as f64), ("time/time_elapsed".into(), elapsed.as_secs_f64())];
        Self { step, elapsed, values: time.into_iter().chain(values).collect() }
    }

    /// The value of `tag`, where the row has one.
    pub fn get(&self, tag: &str) -> Option<f64> {
        self.values.iter().find(|(name, _)| name == tag).map(|(_, value)| *value)
    }
}

/// A finished episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpisodeRow {
    /// Agent steps at its end, over all environments.
    pub step: u64,
    /// Wall time at its end.
    pub elapsed: Duration,
    /// Its raw return and length.
    pub end: EpisodeEnd,
}

/// A destination of reports: a file, TensorBoard, the console. A sink ignores what it has no method for.
///
/// # Errors
/// Every method fails where its destination cannot be written.
pub trait Sink {
    /// Writes a row of scalars.
    fn scalars(&mut self, row: &Row) -> Result<()>;

    /// Writes the result of an evaluation: a row of `eval/…` scalars.
    fn evaluation(&mut self, row: &Row) -> Result<()> {
        self.scalars(row)
    }

    /// Writes a finished episode.
    fn episode(&mut self, _row: &EpisodeRow) -> Result<()> {
        Ok(())
    }

    /// Writes the distribution of `values`, for example of the weights of a layer.
    fn histogram(&mut self, _step: u64, _tag: &str, _values: &[f32]) -> Result<()> {
        Ok(())
    }

    /// Writes a text in Markdown.
    fn text(&mut self, _step: u64, _tag: &str, _text: &str) -> Result<()> {
        Ok(())
    }

    /// Writes a video of `fps` frames per second. All frames have one size.
    fn video(&mut self, _step: u64, _tag: &str, _frames: &[Image], _fps: f64) -> Result<()> {
        Ok(())
    }

    /// Writes the settings of the run and the metrics by which to compare runs. Keys of nested tables are joined by dots.
    fn hparams(&mut self, _settings: &toml::Table, _metrics: &Row) -> Result<()> {
        Ok(())
    }

    /// Sets the description of a tag that [`METRICS`] lacks. Call it before the first value of the tag.
    fn describe(&mut self, _tag: &str, _text: &str) {}

    /// Shows a message to the user.
    fn notify(&mut self, _message: &str) {}

    /// Shows the progress of the run. Called every few milliseconds, so it must be cheap.
    fn progress(&mut self, _step: u64) {}

    /// Returns when everything written so far is on disk.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl<S: Sink + 'static> From<S> for Box<dyn Sink> {
    fn from(sink: S) -> Self {
        Box::new(sink)
    }
}

/// Means over the last 100 episodes, as Stable-Baselines3 reports them.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Window {
    values: VecDeque<EpisodeEnd>,
}

impl Window {
    /// The maximum number of episodes.
    pub const LEN: usize = 100;

    /// Adds an episode, and removes the oldest beyond [`LEN`](Self::LEN).
    pub fn push(&mut self, end: EpisodeEnd) {
        while self.values.len() >= Self::LEN {
            self.values.pop_front();
        }
        self.values.push_back(end);
    }

    /// The number of episodes.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no episode.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether there are [`LEN`](Self::LEN) episodes. The mean of fewer has a high variance.
    pub fn is_full(&self) -> bool {
        self.len() >= Self::LEN
    }

    /// Mean raw return, if there was an episode.
    pub fn mean_reward(&self) -> Option<f64> {
        self.mean(|e| e.episode_return)
    }

    /// Mean length in agent steps, if there was an episode.
    pub fn mean_length(&self) -> Option<f64> {
        self.mean(|e| e.length as f64)
    }

    fn mean(&self, of: impl Fn(&EpisodeEnd) -> f64) -> Option<f64> {
        (!self.is_empty()).then(|| self.values.iter().map(of).sum::<f64>() / self.len() as f64)
    }
}

/// The tag of each phase's time per call, and that of its fraction of the wall time.
const PHASES: [(&str, &str); 3] = [
    ("time/phase_act_ms", "time/share_act"),
    ("time/phase_env_ms", "time/share_env"),
    ("time/phase_learn_ms", "time/share_learn"),
];

/// The time of each phase of a training loop between two reports: milliseconds per call, and the fraction of the wall time.
#[derive(Clone, Debug, Default)]
pub struct PhaseTimer {
    phases: Vec<(&'static str, Duration, u32)>,
    /// The last report, or the first phase.
    since: Option<Instant>,
}

impl PhaseTimer {
    /// Calls `work` and adds its duration to the phase `tag`.
    pub fn time<T>(&mut self, tag: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        self.since.get_or_insert(start);
        let result = work();
        self.add(tag, Some(start.elapsed()));
        result
    }

    /// Adds a duration measured elsewhere, if there is one.
    pub fn add(&mut self, tag: &'static str, elapsed: Option<Duration>) {
        let Some(elapsed) = elapsed else { return };
        self.since.get_or_insert_with(Instant::now);
        match self.phases.iter_mut().find(|(t, ..)| *t == tag) {
            Some((_, sum, count)) => (*sum, *count) = (*sum + elapsed, *count + 1),
            None => self.phases.push((tag, elapsed, 1)),
        }
    }

    /// Returns milliseconds per call and fractions of the wall time since the previous report, and resets.
    pub fn take(&mut self) -> Vec<(&'static str, f64)> {
        let now = Instant::now();
        let wall = self.since.replace(now).map_or(0.0, |since| (now - since).as_secs_f64()).max(1e-9);
        let phases = std::mem::take(&mut self.phases);
        let means = phases.iter().map(|(tag, sum, count)| (*tag, sum.as_secs_f64() * 1e3 / f64::from(*count)));
        let share = |tag: &str| PHASES.iter().find(|(phase, _)| *phase == tag).map(|(_, share)| *share);
        let shares = phases.iter().filter_map(|(tag, sum, _)| Some((share(tag)?, sum.as_secs_f64() / wall)));
        means.chain(shares).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    /// The text of every Rust file below `folder`.
    fn sources(folder: &Path) -> String {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let text = |path: PathBuf| match path.is_dir() {
            true => sources(&path),
            false if path.extension().is_some_and(|e| e == "rs") => fs::read_to_string(path).unwrap(),
            false => String::new(),
        };
        entries.map(text).collect()
    }

    #[test]
    fn the_page_of_metrics_is_generated_from_the_table() {
        let mut page = "# Metrics\n\nThe tags that playfield reports, to TensorBoard and to `progress.csv`. \
                        The x-axis is agent steps; returns are raw. `N` is the index of a thread.\n\n\
                        | tag | unit | meaning |\n|---|---|---|\n"
            .to_string();
        for Metric { tag, unit, meaning } in METRICS {
            page += &format!("| `{tag}` | {unit} | {meaning} |\n");
        }
        let path = root().join("docs/metrics.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&path, &page).unwrap();
        }
        let hint = "docs/metrics.md differs from METRICS: run this test with UPDATE_DOCS=1";
        assert_eq!(fs::read_to_string(path).unwrap(), page, "{hint}");
    }

    #[test]
    fn every_tag_of_an_algorithm_is_described() {
        let text = ["crates/agents", "crates/collect"].map(|folder| sources(&root().join(folder))).concat();
        let is_tag = |literal: &&str| {
            let group = ["time/", "rollout/", "train/", "async/"].iter().any(|group| literal.starts_with(group));
            group && literal.chars().all(|c| c.is_ascii_alphanumeric() || "/_{}".contains(c))
        };
        let tags: Vec<_> = text.split('"').filter(is_tag).collect();
        assert!(tags.contains(&"train/loss") && tags.contains(&"async/return/{i}"), "{tags:?}");
        for tag in tags {
            assert!(Metric::find(&tag.replace("{i}", "0")).is_some(), "{tag} is not in METRICS");
        }
    }

    #[test]
    fn a_timer_reports_means_and_fractions_and_starts_over() {
        let (mut timer, started) = (PhaseTimer::default(), Instant::now());
        timer.time("time/phase_act_ms", || std::thread::sleep(Duration::from_millis(40)));
        std::thread::sleep(Duration::from_millis(40));
        let report = timer.take();
        let [(_, milliseconds), (tag, share)] = report[..] else { panic!("{report:?}") };
        assert!(milliseconds >= 40.0 && tag == "time/share_act" && share < 1.0, "{report:?}");
        assert!(share >= 0.04 / started.elapsed().as_secs_f64(), "{report:?}");
        for (tag, milliseconds) in [("time/phase_env_ms", 10), ("time/phase_env_ms", 30), ("time/phase_learn_ms", 4)] {
            timer.add(tag, Some(Duration::from_millis(milliseconds)));
        }
        let report = timer.take();
        assert_eq!(report[..2], [("time/phase_env_ms", 20.0), ("time/phase_learn_ms", 4.0)]);
        assert!((report[3].1 / report[2].1 - 0.1).abs() < 1e-9 && report[3].0 == "time/share_learn", "{report:?}");
        assert!(timer.take().is_empty());
    }

    #[test]
    fn an_index_at_the_end_of_a_tag_is_the_second_key_of_its_position() {
        let (returns, epsilons) = (position("async/return/0"), position("async/epsilon/0"));
        assert_eq!((returns.1, position("async/return/12")), (0, (returns.0, 12)));
        assert_eq!(epsilons, (returns.0 + 1, 0));
        assert_eq!(Metric::find("async/return/12").unwrap().tag, "async/return/N");
        assert_eq!(position("toy/surprise/3"), position("toy/other"));
        assert_eq!(Metric::find("toy/surprise/3"), None);
    }

    #[test]
    fn a_row_has_its_time_and_the_values_of_its_tags() {
        let row = Row::new(7, Duration::from_millis(1500), [("a/b".into(), 3.0), ("a/c".into(), 4.0)]);
        let values = ["time/total_timesteps", "time/time_elapsed", "a/b", "a/c", "a/d"].map(|tag| row.get(tag));
        assert_eq!(values, [Some(7.0), Some(1.5), Some(3.0), Some(4.0), None]);
    }

    /// Means over the last 100 of 101 episodes, with returns 0 to 100.
    #[test]
    fn a_window_holds_the_last_hundred_episodes() {
        let mut window = Window::default();
        assert!(window.is_empty() && !window.is_full());
        for i in 0..=100 {
            window.push(EpisodeEnd { episode_return: f64::from(i), length: 2 });
            assert_eq!((window.is_empty(), window.is_full()), (false, i >= 99));
        }
        assert_eq!(window.len(), 100);
        assert_eq!((window.mean_reward(), window.mean_length()), (Some(50.5), Some(2.0)));
        assert_eq!(Window::default().mean_reward(), None);
    }

    /// A destination without a method for evaluations writes them as scalars, and ignores everything else.
    #[test]
    fn an_evaluation_is_a_row_of_scalars() {
        struct Last(Option<Row>);
        impl Sink for Last {
            fn scalars(&mut self, row: &Row) -> Result<()> {
                self.0 = Some(row.clone());
                Ok(())
            }
        }
        let (mut sink, row) = (Last(None), Row::new(1, Duration::ZERO, [("eval/mean_reward".into(), 2.0)]));
        sink.evaluation(&row).unwrap();
        assert_eq!(sink.0.unwrap().get("eval/mean_reward"), Some(2.0));
    }
}
