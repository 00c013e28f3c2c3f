//! The observation space and the action space of an environment.

use crate::{ActionSpace, Dtype};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// One part of an observation that has several ([`EnvSpec::of_parts`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name: the key of a Dict, or the index in a Tuple.
    pub name: String,
    /// `[height, width]` or `[height, width, channels]` of an image, `[len]` of a vector.
    pub shape: Vec<usize>,
    /// [`Dtype::U8`] for an image, [`Dtype::F32`] for a vector.
    pub dtype: Dtype,
}

impl Part {
    /// An image of `channels` channels, or of one without an axis for it where that is 1.
    pub fn image(name: impl Into<String>, height: usize, width: usize, channels: usize) -> Self {
        let mut shape = vec![height, width];
        shape.extend((channels > 1).then_some(channels));
        Self { name: name.into(), shape, dtype: Dtype::U8 }
    }

    /// A vector of `len` elements.
    pub fn vector(name: impl Into<String>, len: usize) -> Self {
        Self { name: name.into(), shape: vec![len], dtype: Dtype::F32 }
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The number of bytes in an observation.
    pub fn bytes(&self) -> usize {
        self.elements() * if self.dtype == Dtype::F32 { size_of::<f32>() } else { 1 }
    }
}

/// The spaces of an environment: plain data, saved with every checkpoint and compared when one is loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnvSpec {
    /// The environment's id, as in a configuration file: `"ALE/Pong-v5"`, `"CartPole"`.
    pub id: String,
    /// The shape of *one* frame or vector, before frame stacking: `[84, 84]`, `[4]`. Color channels are the last axis. Of an
    /// observation with several parts: its number of bytes.
    pub shape: Vec<usize>,
    /// The element type of an observation.
    pub dtype: Dtype,
    /// How many of the last frames are stacked into one observation (1: only the newest).
    pub frame_stack: usize,
    /// The action space.
    pub actions: ActionSpace,
    /// The names of discrete actions where they have any (`"NOOP"`, `"FIRE"`, …); else empty.
    #[serde(default)]
    pub action_names: Vec<String>,
    /// Whether the environment states which discrete actions are valid ([`Env::action_mask`](crate::Env::action_mask)).
    #[serde(default)]
    pub action_mask: bool,
    /// The parts of an observation that has several ([`of_parts`](Self::of_parts)); else empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

impl EnvSpec {
    /// An environment that observes one frame (or vector) of `shape` at a time, and whose actions have no names.
    pub fn new(id: impl Into<String>, shape: &[usize], dtype: Dtype, actions: ActionSpace) -> Self {
        Self {
            id: id.into(),
            shape: shape.to_vec(),
            dtype,
            frame_stack: 1,
            actions,
            action_names: Vec::new(),
            action_mask: false,
            parts: Vec::new(),
        }
    }

    /// An environment whose observations have several parts, of which at least one is an image. An observation is
    /// `u8[bytes]`, so that pixels stay bytes until the network reads them: the parts one after the other, four bytes
    /// (little-endian) for each element of a vector ([`ObsMut::write_parts`](crate::ObsMut::write_parts)).
    pub fn of_parts(id: impl Into<String>, parts: Vec<Part>, actions: ActionSpace) -> Self {
        let bytes = parts.iter().map(Part::bytes).sum();
        Self { parts, ..Self::new(id, &[bytes], Dtype::U8, actions) }
    }

    /// The parts with their bytes in an observation before frame stacking.
    pub fn part_ranges(&self) -> impl Iterator<Item = (&Part, Range<usize>)> {
        self.parts.iter().scan(0, |end, part| {
            let start = std::mem::replace(end, *end + part.bytes());
            Some((part, start..*end))
        })
    }

    /// The same environment, which observes only `part`.
    #[must_use]
    pub fn of_part(&self, part: &Part) -> Self {
        Self { shape: part.shape.clone(), dtype: part.dtype, parts: Vec::new(), ..self.clone() }
    }

