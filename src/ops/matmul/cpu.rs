//! CPU reference: the GEMM crate on the thread pool.

use super::{Accumulate, Layout};
use crate::device::gemm::{Matrix, Threads, gemm};
use crate::dtype::Real;
use rayon::prelude::*;

/// Below this many multiply-adds one thread is faster than waking the pool.
const PARALLEL_MIN_FMA: usize = 1 << 18;

pub(super) fn matmul<T: Real>(
    out: &mut [T],
    a: &[T],
    b: &[T],
    bias: Option<&[T]>,
    layout: Layout,
    accumulate: Accumulate,
    [m, n, k]: [usize; 3],
) {
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
