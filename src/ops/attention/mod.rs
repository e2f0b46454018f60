//! Causal attention over packed documents, with grouped query heads.
//!
//! For token t of a document that begins at token s, query head h and its key head
//! g = h / (H / G):
//!
//! S(t, j) = scale · q(t, h) · k(j, g), P = softmax of S over j = s ..= t, out(t, h) = Σ P(t, j) v(j, g)
//!
//! | operand | shape | dtype | |
//! |---|---|---|---|
//! | `qkv` | (T, (H + 2G)·D) | any float | packed rows, see [`Heads`]; any D |
//! | `out`, `dout` | (T, H·D) | as `qkv` | head h in columns h·D .. (h + 1)·D |
//! | `lse` | (T, H) | [`DType::accumulator`](crate::dtype::DType::accumulator) | ln Σ e^S, natural |
//! | `cu_seqlens` | (N + 1) | i32 | first token of each document, then T; every document has a token |
//!
//! Nothing passes from one document to another, not even a NaN: the tiles never cross a
//! boundary. Within a document a NaN may also reach earlier rows of its tile (0 · NaN).
//! Memory beside the operands is independent of T, but for (T, H) numbers in the backward pass.
//! A document's result has the same bits whatever its neighbours and the number of threads.
//! On the GPU, bf16 needs a positive `scale` and D one of 32, 64, 80, 96, 128, 256, f32 takes any D,
//! and `cu_seqlens` is not checked: that would wait for the device.
//! Source: Dao, "FlashAttention-2" (2023), algorithms 1 and 2.

mod cache;
mod cpu;
mod cpu_backward;
mod cpu_cache;
mod cpu_forward;
mod cuda;
mod cuda_cache;

pub use cache::{decode, store_kv};

use super::{Cost, Heads, Operand, check, check_dtype, check_heads, check_rank, check_shape};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{View, ViewMut};
use crate::with_real;
use std::ops::Range;

