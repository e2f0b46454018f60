//! Matrix product with optional bias and accumulation.
//!
//! `out (M, N) = op(a) · op(b) + bias`, or `out += …`; K is the summed dimension.
//!
//! | layout | a | b | used for |
//! |---|---|---|---|
//! | [`Layout::NT`] | (M, K) | (N, K) | a linear layer: y = x Wᵀ, W stored (out, in) |
//! | [`Layout::NN`] | (M, K) | (K, N) | its input gradient: dx = dy W |
//! | [`Layout::TN`] | (K, M) | (K, N) | its weight gradient: dW = dyᵀ x |
//!
//! All operands share one dtype, except that `out` may have its
//! [accumulator](crate::dtype::DType::accumulator); row-major; `out` must not alias an input (the
//! types see to it). Accumulation over K in f32 (f64 for f64), in an order that does not depend on
//! threads, nor, for NT and NN, on the number of rows: a row of `out` has the same bits whatever is
//! above and below it. Bias and the old `out` are added before the one rounding to the dtype of
//! `out`.

mod cpu;
mod cuda;

use super::{Cost, check, check_dtype, check_rank, check_shape, check_sum_dtype};
use crate::device::Device;
use crate::error::Result;
use crate::tensor::{View, ViewMut};
use crate::with_real;

/// Which operand is stored transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// a (M, K), b (N, K).
    NT,
    /// a (M, K), b (K, N).
    NN,
    /// a (K, M), b (K, N).
    TN,
}

/// Whether the output is overwritten or added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accumulate {
    /// `out = …`; previous contents are not read.
    No,
    /// `out += …`.
    Yes,
}

/// Computes the product; `bias` has shape (N) and is added to every row.
///
/// Errors: shapes or dtypes that do not fit. Deterministic.
pub fn matmul(
    device: &Device,
    out: ViewMut<'_>,
    a: View<'_>,
    b: View<'_>,
    bias: Option<View<'_>>,
    layout: Layout,
    accumulate: Accumulate,
) -> Result<()> {
    const OP: &str = "matmul";
    let [a0, a1] = check_rank(OP, "a", &a)?;
    let [b0, b1] = check_rank(OP, "b", &b)?;
    let (m, k, n, b_k) = match layout {
        Layout::NT => (a0, a1, b0, b1),
        Layout::NN => (a0, a1, b1, b0),
        Layout::TN => (a1, a0, b1, b0),
    };
    check(OP, "b", b_k == k, || format!("{k} along the summed dimension"), || b_k.to_string())?;
    check_shape(OP, "out", &out, &[m, n])?;
    check_sum_dtype(OP, "out", &out, a.dtype())?;
    check_dtype(OP, "b", &b, a.dtype())?;
    if let Some(bias) = &bias {
        check_shape(OP, "bias", bias, &[n])?;
        check_dtype(OP, "bias", bias, a.dtype())?;
    }
    match device {
        Device::Cpu => with_real!(OP, a.dtype(), T => {
            let bias = bias.map(|bias| bias.host::<T>());
            cpu::matmul(out.host::<T>(), a.host(), b.host(), bias, layout, accumulate, [m, n, k]);
            Ok(())
        }),
        Device::Cuda(cuda) => {
            cuda::matmul(cuda, out, cuda::Inputs { a, b, bias }, layout, accumulate, [m, n, k])
        }
    }
}

/// 2·M·N·K FLOPs; each operand moved once.
pub fn cost(m: usize, n: usize, k: usize, elem_bytes: usize) -> Cost {
    let (m, n, k) = (m as f64, n as f64, k as f64);
    Cost { flops: 2.0 * m * n * k, bytes: elem_bytes as f64 * (m * k + n * k + m * n) }
}
