//! A run alone: reports, checkpoints, the end of training.

use super::*;
use crate::Array;
use std::path::Path;

fn snapshot(step: u64, weight: f32) -> Snapshot {
    let mut s = Snapshot { step, ..Snapshot::default() };
    s.params.insert("out.weight".into(), Array::new(&[2], &[1.0, weight]));
    s.arrays.insert("optimizer.square.out.weight".into(), Array::new(&[2], &[0.0_f32, 1.0]));
    s.arrays.insert("observations".into(), Array::new(&[1], &[f32::NAN]));
    s
}

impl Persist for Snapshot {
    fn save(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        let step = snapshot.step;
        *snapshot = Snapshot { step, ..self.clone() };
        Ok(())
    }
}

fn save(run: &mut Run, mut snapshot: Snapshot) -> Result<()> {
    run.save(snapshot.step, &mut [&mut snapshot])
}

fn run(dir: &Path) -> Run {
    Run::new(1, 100).with_checkpoints(Checkpoints::new(dir, 1), Intervals::default())
}

/// Parameters, targets and optimizer state must be finite; observations and rewards are not checked. The message names the last
/// good checkpoint, if there is one.
#[test]
fn parameters_that_are_not_finite_are_never_saved() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = run(dir.path());
    let message = save(&mut run, snapshot(5, f32::NAN)).unwrap_err().to_string();
    assert_eq!(message, "training diverged: out.weight is not finite after 5 steps. Lower the learning rate");
    assert!(run.checkpoints.as_ref().unwrap().list().unwrap().is_empty());

    save(&mut run, snapshot(10, 2.0)).unwrap();
    for name in ["optimizer.square.out.weight", "target.out.weight", "target", "actor_learner.3.statistics.square"] {
        let mut broken = snapshot(20, 2.0);
        broken.arrays.insert(name.into(), Array::new(&[1], &[f32::INFINITY]));
        let error = save(&mut run, broken).unwrap_err();
        assert!(matches!(error, Error::Diverged(_)));
        let message = error.to_string();
        assert!(
            message.contains(name) && message.ends_with("the last good checkpoint is that of step 10"),
            "{message}"
        );
    }
    assert_eq!(run.checkpoints.as_ref().unwrap().latest().unwrap().snapshot.step, 10);
    let message = run.log(20, &[("train/loss", f64::NAN)]).unwrap_err().to_string();
    assert!(message.contains("train/loss is NaN after 20 steps") && message.ends_with("step 10"), "{message}");
}

#[test]
fn infinite_and_missing_returns_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = run(dir.path());
    for episode_return in [f64::NEG_INFINITY, 1.5, f64::NAN, f64::INFINITY] {
        first.episode(1, EpisodeEnd { episode_return, length: 3 }).unwrap();
    }
    save(&mut first, snapshot(1, 0.0)).unwrap();
    let saved = first.checkpoints.as_ref().unwrap().latest().unwrap().snapshot;
    let resumed = run(dir.path()).with_resume(saved).unwrap();
    assert_eq!(format!("{:?}", resumed.window), format!("{:?}", first.window));
    // The format of earlier versions.
    let window: Window = serde_json::from_str(r#"{"values": [{"reward": null, "length": 3}]}"#).unwrap();
    assert!(window.mean_reward().unwrap().is_nan());
}

#[test]
fn invalid_elapsed_times_are_errors_and_counters_never_overflow() {
    let mut snapshot = snapshot(1, 0.0);
    snapshot.put("run.episodes", &u64::MAX);
    snapshot.put("run.window", &Window::default());
    for (seconds, valid) in [(1.0, true), (-1.0, false), (1e300, false)] {
        snapshot.put("run.elapsed_seconds", &seconds);
        let resumed = Run::new(1, 100).with_resume(snapshot.clone());
        assert_eq!(resumed.is_ok(), valid, "{seconds}");
        if let Ok(mut run) = resumed {
            run.episode(2, EpisodeEnd::default()).unwrap();
        }
    }
}

