//! CPU reference: the GEMM crate on the thread pool.

use super::{Accumulate, Layout};
use crate::device::gemm::{Matrix, Threads, gemm};
use crate::dtype::Real;
use rayon::prelude::*;

/// Below this many multiply-adds one thread is faster than waking the pool.
const PARALLEL_MIN_FMA: usize = 1 << 18;

/// Rows that keep a product with `n` columns on the GEMM crate's common path, so that a row's
/// result does not depend on how many others it is computed with: a token's logits are then the
/// same alone and in a batch.
///
/// Version 0.19 of the crate sums in another order for one row, for outputs of up to 256
/// elements, and when neither side of the output exceeds 64.
fn min_rows(n: usize) -> usize {
    match n {
        0 => 0,
        1..=64 => 65.max(256 / n + 1),
        _ => 4,
    }
}

pub(super) fn matmul<T: Real>(
    out: &mut [T],
    a: &[T],
    b: &[T],
    bias: Option<&[T]>,
    layout: Layout,
    accumulate: Accumulate,
    [m, n, k]: [usize; 3],
) {
    if layout != Layout::TN && 0 < m && m < min_rows(n) {
        let rows = min_rows(n);
        let mut padded_a = vec![T::ZERO; rows * k];
        padded_a[..m * k].copy_from_slice(a);
        let mut padded_out = vec![T::ZERO; rows * n];
        padded_out[..m * n].copy_from_slice(out);
        let dims = [rows, n, k];
        matmul(&mut padded_out, &padded_a, b, bias, layout, accumulate, dims);
        out.copy_from_slice(&padded_out[..m * n]);
        return;
    }
    let (a, b) = match layout {
        Layout::NT => (Matrix::new(a, m, k, k), Matrix::new(b, n, k, k).t()),
        Layout::NN => (Matrix::new(a, m, k, k), Matrix::new(b, k, n, n)),
        Layout::TN => (Matrix::new(a, k, m, m).t(), Matrix::new(b, k, n, n)),
    };
    let beta = match accumulate {
        Accumulate::No => T::ZERO,
        Accumulate::Yes => T::ONE,
    };
    let threads = if m * n * k < PARALLEL_MIN_FMA { Threads::One } else { Threads::Pool };
    gemm(out, n, a, b, T::ONE, beta, threads);
    if let (Some(bias), true) = (bias, n > 0) {
        out.par_chunks_mut(n).for_each(|row| {
            for (y, &bias) in row.iter_mut().zip(bias) {
                *y += bias;
            }
        });
    }
}
