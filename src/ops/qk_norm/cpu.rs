//! CPU reference: the row kernels of rmsnorm on every head.

use super::Heads;
use crate::dtype::Real;
use crate::ops::rmsnorm::cpu::{CHUNK_ROWS, add_partials};
use crate::ops::rmsnorm::row;
use rayon::prelude::*;

pub(super) fn forward<T: Real>(
    out: &mut [T],
    rstd: &mut [T],
    qkv: &[T],
    q_weight: &[T],
    k_weight: &[T],
    eps: T,
    heads: Heads,
) {
    let (width, d) = (heads.qkv_dim(), heads.head_dim);
    let num_stats = heads.num_heads + heads.num_kv_heads;
    let weight = |head: usize| if head < heads.num_heads { q_weight } else { k_weight };
    out.par_chunks_mut(CHUNK_ROWS * width)
        .zip(rstd.par_chunks_mut(CHUNK_ROWS * num_stats))
        .zip(qkv.par_chunks(CHUNK_ROWS * width))
        .for_each(|((out, rstd), qkv)| {
            let rows = out.chunks_exact_mut(width).zip(qkv.chunks_exact(width));
            for ((out, qkv), rstd) in rows.zip(rstd.chunks_exact_mut(num_stats)) {
                let (normed, v_out) = out.split_at_mut(num_stats * d);
                let (raw, v) = qkv.split_at(num_stats * d);
                let pairs = normed.chunks_exact_mut(d).zip(raw.chunks_exact(d));
                for (head, ((y, x), rstd)) in pairs.zip(rstd).enumerate() {
                    *rstd = row::forward(y, x, weight(head), eps);
                }
                v_out.copy_from_slice(v);
            }
        });
}

pub(super) fn backward<T: Real>(
    dqkv: &mut [T],
    dq_weight: &mut [T],
    dk_weight: &mut [T],
    qkv: &[T],
    rstd: &[T],
    q_weight: &[T],
    k_weight: &[T],
    heads: Heads,
) {
    let (width, d) = (heads.qkv_dim(), heads.head_dim);
    let num_stats = heads.num_heads + heads.num_kv_heads;
    // Per chunk of rows: the gradient of q_weight, then that of k_weight.
    let num_chunks = (rstd.len() / num_stats).div_ceil(CHUNK_ROWS);
    let mut partials = vec![T::ZERO; num_chunks * 2 * d];
    dqkv.par_chunks_mut(CHUNK_ROWS * width)
        .zip(partials.par_chunks_mut(2 * d))
        .zip(qkv.par_chunks(CHUNK_ROWS * width))
        .zip(rstd.par_chunks(CHUNK_ROWS * num_stats))
        .for_each(|(((dqkv, partial), qkv), rstd)| {
            let (dq_weight, dk_weight) = partial.split_at_mut(d);
            let rows = dqkv.chunks_exact_mut(width).zip(qkv.chunks_exact(width));
            for ((dqkv, qkv), rstd) in rows.zip(rstd.chunks_exact(num_stats)) {
                let pairs = dqkv.chunks_exact_mut(d).zip(qkv.chunks_exact(d));
                // The values have no statistic, so the iteration ends before them.
                for (head, ((dy, x), &rstd)) in pairs.zip(rstd).enumerate() {
                    if head < heads.num_heads {
                        row::backward_in_place(dy, dq_weight, x, q_weight, rstd);
                    } else {
                        row::backward_in_place(dy, dk_weight, x, k_weight, rstd);
                    }
                }
            }
        });
    let mut sums = vec![T::ZERO; 2 * d];
    add_partials(&mut sums, &partials);
    let (dq_sum, dk_sum) = sums.split_at(d);
    add_partials(dq_weight, dq_sum);
    add_partials(dk_weight, dk_sum);
}
