//! What the ranks of a run in several processes exchange: decisions, episodes and metrics, parts of checkpoints.

use super::{Agreed, Run};
use crate::group::Reduce;
use crate::metrics::Tag;
use crate::{Checkpoints, EpisodeEnd, Error, Group, Result, Snapshot};
use serde::{Deserialize, Serialize};

/// What a rank reports: episodes that ended since its last report, and metrics.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    episodes: Vec<(u64, EpisodeEnd)>,
    values: Vec<Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Value {
    tag: Tag,
    #[serde(with = "crate::json::float")]
    value: f64,
}

impl Run {
    /// Agrees with the other ranks on what to do in this iteration.
    pub(super) fn agree(&mut self) -> Result<()> {
        let is_first = self.group.rank() == 0;
        let log = is_first && self.last_log.0.elapsed().as_secs_f64() >= self.intervals.log_seconds;
        let save = is_first && self.save_time_passed();
        let signal = self.stop.requested().unwrap_or_default();
        let mut flags = [f64::from(signal), f64::from(u8::from(log)), f64::from(u8::from(save))];
        self.group.all_reduce(&mut flags, Reduce::Max)?;
        let [signal, log, save] = flags;
        self.agreed = Agreed { stop: signal > 0.0, log: log > 0.0, save: save > 0.0 };
        if self.agreed.stop {
            self.stop.request(signal as i32);
        }
        Ok(())
    }

    /// Reports to rank 0 the episodes since the last call, and `values`. Rank 0 records the episodes of all ranks in the order of their
    /// steps and returns the mean of each value; the others return `values`.
    pub(super) fn gather_reports(&mut self, values: Vec<(Tag, f64)>) -> Result<Vec<(Tag, f64)>> {
        let own = values.iter().map(|(tag, value)| Value { tag: tag.clone(), value: *value }).collect();
        let report = Report { episodes: std::mem::take(&mut self.unreported), values: own };
        let reports = self.group.gather(serde_json::to_vec(&report).map_err(Error::other)?)?;
        if self.group.rank() > 0 {
            return Ok(values);
        }
        let reports = reports.iter().map(|bytes| serde_json::from_slice(bytes).map_err(Error::other));
        let reports: Vec<Report> = reports.collect::<Result<_>>()?;
        let mut episodes: Vec<_> = reports.iter().flat_map(|report| report.episodes.iter().copied()).collect();
        episodes.sort_by_key(|(step, _)| *step);
        episodes.into_iter().try_for_each(|(step, end)| self.episode(step, end))?;
        let mean = |(tag, _): (Tag, f64)| {
            let all = reports.iter().flat_map(|report| &report.values).filter(|other| other.tag == tag);
            let (sum, count) = all.fold((0.0, 0.0), |(sum, count), other| (sum + other.value, count + 1.0));
            (tag, sum / count)
        };
        Ok(values.into_iter().map(mean).collect())
    }
}

