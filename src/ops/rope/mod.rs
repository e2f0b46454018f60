//! Rotary position embedding, in place on the query and key columns of packed rows.
//!
//! In every head, the pair (x(i), x(i + D/2)) is turned by the angle θ(i) of the row's position:
//! (x cos θ − y sin θ, y cos θ + x sin θ). Hugging Face's "rotate half" pairing, which its
//! checkpoints are stored for; the original paper pairs neighbours (2i, 2i + 1).
//!
//! | operand | shape | dtype | |
//! |---|---|---|---|
//! | `qkv`, `dqkv` (in place) | (T, (H + 2G)·D), D even | any float | value columns untouched |
//! | `positions` | (T) | i32 in 0..P | position within the document |
//! | `cos`, `sin` | (P, D/2) | [`DType::accumulator`] | of the angles, scaling included |
//!
//! Errors: shapes, dtypes or head counts that do not fit; odd D; a position outside the tables,
//! found before anything is written. Elementwise, hence deterministic.
//! Source: Su et al., "RoFormer" (2021), section 3.4.

mod cpu;
mod cuda;

use super::check_values;
use super::{Cost, Heads, Operand, check, check_dtype, check_heads, check_rank, check_shape};
use crate::device::Device;
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::tensor::{View, ViewMut};
use crate::with_real;

/// Rotates forwards.
pub fn forward(
    device: &Device,
    qkv: ViewMut<'_>,
    positions: View<'_>,
    cos: View<'_>,
    sin: View<'_>,
    heads: Heads,
) -> Result<()> {
    const OP: &str = "rope.forward";
    let num_positions = check_rotation(OP, &qkv, "qkv", &positions, &cos, &sin, heads)?;
    match device {
        Device::Cpu => with_real!(OP, Operand::dtype(&qkv), T => {
            check_values(OP, "positions", positions.host(), 0..num_positions)?;
            cpu::rotate::<T>(
                qkv.host(), positions.host(), cos.host(), sin.host(), T::ONE, heads,
            );
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::forward(cuda, qkv, positions, cos, sin, heads),
    }
}

/// Rotates the gradient backwards: a rotation is orthogonal, so its transpose is its inverse.
pub fn backward(
    device: &Device,
    dqkv: ViewMut<'_>,
    positions: View<'_>,
    cos: View<'_>,
    sin: View<'_>,
    heads: Heads,
) -> Result<()> {
    const OP: &str = "rope.backward";
    let num_positions = check_rotation(OP, &dqkv, "dqkv", &positions, &cos, &sin, heads)?;
    match device {
        Device::Cpu => with_real!(OP, Operand::dtype(&dqkv), T => {
            check_values(OP, "positions", positions.host(), 0..num_positions)?;
            cpu::rotate::<T>(
                dqkv.host(), positions.host(), cos.host(), sin.host(), -T::ONE, heads,
            );
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::backward(cuda, dqkv, positions, cos, sin, heads),
    }
}

/// Checks the contract except the values of `positions`; returns P.
fn check_rotation(
    op: &'static str,
    rows: &ViewMut<'_>,
    rows_name: &'static str,
    positions: &View<'_>,
    cos: &View<'_>,
    sin: &View<'_>,
    heads: Heads,
) -> Result<usize> {
    check_heads(op, heads)?;
    let even = heads.head_dim.is_multiple_of(2);
    check(op, "heads", even, || "an even head size".into(), || heads.head_dim.to_string())?;
    let [num_tokens, _] = check_rank(op, rows_name, rows)?;
    check_shape(op, rows_name, rows, &[num_tokens, heads.qkv_dim()])?;
    check_shape(op, "positions", positions, &[num_tokens])?;
    check_dtype(op, "positions", positions, DType::I32)?;
    let [num_positions, _] = check_rank(op, "cos", cos)?;
    check_shape(op, "cos", cos, &[num_positions, heads.head_dim / 2])?;
    check_shape(op, "sin", sin, &[num_positions, heads.head_dim / 2])?;
    check_dtype(op, "cos", cos, rows.dtype().accumulator())?;
    check_dtype(op, "sin", sin, rows.dtype().accumulator())?;
    Ok(num_positions)
}

/// Either pass: six operations per pair; the rotated columns in and out, a table row per token.
pub fn cost(num_tokens: usize, elem_bytes: usize, heads: Heads) -> Cost {
    let t = num_tokens as f64;
    let rotated = (heads.q_dim() + heads.kv_dim()) as f64;
    let moved = 2.0 * rotated + heads.head_dim as f64;
    let bytes = t * (elem_bytes as f64 * moved + DType::I32.size_bytes() as f64);
    Cost { flops: 3.0 * t * rotated, bytes }
}
