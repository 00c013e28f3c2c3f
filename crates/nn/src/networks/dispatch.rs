//! Chooses the code that computes a torso, playfield's own kernels or libtorch's, by measurement.
//!
//! The own bf16 kernels are several times as fast as libtorch on processors with AVX-512 BF16 but without AMX, and half as fast at
//! larger batch sizes where libtorch uses AMX. So each batch size, in inference and in training, is timed when it first occurs; the
//! faster path is used from then on, and the choice is shown to the user. The two round differently: the choices are saved with a
//! run, so that a resumed run computes the same; `[network] kernels` fixes the path.

use super::config::Kernels;
use crate::pass::Pass;
use playfield_core::{Result, Snapshot, notices};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The code that computes a torso.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// playfield's own kernels.
    Own,
    /// libtorch.
    Libtorch,
    /// libtorch, [captured](super::captured) as CUDA graphs.
    Captured,
}

/// The second of two ways to compute is chosen where it takes less than this fraction of the first one's time.
const MARGIN: f64 = 0.97;

/// Two times are close, and measured more often, where neither is below this fraction of the other.
const CLOSE: f64 = 0.8;

/// About how long close times are measured again.
pub(super) const BUDGET: Duration = Duration::from_millis(200);

/// The key of the choices in a checkpoint.
const KEY: &str = "network.kernels";

/// The choices of a network, common to all its copies.
#[derive(Clone, Debug)]
pub struct Dispatch {
    kernels: Kernels,
    /// By whether the pass is training, and batch size.
    choices: Arc<Mutex<BTreeMap<(bool, usize), Choice>>>,
}

/// The path for one batch size.
#[derive(Clone, Copy, Debug)]
struct Choice {
    path: Path,
    /// The times that it was chosen by; `None` once they are reported.
    unreported: Option<Times>,
}

/// The duration of one pass by each path.
#[derive(Clone, Copy, Debug)]
struct Times {
    own: Duration,
    libtorch: Duration,
}

impl Dispatch {
    /// Without choices.
    pub(super) fn new(kernels: Kernels) -> Self {
        Self { kernels, choices: Arc::default() }
    }

    /// Whether passes on a device may be captured.
    pub(super) fn may_capture(&self) -> bool {
        self.kernels == Kernels::Auto
    }

    /// The path on a CPU for `n` batch elements; `time` measures a path where that is not known. Other threads wait meanwhile.
    pub(super) fn path(&self, n: usize, pass: Pass, time: impl FnMut(Path) -> Duration) -> Path {
        match self.kernels {
            Kernels::Own => Path::Own,
            Kernels::Libtorch => Path::Libtorch,
            Kernels::Auto => {
                let mut choices = self.lock();
                if let Some(choice) = choices.get(&(pass == Pass::Train, n)) {
                    return choice.path;
                }
                let times = Times::measure(time);
                let path = times.faster();
                choices.insert((pass == Pass::Train, n), Choice { path, unreported: Some(times) });
                // A program that only evaluates reports nothing.
                if pass == Pass::Train {
                    report(&mut choices);
                }
                path
            }
        }
    }

    /// Writes the choices into `snapshot`.
    pub fn save(&self, snapshot: &mut Snapshot) {
        let choices: Vec<_> = self.lock().iter().map(|(&(train, n), choice)| (train, n, choice.path)).collect();
        snapshot.put(KEY, &choices);
    }

