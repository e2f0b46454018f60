//! The key/value cache of generation: writing to it, and attention of one new token.

use super::{cpu_cache, cuda_cache};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::{Heads, Operand, check_dtype, check_heads, check_rank, check_shape, check_values};
use crate::tensor::{View, ViewMut};
use crate::with_real;

/// Copies the key and value columns of `qkv` row t to row `rows[t]` of the caches; the other
/// rows stay.
///
/// | operand | shape | dtype |
/// |---|---|---|
/// | `k_cache`, `v_cache` (in place) | (R, G·D) | as `qkv` |
/// | `qkv` | (T, (H + 2G)·D) | any float |
/// | `rows` | (T) | i32, distinct, in 0..R |
///
/// Errors: shapes, dtypes or head counts that do not fit; a row outside the cache or twice.
pub fn store_kv(
    device: &Device,
    k_cache: ViewMut<'_>,
    v_cache: ViewMut<'_>,
    qkv: View<'_>,
    rows: View<'_>,
    heads: Heads,
) -> Result<()> {
    const OP: &str = "attention.store_kv";
    check_heads(OP, heads)?;
    let [num_tokens, _] = check_rank(OP, "qkv", &qkv)?;
    check_shape(OP, "qkv", &qkv, &[num_tokens, heads.qkv_dim()])?;
    let [num_rows, _] = check_rank(OP, "k_cache", &k_cache)?;
    check_shape(OP, "k_cache", &k_cache, &[num_rows, heads.kv_dim()])?;
    check_shape(OP, "v_cache", &v_cache, &[num_rows, heads.kv_dim()])?;
    check_shape(OP, "rows", &rows, &[num_tokens])?;
    check_dtype(OP, "k_cache", &k_cache, qkv.dtype())?;
    check_dtype(OP, "v_cache", &v_cache, qkv.dtype())?;
    check_dtype(OP, "rows", &rows, DType::I32)?;
    match device {
        Device::Cpu => with_real!(OP, Operand::dtype(&qkv), T => {
            check_values(OP, "rows", rows.host(), 0..num_rows)?;
            check_distinct(OP, rows.host())?;
            cpu_cache::store_kv::<T>(
                k_cache.host(), v_cache.host(), qkv.host(), rows.host(), heads,
            );
            Ok(())
        }),
        Device::Cuda(cuda) => cuda_cache::store_kv(cuda, k_cache, v_cache, qkv, rows, heads),
    }
}

fn check_distinct(op: &'static str, rows: &[i32]) -> Result<()> {
    let mut sorted = rows.to_vec();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(Error::Operand {
            op,
            operand: "rows",
            expected: "distinct values".into(),
            got: format!("{} twice", pair[0]),
        }),
    }
}

/// Attention of one query token per sequence over its cached keys: with the cache that
/// [`store_kv`] filled, row b of `out` is the last row that [`super::forward`] would give.
///
/// | operand | shape | dtype |
/// |---|---|---|
/// | `out` (=) | (B, H·D) | as `qkv` |
/// | `qkv` | (B, (H + 2G)·D), only the query columns are read | any float |
/// | `k_cache`, `v_cache` | (B, S, G·D) | as `qkv` |
/// | `lengths` | (B) | i32 in 1..=S: keys to attend to; later ones are not read |
///
/// Errors: shapes, dtypes or head counts that do not fit; a length out of range.
pub fn decode(
    device: &Device,
    out: ViewMut<'_>,
    qkv: View<'_>,
    k_cache: View<'_>,
    v_cache: View<'_>,
    lengths: View<'_>,
    scale: f64,
    heads: Heads,
) -> Result<()> {
    const OP: &str = "attention.decode";
    check_heads(OP, heads)?;
    let [batch, _] = check_rank(OP, "qkv", &qkv)?;
    let [_, capacity, _] = check_rank(OP, "k_cache", &k_cache)?;
    check_shape(OP, "qkv", &qkv, &[batch, heads.qkv_dim()])?;
    check_shape(OP, "out", &out, &[batch, heads.q_dim()])?;
    check_shape(OP, "k_cache", &k_cache, &[batch, capacity, heads.kv_dim()])?;
    check_shape(OP, "v_cache", &v_cache, &[batch, capacity, heads.kv_dim()])?;
    check_shape(OP, "lengths", &lengths, &[batch])?;
    check_dtype(OP, "out", &out, qkv.dtype())?;
    check_dtype(OP, "k_cache", &k_cache, qkv.dtype())?;
    check_dtype(OP, "v_cache", &v_cache, qkv.dtype())?;
    check_dtype(OP, "lengths", &lengths, DType::I32)?;
    match device {
        Device::Cpu => with_real!(OP, Operand::dtype(&qkv), T => {
            check_values(OP, "lengths", lengths.host(), 1..capacity + 1)?;
            cpu_cache::decode::<T>(
                out.host(), qkv.host(), k_cache.host(), v_cache.host(), lengths.host(), capacity,
                scale, heads,
            );
            Ok(())
        }),
        Device::Cuda(cuda) => {
            cuda_cache::decode(cuda, out, qkv, k_cache, v_cache, lengths, scale, heads)
        }
    }
}
