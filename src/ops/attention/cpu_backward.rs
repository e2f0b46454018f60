//! CPU backward: probabilities recomputed from the log-sum-exp, tile by tile (FlashAttention-2,
//! Dao 2023).
//!
//! A task owns a block of rows of dqkv: dq of its queries and dk, dv of its keys. Tiles whose
//! queries and keys both lie in the block serve all three; other tiles are computed once for dq
//! and once for dk and dv, by different tasks. That repeats two of five products and makes every
//! row the sum of one task in one order. The work of a block hardly depends on its place: early
//! rows have few keys and many later queries, late rows the reverse.

use super::Heads;
use super::cpu::{KEY_TILE, QUERY_TILE, RowBlock, gather, keys, row_blocks, split_rows};
use super::cpu::{mask_row, score_stride, tiles, values};
use crate::device::gemm::{Matrix, Threads, gemm};
use crate::dtype::Real;
use crate::ops::lanes::{self, PAD};
use rayon::prelude::*;
use std::ops::Range;

/// Rows of dqkv one task owns. Documents up to this length repeat no product.
const BLOCK_ROWS: usize = 256;

/// The shared inputs of every task.
#[derive(Clone, Copy)]
struct Inputs<'a, T> {
    dout: &'a [T],
    qkv: &'a [T],
    lse: &'a [T],
    /// sum over d of dout * out per token and head, (T, H).
    delta: &'a [T],
    scale: T,
    heads: Heads,
}

/// What one task needs beside its output; independent of T.
struct Scratch<T> {
    /// Queries times scale of one tile, (tokens * group, D).
    queries: Vec<T>,
    /// dout of the same rows.
    douts: Vec<T>,
    /// Scores, then probabilities, (tokens * group, keys).
    probs: Vec<T>,
    /// Gradient of the probabilities, then of the scores.
    dscores: Vec<T>,
    /// dq of one tile before the factor scale, (tokens * group, D).
    dq: Vec<T>,
    /// dk of the block for one key head, (rows, D).
    dk: Vec<T>,
    /// dv likewise.
    dv: Vec<T>,
}

impl<T: Real> Scratch<T> {
    fn new(longest: usize, heads: Heads) -> Self {
        let (rows, d) = (longest.min(QUERY_TILE) * heads.group(), heads.head_dim);
        let block_rows = longest.min(BLOCK_ROWS);
        let zeros = |n: usize| vec![T::ZERO; n];
        Self {
            queries: zeros(rows * d),
            douts: zeros(rows * d),
            probs: zeros(rows * score_stride(longest.min(KEY_TILE))),
            dscores: zeros(rows * score_stride(longest.min(KEY_TILE))),
            dq: zeros(rows * d),
            dk: zeros(block_rows * d),
            dv: zeros(block_rows * d),
        }
    }
}

pub(super) fn backward<T: Real>(
    dqkv: &mut [T],
    dout: &[T],
    qkv: &[T],
    out: &[T],
    lse: &[T],
    documents: &[Range<usize>],
    scale: f64,
    heads: Heads,
) {
    let longest = documents.iter().map(|d| d.len()).max().unwrap_or(0);
    let mut delta = vec![T::ZERO; lse.len()];
    let d = heads.head_dim;
    delta.par_iter_mut().zip(dout.par_chunks_exact(d)).zip(out.par_chunks_exact(d)).for_each(
        |((delta, dout), out)| {
            *delta = lanes::dot(dout, out);
        },
    );
    let inputs = Inputs { dout, qkv, lse, delta: &delta, scale: T::from_f64(scale), heads };
    let blocks = row_blocks(documents, BLOCK_ROWS);
    let dqkv = split_rows(dqkv, heads.qkv_dim(), &blocks);
    blocks.par_iter().zip(dqkv).with_max_len(1).for_each_init(
        || Scratch::new(longest, heads),
        |scratch, (block, dqkv)| {
            for kv_head in 0..heads.num_kv_heads {
                backward_block(dqkv, inputs, block, kv_head, scratch);
            }
        },
    );
}

/// Everything of one block that belongs to one key head.
fn backward_block<T: Real>(
    dqkv: &mut [T],
    inputs: Inputs<'_, T>,
    block: &RowBlock,
    kv_head: usize,
    scratch: &mut Scratch<T>,
) {
    let (document, rows) = (block.document.clone(), block.rows.clone());
    let num_block_elems = rows.len() * inputs.heads.head_dim;
    scratch.dk[..num_block_elems].fill(T::ZERO);
    scratch.dv[..num_block_elems].fill(T::ZERO);
    for queries in tiles(rows.clone(), QUERY_TILE) {
        scratch.load_queries(inputs, queries.clone(), kv_head);
        for keys in tiles(document.start..rows.start, KEY_TILE) {
            scratch.score_gradients(inputs, queries.clone(), keys.clone(), kv_head);
            scratch.add_dq(inputs, queries.clone(), keys, kv_head);
        }
        for keys in tiles(rows.start..queries.end, KEY_TILE) {
            scratch.score_gradients(inputs, queries.clone(), keys.clone(), kv_head);
            scratch.add_dq(inputs, queries.clone(), keys.clone(), kv_head);
            scratch.add_dk_dv(inputs, queries.clone(), keys, rows.start);
        }
        scratch.store_dq(dqkv, inputs, queries, rows.start, kv_head);
    }
    for queries in tiles(rows.end..document.end, QUERY_TILE) {
        scratch.load_queries(inputs, queries.clone(), kv_head);
        for keys in tiles(rows.clone(), KEY_TILE) {
            scratch.score_gradients(inputs, queries.clone(), keys.clone(), kv_head);
            scratch.add_dk_dv(inputs, queries.clone(), keys, rows.start);
        }
    }
    let heads = inputs.heads;
    let (d, k_column) = (heads.head_dim, heads.q_dim() + kv_head * heads.head_dim);
    let sums = scratch.dk.chunks_exact(d).zip(scratch.dv.chunks_exact(d));
    for (row, (dk, dv)) in dqkv.chunks_exact_mut(heads.qkv_dim()).zip(sums) {
        row[k_column..][..d].copy_from_slice(dk);
        row[k_column + heads.kv_dim()..][..d].copy_from_slice(dv);
    }
}