/// The calls of a sink, one line each.
#[derive(Clone, Default)]
struct Calls(Arc<std::sync::Mutex<Vec<String>>>);

impl Calls {
    fn push(&self, call: String) -> Result<()> {
        self.0.lock().unwrap().push(call);
        Ok(())
    }
}

fn values(row: &Row) -> String {
    let deterministic = row.values.iter().filter(|(tag, _)| tag != "time/time_elapsed" && tag != "time/fps");
    deterministic.map(|(tag, value)| format!(" {tag}={value}")).collect()
}

impl Sink for Calls {
    fn scalars(&mut self, row: &Row) -> Result<()> {
        self.push(format!("scalars {}:{}", row.step, values(row)))
    }
    fn evaluation(&mut self, row: &Row) -> Result<()> {
        self.push(format!("evaluation {}:{}", row.step, values(row)))
    }
    fn histogram(&mut self, step: u64, tag: &str, values: &[f32]) -> Result<()> {
        self.push(format!("histogram {step} {tag} {values:?}"))
    }
    fn text(&mut self, step: u64, tag: &str, text: &str) -> Result<()> {
        self.push(format!("text {step} {tag} {text}"))
    }
    fn video(&mut self, step: u64, tag: &str, frames: &[Image], fps: f64) -> Result<()> {
        self.push(format!("video {step} {tag} {} {fps}", frames.len()))
    }
    fn hparams(&mut self, settings: &toml::Table, metrics: &Row) -> Result<()> {
        self.push(format!("hparams {}:{} {settings:?}", metrics.step, values(metrics)))
    }
    fn describe(&mut self, tag: &str, text: &str) {
        self.push(format!("describe {tag} {text}")).unwrap();
    }
    fn notify(&mut self, message: &str) {
        self.push(format!("notify {message}")).unwrap();
    }
    fn progress(&mut self, step: u64) {
        self.push(format!("progress {step}")).unwrap();
    }
}

#[test]
fn every_report_reaches_every_sink() {
    let sinks = [Calls::default(), Calls::default()];
    let boxed: Box<dyn Sink> = Box::new(sinks[0].clone());
    let mut run = Run::new(1, 100).with_sink(boxed).with_sink(sinks[1].clone());
    let end = EpisodeEnd { episode_return: 2.0, length: 4 };
    run.progress(8, [(8, end)]).unwrap();
    run.describe("toy/a", "a toy");
    run.log(8, &[("toy/a", 0.5)]).unwrap();
    run.log(9, &[(Tag::from(format!("async/return/{}", 3)), 0.25)]).unwrap();
    let image = Image { width: 1, height: 1, rgb: vec![0; 3] };
    let episodes = vec![end, EpisodeEnd { episode_return: 4.0, length: 6 }];
    run.evaluated(10, &Evaluation { episodes, video: vec![image.clone(); 2], video_fps: 15.0 }).unwrap();
    run.histogram(10, "weights/a", &[1.0]).unwrap();
    run.text(10, "config", "**seed**").unwrap();
    run.video(10, "toy/video", &[image], 20.0).unwrap();
    run.hparams(&toml::Table::new(), &[("toy/a", 0.5)]).unwrap();
    run.notify("done");
    let expected = [
        "progress 8",
        "describe toy/a a toy",
        "scalars 8: time/total_timesteps=8 rollout/ep_rew_mean=2 rollout/ep_len_mean=4 toy/a=0.5",
        "scalars 9: time/total_timesteps=9 rollout/ep_rew_mean=2 rollout/ep_len_mean=4 async/return/3=0.25",
        "evaluation 10: time/total_timesteps=10 eval/mean_reward=3 eval/std_reward=1 eval/mean_ep_length=5",
        "video 10 eval/video 2 15",
        "histogram 10 weights/a [1.0]",
        "text 10 config **seed**",
        "video 10 toy/video 1 20",
        "hparams 8: toy/a=0.5 {}",
        "notify done",
    ];
    sinks.iter().for_each(|sink| assert_eq!(*sink.0.lock().unwrap(), expected));
}

