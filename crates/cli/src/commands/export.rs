use crate::args::{Export, ExportFormat};
use crate::commands::agent::Agent;
use crate::output::out;
use crate::{Registry, paths, signals};
use playfield_core::text::thousands;
use playfield_core::{EnvFactory as _, Error, Result};
use playfield_export::{Format, Model, Origin};
use std::process::ExitCode;

/// `playfield export`.
pub fn export(registry: &Registry, args: &Export) -> Result<ExitCode> {
    let stop = signals::listen("no policy is written")?;
    let agent = Agent::open(registry, &args.run, Some("cpu"), args.best)?;
    let (policy, normalizer) = (agent.policy(0, "export")?, agent.normalizer()?);
    let origin = Origin {
        algorithm: agent.experiment.algorithm.name,
        step: agent.snapshot.step,
        score: agent.score,
        env: &agent.experiment.env,
        spec: agent.factory.spec(),
        normalizer: normalizer.as_ref(),
    };
    let format = match args.format {
        ExportFormat::Onnx => Format::Onnx,
        ExportFormat::TorchScript => Format::TorchScript,
        ExportFormat::SafeTensors => Format::SafeTensors,
    };
    let default = || args.run.join(format!("policy-{:012}.{}", agent.snapshot.step, format.suffix()));
    let path = args.out.clone().unwrap_or_else(default);
    if path.file_name().is_none() || path.is_dir() {
        return Err(Error::config(format!("--out {} is a folder: name a file", paths::shown(&path))));
    }
    let model = Model::new(&*policy, origin)?;
    if let Some(signal) = stop.requested() {
        return Ok(ExitCode::from(128 + signal as u8));
    }
    model.write(format, &path)?;
    let shown = paths::shown(&path);
    out!("policy     {shown}, of {} at step {}", paths::shown(&args.run), thousands(agent.snapshot.step));
    out!("card       {shown}.md");
    out!("\nRun it in Python:\n\n{}", model.snippet(format, &shown).trim_end());
    Ok(ExitCode::SUCCESS)
}