/// Saves a checkpoint of the snapshots of all ranks, which rank 0 writes. Returns once it is on disk.
pub(super) fn save(
    group: &dyn Group,
    checkpoints: &Checkpoints,
    snapshot: &Snapshot,
    score: Option<f64>,
) -> Result<()> {
    let part = if group.rank() == 0 { Vec::new() } else { snapshot.own_part().to_bytes()? };
    let parts = group.gather(part)?;
    if group.rank() == 0 {
        let parts = parts[1..].iter().map(|bytes| Snapshot::from_bytes(bytes)).collect::<Result<Vec<_>>>()?;
        checkpoints.save_with_parts(snapshot, &parts, score)?;
    }
    // Fails on the other ranks where rank 0 could not write.
    group.barrier()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::{Config, GradientPrecision};
    use crate::run::{Evaluation, Intervals, Persist, Stop};
    use std::path::Path;
    use std::sync::{Arc, Barrier, Mutex};
    use std::thread;

    /// Two ranks that are threads of this process: each writes what it has into its slot, and all read.
    #[derive(Debug)]
    struct Thread {
        rank: usize,
        slots: Arc<Mutex<[Vec<u8>; 2]>>,
        barrier: Arc<Barrier>,
    }

    impl Thread {
        fn pair() -> [Self; 2] {
            let (slots, barrier) = (Arc::new(Mutex::new([Vec::new(), Vec::new()])), Arc::new(Barrier::new(2)));
            [0, 1].map(|rank| Self { rank, slots: slots.clone(), barrier: barrier.clone() })
        }

        fn exchange(&self, bytes: Vec<u8>) -> [Vec<u8>; 2] {
            self.slots.lock().unwrap()[self.rank] = bytes;
            self.barrier.wait();
            let all = self.slots.lock().unwrap().clone();
            self.barrier.wait();
            all
        }
    }

    impl Group for Thread {
        fn rank(&self) -> usize {
            self.rank
        }
        fn world_size(&self) -> usize {
            2
        }
        fn all_reduce(&self, values: &mut [f64], reduce: Reduce) -> Result<()> {
            let all = self.exchange(serde_json::to_vec(values).unwrap());
            let [a, b] = all.map(|bytes| serde_json::from_slice::<Vec<f64>>(&bytes).unwrap());
            for (value, (a, b)) in values.iter_mut().zip(a.into_iter().zip(b)) {
                *value = if reduce == Reduce::Sum { a + b } else { a.max(b) };
            }
            Ok(())
        }
        fn sum(&self, _: &mut [f32], _: GradientPrecision) -> Result<()> {
            unreachable!()
        }
        fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
            *bytes = self.exchange(bytes.clone())[0].clone();
            Ok(())
        }
        fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
            let all = self.exchange(bytes);
            Ok(if self.rank == 0 { all.to_vec() } else { Vec::new() })
        }
    }

    const EXCHANGE: Config =
        Config { gradient_precision: GradientPrecision::Bf16, overlap_exchange: true, gradient_rank: 4 };

    /// Runs `body` on both ranks, each with a run of 100 steps and checkpoints in `dir`.
    fn both<T: Send>(dir: &Path, intervals: &Intervals, body: impl Fn(Run, usize) -> T + Sync) -> [T; 2] {
        thread::scope(|scope| {
            let ranks = Thread::pair().map(|group| {
                scope.spawn(|| {
                    let rank = group.rank;
                    let run = Run::new(7, 100).with_checkpoints(Checkpoints::new(dir, 2), intervals.clone());
                    body(run.with_group(Arc::new(group), EXCHANGE), rank)
                })
            });
            ranks.map(|rank| rank.join().unwrap())
        })
    }

    fn never() -> Intervals {
        let log_seconds = f64::INFINITY;
        Intervals { log_seconds, log_steps: 10, checkpoint_seconds: f64::INFINITY, ..Intervals::default() }
    }

    #[test]
    fn each_rank_has_its_own_seeds_and_folder() {
        let dir = tempfile::tempdir().unwrap();
        let values = both(dir.path(), &never(), |run, _| {
            assert_eq!((run.seed(), run.distributed()), (7, EXCHANGE));
            (run.rank_seed(), run.environment_seeds(3, None), run.checkpoint_dir().unwrap())
        });
        let all = crate::resume::environment_seeds(7, 6, None);
        assert_eq!((values[0].0, &values[0].1[..], &*values[0].2), (7, &all[..3], dir.path()));
        assert_eq!((&values[1].1[..], &*values[1].2), (&all[3..], &*dir.path().join("rank-1")));
        assert_ne!(values[1].0, 7);
    }

    /// A request that only rank 1 received stops both, in the next iteration; rank 0 learns the signal.
    #[test]
    fn a_request_to_one_rank_stops_both() {
        let dir = tempfile::tempdir().unwrap();
        let values = both(dir.path(), &never(), |run, rank| {
            let stop = Stop::default();
            let mut run = run.with_stop(stop.clone());
            let before = run.should_continue(5).unwrap();
            if rank == 1 {
                stop.request(15);
            }
            let after = run.should_continue(6).unwrap();
            (before, after, stop.requested())
        });
        assert_eq!(values, [(true, false, Some(15)); 2]);
        let values = both(dir.path(), &never(), |mut run, _| [99, 100].map(|step| run.should_continue(step).unwrap()));
        assert_eq!(values, [[true, false]; 2], "to the last step");
    }

    /// The clock of rank 0 decides for both, and steps do without an exchange.
    #[test]
    fn rows_and_checkpoints_are_due_on_both_ranks_together() {
        let dir = tempfile::tempdir().unwrap();
        for (intervals, expected) in [
            (never(), (false, false)),
            (Intervals { log_seconds: 0.0, ..never() }, (true, false)),
            (Intervals { checkpoint_seconds: 0.0, ..never() }, (false, true)),
        ] {
            let due = both(dir.path(), &never(), |run, rank| {
                // Rank 1 has another clock: its own intervals have not passed.
                let own = if rank == 0 { intervals.clone() } else { never() };
                let mut run = run.with_checkpoints(Checkpoints::new(dir.path(), 2), own);
                run.should_continue(5).unwrap();
                run.progress(5, []).unwrap();
                (run.log_due(), run.save_due())
            });
            assert_eq!(due, [expected; 2]);
        }
        let due = both(dir.path(), &never(), |mut run, _| {
            [9, 10, 100].map(|step| {
                run.should_continue(step).unwrap();
                run.progress(step, []).unwrap();
                run.log_due()
            })
        });
        assert_eq!(due, [[false, true, true]; 2]);
    }

    struct Nothing;

    impl Persist for Nothing {
        fn save(&mut self, snapshot: &mut Snapshot) -> Result<()> {
            snapshot.put("x", &1);
            Ok(())
        }
    }

    /// Rank 0 records the episodes of both in the order of their steps, and the means of their values: 2 and 4 of both, 5 of one alone.
    #[test]
    fn rank_0_reports_the_episodes_and_the_means_of_both() {
        let dir = tempfile::tempdir().unwrap();
        let values = both(dir.path(), &never(), |mut run, rank| {
            let end = |episode_return| EpisodeEnd { episode_return, length: 1 };
            let episodes = [[(3, end(1.0)), (8, end(2.0))], [(2, end(10.0)), (9, end(20.0))]][rank];
            run.progress(10, episodes).unwrap();
            assert_eq!(run.summary().episodes, 0, "reported with the next row");
            let own = [("a".into(), 2.0 + 2.0 * rank as f64), ("b".into(), f64::INFINITY)];
            let values = run.gather_reports(own.to_vec()).unwrap();
            let saved = run.save(10, &mut [&mut Nothing]).is_ok();
            run.evaluated(10, &Evaluation { episodes: vec![end(4.0)], ..Evaluation::default() }).unwrap();
            assert!(run.save_due() && saved && run.last_checkpoint() == Some(10));
            assert_eq!(run.summary().evaluated.is_some(), rank == 0, "rank 0 reports it");
            (values, run.summary().episodes, run.summary().mean_reward, run.window.clone())
        });
        let tagged = |a, b: f64| vec![("a".into(), a), ("b".into(), b)];
        assert_eq!((&values[0].0, values[0].1, values[0].2), (&tagged(3.0, f64::INFINITY), 4, Some(8.25)));
        assert_eq!((&values[1].0, values[1].1), (&tagged(4.0, f64::INFINITY), 0));
        let order = serde_json::to_string(&values[0].3).unwrap();
        let places = ["10.0", "1.0", "2.0", "20.0"].map(|text| order.find(&format!("\"episode_return\":{text}")));
        assert!(places.is_sorted() && places[0].is_some(), "{order}");
        let (snapshot, parts) = crate::checkpoint::read_with_parts(&Checkpoints::new(dir.path(), 2).path(10)).unwrap();
        assert_eq!((snapshot.step, parts.len()), (10, 1));
        assert!(parts[0].state.contains_key("x") && parts[0].state.contains_key("run.episodes"));
    }

    /// After an error on one rank nothing is saved: the other waits in another operation.
    #[test]
    fn a_failed_rank_saves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let said = both(dir.path(), &never(), |mut run, _| {
            let result = run.finish(Err(Error::other("an environment failed")), 5, &mut [&mut Nothing]);
            (result.unwrap_err().to_string(), run.last_checkpoint())
        });
        assert_eq!(said, [0, 1].map(|_| ("an environment failed".into(), None)));
    }
}
