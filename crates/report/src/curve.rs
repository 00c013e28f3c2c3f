//! Learning curves: a quantity over steps or time, and its mean and quartiles over seeds.

use crate::run::{Point, RunFolder, State};
use crate::stats::{mean, quantile};
use std::collections::VecDeque;

/// What is plotted.
#[derive(Clone, Debug, PartialEq)]
pub enum Quantity {
    /// The mean raw return of the last `window` training episodes.
    Return {
        /// The number of episodes.
        window: usize,
    },
    /// A column of `progress.csv`: the mean of its last `window` values.
    Column {
        /// The tag.
        tag: String,
        /// The number of values.
        window: usize,
    },
}

/// The x-axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Agent steps.
    Steps,
    /// Minutes of training.
    Minutes,
}

/// The maximum number of points of the mean of several runs.
const GRID: usize = 400;
/// The maximum number of points of a single run.
const MOST: usize = 2000;

/// A quantity over one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// x and y, by ascending x; all finite.
    points: Vec<[f64; 2]>,
    /// Whether the last value holds after the last point: the run is finished.
    holds: bool,
}

impl Curve {
    /// The curve of `run`; `None` if `progress.csv` has no such column.
    pub fn new(run: &RunFolder, quantity: &Quantity, axis: Axis) -> Option<Self> {
        let (points, window) = match quantity {
            Quantity::Return { window } => {
                let point = |e: &crate::run::Episode| Point {
                    step: e.step as f64,
                    seconds: e.seconds,
                    value: e.end.episode_return,
                };
                (run.episodes.iter().map(point).collect::<Vec<_>>(), *window)
            }
            Quantity::Column { tag, window } => (run.progress.column(tag)?, *window),
        };
        let mut last = VecDeque::new();
        // A running sum would keep the rounding error of a very large value.
        let mut smooth = |value: f64| {
            last.push_back(value);
            if last.len() > window {
                last.pop_front();
            }
            last.iter().sum::<f64>() / last.len() as f64
        };
        let finite = points.into_iter().filter(|p| p.value.is_finite());
        let points = finite.map(|p| {
            let x = if axis == Axis::Steps { p.step } else { p.seconds / 60.0 };
            [x, smooth(p.value)]
        });
        Some(Self { points: points.collect(), holds: run.state == State::Finished })
    }

