//! Numbers as text.

/// Formats a number with three significant digits.
pub fn number(value: f64) -> String {
    let size = value.abs();
    match value {
        f64::INFINITY => return "∞".into(),
        f64::NEG_INFINITY => return "−∞".into(),
        value if value.is_nan() => return "NaN".into(),
        _ => {}
    }
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        return format!("{value:.1e}");
    }
    let digits = (2 - size.max(1e-3).log10().floor() as i32).clamp(0, 5) as usize;
    trim(format!("{value:.digits$}"))
}

/// Formats a number of steps with three significant digits: `950`, `16.4k`, `1.05M`, `2.5G`.
pub fn count(value: f64) -> String {
    // 999.5 and more round to 1000, which belongs to the next unit.
    let unit = [(1e9, "G"), (1e6, "M"), (1e3, "k")].into_iter().find(|(unit, _)| value.abs() >= 0.9995 * unit);
    match unit {
        Some((unit, name)) => format!("{}{name}", number(value / unit)),
        None => trim(format!("{value:.1}")),
    }
}

/// Formats a size: `512 B`, `16.4 kB`, `1.05 MB` (10⁶ bytes).
pub fn bytes(size: u64) -> String {
    match count(size as f64) {
        text if text.ends_with(|c: char| c.is_ascii_digit()) => format!("{text} B"),
        mut text => text.pop().map(|unit| format!("{text} {unit}B")).unwrap_or_default(),
    }
}

/// Removes zeros at the end of a fraction.
fn trim(text: String) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_significant_digits() {
        let written = [0.0, 1234.5, 12.34, 0.98765, 0.01234, 1e-5, 2.5e7, f64::INFINITY, f64::NAN].map(number);
        assert_eq!(written, ["0", "1234", "12.3", "0.988", "0.0123", "1.0e-5", "2.5e7", "∞", "NaN"]);
    }

    #[test]
    fn counts_and_sizes_have_units() {
        let written = [0.0, 12.0, 999.0, 1000.0, 16_384.0, 999_600.0, 1_050_000.0, 2.5e9].map(count);
        assert_eq!(written, ["0", "12", "999", "1k", "16.4k", "1M", "1.05M", "2.5G"]);
        assert_eq!([0, 512, 16_384, 1_050_000].map(bytes), ["0 B", "512 B", "16.4 kB", "1.05 MB"]);
    }
}
