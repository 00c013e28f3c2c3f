use crate::args::{Playing, Train, Watch};
use crate::commands::seeds;
use crate::commands::watch::record_video;
use crate::experiment::Experiment;
use crate::folder::{self, Folder};
use crate::output::{note, out};
use crate::ranks::{self, Job};
use crate::{Registry, paths, signals, suggest, trust};
use playfield_core::checkpoint::Loaded;
use playfield_core::run::{Stop, Summary};
use playfield_core::text::thousands;
use playfield_core::{Error, Group, Result, Run, Snapshot, checkpoint, resume};
use playfield_log::duration;
use playfield_wrappers::Factory;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use toml::{Table, Value};

/// `playfield train`.
pub fn train(registry: &Registry, args: &Train) -> Result<ExitCode> {
    let group = args.resume.as_deref().filter(|path| folder::is_group(path));
    // Before Python starts, which keeps existing signal handlers.
    let several = args.seeds.is_some() || group.is_some();
    let stop = signals::listen(if several { "each run finishes its update and saves" } else { signals::SAVES })?;
    if std::env::var("WORLD_SIZE").is_ok_and(|size| size.trim() != "1") && several {
        return Err(Error::config("--seeds starts a process for each seed: train one seed in several processes"));
    }
    match (args.seeds, group) {
        (_, Some(_)) if args.gif => return Err(Error::config("--gif records one run: give the folder of one seed")),
        (_, Some(path)) => return seeds::resume(registry, path, args, &stop),
        (Some(count), None) => return seeds::start(&fresh(registry, args)?, count, args, &stop),
        (None, None) if args.jobs.is_some() => return Err(Error::config("--jobs is for several runs: give --seeds N")),
        (None, None) => {}
    }
    let group = ranks::join()?;
    let trained = train_rank(registry, args, &stop, &group);
    match &trained {
        Err(Error::Group { .. }) | Ok(_) => {}
        Err(error) => group.leave(&error.to_string()),
    }
    trained
}