    /// Whether there is no point.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// The value at `x`, linear between points; `None` before the first point, and after the last unless its value holds.
    fn at(&self, x: f64) -> Option<f64> {
        match self.points.partition_point(|p| p[0] <= x) {
            0 => None,
            i if i < self.points.len() => {
                let ([x0, y0], [x1, y1]) = (self.points[i - 1], self.points[i]);
                Some(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
            }
            i => Some(self.points[i - 1]).filter(|p| self.holds || p[0] == x).map(|p| p[1]),
        }
    }
}

/// The curves of several seeds as one line: x, the mean, and the lower and upper quartile. The line begins where all runs have a
/// value. A finished run keeps its last value; any other counts until its last point. A single curve is returned with a band of no
/// width.
pub fn summary(curves: &[Curve]) -> Vec<[f64; 4]> {
    let curves: Vec<_> = curves.iter().filter(|curve| !curve.is_empty()).collect();
    let x = |of: fn(&[[f64; 2]]) -> Option<&[f64; 2]>| curves.iter().filter_map(move |c| Some(of(&c.points)?[0]));
    let (start, end) = (x(<[_]>::first).reduce(f64::max), x(<[_]>::last).reduce(f64::max));
    let (Some(start), Some(end)) = (start, end) else { return Vec::new() };
    if let [curve] = curves[..] {
        let every = curve.points.len().div_ceil(MOST);
        let last = curve.points.len() - 1;
        let kept = curve.points.iter().enumerate().filter(|(i, _)| i.is_multiple_of(every) || *i == last);
        return kept.map(|(_, [x, y])| [*x, *y, *y, *y]).collect();
    }
    // The runs' own points where they are few, as evaluations are; otherwise a uniform grid.
    let mut xs: Vec<f64> = curves.iter().flat_map(|c| c.points.iter().map(|p| p[0])).filter(|x| *x >= start).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    if xs.len() > GRID {
        xs = (0..GRID).map(|i| start + (end - start) * i as f64 / (GRID - 1) as f64).collect();
    }
    let at = |x: f64| {
        let values: Vec<f64> = curves.iter().filter_map(|curve| curve.at(x)).collect();
        (!values.is_empty()).then(|| [x, mean(&values), quantile(&values, 0.25), quantile(&values, 0.75)])
    };
    xs.into_iter().filter_map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::{settings, write};

    fn curve(points: &[[f64; 2]], holds: bool) -> Curve {
        Curve { points: points.to_vec(), holds }
    }

    #[test]
    fn values_between_points_are_linear() {
        let mut c = curve(&[[1.0, 2.0], [3.0, 6.0]], false);
        assert_eq!([0.5, 1.0, 2.0, 3.0, 3.5].map(|x| c.at(x)), [None, Some(2.0), Some(4.0), Some(6.0), None]);
        c.holds = true;
        assert_eq!(c.at(3.5), Some(6.0));
    }

    #[test]
    fn several_seeds_have_a_mean_and_quartiles() {
        let line = |y: f64, holds| curve(&[[0.0, y], [10.0, y + 10.0]], holds);
        let five: Vec<_> = [0.0, 1.0, 2.0, 3.0, 14.0].map(|y| line(y, true)).into();
        assert_eq!(summary(&five), [[0.0, 4.0, 1.0, 3.0], [10.0, 14.0, 11.0, 13.0]]);
        assert_eq!(summary(&five[..1]), [[0.0, 0.0, 0.0, 0.0], [10.0, 10.0, 10.0, 10.0]]);
        assert!(summary(&[]).is_empty() && summary(&[curve(&[], true)]).is_empty());
        // One run begins later; a finished one keeps its last value, a stopped one does not count after its end.
        let late = curve(&[[5.0, 1.0], [20.0, 1.0]], false);
        let value = |holds| *summary(&[line(1.0, holds), late.clone()]).last().unwrap();
        assert_eq!(value(true), [20.0, 6.0, 3.5, 8.5]);
        assert_eq!(value(false), [20.0, 1.0, 1.0, 1.0]);
        assert_eq!(summary(&[line(1.0, true), late])[0], [5.0, 3.5, 2.25, 4.75]);
    }

    #[test]
    fn many_points_become_a_grid_from_the_first_to_the_last() {
        let long = |n: usize| curve(&(0..n).map(|i| [i as f64, 2.0 * i as f64]).collect::<Vec<_>>(), true);
        let two = summary(&[long(5000), long(5000)]);
        assert_eq!((two.len(), two[0], two[GRID - 1]), (GRID, [0.0; 4], [4999.0, 9998.0, 9998.0, 9998.0]));
        assert!(two.iter().all(|p| (p[1] - 2.0 * p[0]).abs() < 1e-9));
        let one = summary(&[long(5000)]);
        assert!(one.len() <= MOST + 1 && one.last().unwrap()[0] == 4999.0, "{}", one.len());
    }

    #[test]
    fn a_curve_is_smoothed_by_a_trailing_mean() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &settings("ppo", "Toy", 1, 0.1), &[1.0, 3.0, f64::NAN, 8.0]);
        let run = RunFolder::read(dir.path()).unwrap();
        let points = |quantity: &Quantity, axis| Curve::new(&run, quantity, axis).map(|curve| curve.points);
        let steps = points(&Quantity::Return { window: 2 }, Axis::Steps).unwrap();
        assert_eq!(steps, [[10.0, 1.0], [20.0, 2.0], [40.0, 5.5]], "what is not finite is left out");
        let minutes = points(&Quantity::Return { window: 1 }, Axis::Minutes).unwrap();
        assert_eq!(minutes, [[0.5 / 60.0, 1.0], [1.0 / 60.0, 3.0], [2.0 / 60.0, 8.0]]);
        let column = |tag: &str| points(&Quantity::Column { tag: tag.into(), window: 1 }, Axis::Steps);
        assert_eq!(column("train/loss").unwrap()[0], [10.0, 0.1]);
        assert_eq!((column("eval/mean_reward"), column("train/los")), (Some(vec![]), None));
    }
}