impl<T: Real> Scratch<T> {
    fn load_queries(&mut self, inputs: Inputs<'_, T>, queries: Range<usize>, kv_head: usize) {
        let Inputs { dout, qkv, scale, heads, .. } = inputs;
        let num_elems = queries.len() * heads.group() * heads.head_dim;
        let (q, dout_rows) = (&mut self.queries[..num_elems], &mut self.douts[..num_elems]);
        gather(q, qkv, heads.qkv_dim(), queries.clone(), kv_head, scale, heads);
        gather(dout_rows, dout, heads.q_dim(), queries, kv_head, T::ONE, heads);
        self.dq[..num_elems].fill(T::ZERO);
    }

    /// P = e^(S - lse) and dS = P * (dout V^T - delta) of one tile; both 0 where the mask is.
    fn score_gradients(
        &mut self,
        inputs: Inputs<'_, T>,
        queries: Range<usize>,
        key_tile: Range<usize>,
        kv_head: usize,
    ) {
        let Inputs { qkv, lse, delta, heads, .. } = inputs;
        let (d, group, n) = (heads.head_dim, heads.group(), key_tile.len());
        let m = queries.len() * group;
        let stride = score_stride(n);
        let (probs, dscores) = (&mut self.probs[..m * stride], &mut self.dscores[..m * stride]);
        let q = Matrix::new(&self.queries, m, d, d);
        let dout = Matrix::new(&self.douts, m, d, d);
        let k = keys(qkv, key_tile.clone(), kv_head, heads);
        let v = values(qkv, key_tile.clone(), kv_head, heads);
        gemm(probs, stride, q, k.t(), T::ONE, T::ZERO, Threads::One);
        gemm(dscores, stride, dout, v.t(), T::ONE, T::ZERO, Threads::One);
        let rows = probs.chunks_exact_mut(stride).zip(dscores.chunks_exact_mut(stride));
        for (r, (probs, dscores)) in rows.enumerate() {
            let token = queries.start + r / group;
            let stat = token * heads.num_heads + kv_head * group + r % group;
            let (lse, delta) = (lse[stat], delta[stat]);
            let visible = n.min((token + 1).saturating_sub(key_tile.start));
            let probs = mask_row(probs, visible);
            let (dscores, unseen) = dscores.split_at_mut(probs.len());
            unseen.fill(T::ZERO);
            let (probs, _) = probs.as_chunks_mut::<PAD>();
            let (dscores, _) = dscores.as_chunks_mut::<PAD>();
            for (p, ds) in probs.iter_mut().zip(dscores) {
                for i in 0..PAD {
                    p[i] = (p[i] - lse).exp();
                    ds[i] = p[i] * (ds[i] - delta);
                }
            }
        }
    }

    /// dq += dS K.
    fn add_dq(
        &mut self,
        inputs: Inputs<'_, T>,
        queries: Range<usize>,
        key_tile: Range<usize>,
        kv_head: usize,
    ) {
        let heads = inputs.heads;
        let (m, n) = (queries.len() * heads.group(), key_tile.len());
        let dscores = Matrix::new(&self.dscores, m, n, score_stride(n));
        let k = keys(inputs.qkv, key_tile, kv_head, heads);
        gemm(&mut self.dq, heads.head_dim, dscores, k, T::ONE, T::ONE, Threads::One);
    }

    /// dk += dS^T (scale Q) and dv += P^T dout, summed over the query heads of the group.
    fn add_dk_dv(
        &mut self,
        inputs: Inputs<'_, T>,
        queries: Range<usize>,
        key_tile: Range<usize>,
        block_start: usize,
    ) {
        let d = inputs.heads.head_dim;
        let (m, n) = (queries.len() * inputs.heads.group(), key_tile.len());
        let first = (key_tile.start - block_start) * d;
        let probs = Matrix::new(&self.probs, m, n, score_stride(n));
        let dscores = Matrix::new(&self.dscores, m, n, score_stride(n));
        let q = Matrix::new(&self.queries, m, d, d);
        let dout = Matrix::new(&self.douts, m, d, d);
        gemm(&mut self.dk[first..], d, dscores.t(), q, T::ONE, T::ONE, Threads::One);
        gemm(&mut self.dv[first..], d, probs.t(), dout, T::ONE, T::ONE, Threads::One);
    }

    fn store_dq(
        &self,
        dqkv: &mut [T],
        inputs: Inputs<'_, T>,
        queries: Range<usize>,
        block_start: usize,
        kv_head: usize,
    ) {
        let heads = inputs.heads;
        let width = heads.group() * heads.head_dim;
        let rows = dqkv.chunks_exact_mut(heads.qkv_dim()).skip(queries.start - block_start);
        for (row, dq) in rows.zip(self.dq.chunks_exact(width)).take(queries.len()) {
            let row = &mut row[kv_head * width..][..width];
            for (to, &from) in row.iter_mut().zip(dq) {
                *to = from * inputs.scale;
            }
        }
    }
}
