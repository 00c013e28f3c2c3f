//! Coefficients that change over a run: learning rates, exploration rates, entropy coefficients.
//!
//! A configuration writes a constant as a number and a line as a table:
//!
//! ```toml
//! learning_rate = 2.5e-4
//! learning_rate = { start = 2.5e-4, end = 0.0, steps = 1_000_000 }
//! ```

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A linear change from `start` to `end` over `steps` agent steps, constant afterwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The value at step 0.
    pub start: f64,
    /// The value from step `steps` on.
    pub end: f64,
    /// The horizon in agent steps over all environments; 0: the whole run.
    pub steps: u64,
}

/// The form of a linear schedule in a configuration.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Linear {
    start: f64,
    end: f64,
    #[serde(default)]
    steps: u64,
}

impl Schedule {
    /// The keys of a linear schedule in a configuration.
    pub const KEYS: [&'static str; 3] = ["start", "end", "steps"];

    /// A value that never changes.
    pub const fn constant(value: f64) -> Self {
        Self { start: value, end: value, steps: 0 }
    }

    /// A linear change from `start` at step 0 to `end` at step `steps` (0: at the end of the run).
    pub const fn linear(start: f64, end: f64, steps: u64) -> Self {
        Self { start, end, steps }
    }

    /// Whether the value never changes.
    pub fn is_constant(&self) -> bool {
        self.start == self.end
    }

    /// The same schedule with its horizon resolved: `steps`, the length of the run, where it is 0.
    #[must_use]
    pub fn over(self, steps: u64) -> Self {
        Self { steps: if self.steps == 0 && !self.is_constant() { steps } else { self.steps }, ..self }
    }

    /// The same schedule with the horizon `to` where it was `from`.
    #[must_use]
    pub fn extended(self, from: u64, to: u64) -> Self {
        Self { steps: if self.steps == from && !self.is_constant() { to } else { self.steps }, ..self }
    }

    /// The value at agent step `step`. An unresolved horizon of 0 yields `end`.
    pub fn at(&self, step: u64) -> f64 {
        if step >= self.steps {
            self.end
        } else {
            self.start + (self.end - self.start) * (step as f64 / self.steps as f64)
        }
    }

    /// The values between which the schedule stays.
    pub fn range(&self) -> [f64; 2] {
        [self.start, self.end]
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { start, end, steps } = *self;
        if self.is_constant() {
            start.serialize(serializer)
        } else {
            Linear { start, end, steps }.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number, or { start = 1.0, end = 0.1, steps = 1000 }, was expected")]
        enum Form {
            Constant(f64),
            Linear(Linear),
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Constant(value) => Self::constant(value),
            Form::Linear(Linear { start, end, steps }) => Self::linear(start, end, steps),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_schedule_by_step() {
        let s = Schedule::linear(1.0, 0.0, 10);
        assert_eq!([s.at(0), s.at(5), s.at(10), s.at(11)], [1.0, 0.5, 0.0, 0.0]);
        assert_eq!(Schedule::constant(3.0).at(0), 3.0);
    }

    #[test]
    fn a_horizon_of_zero_is_the_run() {
        assert_eq!(Schedule::linear(1.0, 0.0, 0).over(10).at(5), 0.5);
        assert_eq!(Schedule::linear(1.0, 0.0, 20).over(10).at(5), 0.75);
        assert_eq!(Schedule::constant(3.0).over(10), Schedule::constant(3.0));
        assert_eq!(Schedule::linear(1.0, 0.0, 10).extended(10, 30).steps, 30);
        assert_eq!(Schedule::linear(1.0, 0.0, 20).extended(10, 30).steps, 20);
        assert_eq!(Schedule::constant(3.0).extended(0, 30), Schedule::constant(3.0));
    }

    #[test]
    fn a_constant_is_a_number_and_a_line_a_table() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Section {
            a: Schedule,
            b: Schedule,
            c: Schedule,
        }
        let text = "a = 2\nb = { start = 1.0, end = 0.5, steps = 7 }\nc = { start = 1, end = 0 }\n";
        let section: Section = toml::from_str(text).unwrap();
        let [a, b, c] = [Schedule::constant(2.0), Schedule::linear(1.0, 0.5, 7), Schedule::linear(1.0, 0.0, 0)];
        assert_eq!(section, Section { a, b, c });
        let again: Section = toml::from_str(&toml::to_string(&section).unwrap()).unwrap();
        assert_eq!(again, section);
        for wrong in ["a = 'fast'", "a = { start = 1 }", "a = { start = 1, end = 0, stop = 3 }"] {
            let said = toml::from_str::<Section>(wrong).unwrap_err().to_string();
            assert!(said.contains("a number, or { start"), "{said}");
        }
    }
}
