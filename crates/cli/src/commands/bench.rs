use crate::machine;
use crate::output::out;
use playfield_core::{ActionSpace, Dtype, EnvSpec, Result};
use playfield_nn::config::{Kernels, NetworkConfig, Precision, TorsoKind, native_bf16};
use playfield_nn::{Pass, dispatch, resolve, timing};
use std::process::ExitCode;
use std::time::Duration;

/// Passes of each measurement; the shortest counts.
const REPETITIONS: usize = 5;

/// `playfield doctor --bench`: the torsos on Atari's observations, forward (acting) and forward and backward (learning).
pub fn bench() -> Result<ExitCode> {
    let spec = EnvSpec::new("frames", &[84, 84], Dtype::U8, ActionSpace::Discrete { n: 6 }).with_frame_stack(4);
    out!("{}\n", machine::describe());
    out!("Microseconds per observation of 84 × 84 × 4, one thread. The observations are noise:");
    out!("real ones have equal windows, which the own kernels compute once. A run times both by its own.\n");
    out!("                                    own kernels           libtorch");
    out!("torso   batch size  pass             bf16     fp32     bf16     fp32   auto");
    for torso in [TorsoKind::Nips, TorsoKind::Nature, TorsoKind::Impala] {
        let config = NetworkConfig { torso, ..NetworkConfig::default() };
        let auto = resolve(&config, &spec, "cpu")?.0.precision;
        let name = format!("{torso:?}").to_lowercase();
        for n in [1, 8, 32, 128] {
            for (pass, label) in [(Pass::Infer, "forward"), (Pass::Train, "and backward")] {
                let time = |kernels, precision| {
                    // Without instructions for it, bf16 is emulated and never chosen.
                    if precision == Precision::Bf16 && !native_bf16() {
                        return Ok(None);
                    }
                    let config = NetworkConfig { precision, kernels, ..config.clone() };
                    timing::time(&config, &spec, n, pass, REPETITIONS)
                };
                let of = |precision| Ok([time(Kernels::Own, precision)?, time(Kernels::Libtorch, precision)?]);
                let [bf16, fp32]: [[Option<Duration>; 2]; 2] = [of(Precision::Bf16)?, of(Precision::Fp32)?];
                let (measured, precision) = if auto == Precision::Bf16 { (bf16, "bf16") } else { (fp32, "fp32") };
                let path = match measured {
                    [Some(own), Some(libtorch)] if dispatch::prefers_first(own, libtorch) => "own",
                    _ => "libtorch",
                };
                let cell = |duration: Option<Duration>| {
                    duration.map_or("-".into(), |duration| format!("{:.1}", duration.as_secs_f64() * 1e6 / n as f64))
                };
                let [own_bf16, own_fp32, bf16, fp32] = [bf16[0], fp32[0], bf16[1], fp32[1]].map(cell);
                out!("{name:<8}{n:>10}  {label:<13}{own_bf16:>8}{own_fp32:>9}{bf16:>9}{fp32:>9}   {path} {precision}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
