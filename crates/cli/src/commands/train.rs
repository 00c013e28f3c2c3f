use crate::args::{Playing, Train, Watch};
use crate::commands::watch;
use crate::experiment::Experiment;
use crate::folder::{self, Folder};
use crate::{Registry, signals, suggest};
use playfield_core::run::Summary;
use playfield_core::{Error, Result, Run, Snapshot};
use playfield_wrappers::Factory;
use std::path::Path;
use std::process::ExitCode;
use toml::{Table, Value};

/// `playfield train`.
pub fn train(registry: &Registry, args: &Train) -> Result<ExitCode> {
    // Before Python starts: it leaves alone what it finds handled.
    let stop = signals::listen()?;
    let (experiment, folder, snapshot) = match &args.resume {
        Some(path) => resume(registry, args, path)?,
        None => {
            let experiment = fresh(registry, args)?;
            let name = format!("{}-{}", experiment.algorithm.name, stem(args.config.as_deref()));
            (experiment, Folder::create(args.run_dir.as_deref(), &name)?, None)
        }
    };
    let Experiment { algorithm, steps, seed, intervals, env, source, settings } = &experiment;
    let (path, resumed_at) = (folder.path().to_path_buf(), snapshot.as_ref().map(|s| s.step));

    let prepared = (|| {
        let factory = Factory::new(source.clone(), env.clone())?;
        if resumed_at.is_none() {
            folder.write_config(&experiment.to_table()?)?;
        }
        folder.note_command()?;
        let mut run = Run::new(*seed, *steps)
            .with_stop(stop.clone())
            .with_checkpoints(folder.checkpoints(intervals.keep_checkpoints), intervals.clone());
        for sink in playfield_log::run_folder_sinks(&path, resumed_at)? {
            run = run.with_sink(sink);
        }
        run = run.with_sink(playfield_log::Console::new(*steps, resumed_at.unwrap_or(0)));
        if let Some(snapshot) = snapshot {
            run = run.with_resume(snapshot)?;
        }
        Ok((factory, run))
    })();
    let trained = prepared.and_then(|(factory, mut run)| {
        eprintln!("{} on {} into {}, {}", algorithm.name, env.id, path.display(), progress(resumed_at, *steps));
        (algorithm.train)(settings, &factory, &mut run)?;
        Ok(run.summary())
    });
    let summary = match trained {
        Ok(summary) => summary,
        Err(error) => {
            if resumed_at.is_none() {
                folder.discard_if_untouched();
            }
            return Err(error);
        }
    };
    report(&summary, *steps, &path);
    if args.gif && summary.step >= *steps {
        let (run, device) = (path.clone(), args.device.clone());
        let playing = Playing { seed: 0, deterministic: true, best: false };
        let film = Watch { run, gif: None, seconds: 60, playing, device };
        watch(registry, &film)?;
    }
    Ok(stop.requested().map_or(ExitCode::SUCCESS, |signal| ExitCode::from(128 + signal as u8)))
}

/// A new experiment, from the file and what was typed after it.
fn fresh(registry: &Registry, args: &Train) -> Result<Experiment> {
    let path = args.config.as_deref().expect("clap asks for it");
    if !path.exists() {
        return Err(Error::config(format!("there is no file {}{}", path.display(), neighbour(path))));
    }
    let mut table = folder::read_toml(path)?;
    let typed = [
        ("env.id", args.env.clone().map(|id| Value::from(id).to_string())),
        ("seed", args.seed.map(|n| n.to_string())),
        ("steps", args.steps.map(|n| n.to_string())),
        ("device", args.device.clone()),
    ];
    let typed = typed.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value?)));
    let sets: Vec<_> = args.set.iter().cloned().chain(typed).collect();
    Experiment::new(std::mem::take(&mut table), &sets, registry)
}

/// The run in `path`, its experiment and where it stood.
fn resume(registry: &Registry, args: &Train, path: &Path) -> Result<(Experiment, Folder, Option<Snapshot>)> {
    let folder = Folder::open(path)?;
    let mut table: Table = folder::settings(path)?;
    let before = table.clone();
    if let Some(steps) = args.steps {
        table.insert("steps".into(), Value::Integer(steps as i64));
    }
    if let Some(device) = &args.device {
        table.insert("device".into(), device.clone().into());
    }
    let changed = table != before;
    let experiment = Experiment::new(table, &[], registry)?;
    let loaded = folder.checkpoints(experiment.intervals.keep_checkpoints).latest()?;
    for (path, reason) in &loaded.skipped {
        eprintln!("warning: {} is not whole and is passed over: {reason}", path.display());
    }
    let (at, steps) = (loaded.snapshot.step, experiment.steps);
    if at >= steps {
        return Err(Error::config(format!(
            "{} has done its {steps} steps (it stands at {at}): go on to more with --steps N",
            path.display()
        )));
    }
    if changed {
        folder.write_config(&experiment.to_table()?)?;
    }
    if !loaded.skipped.is_empty() {
        eprintln!("going on from {}", loaded.path.display());
    }
    Ok((experiment, folder, Some(loaded.snapshot)))
}

fn progress(resumed_at: Option<u64>, steps: u64) -> String {
    match resumed_at {
        Some(at) => format!("from step {at} to {steps}"),
        None => format!("{steps} steps"),
    }
}

/// The name of a file without its ending.
fn stem(config: Option<&Path>) -> String {
    config.and_then(Path::file_stem).map(|s| s.to_string_lossy().into_owned()).unwrap_or_else(|| "run".into())
}

/// The file beside `path` whose name is closest.
fn neighbour(path: &Path) -> String {
    let name = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| name(&e.path())).collect();
    let tomls = names.iter().map(String::as_str).filter(|n| n.ends_with(".toml"));
    suggest::hint(&name(path), tomls)
}

fn report(summary: &Summary, steps: u64, path: &Path) {
    let minutes = summary.elapsed.as_secs_f64() / 60.0;
    let path = path.display();
    println!("steps      {} of {steps}", summary.step);
    println!("speed      {:.0} steps/s, {minutes:.1} minutes in all", summary.steps_per_second);
    match summary.mean_reward {
        Some(mean) => println!("return     {mean:.2}, mean of the last {} episodes", summary.episodes.min(100)),
        None => println!("return     no episode has ended yet"),
    }
    println!("run        {path}");
    if summary.step < steps {
        println!("go on      playfield train --resume {path}");
    }
    println!("play       playfield eval {path} --episodes 30 --deterministic");
    println!("watch      playfield watch {path}");
    println!("look       tensorboard --logdir {path}");
}
