//! Means and quantiles.

/// The `share`-quantile of `values` (0: smallest, ½: median, 1: largest), linear between neighbors, as NumPy's default.
/// NaN if there are no values.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = share * last as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    // A weighted sum rather than a difference: an infinite value (a run that failed) must not become NaN.
    if low == high || place.fract() == 0.0 { low } else { low * (1.0 - place.fract()) + high * place.fract() }
}

/// The median of `values`. NaN if there are none.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The mean of `values`. NaN if there are none.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_equal_numpys() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|q| quantile(&values, q)), [1.0, 1.75, 2.5, 4.0]);
        assert_eq!(median(&[f64::INFINITY, 1.0, f64::INFINITY]), f64::INFINITY);
        assert_eq!(median(&[f64::NEG_INFINITY, 1.0]), f64::NEG_INFINITY);
        assert!(median(&[]).is_nan() && mean(&[]).is_nan());
        assert_eq!(mean(&values), 2.5);
    }
}