    /// The type and shape of an observation before frame stacking: `u8[84, 84]`, `image u8[84, 84] + position f32[2]`.
    pub fn observation_text(&self) -> String {
        let text = |dtype, shape: &[usize]| format!("{}{shape:?}", if dtype == Dtype::U8 { "u8" } else { "f32" });
        if self.parts.is_empty() {
            return text(self.dtype, &self.shape);
        }
        let parts = self.parts.iter().map(|part| format!("{} {}", part.name, text(part.dtype, &part.shape)));
        parts.collect::<Vec<_>>().join(" + ")
    }

    /// The same environment, whose last `frame_stack` frames make one observation.
    #[must_use]
    pub fn with_frame_stack(self, frame_stack: usize) -> Self {
        Self { frame_stack, ..self }
    }

    /// The same environment, whose discrete actions have these names.
    #[must_use]
    pub fn with_action_names<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        Self { action_names: names.into_iter().map(Into::into).collect(), ..self }
    }

    /// The same environment, which states which actions are valid.
    #[must_use]
    pub fn with_action_mask(self) -> Self {
        Self { action_mask: true, ..self }
    }

    /// The number of elements of one action mask: the choices of all components of an action; 0 where every action is always valid.
    pub fn mask_len(&self) -> usize {
        if self.action_mask { self.actions.sizes().iter().sum() } else { 0 }
    }

    /// The number of elements of one frame or vector.
    pub fn frame_len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The number of elements of one observation: `frame_len · frame_stack`.
    pub fn obs_len(&self) -> usize {
        self.frame_len() * self.frame_stack
    }

    /// The index of the action called `name`, if there is one.
    pub fn action_named(&self, name: &str) -> Option<usize> {
        self.action_names.iter().position(|n| n == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_masks_and_names_of_actions() {
        let discrete = EnvSpec::new("t", &[4, 5], Dtype::U8, ActionSpace::Discrete { n: 3 });
        assert_eq!((discrete.frame_len(), discrete.obs_len(), discrete.mask_len()), (20, 20, 0));
        let stacked = discrete.clone().with_frame_stack(4).with_action_mask().with_action_names(["NOOP", "FIRE", "UP"]);
        assert_eq!((stacked.frame_len(), stacked.obs_len(), stacked.mask_len()), (20, 80, 3));
        assert_eq!(["NOOP", "UP", "DOWN"].map(|name| stacked.action_named(name)), [Some(0), Some(2), None]);
        let multi = EnvSpec { actions: ActionSpace::MultiDiscrete { sizes: vec![2, 4] }, ..stacked };
        assert_eq!(multi.mask_len(), 6);
        let continuous = ActionSpace::Box { low: vec![0.0], high: vec![1.0] };
        assert_eq!(EnvSpec { actions: continuous, ..multi }.mask_len(), 0);
        assert_eq!(discrete.action_named("NOOP"), None);
    }

    /// An image without and with an axis for channels, a vector, and the environment that observes one of them.
    #[test]
    fn parts_have_shapes_and_bytes() {
        let parts = [Part::image("a", 2, 3, 1), Part::image("b", 2, 3, 3), Part::vector("c", 5)];
        assert_eq!(parts.each_ref().map(|part| part.shape.clone()), [vec![2, 3], vec![2, 3, 3], vec![5]]);
        assert_eq!(parts.each_ref().map(|part| (part.elements(), part.bytes())), [(6, 6), (18, 18), (5, 20)]);
        let actions = ActionSpace::Discrete { n: 2 };
        let spec = EnvSpec::of_parts("t", parts.to_vec(), actions).with_frame_stack(2).with_action_mask();
        let ranges: Vec<_> = spec.part_ranges().map(|(_, range)| range).collect();
        assert_eq!((spec.frame_len(), spec.dtype, ranges), (44, Dtype::U8, vec![0..6, 6..24, 24..44]));
        let vector = spec.of_part(&parts[2]);
        assert_eq!((vector.shape, vector.dtype, vector.parts), (vec![5], Dtype::F32, vec![]));
        assert_eq!((vector.frame_stack, vector.action_mask, vector.id.as_str()), (2, true, "t"));
    }
}
