//! CPU reference: chunks in parallel, lanes within a chunk, partial results combined in order.

use crate::dtype::Real;
use rayon::prelude::*;

/// Independent partial results: four AVX2 registers of f64, enough to hide the latency of an
/// addition.
const LANES: usize = 16;
/// Elements per task.
const CHUNK: usize = 1 << 16;
/// Rows per task of [`column_sums`].
const CHUNK_ROWS: usize = 64;

pub(super) fn sum<T: Real>(x: &[T]) -> f64 {
    total(x, |chunk| {
        let mut lanes = [0.0; LANES];
        let (groups, tail) = chunk.as_chunks::<LANES>();
        for group in groups {
            for (lane, &x) in lanes.iter_mut().zip(group) {
                *lane += x.to_f64();
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(tail) {
            *lane += x.to_f64();
        }
        sum_lanes(lanes)
    })
}

pub(super) fn sum_squares<T: Real>(x: &[T]) -> f64 {
    total(x, |chunk| dot_chunk(chunk, chunk))
}

pub(super) fn dot<T: Real>(x: &[T], y: &[T]) -> f64 {
    let chunks = x.par_chunks(CHUNK).zip(y.par_chunks(CHUNK));
    let partials: Vec<f64> = chunks.map(|(x, y)| dot_chunk(x, y)).collect();
    partials.iter().sum()
}

pub(super) fn max_abs<T: Real>(x: &[T]) -> f64 {
    let partials: Vec<T> = x
        .par_chunks(CHUNK)
        .map(|chunk| {
            let mut lanes = [T::ZERO; LANES];
            let (groups, tail) = chunk.as_chunks::<LANES>();
            for group in groups {
                for (lane, &x) in lanes.iter_mut().zip(group) {
                    *lane = larger_or_nan(*lane, x.abs());
                }
            }
            lanes.into_iter().chain(tail.iter().map(|x| x.abs())).fold(T::ZERO, larger_or_nan)
        })
        .collect();
    partials.into_iter().fold(T::ZERO, larger_or_nan).to_f64()
}

pub(super) fn column_sums<T: Real>(out: &mut [T], x: &[T], num_columns: usize) {
    if num_columns == 0 {
        return;
    }
    let partials: Vec<Vec<f64>> = x
        .par_chunks(CHUNK_ROWS * num_columns)
        .map(|chunk| {
            let mut sums = vec![0.0; num_columns];
            for row in chunk.chunks_exact(num_columns) {
                for (sum, &x) in sums.iter_mut().zip(row) {
                    *sum += x.to_f64();
                }
            }
            sums
        })
        .collect();
    for (n, out) in out.iter_mut().enumerate() {
        let sum: f64 = partials.iter().map(|sums| sums[n]).sum();
        *out = T::from_f64(out.to_f64() + sum);
    }
}

/// Σ over chunks, added in order.
fn total<T: Real>(x: &[T], of_chunk: impl Fn(&[T]) -> f64 + Sync + Send) -> f64 {
    let partials: Vec<f64> = x.par_chunks(CHUNK).map(of_chunk).collect();
    partials.iter().sum()
}

fn dot_chunk<T: Real>(x: &[T], y: &[T]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (x_groups, x_tail) = x.as_chunks::<LANES>();
    let (y_groups, y_tail) = y.as_chunks::<LANES>();
    for (x, y) in x_groups.iter().zip(y_groups) {
        for (lane, (&x, &y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
            *lane += x.to_f64() * y.to_f64();
        }
    }
    for (lane, (&x, &y)) in lanes.iter_mut().zip(x_tail.iter().zip(y_tail)) {
        *lane += x.to_f64() * y.to_f64();
    }
    sum_lanes(lanes)
}

/// The larger of two; NaN once either is NaN.
fn larger_or_nan<T: Real>(largest: T, x: T) -> T {
    // The second comparison takes a NaN in; the first keeps it, since nothing exceeds NaN.
    if x > largest || x.partial_cmp(&x).is_none() { x } else { largest }
}

/// Adds halves to each other until one lane is left.
fn sum_lanes(mut lanes: [f64; LANES]) -> f64 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}
