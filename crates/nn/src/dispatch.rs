//! Which code computes a torso: playfield's own kernels or libtorch's. Measured, as no rule fits all processors.
//!
//! The own bf16 kernels are several times as fast as libtorch on processors that multiply bf16 in AVX-512 alone, and half as
//! fast from some rows on where libtorch uses AMX. So each batch size that occurs, with and without a backward pass, is
//! timed once when it first occurs, and the faster path is used from then on. The two round differently: what was chosen is
//! saved with a run, so that a resumed one computes the same; `[network] kernels` fixes it.

use crate::config::Kernels;
use playfield_core::{Result, Snapshot};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Who computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// playfield's own kernels.
    Own,
    /// libtorch.
    Libtorch,
}

/// How much faster libtorch must be: near a tie, two runs on one machine should choose alike.
const MARGIN: f64 = 0.9;

/// Under which name a checkpoint holds the choices.
const KEY: &str = "network.kernels";

/// The choices of a network and all its copies.
#[derive(Clone, Debug)]
pub struct Dispatch {
    kernels: Kernels,
    /// By batch size, with a backward pass or without.
    measured: Arc<Mutex<BTreeMap<(bool, usize), Path>>>,
}

impl Dispatch {
    /// No choice yet.
    pub(crate) fn new(kernels: Kernels) -> Self {
        Self { kernels, measured: Arc::default() }
    }

    /// Who computes `n` rows; `time` is asked once how long each path takes. Other threads wait meanwhile.
    pub(crate) fn path(&self, n: usize, backward: bool, time: impl FnMut(Path) -> Duration) -> Path {
        match self.kernels {
            Kernels::Own => Path::Own,
            Kernels::Libtorch => Path::Libtorch,
            Kernels::Auto => *self.lock().entry((backward, n)).or_insert_with(|| faster(time)),
        }
    }

    /// Writes the choices into `snapshot`.
    pub fn save(&self, snapshot: &mut Snapshot) {
        let choices: Vec<_> = self.lock().iter().map(|(&(backward, n), &path)| (backward, n, path)).collect();
        snapshot.put(KEY, &choices);
    }

    /// Takes the choices of `snapshot`, if it has any.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) where they are something else.
    pub fn load(&self, snapshot: &Snapshot) -> Result<()> {
        if snapshot.state.contains_key(KEY) {
            let choices: Vec<(bool, usize, Path)> = snapshot.get(KEY)?;
            *self.lock() = choices.into_iter().map(|(backward, n, path)| ((backward, n), path)).collect();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(bool, usize), Path>> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The faster path, each warmed up once and timed twice.
fn faster(mut time: impl FnMut(Path) -> Duration) -> Path {
    let mut best = |path| {
        time(path);
        time(path).min(time(path)).as_secs_f64()
    };
    if best(Path::Libtorch) < MARGIN * best(Path::Own) { Path::Libtorch } else { Path::Own }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times of a path: the first call, then the better of two, counts.
    fn timed(own: u64, libtorch: u64) -> impl FnMut(Path) -> Duration {
        let mut calls = 0;
        move |path| {
            calls += 1;
            let slow = if calls % 3 == 1 { 1000 } else { 0 };
            Duration::from_micros(slow + if path == Path::Own { own } else { libtorch })
        }
    }

    #[test]
    fn the_faster_path_is_chosen_and_a_tie_stays_with_the_own() {
        assert_eq!(faster(timed(100, 200)), Path::Own);
        assert_eq!(faster(timed(200, 100)), Path::Libtorch);
        assert_eq!(faster(timed(100, 95)), Path::Own);
    }

    /// Each batch size and pass is measured once, by whichever copy of the network comes first; a resumed run measures nothing.
    #[test]
    fn a_choice_is_made_once_and_saved() {
        let dispatch = Dispatch::new(Kernels::Auto);
        let copy = dispatch.clone();
        assert_eq!(dispatch.path(5, false, timed(200, 100)), Path::Libtorch);
        assert_eq!(copy.path(5, false, |_| unreachable!("measured")), Path::Libtorch);
        assert_eq!(copy.path(5, true, timed(100, 200)), Path::Own);
        let mut snapshot = Snapshot::default();
        dispatch.save(&mut snapshot);
        let resumed = Dispatch::new(Kernels::Auto);
        resumed.load(&snapshot).unwrap();
        assert_eq!(resumed.path(5, false, |_| unreachable!("saved")), Path::Libtorch);
        assert_eq!(resumed.path(5, true, |_| unreachable!("saved")), Path::Own);
        resumed.load(&Snapshot::default()).unwrap();
        snapshot.put(KEY, &"something else");
        assert!(resumed.load(&snapshot).is_err());
    }

    #[test]
    fn a_setting_fixes_the_path() {
        for (kernels, path) in [(Kernels::Own, Path::Own), (Kernels::Libtorch, Path::Libtorch)] {
            assert_eq!(Dispatch::new(kernels).path(5, true, |_| unreachable!("fixed")), path);
        }
    }
}
