//! A description of a network, for the start of a run.

use super::config::{Kernels, NetworkConfig, NormKind, TorsoKind};
use super::feature_extractor::FeatureExtractor;
use crate::params::Params;
use playfield_core::EnvSpec;
use playfield_core::text::thousands;
use std::fmt::Write as _;
use tch::{Device, Kind};

/// What a network consists of and how it computes.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Feature extractor, observations, number of parameters, precision and kernels, in two lines.
    pub text: String,
    /// The parameters of each layer and their shapes, a table in Markdown.
    pub layers: String,
}

/// The summary of a network of `config`, resolved for `spec`.
pub(super) fn summary(config: &NetworkConfig, spec: &EnvSpec, params: &Params, torso: &FeatureExtractor) -> Summary {
    let extractor = match config.torso {
        TorsoKind::Mlp => format!("mlp {:?}", config.hidden),
        other if spec.parts.is_empty() => format!("{other:?}").to_lowercase(),
        other => format!("{}, mlp {:?}", format!("{other:?}").to_lowercase(), config.hidden),
    };
    let norm = match config.norm {
        NormKind::None => String::new(),
        norm => format!(", {} norm", format!("{norm:?}").to_lowercase()),
    };
    let lstm = if config.lstm_width() > 0 { format!(", LSTM {}", config.lstm_width()) } else { String::new() };
    let separate = if config.shared { "" } else { ", separate for policy and value" };
    let frames = if spec.frame_stack > 1 { format!("{} frames of ", spec.frame_stack) } else { String::new() };
    let observation = match spec.parts.len() {
        0 => spec.observation_text(),
        parts => format!("{parts} parts ({} bytes)", thousands(spec.frame_len() as u64)),
    };
    let precision = if params.precision() == Kind::BFloat16 { "bf16" } else { "fp32" };
    let device = match params.master().device() {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".into(),
    };
    let kernels = match (torso.has_own_kernels(), config.kernels) {
        (false, _) | (true, Kernels::Libtorch) => "kernels of libtorch",
        (true, Kernels::Own) => "own kernels",
        (true, Kernels::Auto) => "own or libtorch's kernels, timed",
    };
    let count = thousands(params.count() as u64);
    let text = format!(
        "network    {extractor}{norm}{lstm}{separate} on {frames}{observation}\n           {count} parameters, {precision} on {device}, {kernels}"
    );
    let mut layers = "| parameter | shape | elements |\n|---|---|---|\n".to_string();
    for (name, shape) in params.shapes() {
        let _ = writeln!(layers, "| `{name}` | {shape:?} | {} |", thousands(shape.iter().product::<i64>() as u64));
    }
    let _ = writeln!(layers, "| total | | {count} |\n\nComputes in {precision} on {device}, with {kernels}.");
    Summary { text, layers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Precision;
    use crate::{ActorCritic, QConfig, QNetwork};
    use playfield_core::{ActionSpace, Dtype, rng};

    #[test]
    fn a_summary_has_the_layers_and_the_number_of_parameters() {
        let spec = EnvSpec::new("x", &[4], Dtype::F32, ActionSpace::Discrete { n: 2 });
        let config = NetworkConfig { hidden: vec![8, 8], torso: TorsoKind::Mlp, ..NetworkConfig::default() };
        let net = ActorCritic::new(&config, &spec, "cpu", &mut rng::stream(1, "init")).unwrap();
        let Summary { text, layers } = net.summary(&config, &spec);
        // 4·8 + 8, 8·8 + 8, 8·2 + 2, 8 + 1.
        assert_eq!(
            text,
            "network    mlp [8, 8] on f32[4]\n           139 parameters, fp32 on cpu, kernels of libtorch"
        );
        for row in ["| `torso.fc1.weight` | [8, 4] | 32 |", "| `value.bias` | [1] | 1 |", "| total | | 139 |"] {
            assert!(layers.contains(row), "{row}: {layers}");
        }
    }

    #[test]
    fn each_line_of_a_summary_fits_a_terminal() {
        let spec = EnvSpec::new("x", &[84, 84], Dtype::U8, ActionSpace::Discrete { n: 18 }).with_frame_stack(4);
        let precision = Precision::Fp32;
        let config = NetworkConfig { torso: TorsoKind::Nature, lstm: 256, precision, ..NetworkConfig::default() };
        let net = ActorCritic::new(&config, &spec, "cpu", &mut rng::stream(1, "init")).unwrap();
        let text = net.summary(&config, &spec).text;
        assert!(text.starts_with("network    nature, LSTM 256 on 4 frames of u8[84, 84]\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let (config, q) = (NetworkConfig { lstm: 0, ..config }, QConfig { dueling: false, noisy_sigma: 0.0, atoms: 1 });
        let net = QNetwork::new(&config, q, &spec, "cpu", &mut rng::stream(1, "init")).unwrap();
        assert!(net.summary(&config, &spec).text.contains("1,693,362 parameters, fp32 on cpu, "));
    }
}
