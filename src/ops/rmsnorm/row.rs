//! RMSNorm of one row; also each head of `qk_norm`.

use crate::dtype::Real;
use crate::ops::lanes;

/// y = x · rstd · weight; returns rstd = (mean(x²) + eps)^-½.
pub(crate) fn forward<T: Real>(y: &mut [T], x: &[T], weight: &[T], eps: T) -> T {
    let mean = lanes::dot(x, x) / T::from_f64(x.len() as f64);
    let rstd = T::ONE / (mean + eps).sqrt();
    for ((y, &x), &w) in y.iter_mut().zip(x).zip(weight) {
        *y = x * rstd * w;
    }
    rstd
}

/// dx += rstd · (dy · w − x̂ · mean(dy · w · x̂)) and dweight += dy · x̂, with x̂ = x · rstd.
pub(crate) fn backward<T: Real>(
    dx: &mut [T],
    dweight: &mut [T],
    dy: &[T],
    x: &[T],
    weight: &[T],
    rstd: T,
) {
    let mean = mean_projection(dy, x, weight, rstd);
    let rows = dx.iter_mut().zip(dweight).zip(dy).zip(x).zip(weight);
    for ((((dx, dw), &dy), &x), &w) in rows {
        let x_hat = x * rstd;
        *dx += rstd * (dy * w - x_hat * mean);
        *dw += dy * x_hat;
    }
}

/// As [`backward`], but `d` holds dy and receives dx.
pub(crate) fn backward_in_place<T: Real>(
    d: &mut [T],
    dweight: &mut [T],
    x: &[T],
    weight: &[T],
    rstd: T,
) {
    let mean = mean_projection(d, x, weight, rstd);
    for (((d, dw), &x), &w) in d.iter_mut().zip(dweight).zip(x).zip(weight) {
        let (x_hat, dy) = (x * rstd, *d);
        *d = rstd * (dy * w - x_hat * mean);
        *dw += dy * x_hat;
    }
}

/// mean(dy · w · x̂): what the normalisation takes out of the gradient.
fn mean_projection<T: Real>(dy: &[T], x: &[T], weight: &[T], rstd: T) -> T {
    lanes::dot3(dy, weight, x) * rstd / T::from_f64(x.len() as f64)
}