/// Trains one run, as one rank of `group`. Rank 0 writes the folder of the run and prints the results.
fn train_rank(registry: &Registry, args: &Train, stop: &Stop, group: &Arc<dyn Group>) -> Result<ExitCode> {
    let (job, folder) = match (group.rank(), &args.resume) {
        (0, Some(path)) => resume_run(registry, args, path).map(|(job, folder)| (job, Some(folder)))?,
        (0, None) => {
            let experiment = fresh(registry, args)?;
            let folder = Folder::create(args.run_dir.as_deref(), &paths::absolute("runs"), &experiment.name())?;
            (Job { experiment, folder: folder.path().to_path_buf(), checkpoint: None }, Some(folder))
        }
        (_, resumed) => {
            let own = if resumed.is_some() { None } else { Some(fresh(registry, args)?) };
            (ranks::receive(registry, &**group, own)?, None)
        }
    };
    let sent = if folder.is_some() { ranks::send(&**group, &job) } else { Ok(()) };
    let Job { mut experiment, folder: path, checkpoint } = job;
    let (algorithm, steps, seed, intervals) =
        (experiment.algorithm, experiment.steps, experiment.seed, experiment.intervals.clone());
    let checkpoints = folder::checkpoints(&path, intervals.keep_checkpoints);
    let resumed_at = args.resume.is_some().then(|| checkpoint.as_ref().map_or(0, |(snapshot, _)| snapshot.step));

    let prepared = sent.and_then(|()| {
        let factory = Factory::new(experiment.source.clone(), experiment.env.clone())?;
        if args.gif && !factory.renders()? {
            return Err(Error::config(format!("--gif: {} does not support rendering", experiment.env.id)));
        }
        // Resolved before training, so that the saved settings contain every value that is used.
        experiment.configured.resolve(steps, &factory)?;
        experiment.env = factory.config().clone();
        let mut run = Run::new(seed, steps).with_stop(stop.clone()).with_group(group.clone(), experiment.distributed);
        run = run.with_checkpoints(checkpoints.clone(), intervals.clone());
        run = run.with_evaluation(experiment.evaluation.clone());
        if let Some(folder) = &folder {
            if resumed_at.is_none() {
                folder.write_config(&experiment.to_table()?)?;
            }
            folder.append_session()?;
            for sink in playfield_log::run_folder_sinks(&path, resumed_at)? {
                run = run.with_sink(sink);
            }
            run = run.with_sink(playfield_log::Console::new(steps, resumed_at.unwrap_or(0)));
        }
        if let Some((snapshot, parts)) = checkpoint {
            if parts.len() + 1 != group.world_size() {
                run.notify(&format!(
                    "warning: the checkpoint is of {} processes, and this run has {}: environments start new episodes, random \
                     streams have new seeds, and a replay buffer is empty",
                    parts.len() + 1,
                    group.world_size()
                ));
            }
            run = run.with_resume(resume::snapshot_of_rank(snapshot, &parts, &**group, seed))?;
        }
        Ok((experiment, factory, run))
    });
    let trained = prepared.and_then(|(experiment, factory, mut run)| {
        if group.rank() == 0 {
            note!(
                "{} on {} into {}, {}{}",
                algorithm.name,
                experiment.env.id,
                paths::shown(&path),
                progress(resumed_at, steps),
                if group.is_distributed() { format!(", {} processes", group.world_size()) } else { String::new() }
            );
        }
        let settings = experiment.to_table()?;
        if resumed_at.is_none() {
            run.text(0, "config", &format!("```toml\n{settings}```"))?;
        }
        let trained = experiment.configured.train(&factory, &mut run).and_then(|policy| {
            let Summary { mean_reward, evaluated, .. } = run.summary();
            let metrics = [("rollout/ep_rew_mean", mean_reward), ("eval/mean_reward", evaluated)];
            let metrics: Vec<_> = metrics.into_iter().filter_map(|(tag, value)| Some((tag, value?))).collect();
            run.hparams(&settings, &metrics).map(|()| policy)
        });
        let (summary, saved) = (run.summary(), run.last_checkpoint());
        // Makes the console print its last line.
        drop(run);
        let saved_here = saved.filter(|_| group.rank() == 0 && summary.step > resumed_at.unwrap_or(0));
        if let (Err(_), Some(step)) = (&trained, saved_here) {
            note!(
                "step {} is saved; to resume from there: {} train --resume {}",
                thousands(step),
                paths::program(),
                paths::shown(&path)
            );
        }
        trained.map(|_policy| (summary, saved, factory.renders().unwrap_or(false)))
    });
    let (summary, saved, renders) = match trained {
        Ok(trained) => trained,
        Err(error) => {
            if let (Some(folder), None) = (folder, resumed_at) {
                folder.discard_if_untouched();
            }
            return Err(error);
        }
    };
    let exit_code = stop.requested().map_or(ExitCode::SUCCESS, |signal| ExitCode::from(128 + signal as u8));
    if group.rank() > 0 {
        return Ok(exit_code);
    }
    report(&summary, steps, &path, saved.map(|step| checkpoints.path(step)).as_deref(), renders);
    if args.gif && summary.step >= steps {
        let (run, device) = (path.clone(), args.device.clone());
        let playing = Playing { seed: 0, deterministic: true, best: false };
        let recording = Watch { run, video: None, overlay: false, seconds: 60, playing, device };
        // Training is complete and saved, so a failed recording is not an error.
        match record_video(registry, &recording, stop) {
            Ok(path) => out!("video      {}", paths::shown(&path)),
            Err(error) => note!("no video: {error}"),
        }
    }
    Ok(exit_code)
}

/// A new experiment: the configuration file, overridden by the arguments.
pub fn fresh(registry: &Registry, args: &Train) -> Result<Experiment> {
    let path = args.config.as_deref().expect("clap requires it without --resume");
    if !path.exists() {
        return Err(Error::config(format!(
            "file not found: {}{}",
            paths::shown(path),
            suggest::neighbor(path, |path| path.extension().is_some_and(|e| e == "toml"))
        )));
    }
    let table = folder::read_toml(path)?;
    let overrides = [
        ("env.id", args.env.clone().map(|id| Value::from(id).to_string())),
        ("seed", args.seed.map(|n| n.to_string())),
        ("steps", args.steps.map(|n| n.to_string())),
        ("device", args.device.clone()),
    ];
    let overrides = overrides.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value?)));
    let sets: Vec<_> = args.set.iter().cloned().chain(overrides).collect();
    let experiment = Experiment::new(table.clone(), &sets, registry);
    let experiment = experiment.map_err(|error| match Experiment::new(table, &[], registry) {
        // An error of the file, whatever the arguments are.
        Err(Error::Config(same)) if same == error.to_string() => {
            Error::config(format!("{}: {same}", paths::shown(path)))
        }
        _ => error,
    })?;
    trust::remember(&experiment.env.id);
    Ok(experiment)
}

