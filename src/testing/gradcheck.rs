//! Central differences in f64 against an analytic gradient.

/// Panics unless `gradient` is the derivative of `loss` at `x`.
///
/// The four-point formula (8(f₁−f₋₁) − (f₂−f₋₂)) / 12h has truncation error h⁴f⁽⁵⁾/30 and rounding
/// error about 1.5·ε·|f|/h; at h = 10⁻³ both are near 10⁻¹² for functions of order one, so the
/// tolerance, 10⁻⁷ of the gradient's largest element plus 10⁻⁹, leaves room only for smooth factors.
#[track_caller]
pub fn assert_gradient(
    what: &str,
    x: &[f64],
    gradient: &[f64],
    mut loss: impl FnMut(&[f64]) -> f64,
) {
    assert_eq!(x.len(), gradient.len(), "{what}: one derivative per input");
    const H: f64 = 1e-3;
    let scale = gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
    let tolerance = 1e-7 * scale + 1e-9;
    let mut probe = x.to_vec();
    for i in 0..x.len() {
        let mut at = |offset: f64| {
            probe[i] = x[i] + offset;
            let value = loss(&probe);
            probe[i] = x[i];
            value
        };
        let numeric = (8.0 * (at(H) - at(-H)) - (at(2.0 * H) - at(-2.0 * H))) / (12.0 * H);
        assert!(
            (numeric - gradient[i]).abs() <= tolerance,
            "{what}[{i}]: analytic {:e}, numeric {numeric:e}, allowed difference {tolerance:e}",
            gradient[i]
        );
    }
}

/// Σ weights · values: turns a tensor-valued function into a scalar one with gradient `weights`.
pub fn weighted_sum(values: &[f64], weights: &[f64]) -> f64 {
    values.iter().zip(weights).map(|(v, w)| v * w).sum()
}
