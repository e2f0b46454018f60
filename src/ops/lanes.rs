//! Reductions over one row, spread over independent lanes.
//!
//! Floating-point sums may not be reordered by the compiler, so a plain loop is one long chain of
//! additions. Here element i goes to lane i mod 32 and the lanes are folded in halves: vectors
//! and several chains at once, a fixed order on every machine, and smaller rounding error.

use crate::dtype::Real;

/// Four AVX2 vectors of f32: enough chains to hide the latency of an addition.
const LANES: usize = 32;

fn fold<T: Real, const N: usize>(mut lanes: [T; N], combine: impl Fn(T, T) -> T) -> T {
    let mut width = N / 2;
    while width > 0 {
        let (low, high) = lanes.split_at_mut(width);
        for (a, &b) in low.iter_mut().zip(high.iter()) {
            *a = combine(*a, b);
        }
        width /= 2;
    }
    lanes[0]
}

/// sum of `a[i] * b[i]`.
pub(crate) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    assert_eq!(a.len(), b.len(), "dot of rows of different length");
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [T::ZERO; LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += a * b;
    }
    fold(lanes, |a, b| a + b)
}

/// sum of `a[i] * b[i] * c[i]`.
pub(crate) fn dot3<T: Real>(a: &[T], b: &[T], c: &[T]) -> T {
    assert!(a.len() == b.len() && b.len() == c.len(), "dot3 of rows of different length");
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let (c, c_rest) = c.as_chunks::<LANES>();
    let mut lanes = [T::ZERO; LANES];
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i] * c[i];
        }
    }
    for (((lane, &a), &b), &c) in lanes.iter_mut().zip(a_rest).zip(b_rest).zip(c_rest) {
        *lane += a * b * c;
    }
    fold(lanes, |a, b| a + b)
}

/// Lanes of the functions below, which take rows padded to a multiple of it: the polynomial of
/// the exponential is a chain by itself, so two vectors suffice and stay within the registers.
pub(crate) const PAD: usize = 16;

/// The largest element of a padded row; a NaN is passed over, minus infinity if there is none.
pub(crate) fn max<T: Real>(x: &[T]) -> T {
    let (x, rest) = x.as_chunks::<PAD>();
    assert!(rest.is_empty(), "a row that is not padded");
    let mut lanes = [T::NEG_INFINITY; PAD];
    for x in x {
        for i in 0..PAD {
            // Comparing this way round keeps the lane when x is NaN, and is one instruction.
            lanes[i] = if x[i] > lanes[i] { x[i] } else { lanes[i] };
        }
    }
    fold(lanes, |a, b| if b > a { b } else { a })
}

/// Replaces every element of a padded row by e^(element - `shift`) and returns the sum of them.
pub(crate) fn exp_sum<T: Real>(x: &mut [T], shift: T) -> T {
    let (x, rest) = x.as_chunks_mut::<PAD>();
    assert!(rest.is_empty(), "a row that is not padded");
    let mut lanes = [T::ZERO; PAD];
    for x in x {
        for i in 0..PAD {
            x[i] = (x[i] - shift).exp();
            lanes[i] += x[i];
        }
    }
    fold(lanes, |a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tail_length_gives_the_plain_result() {
        for n in 0..3 * LANES {
            let a: Vec<f64> = (0..n).map(|i| (i * 7 % 5) as f64 - 2.0).collect();
            let b: Vec<f64> = (0..n).map(|i| (i * 3 % 4) as f64).collect();
            // Small integers: every order of summation is exact.
            assert_eq!(dot(&a, &b), a.iter().zip(&b).map(|(a, b)| a * b).sum::<f64>(), "dot {n}");
            let cubes: f64 = a.iter().zip(&b).map(|(a, b)| a * b * b).sum();
            assert_eq!(dot3(&a, &b, &b), cubes, "dot3 {n}");
        }
    }

    #[test]
    fn padded_rows_give_the_plain_result() {
        for n in (0..4 * PAD).step_by(PAD) {
            let mut x: Vec<f64> = (0..n).map(|i| (i * 7 % 5) as f64 - 2.0).collect();
            assert_eq!(max(&x), x.iter().copied().fold(f64::NEG_INFINITY, f64::max), "max {n}");
            let want: Vec<f64> = x.iter().map(|x| (x - 1.0).exp()).collect();
            let (sum, plain) = (exp_sum(&mut x, 1.0), want.iter().sum::<f64>());
            assert_eq!(x, want, "exp {n}");
            assert!((sum - plain).abs() <= 1e-14 * plain, "exp_sum {n}: {sum} and {plain}");
        }
    }

    #[test]
    fn the_maximum_passes_over_nan_and_the_sum_does_not() {
        let mut x = vec![1.0f32; 64];
        x[3] = f32::NAN;
        x[63] = 2.0;
        assert_eq!(max(&x), 2.0);
        assert!(exp_sum(&mut x, 2.0).is_nan());
    }
}