/// Writes `out` (=) and `lse` (=).
///
/// Errors: shapes, dtypes or head counts that do not fit; `cu_seqlens` that does not begin at 0,
/// increase and end at T.
pub fn forward(
    device: &Device,
    out: ViewMut<'_>,
    lse: ViewMut<'_>,
    qkv: View<'_>,
    cu_seqlens: View<'_>,
    scale: f64,
    heads: Heads,
) -> Result<()> {
    const OP: &str = "attention.forward";
    let num_tokens = check_packed(OP, &qkv, &cu_seqlens, heads)?;
    check_shape(OP, "out", &out, &[num_tokens, heads.q_dim()])?;
    check_shape(OP, "lse", &lse, &[num_tokens, heads.num_heads])?;
    check_dtype(OP, "out", &out, qkv.dtype())?;
    check_dtype(OP, "lse", &lse, qkv.dtype().accumulator())?;
    match device {
        Device::Cpu => with_real!(OP, Operand::dtype(&qkv), T => {
            let documents = documents(OP, cu_seqlens.host(), num_tokens)?;
            cpu_forward::forward::<T>(
                out.host(), lse.host(), qkv.host(), &documents, scale, heads,
            );
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::forward(cuda, out, lse, qkv, cu_seqlens, scale, heads),
    }
}

/// Writes the gradient of `qkv` into `dqkv` (=), given that of `out` and what forward saved.
///
/// dv = Pᵀ dout, dS = P ∘ (dout vᵀ − Σ dout · out), dq = scale · dS k, dk = scale · dSᵀ q; key and
/// value heads sum over their query heads. Errors as for [`forward`].
pub fn backward(
    device: &Device,
    dqkv: ViewMut<'_>,
    dout: View<'_>,
    qkv: View<'_>,
    out: View<'_>,
    lse: View<'_>,
    cu_seqlens: View<'_>,
    scale: f64,
    heads: Heads,
) -> Result<()> {
    const OP: &str = "attention.backward";
    let num_tokens = check_packed(OP, &qkv, &cu_seqlens, heads)?;
    check_shape(OP, "dqkv", &dqkv, &[num_tokens, heads.qkv_dim()])?;
    check_shape(OP, "dout", &dout, &[num_tokens, heads.q_dim()])?;
    check_shape(OP, "out", &out, &[num_tokens, heads.q_dim()])?;
    check_shape(OP, "lse", &lse, &[num_tokens, heads.num_heads])?;
    check_dtype(OP, "dqkv", &dqkv, qkv.dtype())?;
    check_dtype(OP, "dout", &dout, qkv.dtype())?;
    check_dtype(OP, "out", &out, qkv.dtype())?;
    check_dtype(OP, "lse", &lse, qkv.dtype().accumulator())?;
    match device {
        Device::Cpu => with_real!(OP, Operand::dtype(&qkv), T => {
            let documents = documents(OP, cu_seqlens.host(), num_tokens)?;
            cpu_backward::backward::<T>(
                dqkv.host(), dout.host(), qkv.host(), out.host(), lse.host(), &documents, scale,
                heads,
            );
            Ok(())
        }),
        Device::Cuda(cuda) => {
            cuda::backward(cuda, dqkv, dout, qkv, out, lse, cu_seqlens, scale, heads)
        }
    }
}

/// Checks what both passes share; returns T.
fn check_packed(
    op: &'static str,
    qkv: &View<'_>,
    cu_seqlens: &View<'_>,
    heads: Heads,
) -> Result<usize> {
    check_heads(op, heads)?;
    let [num_tokens, _] = check_rank(op, "qkv", qkv)?;
    check_shape(op, "qkv", qkv, &[num_tokens, heads.qkv_dim()])?;
    let [_] = check_rank(op, "cu_seqlens", cu_seqlens)?;
    check_dtype(op, "cu_seqlens", cu_seqlens, DType::I32)?;
    Ok(num_tokens)
}

/// Token ranges of the documents, if `cu_seqlens` describes `num_tokens` tokens.
pub(crate) fn documents(
    op: &'static str,
    cu_seqlens: &[i32],
    num_tokens: usize,
) -> Result<Vec<Range<usize>>> {
    const NAME: &str = "cu_seqlens";
    let ends: Vec<usize> = cu_seqlens.iter().map_while(|&x| usize::try_from(x).ok()).collect();
    let negative = cu_seqlens.get(ends.len());
    check(
        op,
        NAME,
        negative.is_none(),
        || "no negative value".into(),
        || format!("{} at index {}", negative.copied().unwrap_or(0), ends.len()),
    )?;
    let quote = |end: Option<&usize>| end.map_or("nothing".into(), |end| end.to_string());
    let (first, last) = (ends.first(), ends.last());
    check(op, NAME, first == Some(&0), || "0 at its start".into(), || quote(first))?;
    check(
        op,
        NAME,
        last == Some(&num_tokens),
        || format!("{num_tokens} tokens at its end"),
        || quote(last),
    )?;
    let stall = ends.windows(2).position(|pair| pair[0] >= pair[1]);
    check(
        op,
        NAME,
        stall.is_none(),
        || "increasing values".into(),
        || {
            let i = stall.unwrap_or(0);
            format!("{} then {} at index {i}", ends[i], ends[i + 1])
        },
    )?;
    Ok(ends.windows(2).map(|pair| pair[0]..pair[1]).collect())
}

/// Head sizes that the bf16 kernels are made for; those of f32 take any.
pub fn gpu_head_dims() -> Vec<usize> {
    cuda::FAMILIES.iter().map(|family| family.head_dim).collect()
}

/// Scratch of the CUDA kernels of [`backward`]: names and bytes, never less than what a call with
/// fewer tokens asks for.
pub fn workspace(num_tokens: usize, heads: Heads) -> Vec<(&'static str, usize)> {
    vec![(cuda::DELTA_SCRATCH, cuda::delta_bytes(num_tokens, heads))]
}

/// The same for [`decode`].
pub fn decode_workspace(batch: usize, heads: Heads) -> Vec<(&'static str, usize)> {
    cuda_cache::partials_bytes(batch, heads).into()
}

/// Pairs of a query and a key it sees, over all query heads.
fn num_pairs(document_lengths: &[usize], heads: Heads) -> f64 {
    let pairs = document_lengths.iter().map(|&n| n as f64 * (n as f64 + 1.0) / 2.0);
    pairs.sum::<f64>() * heads.num_heads as f64
}

/// Two products of D per visible pair, and its exponential; operands moved once.
pub fn forward_cost(document_lengths: &[usize], elem_bytes: usize, heads: Heads) -> Cost {
    let t = document_lengths.iter().sum::<usize>() as f64;
    let moved = (heads.qkv_dim() + heads.q_dim() + heads.num_heads) as f64;
    let flops = num_pairs(document_lengths, heads) * (4.0 * heads.head_dim as f64 + 1.0);
    Cost { flops, bytes: elem_bytes as f64 * t * moved }
}

/// Five products of D per visible pair, and its exponential; operands moved once.
pub fn backward_cost(document_lengths: &[usize], elem_bytes: usize, heads: Heads) -> Cost {
    let t = document_lengths.iter().sum::<usize>() as f64;
    let moved = (2 * heads.qkv_dim() + 2 * heads.q_dim() + heads.num_heads) as f64;
    let flops = num_pairs(document_lengths, heads) * (10.0 * heads.head_dim as f64 + 1.0);
    Cost { flops, bytes: elem_bytes as f64 * t * moved }
}