    /// Restores the choices of `snapshot`, if it has any.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) where they have another form.
    pub fn load(&self, snapshot: &Snapshot) -> Result<()> {
        if snapshot.state.contains_key(KEY) {
            let choices: Vec<(bool, usize, Path)> = snapshot.get(KEY)?;
            let known = |(train, n, path)| ((train, n), Choice { path, unreported: None });
            *self.lock() = choices.into_iter().map(known).collect();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(bool, usize), Choice>> {
        self.choices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Times {
    /// Warms each path up once, then times both in turn: twice, and up to six times more where they are close, within [`BUDGET`].
    fn measure(mut time: impl FnMut(Path) -> Duration) -> Self {
        for path in [Path::Libtorch, Path::Own] {
            time(path);
        }
        let (mut times, mut spent) = (Self { own: Duration::MAX, libtorch: Duration::MAX }, Duration::ZERO);
        for pass in 0..8 {
            if pass >= 2 && (spent > BUDGET || !are_close(times.own, times.libtorch)) {
                break;
            }
            let (libtorch, own) = (time(Path::Libtorch), time(Path::Own));
            times = Self { own: times.own.min(own), libtorch: times.libtorch.min(libtorch) };
            spent += own + libtorch;
        }
        times
    }

    fn faster(self) -> Path {
        if prefers_first(self.own, self.libtorch) { Path::Own } else { Path::Libtorch }
    }
}

/// Whether `auto` chooses the first of two ways to compute, the own kernels or bf16, where these are the durations of a pass: the second,
/// libtorch or fp32, must be 3 % faster.
pub fn prefers_first(first: Duration, second: Duration) -> bool {
    second.as_secs_f64() >= MARGIN * first.as_secs_f64()
}

/// Whether more measurements may change which of two durations is the shorter.
pub(super) fn are_close(one: Duration, other: Duration) -> bool {
    one.min(other).as_secs_f64() >= CLOSE * one.max(other).as_secs_f64()
}

/// Tells the user the choices that are not yet reported.
fn report(choices: &mut BTreeMap<(bool, usize), Choice>) {
    for (&(train, n), Choice { path, unreported }) in choices {
        let Some(Times { own, libtorch }) = unreported.take() else { continue };
        let name = if *path == Path::Own { "own" } else { "libtorch" };
        let passes = if train { "forward and backward" } else { "forward" };
        let [own, libtorch] = [own, libtorch].map(|time| time.as_secs_f64() * 1e3);
        notices::push(format!(
            "kernels    {name} for {passes}, batch size {n} per thread\n           own {own:.2} ms, libtorch {libtorch:.2} ms"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times of each path, in microseconds; the first call of each is slower.
    fn timed(own: u64, libtorch: u64) -> impl FnMut(Path) -> Duration {
        let mut calls = 0;
        move |path| {
            calls += 1;
            let slow = if calls <= 2 { 1000 } else { 0 };
            Duration::from_micros(slow + if path == Path::Own { own } else { libtorch })
        }
    }

    #[test]
    fn the_faster_path_is_chosen_and_a_tie_prefers_own_kernels() {
        let faster = |own, libtorch| Times::measure(timed(own, libtorch)).faster();
        assert_eq!(faster(100, 200), Path::Own);
        assert_eq!(faster(200, 100), Path::Libtorch);
        assert_eq!(faster(100, 98), Path::Own);
        assert_eq!(faster(100, 96), Path::Libtorch);
    }

    /// The own kernels take 95 µs, but 120 in the first three passes, as if another program ran; libtorch takes 100.
    #[test]
    fn close_times_are_measured_more_often() {
        let (mut own, mut calls) = (0, 0);
        let times = Times::measure(|path| {
            calls += 1;
            own += u64::from(path == Path::Own);
            Duration::from_micros(match path {
                Path::Own if own <= 3 => 120,
                Path::Own => 95,
                _ => 100,
            })
        });
        assert_eq!((times.own, times.libtorch), (Duration::from_micros(95), Duration::from_micros(100)));
        assert_eq!(calls, 2 * 9);
        let passes = |own, libtorch| {
            let mut calls = 0;
            Times::measure(|path| {
                calls += 1;
                Duration::from_micros(if path == Path::Own { own } else { libtorch })
            });
            calls / 2
        };
        assert_eq!([passes(100, 300), passes(300, 310), passes(40_000, 40_000)], [3, 9, 4]);
    }

    /// Each batch size and pass is measured once for all copies of a network; a resumed run measures nothing.
    #[test]
    fn a_choice_is_made_once_and_saved() {
        let dispatch = Dispatch::new(Kernels::Auto);
        let copy = dispatch.clone();
        assert_eq!(dispatch.path(5, Pass::Infer, timed(200, 100)), Path::Libtorch);
        assert_eq!(copy.path(5, Pass::Infer, |_| unreachable!("measured")), Path::Libtorch);
        notices::take();
        assert_eq!(copy.path(5, Pass::Train, timed(1000, 2000)), Path::Own);
        let reported = notices::take().join("\n");
        assert!(reported.contains("libtorch for forward, batch size 5"), "{reported}");
        assert!(reported.contains("own for forward and backward, batch size 5"), "{reported}");
        assert!(reported.contains("own 1.00 ms, libtorch 2.00 ms"), "{reported}");
        let mut snapshot = Snapshot::default();
        dispatch.save(&mut snapshot);
        let resumed = Dispatch::new(Kernels::Auto);
        resumed.load(&snapshot).unwrap();
        assert_eq!(resumed.path(5, Pass::Infer, |_| unreachable!("saved")), Path::Libtorch);
        assert_eq!(resumed.path(5, Pass::Train, |_| unreachable!("saved")), Path::Own);
        resumed.load(&Snapshot::default()).unwrap();
        snapshot.put(KEY, &"something else");
        assert!(resumed.load(&snapshot).is_err());
    }

    #[test]
    fn a_setting_fixes_the_path() {
        for (kernels, path) in [(Kernels::Own, Path::Own), (Kernels::Libtorch, Path::Libtorch)] {
            assert_eq!(Dispatch::new(kernels).path(5, Pass::Train, |_| unreachable!("fixed")), path);
        }
    }
}
