//! SwiGLU: the gated activation between the two feed-forward products.
//!
//! y = silu(gate) · up with silu(g) = g / (1 + e⁻ᵍ)
//!
//! | operand | shape | dtype |
//! |---|---|---|
//! | gate_up, dgate_up | (T, 2F), a row is \[gate (F), up (F)\] | the data type |
//! | y, dy | (T, F) | the data type |
//!
//! Elementwise, hence deterministic. Source: Shazeer, "GLU Variants Improve Transformer", 2020.

mod cpu;
mod cuda;

use super::{Cost, Operand, check, check_dtype, check_rank, check_shape};
use crate::device::Device;
use crate::error::Result;
use crate::tensor::{View, ViewMut};
use crate::with_real;

/// Computes y = silu(gate) · up.
///
/// Errors: shapes or dtypes that do not fit.
pub fn forward(device: &Device, y: ViewMut<'_>, gate_up: View<'_>) -> Result<()> {
    const OP: &str = "swiglu.forward";
    let [num_tokens, ffn] = check_rank(OP, "y", &y)?;
    check_gate_up(OP, "gate_up", &gate_up, num_tokens, ffn)?;
    check_dtype(OP, "gate_up", &gate_up, y.dtype())?;
    match device {
        Device::Cpu => with_real!(OP, Operand::dtype(&y), T => {
            cpu::forward(y.host::<T>(), gate_up.host(), ffn);
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::forward(cuda, y, gate_up, [num_tokens, ffn]),
    }
}

/// Computes, with s = 1 / (1 + e⁻ᵍᵃᵗᵉ), the overwritten gradient
/// dgate = dy · up · s · (1 + gate · (1 − s)) and dup = dy · gate · s.
///
/// Errors: shapes or dtypes that do not fit.
pub fn backward(
    device: &Device,
    dgate_up: ViewMut<'_>,
    dy: View<'_>,
    gate_up: View<'_>,
) -> Result<()> {
    const OP: &str = "swiglu.backward";
    let [num_tokens, ffn] = check_rank(OP, "dy", &dy)?;
    check_gate_up(OP, "dgate_up", &dgate_up, num_tokens, ffn)?;
    check_gate_up(OP, "gate_up", &gate_up, num_tokens, ffn)?;
    check_dtype(OP, "dgate_up", &dgate_up, dy.dtype())?;
    check_dtype(OP, "gate_up", &gate_up, dy.dtype())?;
    match device {
        Device::Cpu => with_real!(OP, dy.dtype(), T => {
            cpu::backward(dgate_up.host::<T>(), dy.host(), gate_up.host(), ffn);
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::backward(cuda, dgate_up, dy, gate_up, [num_tokens, ffn]),
    }
}

/// Fails unless the operand is (T, 2F), also where 2F would overflow.
fn check_gate_up(
    op: &'static str,
    operand: &'static str,
    view: &impl Operand,
    num_tokens: usize,
    ffn: usize,
) -> Result<()> {
    let Some(both) = ffn.checked_mul(2) else {
        return check(op, operand, false, || "two halves".into(), || format!("F = {ffn}"));
    };
    check_shape(op, operand, view, &[num_tokens, both])
}

/// Per element an exponential, an addition, a division and two products.
pub fn forward_cost(num_tokens: usize, ffn: usize, elem_bytes: usize) -> Cost {
    let elems = num_tokens as f64 * ffn as f64;
    Cost { flops: 5.0 * elems, bytes: 3.0 * elems * elem_bytes as f64 }
}

/// Per element the sigmoid (3) and eight sums and products.
pub fn backward_cost(num_tokens: usize, ffn: usize, elem_bytes: usize) -> Cost {
    let elems = num_tokens as f64 * ffn as f64;
    Cost { flops: 11.0 * elems, bytes: 5.0 * elems * elem_bytes as f64 }
}