/// The experiment and the folder of the run in `path`, and its latest checkpoint. Without a checkpoint training restarts at step 0.
fn resume_run(registry: &Registry, args: &Train, path: &Path) -> Result<(Job, Folder)> {
    let folder = Folder::open(path)?;
    let mut table: Table = registry.run_settings(path)?;
    let before = table.clone();
    let mut extension = None;
    if let Some(steps) = args.steps {
        let before = table.insert("steps".into(), Value::Integer(steps as i64));
        extension = before.and_then(|steps| steps.as_integer()).map(|before| (before as u64, steps));
    }
    if let Some(device) = &args.device {
        table.insert("device".into(), device.clone().into());
    }
    let changed = table != before;
    let mut experiment = Experiment::new(table, &[], registry)?;
    if let Some((before, steps)) = extension {
        experiment.configured.extend(before, steps);
    }
    let checkpoints = folder.checkpoints(experiment.intervals.keep_checkpoints);
    let loaded = match checkpoints.list()?.is_empty() {
        true => None,
        false => Some(checkpoints.latest()?),
    };
    if loaded.is_none() {
        note!("{} has no checkpoint: it starts at step 0 again", paths::shown(path));
    }
    if let Some(loaded) = &loaded {
        for (path, reason) in &loaded.skipped {
            note!("warning: skipped the checkpoint {}: {reason}", paths::shown(path));
        }
        let (path, at, steps) = (paths::shown(path), loaded.snapshot.step, experiment.steps);
        if !Run::can_resume(&loaded.snapshot) {
            return Err(Error::config(format!(
                "{path} contains a distilled student, not a training run, and cannot be resumed; evaluate it with {} eval {path}",
                paths::program()
            )));
        }
        if at >= steps {
            return Err(Error::config(format!(
                "{path} is at step {}: to continue training, give --steps more than that (not {})",
                thousands(at),
                thousands(steps)
            )));
        }
    }
    if changed {
        folder.write_config(&experiment.to_table()?)?;
    }
    let parts = |loaded: Loaded| Ok((loaded.snapshot, checkpoint::read_with_parts(&loaded.path)?.1));
    let checkpoint: Option<(Snapshot, Vec<Snapshot>)> = loaded.map(parts).transpose()?;
    Ok((Job { experiment, folder: folder.path().to_path_buf(), checkpoint }, folder))
}

fn progress(resumed_at: Option<u64>, steps: u64) -> String {
    match resumed_at {
        Some(at) => format!("from step {} to {}", thousands(at), thousands(steps)),
        None => format!("{} steps", thousands(steps)),
    }
}

fn report(summary: &Summary, steps: u64, path: &Path, checkpoint: Option<&Path>, renders: bool) {
    let (program, path) = (paths::program(), paths::shown(path));
    out!("steps      {} of {}", thousands(summary.step), thousands(steps));
    out!(
        "speed      {} steps/s, {} in total",
        thousands(summary.steps_per_second.round() as u64),
        duration(summary.elapsed)
    );
    match summary.mean_reward {
        Some(mean) => out!("return     {mean:.2}, mean of the last {} episodes", summary.episodes.min(100)),
        None => out!("return     no finished episode"),
    }
    out!("run        {path}");
    if let Some(checkpoint) = checkpoint {
        out!("checkpoint {}", paths::shown(checkpoint));
    }
    if summary.step < steps {
        out!("resume     {program} train --resume {path}");
    }
    out!("evaluate   {program} eval {path} --episodes 30 --deterministic");
    if renders {
        out!("watch      {program} watch {path}");
    }
    out!("metrics    {program} board {path}");
}
