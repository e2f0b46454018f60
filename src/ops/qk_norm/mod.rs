//! RMSNorm of every query and key head (Qwen3), before the rotation.
//!
//! Each D-wide head x of the query and key columns becomes x · rstd · w with
//! rstd = (mean(x²) + eps)^-½; one weight serves all query heads, another all key heads. The value
//! columns are copied.
//!
//! | operand | shape | dtype | |
//! |---|---|---|---|
//! | `qkv`, `out`, `dqkv` | (T, (H + 2G)·D) | any float | packed rows, see [`Heads`] |
//! | `q_weight`, `k_weight` | (D) | as `qkv` | |
//! | their gradients | (D) | as `qkv` or its accumulator | |
//! | `rstd` | (T, H + G) | [`DType::accumulator`](crate::dtype::DType::accumulator) | saved for backward |
//!
//! Sums as in [`super::rmsnorm`]. Errors: shapes, dtypes or head counts that do not fit, an eps that is
//! negative or not finite. Deterministic, whatever the number of threads.

mod cpu;
mod cuda;

use super::by_dtype::most_chunks;
use super::rmsnorm::check_eps;
use super::{
    Cost, Heads, Operand, check_dtype, check_heads, check_rank, check_shape, check_sum_dtype,
};
use crate::device::Device;
use crate::dtype::Real;
use crate::error::Result;
use crate::tensor::{View, ViewMut};
use crate::with_real;

/// Writes `out` (=) and `rstd` (=).
pub fn forward(
    device: &Device,
    out: ViewMut<'_>,
    rstd: ViewMut<'_>,
    qkv: View<'_>,
    q_weight: View<'_>,
    k_weight: View<'_>,
    eps: f64,
    heads: Heads,
) -> Result<()> {
    const OP: &str = "qk_norm.forward";
    let num_tokens = check_norm(OP, &qkv, &rstd, [&q_weight, &k_weight], heads)?;
    check_eps(OP, eps)?;
    check_shape(OP, "out", &out, &[num_tokens, heads.qkv_dim()])?;
    check_dtype(OP, "out", &out, qkv.dtype())?;
    match device {
        Device::Cpu => with_real!(OP, Operand::dtype(&qkv), T => {
            cpu::forward::<T>(
                out.host(), rstd.host(), qkv.host(), q_weight.host(), k_weight.host(),
                T::from_f64(eps), heads,
            );
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::forward(cuda, out, rstd, qkv, q_weight, k_weight, eps, heads),
    }
}

/// Turns `dqkv`, the gradient of `out`, into that of `qkv` (in place), and adds to `dq_weight` (+=)
/// and `dk_weight` (+=). `qkv` is the forward's input, `rstd` what it saved.
pub fn backward(
    device: &Device,
    dqkv: ViewMut<'_>,
    dq_weight: ViewMut<'_>,
    dk_weight: ViewMut<'_>,
    qkv: View<'_>,
    rstd: View<'_>,
    q_weight: View<'_>,
    k_weight: View<'_>,
    heads: Heads,
) -> Result<()> {
    const OP: &str = "qk_norm.backward";
    let num_tokens = check_norm(OP, &qkv, &rstd, [&q_weight, &k_weight], heads)?;
    check_shape(OP, "dqkv", &dqkv, &[num_tokens, heads.qkv_dim()])?;
    check_shape(OP, "dq_weight", &dq_weight, &[heads.head_dim])?;
    check_shape(OP, "dk_weight", &dk_weight, &[heads.head_dim])?;
    check_dtype(OP, "dqkv", &dqkv, qkv.dtype())?;
    check_sum_dtype(OP, "dq_weight", &dq_weight, qkv.dtype())?;
    check_sum_dtype(OP, "dk_weight", &dk_weight, qkv.dtype())?;
    match device {
        Device::Cpu => with_real!(OP, Operand::dtype(&qkv), T => {
            cpu::backward::<T>(
                dqkv.host(), dq_weight.host(), dk_weight.host(), qkv.host(), rstd.host(),
                q_weight.host(), k_weight.host(), heads,
            );
            Ok(())
        }),
        Device::Cuda(cuda) => {
            cuda::backward(cuda, dqkv, dq_weight, dk_weight, qkv, rstd, q_weight, k_weight, heads)
        }
    }
}

/// Checks what both passes share; returns T.
fn check_norm(
    op: &'static str,
    qkv: &View<'_>,
    rstd: &impl Operand,
    [q_weight, k_weight]: [&View<'_>; 2],
    heads: Heads,
) -> Result<usize> {
    check_heads(op, heads)?;
    let [num_tokens, _] = check_rank(op, "qkv", qkv)?;
    check_shape(op, "qkv", qkv, &[num_tokens, heads.qkv_dim()])?;
    check_shape(op, "rstd", rstd, &[num_tokens, heads.num_heads + heads.num_kv_heads])?;
    check_shape(op, "q_weight", q_weight, &[heads.head_dim])?;
    check_shape(op, "k_weight", k_weight, &[heads.head_dim])?;
    check_dtype(op, "rstd", rstd, qkv.dtype().accumulator())?;
    check_dtype(op, "q_weight", q_weight, qkv.dtype())?;
    check_dtype(op, "k_weight", k_weight, qkv.dtype())?;
    Ok(num_tokens)
}

/// Forward: a square, a sum and two products per query and key element; all columns in and out.
pub fn forward_cost(num_tokens: usize, elem_bytes: usize, heads: Heads) -> Cost {
    let t = num_tokens as f64;
    let normed = (heads.q_dim() + heads.kv_dim()) as f64;
    let moved = (2 * heads.qkv_dim() + heads.num_heads + heads.num_kv_heads) as f64;
    let weights = 2.0 * heads.head_dim as f64;
    Cost { flops: 4.0 * t * normed, bytes: elem_bytes as f64 * (t * moved + weights) }
}

/// Backward: nine operations per query and key element (see rmsnorm; dx is not added); the value
/// columns stay where they are.
pub fn backward_cost(num_tokens: usize, elem_bytes: usize, heads: Heads) -> Cost {
    let t = num_tokens as f64;
    let normed = (heads.q_dim() + heads.kv_dim()) as f64;
    let stats = (heads.num_heads + heads.num_kv_heads) as f64;
    let weights = 6.0 * heads.head_dim as f64;
    let bytes = elem_bytes as f64 * (t * (3.0 * normed + stats) + weights);
    Cost { flops: 9.0 * t * normed, bytes }
}

/// Scratch of the CUDA kernels for up to these dimensions: names and bytes.
pub fn workspace(num_tokens: usize, heads: Heads) -> Vec<(&'static str, usize)> {
    let [min_rows, max_chunks] = cuda::CHUNKS;
    let bytes = most_chunks(num_tokens, min_rows, max_chunks) * heads.head_dim * size_of::<f32>();
    vec![("qk_norm.dq_weight", bytes), ("qk_norm.dk_weight", bytes)]
}
