//! Root-mean-square normalisation of rows.
//!
//! y = x · rstd · w, rstd = (mean(x²) + eps)^-½
//!
//! | operand | shape | dtype | |
//! |---|---|---|---|
//! | `x`, `y`, `dy`, `dx` | (T, C) | any float | |
//! | `weight` | (C) | as `x` | |
//! | `dweight` | (C) | as `x` or its accumulator | |
//! | `rstd` | (T) | [`DType::accumulator`](crate::dtype::DType::accumulator) | saved for backward |
//!
//! Sums in f32 (f64 for f64), over lanes and then over chunks of rows, in an order that does not
//! depend on threads. Errors: shapes or dtypes that do not fit, C = 0, an eps that is negative
//! or not finite. Source: Zhang & Sennrich, "Root Mean Square Layer Normalization" (2019).

pub(crate) mod cpu;
mod cuda;
pub(crate) mod row;

use super::by_dtype::most_chunks;
use super::{Cost, Operand, check, check_dtype, check_rank, check_shape, check_sum_dtype};
use crate::device::Device;
use crate::dtype::Real;
use crate::error::Result;
use crate::tensor::{View, ViewMut};
use crate::with_real;

/// Writes `y` (=) and `rstd` (=).
pub fn forward(
    device: &Device,
    y: ViewMut<'_>,
    rstd: ViewMut<'_>,
    x: View<'_>,
    weight: View<'_>,
    eps: f64,
) -> Result<()> {
    const OP: &str = "rmsnorm.forward";
    let [num_rows, c] = check_norm(OP, &x, &weight, &rstd)?;
    check_eps(OP, eps)?;
    check_shape(OP, "y", &y, &[num_rows, c])?;
    check_dtype(OP, "y", &y, x.dtype())?;
    match device {
        Device::Cpu => with_real!(OP, Operand::dtype(&x), T => {
            let eps = T::from_f64(eps);
            cpu::forward::<T>(y.host(), rstd.host(), x.host(), weight.host(), eps);
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::forward(cuda, y, rstd, x, weight, eps, [num_rows, c]),
    }
}

/// The same with the addition before it: `residual_out` (=) is `residual` + `x`, (T, C) each, and
/// `y` (=), `rstd` (=) are of `residual_out`.
pub fn forward_residual(
    device: &Device,
    y: ViewMut<'_>,
    residual_out: ViewMut<'_>,
    rstd: ViewMut<'_>,
    residual: View<'_>,
    x: View<'_>,
    weight: View<'_>,
    eps: f64,
) -> Result<()> {
    const OP: &str = "rmsnorm.forward_residual";
    let [num_rows, c] = check_norm(OP, &x, &weight, &rstd)?;
    check_eps(OP, eps)?;
    check_shape(OP, "y", &y, &[num_rows, c])?;
    check_shape(OP, "residual_out", &residual_out, &[num_rows, c])?;
    check_shape(OP, "residual", &residual, &[num_rows, c])?;
    check_dtype(OP, "y", &y, x.dtype())?;
    check_dtype(OP, "residual_out", &residual_out, x.dtype())?;
    check_dtype(OP, "residual", &residual, x.dtype())?;
    match device {
        Device::Cpu => with_real!(OP, Operand::dtype(&x), T => {
            cpu::forward_residual::<T>(
                y.host(), residual_out.host(), rstd.host(), residual.host(), x.host(),
                weight.host(), T::from_f64(eps),
            );
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::forward_residual(
            cuda,
            y,
            residual_out,
            rstd,
            residual,
            x,
            weight,
            eps,
            [num_rows, c],
        ),
    }
}

/// Adds to `dx` (+=) and `dweight` (+=), from the forward's input and statistic:
///
/// dx = rstd · (dy · w − x̂ · mean(dy · w · x̂)), dweight = Σ over rows of dy · x̂, with x̂ = x · rstd.
///
/// `dx` accumulates because it is the residual stream's gradient; after `forward_residual`, `x`
/// is its `residual_out`.
pub fn backward(
    device: &Device,
    dx: ViewMut<'_>,
    dweight: ViewMut<'_>,
    dy: View<'_>,
    x: View<'_>,
    weight: View<'_>,
    rstd: View<'_>,
) -> Result<()> {
    const OP: &str = "rmsnorm.backward";
    let [num_rows, c] = check_norm(OP, &x, &weight, &rstd)?;
    check_shape(OP, "dx", &dx, &[num_rows, c])?;
    check_shape(OP, "dweight", &dweight, &[c])?;
    check_shape(OP, "dy", &dy, &[num_rows, c])?;
    check_dtype(OP, "dx", &dx, x.dtype())?;
    check_sum_dtype(OP, "dweight", &dweight, x.dtype())?;
    check_dtype(OP, "dy", &dy, x.dtype())?;
    match device {
        Device::Cpu => with_real!(OP, Operand::dtype(&x), T => {
            cpu::backward::<T>(
                dx.host(), dweight.host(), dy.host(), x.host(), weight.host(), rstd.host(),
            );
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::backward(cuda, dx, dweight, dy, x, weight, rstd, [num_rows, c]),
    }
}

/// Checks what all passes share; returns (T, C).
fn check_norm(
    op: &'static str,
    x: &View<'_>,
    weight: &View<'_>,
    rstd: &impl Operand,
) -> Result<[usize; 2]> {
    let [num_rows, c] = check_rank(op, "x", x)?;
    check(op, "x", c > 0, || "at least one column".into(), || "none".into())?;
    check_shape(op, "weight", weight, &[c])?;
    check_dtype(op, "weight", weight, x.dtype())?;
    check_shape(op, "rstd", rstd, &[num_rows])?;
    check_dtype(op, "rstd", rstd, x.dtype().accumulator())?;
    Ok([num_rows, c])
}

/// Fails unless `eps` keeps the square root real.
pub(crate) fn check_eps(op: &'static str, eps: f64) -> Result<()> {
    let holds = eps.is_finite() && eps >= 0.0;
    check(op, "eps", holds, || "a finite number, not negative".into(), || eps.to_string())
}

/// Forward: a square, a sum and two products per element.
pub fn forward_cost(num_rows: usize, c: usize, elem_bytes: usize) -> Cost {
    let (t, c) = (num_rows as f64, c as f64);
    Cost { flops: 4.0 * t * c, bytes: elem_bytes as f64 * (2.0 * t * c + c + t) }
}

/// Forward with the addition: one more operation, one more operand in and one out.
pub fn forward_residual_cost(num_rows: usize, c: usize, elem_bytes: usize) -> Cost {
    let (t, c) = (num_rows as f64, c as f64);
    Cost { flops: 5.0 * t * c, bytes: elem_bytes as f64 * (4.0 * t * c + c + t) }
}

/// Backward: three operations per element for the projection, five for dx with its addition, two for dweight.
pub fn backward_cost(num_rows: usize, c: usize, elem_bytes: usize) -> Cost {
    let (t, c) = (num_rows as f64, c as f64);
    Cost { flops: 10.0 * t * c, bytes: elem_bytes as f64 * (4.0 * t * c + 3.0 * c + t) }
}

/// Scratch of the CUDA kernels for up to these dimensions: names and bytes.
pub fn workspace(num_rows: usize, c: usize) -> Vec<(&'static str, usize)> {
    let [min_rows, max_chunks] = cuda::CHUNKS;
    let chunks = most_chunks(num_rows, min_rows, max_chunks);
    vec![("rmsnorm.dweight", chunks * c * size_of::<f32>())]
}
