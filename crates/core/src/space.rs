//! Action spaces, and actions as plain buffers.

use crate::rng::Rng;
use crate::{Error, Result};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

/// An action space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActionSpace {
    /// One of `n` actions, 0 to `n - 1`.
    Discrete {
        /// The number of actions.
        n: usize,
    },
    /// Several choices at once: component `i` is one of `sizes[i]`, 0 to `sizes[i] - 1`. A vector of bits is one of two each.
    MultiDiscrete {
        /// The number of choices of each component.
        sizes: Vec<usize>,
    },
    /// A vector with bounds for each dimension. An environment only receives vectors within the bounds.
    ///
    /// A policy acts in [−1, 1], independently of the bounds. Where both bounds of a dimension are finite, the action is clipped
    /// to [−1, 1] and mapped linearly onto [low, high]. Where a bound is infinite, the action is not scaled, only clipped to the
    /// other one. [`to_bounds`](Self::to_bounds) implements this for every environment. Learners store the unclipped action and
    /// its log-probability.
    Box {
        /// The lower bound of each dimension.
        low: Vec<f32>,
        /// The upper bound of each dimension.
        high: Vec<f32>,
    },
}

impl ActionSpace {
    /// The number of choices of each discrete component: one number for [`Discrete`](Self::Discrete), none for [`Box`](Self::Box).
    pub fn sizes(&self) -> &[usize] {
        match self {
            Self::Discrete { n } => std::slice::from_ref(n),
            Self::MultiDiscrete { sizes } => sizes,
            Self::Box { .. } => &[],
        }
    }

    /// Whether it has no dimension, or a component without a choice: there is nothing to decide.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Box { low, .. } => low.is_empty(),
            _ => self.sizes().is_empty() || self.sizes().contains(&0),
        }
    }

    /// Converts a policy's actions, `n · dim` elements, into those that environments execute: see [`Box`](Self::Box). Elements
    /// that are not finite are unchanged, and refused by [`Actions::check`].
    pub fn to_bounds(&self, actions: &mut [f32]) {
        let Self::Box { low, high } = self else { return };
        for (action, (&low, &high)) in actions.iter_mut().zip(low.iter().zip(high).cycle()) {
            if action.is_finite() {
                *action = if low.is_finite() && high.is_finite() {
                    let (low, high) = (f64::from(low), f64::from(high));
                    let unit = f64::from(action.clamp(-1.0, 1.0));
                    (f64::midpoint(low, high) + unit * (high - low) / 2.0) as f32
                } else {
                    *action
                };
                *action = action.max(low).min(high);
            }
        }
    }
}

/// A random action of `n`, uniformly from those that are valid by `mask`; from all where `mask` is empty.
///
/// # Panics
/// If none is valid: environments are checked for that.
pub fn random_action(n: usize, mask: &[bool], rng: &mut Rng) -> usize {
    if mask.is_empty() {
        return rng.random_range(0..n);
    }
    let valid = mask.iter().filter(|&&valid| valid).count();
    let chosen = rng.random_range(0..valid);
    let mut indices = mask.iter().enumerate().filter(|&(_, &valid)| valid);
    indices.nth(chosen).expect("fewer than the valid ones").0
}

/// One action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action<'a> {
    /// The index of a discrete action.
    Discrete(usize),
    /// The index of each component of a multi-discrete action.
    MultiDiscrete(&'a [i64]),
    /// A continuous action, one element per dimension.
    Continuous(&'a [f32]),
}

/// One action for each environment of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Actions {
    /// The indices of discrete actions.
    Discrete(Vec<i64>),
    /// Multi-discrete actions: `[n, dim]`, row-major.
    MultiDiscrete {
        /// The `n · dim` indices.
        indices: Vec<i64>,
        /// The number of components of an action.
        dim: usize,
    },
    /// Continuous actions: `[n, dim]`, row-major.
    Continuous {
        /// The `n · dim` elements.
        values: Vec<f32>,
        /// The number of dimensions of an action.
        dim: usize,
    },
}

