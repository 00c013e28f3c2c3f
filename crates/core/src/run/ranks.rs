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
