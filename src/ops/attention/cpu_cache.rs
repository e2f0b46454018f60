//! CPU decoding: limited by reading the cache once, so plain dot products and no GEMM.

use super::Heads;
use super::cpu::mask_row;
use crate::dtype::Real;
use crate::ops::lanes;
use rayon::prelude::*;

/// Keys scored before their values are read; bounds the scratch.
const KEY_TILE: usize = 128;

pub(super) fn store_kv<T: Real>(
    k_cache: &mut [T],
    v_cache: &mut [T],
    qkv: &[T],
    rows: &[i32],
    heads: Heads,
) {
    let width = heads.kv_dim();
    for (qkv, &row) in qkv.chunks_exact(heads.qkv_dim()).zip(rows) {
        let (k, v) = qkv[heads.q_dim()..].split_at(width);
        let start = row as usize * width;
        k_cache[start..start + width].copy_from_slice(k);
        v_cache[start..start + width].copy_from_slice(v);
    }
}

pub(super) fn decode<T: Real>(
    out: &mut [T],
    qkv: &[T],
    k_cache: &[T],
    v_cache: &[T],
    lengths: &[i32],
    capacity: usize,
    scale: f64,
    heads: Heads,
) {
    let group_width = heads.group() * heads.head_dim;
    let scale = T::from_f64(scale);
    out.par_chunks_exact_mut(group_width).enumerate().for_each(|(i, out)| {
        let (sequence, kv_head) = (i / heads.num_kv_heads, i % heads.num_kv_heads);
        let q = &qkv[sequence * heads.qkv_dim() + kv_head * group_width..][..group_width];
        let start = sequence * capacity * heads.kv_dim();
        let cached = start..start + lengths[sequence] as usize * heads.kv_dim();
        let (k, v) = (&k_cache[cached.clone()], &v_cache[cached]);
        decode_group(out, q, k, v, kv_head, scale, heads);
    });
}

/// The query heads of one key head of one sequence; every key and value is read once for all.
fn decode_group<T: Real>(
    out: &mut [T],
    q: &[T],
    k: &[T],
    v: &[T],
    kv_head: usize,
    scale: T,
    heads: Heads,
) {
    let (d, group, width) = (heads.head_dim, heads.group(), heads.kv_dim());
    let columns = kv_head * d..(kv_head + 1) * d;
    let mut scores = vec![T::ZERO; group * KEY_TILE];
    let mut max = vec![T::NEG_INFINITY; group];
    let mut total = vec![T::ZERO; group];
    out.fill(T::ZERO);
    for (k, v) in k.chunks(KEY_TILE * width).zip(v.chunks(KEY_TILE * width)) {
        let num_keys = k.len() / width;
        for (i, k) in k.chunks_exact(width).enumerate() {
            for (q, scores) in q.chunks_exact(d).zip(scores.chunks_exact_mut(KEY_TILE)) {
                scores[i] = lanes::dot(q, &k[columns.clone()]) * scale;
            }
        }
        for (j, scores) in scores.chunks_exact_mut(KEY_TILE).enumerate() {
            let scores = mask_row(scores, num_keys);
            let new_max = max[j].max(lanes::max(scores));
            let sum = lanes::exp_sum(scores, new_max);
            // 0 for the first tile, whose old maximum is minus infinity.
            let shrink = (max[j] - new_max).exp();
            total[j] = total[j] * shrink + sum;
            max[j] = new_max;
            for x in &mut out[j * d..(j + 1) * d] {
                *x *= shrink;
            }
        }
        for (i, v) in v.chunks_exact(width).enumerate() {
            for (out, scores) in out.chunks_exact_mut(d).zip(scores.chunks_exact(KEY_TILE)) {
                let p = scores[i];
                for (out, &v) in out.iter_mut().zip(&v[columns.clone()]) {
                    *out += p * v;
                }
            }
        }
    }
    for (out, total) in out.chunks_exact_mut(d).zip(total) {
        let inverse = T::ONE / total;
        for x in out {
            *x *= inverse;
        }
    }
}