impl Action<'_> {
    /// Checks that the action is in `space`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the action.
    pub fn check(&self, space: &ActionSpace) -> Result<()> {
        let fits = match (self, space) {
            (Action::Discrete(a), ActionSpace::Discrete { n }) => a < n,
            (Action::MultiDiscrete(indices), ActionSpace::MultiDiscrete { sizes }) => {
                indices.len() == sizes.len() && not_a_choice(indices, sizes).is_none()
            }
            (Action::Continuous(values), ActionSpace::Box { low, high }) => {
                values.len() == low.len() && outside(values, low, high).is_none()
            }
            _ => false,
        };
        if fits { Ok(()) } else { Err(Error::config(format!("action {self:?} is not in the action space {space:?}"))) }
    }
}

/// The index of the first element outside its bounds, or NaN.
fn outside(values: &[f32], low: &[f32], high: &[f32]) -> Option<usize> {
    let inside = |(a, (low, high)): (&f32, (&f32, &f32))| a.is_finite() && low <= a && a <= high;
    values.iter().zip(low.iter().zip(high).cycle()).position(|pair| !inside(pair))
}

/// The position of the first index that is not one of its component's choices.
fn not_a_choice(indices: &[i64], sizes: &[usize]) -> Option<usize> {
    indices.iter().zip(sizes.iter().cycle()).position(|(&index, &size)| index < 0 || index as usize >= size)
}

impl Actions {
    /// `n` actions of `space`, all zero.
    pub fn zeros(space: &ActionSpace, n: usize) -> Self {
        match space {
            ActionSpace::Discrete { .. } => Self::Discrete(vec![0; n]),
            ActionSpace::MultiDiscrete { sizes } => {
                Self::MultiDiscrete { indices: vec![0; n * sizes.len()], dim: sizes.len() }
            }
            ActionSpace::Box { low, .. } => Self::Continuous { values: vec![0.0; n * low.len()], dim: low.len() },
        }
    }

    /// The number of environments.
    pub fn len(&self) -> usize {
        match self {
            Self::Discrete(a) => a.len(),
            Self::MultiDiscrete { indices, dim } => indices.len() / dim,
            Self::Continuous { values, dim } => values.len() / dim,
        }
    }