/// Whatever the time, rows are due at the first steps at or after multiples of the interval, also of a resumed run.
#[test]
fn rows_are_due_at_multiples_of_the_interval_in_steps() {
    let dir = tempfile::tempdir().unwrap();
    let intervals = Intervals { log_seconds: f64::INFINITY, log_steps: 10, ..Intervals::default() };
    let due = |mut run: Run, steps: &[u64]| {
        let mut due = Vec::new();
        for &step in steps {
            run.progress(step, []).unwrap();
            if run.log_due() {
                due.push(step);
                run.log::<Tag>(step, &[]).unwrap();
            }
        }
        due
    };
    let run = || Run::new(1, 100).with_checkpoints(Checkpoints::new(dir.path(), 1), intervals.clone());
    assert_eq!(due(run(), &[4, 8, 12, 16, 20, 24, 35, 39, 100]), [12, 20, 35, 100]);
    let mut snapshot = snapshot(24, 0.0);
    snapshot.put("run.elapsed_seconds", &1.0);
    snapshot.put("run.episodes", &0);
    snapshot.put("run.window", &Window::default());
    assert_eq!(due(run().with_resume(snapshot).unwrap(), &[28, 32, 36]), [32]);
    let resolved = [100, 1_000_000].map(|steps| Intervals::default().resolve(steps).log_steps);
    assert_eq!(resolved, [1, 5000]);
}

/// The first checkpoint limits the loss if a run is killed early.
#[test]
fn the_first_checkpoint_is_saved_early() {
    let every = |checkpoint_seconds| Intervals { checkpoint_seconds, ..Intervals::default() };
    assert_eq!([60.0, 300.0, 3600.0].map(|s| every(s).until_save(false)), [6.0, 30.0, 30.0]);
    assert_eq!([60.0, 300.0, 3600.0].map(|s| every(s).until_save(true)), [60.0, 300.0, 3600.0]);
}

/// A single high return gives no score.
#[test]
fn a_checkpoint_has_a_score_once_the_window_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = run(dir.path());
    let end = |episode_return| EpisodeEnd { episode_return, length: 1 };
    run.episode(1, end(1000.0)).unwrap();
    save(&mut run, snapshot(1, 0.0)).unwrap();
    (0..Window::LEN).for_each(|_| run.episode(2, end(1.0)).unwrap());
    save(&mut run, snapshot(2, 0.0)).unwrap();
    (0..Window::LEN).for_each(|_| run.episode(3, end(0.5)).unwrap());
    save(&mut run, snapshot(3, 0.0)).unwrap();
    assert_eq!(run.checkpoints.as_ref().unwrap().best().unwrap().snapshot.step, 2);
}

fn never() -> Intervals {
    Intervals { log_seconds: f64::INFINITY, checkpoint_seconds: f64::INFINITY, ..Intervals::default() }
}

#[test]
fn training_continues_to_its_last_step_or_a_request() {
    let (dir, stop) = (tempfile::tempdir().unwrap(), Stop::default());
    let intervals = Intervals { log_steps: 1000, ..never() };
    let run = || Run::new(1, 100).with_checkpoints(Checkpoints::new(dir.path(), 1), intervals.clone());
    let mut first = run().with_stop(stop.clone());
    assert_eq!([0, 99, 100, 101].map(|step| first.should_continue(step).unwrap()), [true, true, false, false]);
    let mut due = |step| {
        first.progress(step, []).unwrap();
        first.log_due()
    };
    assert_eq!([0, 99, 100].map(&mut due), [false, false, true], "the last row of a run");
    stop.request(2);
    assert!(due(5) && !first.should_continue(5).unwrap(), "a request");
    let mut hurried = Run::new(1, 100);
    hurried = hurried.with_checkpoints(Checkpoints::new(dir.path(), 1), Intervals { log_seconds: 0.0, ..intervals });
    assert!(hurried.log_due() && !hurried.wants_histograms());
}

