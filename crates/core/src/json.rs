//! JSON representations of infinity and NaN.

/// For `#[serde(with = "playfield_core::json::float")]`: an `f64` whose infinities and NaN are written as `"inf"`, `"-inf"` and
/// `"NaN"`. serde_json writes `null` instead, which it cannot read back as an `f64`.
pub mod float {
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;
    use std::fmt;

    /// Writes `value`.
    ///
    /// # Errors
    /// The errors of the serializer.
    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        match value.is_finite() {
            true => serializer.serialize_f64(*value),
            false => serializer.collect_str(value),
        }
    }

    /// Reads a value written by [`serialize`]; `null` is NaN.
    ///
    /// # Errors
    /// If the value is neither a number, `null` nor one of these strings.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        deserializer.deserialize_any(Float)
    }

    struct Float;

    impl Visitor<'_> for Float {
        type Value = f64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number, \"inf\", \"-inf\" or \"NaN\"")
        }
        fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
            Ok(value)
        }
        fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
            Ok(value as f64)
        }
        fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
            Ok(value as f64)
        }
        fn visit_unit<E: Error>(self) -> Result<f64, E> {
            Ok(f64::NAN)
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
            text.parse().map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Value(#[serde(with = "super::float")] f64);

    fn read(text: &str) -> Result<f64, String> {
        serde_json::from_str::<Value>(text).map(|value| value.0).map_err(|error| error.to_string())
    }

    /// Whole numbers are written without a point, and what is not finite as text.
    #[test]
    fn every_float_is_read_back() {
        for value in [0.0, -0.1, 5.0, -7.0, 1e300, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(read(&serde_json::to_string(&Value(value)).unwrap()), Ok(value));
        }
        assert!(read(&serde_json::to_string(&Value(f64::NAN)).unwrap()).unwrap().is_nan());
        assert_eq!((read("5"), read("-7")), (Ok(5.0), Ok(-7.0)));
        assert!(read("null").unwrap().is_nan());
        let message = read("\"many\"").unwrap_err();
        assert!(message.contains("expected a number, \"inf\", \"-inf\" or \"NaN\""), "{message}");
    }
}
