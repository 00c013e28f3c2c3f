//! Numbers that change over a run, on a declared clock.

use serde::{Deserialize, Serialize};

/// A line from `start` to `end` over `duration` ticks of its clock, constant afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The value at tick 0.
    pub start: f64,
    /// The value from tick `duration` on.
    pub end: f64,
    /// How many ticks the way takes. The owner says of which clock: agent steps, updates, frames.
    pub duration: u64,
}

impl Schedule {
    /// A value that never changes.
    pub fn constant(value: f64) -> Self {
        Self { start: value, end: value, duration: 0 }
    }

    /// A line from `start` at tick 0 to `end` at tick `duration`.
    pub fn linear(start: f64, end: f64, duration: u64) -> Self {
        Self { start, end, duration }
    }

    /// The value at tick `t`.
    pub fn at(&self, t: u64) -> f64 {
        if t >= self.duration {
            self.end
        } else {
            self.start + (self.end - self.start) * (t as f64 / self.duration as f64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_and_its_ends() {
        let s = Schedule::linear(1.0, 0.0, 10);
        assert_eq!([s.at(0), s.at(5), s.at(10), s.at(11)], [1.0, 0.5, 0.0, 0.0]);
        assert_eq!(Schedule::constant(3.0).at(0), 3.0);
    }
}