#[test]
fn a_run_has_its_settings_and_its_part_of_the_seeds() {
    let dir = tempfile::tempdir().unwrap();
    let evaluation = EvalConfig { every_steps: 5, ..EvalConfig::default() };
    let run = run(dir.path()).with_evaluation(evaluation.clone());
    assert_eq!((run.seed(), run.rank_seed(), run.steps(), run.evaluation()), (1, 1, 100, &evaluation));
    assert_eq!(run.checkpoint_dir().as_deref(), Some(dir.path()));
    assert_eq!(run.environment_seeds(3, None), resume::environment_seeds(1, 3, None));
    assert!(Run::new(1, 100).checkpoint_dir().is_none());
    assert_eq!(run.distributed(), group::Config::default());
}

/// A new run reports the layers of its network, too; a resumed one has done so before.
#[test]
fn a_resumed_run_continues_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = run(dir.path());
    first.progress(24, [(24, EpisodeEnd { episode_return: 3.0, length: 2 })]).unwrap();
    save(&mut first, snapshot(24, 0.0)).unwrap();
    let saved = first.checkpoints.as_ref().unwrap().latest().unwrap().snapshot;
    assert!(Run::can_resume(&saved) && !Run::can_resume(&snapshot(24, 0.0)));

    let (calls, started) = ([Calls::default(), Calls::default()], Instant::now());
    let mut fresh = Run::new(1, 100).with_sink(calls[0].clone());
    let mut resumed = run(dir.path()).with_sink(calls[1].clone()).with_resume(saved.clone()).unwrap();
    for run in [&mut fresh, &mut resumed] {
        run.network("small", "| layer |").unwrap();
    }
    let reports = calls.map(|calls| calls.0.lock().unwrap().clone());
    assert_eq!(reports, [vec!["notify small", "text 0 network | layer |"], vec!["notify small"]]);
    assert_eq!((resumed.last_checkpoint(), fresh.last_checkpoint()), (Some(24), None));
    assert_eq!((resumed.take_resume(), resumed.take_resume()), (Some(saved), None));
    resumed.progress(34, [(34, EpisodeEnd { episode_return: 5.0, length: 2 })]).unwrap();
    let summary = resumed.summary();
    assert_eq!((summary.step, summary.episodes, summary.mean_reward, summary.evaluated), (34, 2, Some(4.0), None));
    assert!(summary.steps_per_second >= 10.0 / started.elapsed().as_secs_f64() && summary.elapsed >= resumed.before);
    assert!(summary.steps_per_second < 34.0 / 1e-9);
}

#[test]
fn a_checkpoint_is_due_after_its_time_or_an_evaluation() {
    let dir = tempfile::tempdir().unwrap();
    let with = |checkpoint_seconds| {
        let intervals = Intervals { checkpoint_seconds, ..never() };
        Run::new(1, 100).with_checkpoints(Checkpoints::new(dir.path(), 2), intervals)
    };
    assert!(with(0.0).save_due() && !Run::new(1, 100).save_due());
    let mut run = with(1e9).with_evaluation(EvalConfig { every_steps: 10, ..EvalConfig::default() });
    assert!(!run.save_due());
    save(&mut run, snapshot(0, 0.0)).unwrap();
    assert!(run.checkpoints.as_ref().unwrap().list().unwrap().is_empty(), "nothing is saved at step 0");
    for (step, episode_return) in [(10, 7.0), (20, 3.0)] {
        let episodes = vec![EpisodeEnd { episode_return, length: 1 }];
        run.evaluated(step, &Evaluation { episodes, ..Evaluation::default() }).unwrap();
        assert!(run.save_due());
        save(&mut run, snapshot(step, 0.0)).unwrap();
        assert!(!run.save_due() && run.summary().evaluated == Some(episode_return));
    }
    let best = run.checkpoints.as_ref().unwrap().best().unwrap();
    assert_eq!((best.snapshot.step, best.score), (10, Some(7.0)));
}

