//! CPU forward: online softmax over tiles of keys (Milakov & Gimelshein 2018; FlashAttention,
//! Dao et al. 2022).

use super::Heads;
use super::cpu::{KEY_TILE, QUERY_TILE, RowBlock, gather, keys, row_blocks, split_rows};
use super::cpu::{mask_row, score_stride, tiles, values};
use crate::device::gemm::{Matrix, Threads, gemm};
use crate::dtype::Real;
use crate::ops::lanes;
use rayon::prelude::*;
use std::ops::Range;

/// What one task needs beside its output; a few hundred kilobytes whatever T is.
struct Scratch<T> {
    /// Queries times scale, (tokens * group, D).
    queries: Vec<T>,
    /// Scores, then probabilities before normalisation, (tokens * group, keys).
    scores: Vec<T>,
    /// Sum of probability times value so far, (tokens * group, D).
    sums: Vec<T>,
    /// Largest score so far per row.
    max: Vec<T>,
    /// Sum of the exponentials so far per row.
    total: Vec<T>,
}

impl<T: Real> Scratch<T> {
    fn new(longest: usize, heads: Heads) -> Self {
        let rows = longest.min(QUERY_TILE) * heads.group();
        Self {
            queries: vec![T::ZERO; rows * heads.head_dim],
            scores: vec![T::ZERO; rows * score_stride(longest.min(KEY_TILE))],
            sums: vec![T::ZERO; rows * heads.head_dim],
            max: vec![T::ZERO; rows],
            total: vec![T::ZERO; rows],
        }
    }
}

pub(super) fn forward<T: Real>(
    out: &mut [T],
    lse: &mut [T],
    qkv: &[T],
    documents: &[Range<usize>],
    scale: f64,
    heads: Heads,
) {
    let longest = documents.iter().map(|d| d.len()).max().unwrap_or(0);
    let blocks = row_blocks(documents, QUERY_TILE);
    let out = split_rows(out, heads.q_dim(), &blocks);
    let lse = split_rows(lse, heads.num_heads, &blocks);
    let scale = T::from_f64(scale);
    // Later rows see more keys: one block per task, the long ones first, so that the threads
    // finish together.
    blocks.par_iter().zip(out).zip(lse).rev().with_max_len(1).for_each_init(
        || Scratch::new(longest, heads),
        |scratch, ((block, out), lse)| {
            for kv_head in 0..heads.num_kv_heads {
                forward_tile(out, lse, qkv, block, kv_head, scale, heads, scratch);
            }
        },
    );
}

/// All the query heads of one key head, for the queries of one block.
fn forward_tile<T: Real>(
    out: &mut [T],
    lse: &mut [T],
    qkv: &[T],
    block: &RowBlock,
    kv_head: usize,
    scale: T,
    heads: Heads,
    scratch: &mut Scratch<T>,
) {
    let (d, group) = (heads.head_dim, heads.group());
    let (queries, first_query) = (block.rows.clone(), block.rows.start);
    let num_rows = queries.len() * group;
    let Scratch { queries: q, scores, sums, max, total } = scratch;
    let q = &mut q[..num_rows * d];
    let (sums, max, total) =
        (&mut sums[..num_rows * d], &mut max[..num_rows], &mut total[..num_rows]);
    gather(q, qkv, heads.qkv_dim(), queries.clone(), kv_head, scale, heads);
    max.fill(T::NEG_INFINITY);
    total.fill(T::ZERO);
    for tile in tiles(block.document.start..queries.end, KEY_TILE) {
        let (n, first) = (tile.len(), tile.start == block.document.start);
        let stride = score_stride(n);
        let scores = &mut scores[..num_rows * stride];
        let q = Matrix::new(q, num_rows, d, d);
        let k = keys(qkv, tile.clone(), kv_head, heads);
        gemm(scores, stride, q, k.t(), T::ONE, T::ZERO, Threads::One);
        for (r, row) in scores.chunks_exact_mut(stride).enumerate() {
            let visible = n.min(first_query + r / group + 1 - tile.start);
            let seen = mask_row(row, visible);
            let new_max = max[r].max(lanes::max(seen));
            let sum = lanes::exp_sum(seen, new_max);
            if first {
                total[r] = sum;
            } else {
                let shrink = (max[r] - new_max).exp();
                total[r] = total[r] * shrink + sum;
                for x in &mut sums[r * d..(r + 1) * d] {
                    *x *= shrink;
                }
            }
            max[r] = new_max;
        }
        let p = Matrix::new(scores, num_rows, n, stride);
        let v = values(qkv, tile, kv_head, heads);
        let beta = if first { T::ZERO } else { T::ONE };
        gemm(sums, d, p, v, T::ONE, beta, Threads::One);
    }
    for (r, sums) in sums.chunks_exact(d).enumerate() {
        let (row, head) = (r / group, kv_head * group + r % group);
        let out = &mut out[row * heads.q_dim() + head * d..][..d];
        let inverse = T::ONE / total[r];
        for (out, &sum) in out.iter_mut().zip(sums) {
            *out = sum * inverse;
        }
        lse[row * heads.num_heads + head] = max[r] + total[r].ln();
    }
}