    /// Whether there are no environments.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The action for environment `i`.
    pub fn row(&self, i: usize) -> Action<'_> {
        match self {
            Self::Discrete(a) => Action::Discrete(a[i] as usize),
            Self::MultiDiscrete { indices, dim } => Action::MultiDiscrete(&indices[i * dim..(i + 1) * dim]),
            Self::Continuous { values, dim } => Action::Continuous(&values[i * dim..(i + 1) * dim]),
        }
    }

    /// The indices of discrete and multi-discrete actions, `[n, components]`, and the number of components; `None` for continuous ones.
    pub fn indices(&self) -> Option<(&[i64], usize)> {
        match self {
            Self::Discrete(indices) => Some((indices, 1)),
            Self::MultiDiscrete { indices, dim } => Some((indices, *dim)),
            Self::Continuous { .. } => None,
        }
    }

    /// [`indices`](Self::indices), to be written.
    pub fn indices_mut(&mut self) -> Option<(&mut [i64], usize)> {
        match self {
            Self::Discrete(indices) => Some((indices, 1)),
            Self::MultiDiscrete { indices, dim } => Some((indices, *dim)),
            Self::Continuous { .. } => None,
        }
    }

    /// Copies `from`, actions of the same space, into the rows from `first` on.
    ///
    /// # Panics
    /// If they are of another space, or too many: bugs of the caller.
    pub fn copy_rows(&mut self, first: usize, from: &Self, rows: std::ops::Range<usize>) {
        let n = rows.len();
        match (self, from) {
            (Self::Discrete(to), Self::Discrete(from)) => to[first..first + n].copy_from_slice(&from[rows]),
            (Self::MultiDiscrete { indices: to, dim }, Self::MultiDiscrete { indices: from, .. }) => {
                to[first * *dim..(first + n) * *dim].copy_from_slice(&from[rows.start * *dim..rows.end * *dim]);
            }
            (Self::Continuous { values: to, dim }, Self::Continuous { values: from, .. }) => {
                to[first * *dim..(first + n) * *dim].copy_from_slice(&from[rows.start * *dim..rows.end * *dim]);
            }
            _ => panic!("actions of another space"),
        }
    }

    /// The actions at `rows`, which may repeat.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        fn gather<T: Copy>(values: &[T], dim: usize, rows: &[usize]) -> Vec<T> {
            rows.iter().flat_map(|&i| values[i * dim..(i + 1) * dim].iter().copied()).collect()
        }
        match self {
            Self::Discrete(indices) => Self::Discrete(gather(indices, 1, rows)),
            Self::MultiDiscrete { indices, dim } => {
                Self::MultiDiscrete { indices: gather(indices, *dim, rows), dim: *dim }
            }
            Self::Continuous { values, dim } => Self::Continuous { values: gather(values, *dim, rows), dim: *dim },
        }
    }

    /// Checks that there are `n` actions, all in `space`. Environments may hang or crash on others.
    ///
    /// # Errors
    /// [`Error::Config`] naming the row and the action.
    pub fn check(&self, space: &ActionSpace, n: usize) -> Result<()> {
        if self.len() != n {
            return Err(Error::config(format!("{} actions for {n} environments", self.len())));
        }
        match (self, space) {
            (Self::Discrete(actions), ActionSpace::Discrete { n: k }) => {
                match actions.iter().position(|&a| a < 0 || a as usize >= *k) {
                    None => Ok(()),
                    Some(i) => Err(Error::config(format!(
                        "action {} for environment {i}: the action space has actions 0 to {}",
                        actions[i],
                        k - 1
                    ))),
                }
            }
            (Self::MultiDiscrete { indices, dim }, ActionSpace::MultiDiscrete { sizes }) if *dim == sizes.len() => {
                match not_a_choice(indices, sizes) {
                    None => Ok(()),
                    Some(i) => {
                        let (row, component) = (i / dim, i % dim);
                        Err(Error::config(format!(
                            "index {} for component {component} of the action for environment {row}: it has choices 0 to {}",
                            indices[i],
                            sizes[component] - 1
                        )))
                    }
                }
            }
            (Self::Continuous { values, dim }, ActionSpace::Box { low, high }) if *dim == low.len() => {
                match outside(values, low, high) {
                    None => Ok(()),
                    Some(i) => {
                        let (row, column) = (i / dim, i % dim);
                        let bounds = format!("{} to {}", low[column], high[column]);
                        Err(Error::config(format!(
                            "action {} for environment {row} is outside its bounds, {bounds}",
                            values[i]
                        )))
                    }
                }
            }
            _ => Err(Error::config(format!("actions of another kind than the action space {space:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finite_bounds_scale_and_infinite_bounds_clip() {
        let inf = f32::INFINITY;
        let space = ActionSpace::Box {
            low: vec![-1.0, 5.0, 0.0, -inf, 0.0, -inf, -f32::MAX, 0.25],
            high: vec![1.0, 35.0, 1.0, inf, inf, 3.0, f32::MAX, 0.25],
        };
        let high = f32::MAX;
        for (chosen, executed) in [
            (-1.0, [-1.0, 5.0, 0.0, -1.0, 0.0, -1.0, -high, 0.25]),
            (0.0, [0.0, 20.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.25]),
            (0.5, [0.5, 27.5, 0.75, 0.5, 0.5, 0.5, high / 2.0, 0.25]),
            (1.0, [1.0, 35.0, 1.0, 1.0, 1.0, 1.0, high, 0.25]),
            (7.0, [1.0, 35.0, 1.0, 7.0, 7.0, 3.0, high, 0.25]),
            (-1e30, [-1.0, 5.0, 0.0, -1e30, 0.0, -1e30, -high, 0.25]),
        ] {
            let mut actions = vec![chosen; 16];
            space.to_bounds(&mut actions);
            assert_eq!(actions, [executed, executed].concat(), "{chosen}");
            assert!(Actions::Continuous { values: actions, dim: 8 }.check(&space, 2).is_ok());
        }
    }

    /// Rounding never exceeds the bounds.
    #[test]
    fn no_action_leaves_its_bounds() {
        for (low, high) in [(-0.1, 0.1), (1.0 / 3.0, 0.7), (-0.3, 1e-3), (16_777_216.0, 16_777_218.0), (-1e30, 3e29)] {
            let space = ActionSpace::Box { low: vec![low], high: vec![high] };
            let mut actions: Vec<f32> = (-1000..=1000).map(|i| i as f32 / 900.0).collect();
            space.to_bounds(&mut actions);
            assert!(actions.iter().all(|a| (low..=high).contains(a)), "{low} to {high}");
            assert_eq!((actions[0], actions[2000]), (low, high));
        }
    }

    #[test]
    fn actions_outside_the_space_are_refused() {
        let space = ActionSpace::Box { low: vec![0.0, -1.0], high: vec![2.0, f32::INFINITY] };
        for wrong in [f32::NAN, f32::INFINITY, -1.5] {
            let mut values = vec![1.0, 1.0, 1.0, wrong];
            let check = |values: &[f32]| Actions::Continuous { values: values.to_vec(), dim: 2 }.check(&space, 2);
            let message = check(&values).unwrap_err().to_string();
            assert!(message.contains("environment 1") && message.contains(&wrong.to_string()), "{message}");
            assert!(Action::Continuous(&values[2..]).check(&space).is_err());
            space.to_bounds(&mut values);
            assert_eq!(check(&values).is_ok(), wrong == -1.5, "{wrong}");
        }
        assert!(Action::Discrete(0).check(&space).is_err());
        assert!(Action::Continuous(&[1.0]).check(&space).is_err());
        assert!(Action::Discrete(2).check(&ActionSpace::Discrete { n: 2 }).is_err());
        let space = ActionSpace::MultiDiscrete { sizes: vec![2, 3] };
        for (indices, fits) in
            [([1, 2, 0, 0], true), ([1, 2, 2, 0], false), ([1, 2, 1, 3], false), ([1, 2, 0, -1], false)]
        {
            assert_eq!(Action::MultiDiscrete(&indices[2..]).check(&space).is_ok(), fits);
            let checked = Actions::MultiDiscrete { indices: indices.to_vec(), dim: 2 }.check(&space, 2);
            assert_eq!(checked.is_ok(), fits);
            assert!(checked.err().is_none_or(|e| e.to_string().contains("environment 1")));
        }
        assert!(Action::MultiDiscrete(&[1]).check(&space).is_err());
    }

    #[test]
    fn random_actions_are_valid_and_uniform() {
        let mut rng = crate::rng::stream(1, "actions");
        let mut counts = [0; 4];
        for _ in 0..3000 {
            counts[random_action(4, &[true, false, true, true], &mut rng)] += 1;
        }
        assert!(counts[1] == 0 && [0, 2, 3].iter().all(|&i| (900..1100).contains(&counts[i])), "{counts:?}");
        assert!((0..100).map(|_| random_action(4, &[], &mut rng)).any(|action| action == 1));
    }

    #[test]
    fn rows_are_copied_and_selected_in_every_space() {
        let multi = |indices: &[i64]| Actions::MultiDiscrete { indices: indices.to_vec(), dim: 2 };
        let continuous = |values: &[f32]| Actions::Continuous { values: values.to_vec(), dim: 2 };
        let discrete = |indices: &[i64]| Actions::Discrete(indices.to_vec());
        for (from, mut to, copied, selected) in [
            (discrete(&[1, 2, 3]), discrete(&[0; 3]), discrete(&[0, 2, 3]), discrete(&[3, 1, 3])),
            (multi(&[1, 2, 3, 4, 5, 6]), multi(&[0; 6]), multi(&[0, 0, 3, 4, 5, 6]), multi(&[5, 6, 1, 2, 5, 6])),
            (
                continuous(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
                continuous(&[0.0; 6]),
                continuous(&[0.0, 0.0, 3.0, 4.0, 5.0, 6.0]),
                continuous(&[5.0, 6.0, 1.0, 2.0, 5.0, 6.0]),
            ),
        ] {
            to.copy_rows(1, &from, 1..3);
            assert_eq!(to, copied);
            assert_eq!(from.select(&[2, 0, 2]), selected);
        }
    }

    fn spaces() -> [ActionSpace; 3] {
        [
            ActionSpace::Discrete { n: 3 },
            ActionSpace::MultiDiscrete { sizes: vec![2, 4] },
            ActionSpace::Box { low: vec![-1.0, 0.0], high: vec![1.0, 5.0] },
        ]
    }

    #[test]
    fn a_space_has_sizes_and_something_to_decide() {
        assert_eq!(spaces().each_ref().map(ActionSpace::sizes), [&[3][..], &[2, 4], &[]]);
        assert!(spaces().iter().all(|space| !space.is_empty()));
        for empty in [
            ActionSpace::Discrete { n: 0 },
            ActionSpace::MultiDiscrete { sizes: vec![] },
            ActionSpace::MultiDiscrete { sizes: vec![2, 0] },
            ActionSpace::Box { low: vec![], high: vec![] },
        ] {
            assert!(empty.is_empty(), "{empty:?}");
        }
    }

    /// Three actions of each space: rows, indices, and which of the single actions are in it.
    #[test]
    fn rows_and_indices_of_every_space() {
        let mut batches = [
            Actions::Discrete(vec![0, 1, 2]),
            Actions::MultiDiscrete { indices: vec![0, 3, 1, 2, 1, 0], dim: 2 },
            Actions::Continuous { values: vec![-1.0, 0.0, 0.5, 2.0, 1.0, 5.0], dim: 2 },
        ];
        for (space, actions) in spaces().iter().zip(&batches) {
            assert_eq!((actions.len(), actions.is_empty(), Actions::zeros(space, 0).is_empty()), (3, false, true));
            actions.check(space, 3).unwrap();
            assert!(actions.check(space, 2).is_err());
            for other in spaces() {
                let expected = *space == other;
                assert_eq!((0..3).all(|i| actions.row(i).check(&other).is_ok()), expected, "{actions:?}, {other:?}");
                assert_eq!(actions.check(&other, 3).is_ok(), expected);
            }
        }
        assert_eq!(batches[0].row(2), Action::Discrete(2));
        assert_eq!(batches[1].row(1), Action::MultiDiscrete(&[1, 2]));
        assert_eq!(batches[2].row(2), Action::Continuous(&[1.0, 5.0]));
        assert_eq!(batches[0].indices(), Some((&[0, 1, 2][..], 1)));
        assert_eq!(batches[1].indices(), Some((&[0, 3, 1, 2, 1, 0][..], 2)));
        assert!(batches[2].indices().is_none() && batches[2].indices_mut().is_none());
        for (actions, dim) in batches[..2].iter_mut().zip([1, 2]) {
            let (indices, components) = actions.indices_mut().unwrap();
            indices[0] = 1;
            assert_eq!((components, actions.indices().unwrap().0[0]), (dim, 1));
        }
    }

    /// The first wrong element is named, with its environment, component and bounds.
    #[test]
    fn the_first_wrong_action_is_named() {
        let [discrete, multi, continuous] = spaces();
        for (actions, space, expected) in [
            (
                Actions::Discrete(vec![0, 3]),
                &discrete,
                Some("action 3 for environment 1: the action space has actions 0 to 2"),
            ),
            (Actions::Discrete(vec![-1, 0]), &discrete, Some("action -1 for environment 0")),
            (Actions::Discrete(vec![0, 2]), &discrete, None),
            (
                Actions::MultiDiscrete { indices: vec![1, 3, 1, 4], dim: 2 },
                &multi,
                Some("index 4 for component 1 of the action for environment 1: it has choices 0 to 3"),
            ),
            (Actions::MultiDiscrete { indices: vec![1, 3, 2, 0], dim: 2 }, &multi, Some("index 2 for component 0")),
            (Actions::MultiDiscrete { indices: vec![1, 1, 1, 1, 1, 1], dim: 3 }, &multi, Some("of another kind")),
            (
                Actions::Continuous { values: vec![0.0, 5.0, 0.0, 5.5], dim: 2 },
                &continuous,
                Some("action 5.5 for environment 1 is outside its bounds, 0 to 5"),
            ),
            (
                Actions::Continuous { values: vec![0.0, 5.0, -1.5, 5.0], dim: 2 },
                &continuous,
                Some("action -1.5 for environment 1 is outside its bounds, -1 to"),
            ),
            (Actions::Continuous { values: vec![0.0; 2], dim: 1 }, &continuous, Some("of another kind")),
        ] {
            let message = actions.check(space, 2).map_err(|error| error.to_string()).err();
            assert_eq!(message.is_some(), expected.is_some(), "{message:?}");
            assert!(message.unwrap_or_default().contains(expected.unwrap_or_default()), "{expected:?}");
        }
    }
}