/// What was trained is saved after any error but one: parameters that are not finite.
#[test]
fn training_that_fails_is_saved_unless_it_diverged() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = run(dir.path());
    let mut finish = |trained: Result<()>, step| {
        let result = run.finish(trained, step, &mut [&mut snapshot(step, 0.0)]);
        (result.map_err(|error| error.to_string()), run.last_checkpoint())
    };
    assert_eq!(finish(Ok(()), 5), (Ok(()), Some(5)));
    assert_eq!(finish(Err(Error::other("an environment failed")), 6), (Err("an environment failed".into()), Some(6)));
    assert_eq!(finish(Err(Error::Diverged("a loss".into())), 7), (Err("a loss".into()), Some(6)));
    let explained = run.explain(Error::Diverged("a loss is NaN".into())).to_string();
    assert!(explained.contains("a loss is NaN") && explained.ends_with("is that of step 6"), "{explained}");
    assert_eq!(run.explain(Error::other("x")).to_string(), "x");
}

/// The time `seconds` ago.
fn ago(seconds: u64) -> Instant {
    Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap()
}

/// 100 steps in two seconds, or, for a run that resumed at step 40, 20 steps in four; its time before counts.
#[test]
fn rates_are_of_the_steps_since_the_last_row_or_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let rows = Rows::default();
    let mut run = run(dir.path()).with_sink(rows.clone());
    run.last_log = (ago(2), 50);
    run.log(150, &[("train/loss", 1.0)]).unwrap();
    run.log(150, &[("train/loss", 1.0)]).unwrap();
    let fps: Vec<_> = rows.0.lock().unwrap().iter().map(|row| row.get("time/fps")).collect();
    assert!(fps.len() == 2 && (40.0..=50.0).contains(&fps[0].unwrap()) && fps[1].is_none(), "{fps:?}");

    (run.start, run.first_step, run.step, run.before) = (ago(4), 40, 60, Duration::from_secs(7));
    let summary = run.summary();
    assert!((4.0..=5.0).contains(&summary.steps_per_second), "{}", summary.steps_per_second);
    assert!((11.0..13.0).contains(&summary.elapsed.as_secs_f64()), "{:?}", summary.elapsed);
}

/// Only losses of training must be finite.
#[test]
fn only_a_loss_that_is_not_finite_is_divergence() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = run(dir.path());
    for (tag, value, fails) in [
        ("train/loss", f64::NAN, true),
        ("train/value_loss", f64::INFINITY, true),
        ("train/loss", 1.0, false),
        ("train/explained_variance", f64::NAN, false),
        ("own/loss", f64::NAN, false),
        ("rollout/ep_rew_mean", f64::INFINITY, false),
    ] {
        assert_eq!(run.log(5, &[(tag, value)]).is_err(), fails, "{tag} {value}");
    }
}

#[test]
fn histograms_are_reported_where_they_are_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let (calls, intervals) = (Calls::default(), Intervals { histograms: true, ..Intervals::default() });
    assert!(!run(dir.path()).wants_histograms());
    let mut run = Run::new(1, 100).with_checkpoints(Checkpoints::new(dir.path(), 1), intervals);
    assert!(run.wants_histograms());
    run = run.with_sink(calls.clone());
    run.histograms(7, &[("a".into(), vec![1.0]), ("b".into(), vec![])]).unwrap();
    assert_eq!(*calls.0.lock().unwrap(), ["histogram 7 a [1.0]", "histogram 7 b []"]);
}

/// The rows of a run.
#[derive(Clone, Default)]
struct Rows(Arc<std::sync::Mutex<Vec<Row>>>);

impl Sink for Rows {
    fn scalars(&mut self, row: &Row) -> Result<()> {
        self.0.lock().unwrap().push(row.clone());
        Ok(())
    }
}
