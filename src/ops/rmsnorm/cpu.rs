//! CPU reference: rows in parallel; the weight gradient from chunks of rows, added in order.

use super::row;
use crate::dtype::Real;
use rayon::prelude::*;

/// Rows per task: enough to pay for the task, few enough to share a small batch.
const TASK_ROWS: usize = 16;
/// Rows whose weight gradients are summed into one partial; fixed, so that the order of the sum
/// does not depend on threads.
pub(crate) const CHUNK_ROWS: usize = 32;

pub(super) fn forward<T: Real>(y: &mut [T], rstd: &mut [T], x: &[T], weight: &[T], eps: T) {
    let c = weight.len();
    y.par_chunks_mut(TASK_ROWS * c)
        .zip(rstd.par_chunks_mut(TASK_ROWS))
        .zip(x.par_chunks(TASK_ROWS * c))
        .for_each(|((y, rstd), x)| {
            let rows = y.chunks_exact_mut(c).zip(rstd).zip(x.chunks_exact(c));
            for ((y, rstd), x) in rows {
                *rstd = row::forward(y, x, weight, eps);
            }
        });
}

pub(super) fn forward_residual<T: Real>(
    y: &mut [T],
    residual_out: &mut [T],
    rstd: &mut [T],
    residual: &[T],
    x: &[T],
    weight: &[T],
    eps: T,
) {
    let c = weight.len();
    y.par_chunks_mut(TASK_ROWS * c)
        .zip(residual_out.par_chunks_mut(TASK_ROWS * c))
        .zip(rstd.par_chunks_mut(TASK_ROWS))
        .zip(residual.par_chunks(TASK_ROWS * c))
        .zip(x.par_chunks(TASK_ROWS * c))
        .for_each(|((((y, sums), rstd), residual), x)| {
            for ((sum, &residual), &x) in sums.iter_mut().zip(residual).zip(x) {
                *sum = residual + x;
            }
            let rows = y.chunks_exact_mut(c).zip(rstd).zip(sums.chunks_exact(c));
            for ((y, rstd), sum) in rows {
                *rstd = row::forward(y, sum, weight, eps);
            }
        });
}

pub(super) fn backward<T: Real>(
    dx: &mut [T],
    dweight: &mut [T],
    dy: &[T],
    x: &[T],
    weight: &[T],
    rstd: &[T],
) {
    let c = weight.len();
    let mut partials = vec![T::ZERO; rstd.len().div_ceil(CHUNK_ROWS) * c];
    dx.par_chunks_mut(CHUNK_ROWS * c)
        .zip(partials.par_chunks_mut(c))
        .zip(dy.par_chunks(CHUNK_ROWS * c))
        .zip(x.par_chunks(CHUNK_ROWS * c))
        .zip(rstd.par_chunks(CHUNK_ROWS))
        .for_each(|((((dx, partial), dy), x), rstd)| {
            let inputs = dy.chunks_exact(c).zip(x.chunks_exact(c)).zip(rstd);
            for (dx, ((dy, x), &rstd)) in dx.chunks_exact_mut(c).zip(inputs) {
                row::backward(dx, partial, dy, x, weight, rstd);
            }
        });
    add_partials(dweight, &partials);
}

/// Adds rows of partial sums to `total`, the first row first.
pub(crate) fn add_partials<T: Real>(total: &mut [T], partials: &[T]) {
    for partial in partials.chunks_exact(total.len()) {
        for (total, &partial) in total.iter_mut().zip(partial) {
            *total += partial;
        }
    }
}
