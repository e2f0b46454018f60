//! Reductions of a whole tensor to one f64, and of rows to column sums.
//!
//! | operand | shape | dtype |
//! |---|---|---|
//! | x, y | any, the same; (M, N) for [`column_sums`] | the data type |
//! | out | (1); (N) for [`column_sums`] | f64; the data type or its accumulator for [`column_sums`] |
//!
//! Elements are widened to f64 before they are added. Additions happen in fixed lanes of fixed
//! chunks whose partial results are added in order, so the bits depend on the length alone, not
//! on threads. NaN propagates through all of them, [`max_abs`] included.

mod cpu;
mod cuda;

pub(crate) use cuda::{add_partials, check_partials};

use super::by_dtype::most_chunks;
use super::{Cost, Operand, check_dtype, check_rank, check_shape, check_sum_dtype};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{View, ViewMut};
use crate::with_real;

/// Computes out = Σ x; 0 for no elements.
///
/// Errors: shapes or dtypes that do not fit.
pub fn sum(device: &Device, out: ViewMut<'_>, x: View<'_>) -> Result<()> {
    const OP: &str = "reduce.sum";
    check_out(OP, &out)?;
    match device {
        Device::Cpu => with_real!(OP, x.dtype(), T => {
            out.host::<f64>()[0] = cpu::sum(x.host::<T>());
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::sum(cuda, out, x),
    }
}

/// Computes out = Σ x²; 0 for no elements. Squares of f32 neither round nor overflow.
///
/// Errors: shapes or dtypes that do not fit.
pub fn sum_squares(device: &Device, out: ViewMut<'_>, x: View<'_>) -> Result<()> {
    const OP: &str = "reduce.sum_squares";
    check_out(OP, &out)?;
    match device {
        Device::Cpu => with_real!(OP, x.dtype(), T => {
            out.host::<f64>()[0] = cpu::sum_squares(x.host::<T>());
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::sum_squares(cuda, out, x),
    }
}

/// Computes out = Σ x · y; 0 for no elements. Products of f32 neither round nor overflow.
///
/// Errors: shapes or dtypes that do not fit.
pub fn dot(device: &Device, out: ViewMut<'_>, x: View<'_>, y: View<'_>) -> Result<()> {
    const OP: &str = "reduce.dot";
    check_out(OP, &out)?;
    check_shape(OP, "y", &y, x.shape().dims())?;
    check_dtype(OP, "y", &y, x.dtype())?;
    match device {
        Device::Cpu => with_real!(OP, x.dtype(), T => {
            out.host::<f64>()[0] = cpu::dot(x.host::<T>(), y.host());
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::dot(cuda, out, x, y),
    }
}

/// Computes out = max |x|; 0 for no elements, NaN if any element is NaN.
///
/// Errors: shapes or dtypes that do not fit.
pub fn max_abs(device: &Device, out: ViewMut<'_>, x: View<'_>) -> Result<()> {
    const OP: &str = "reduce.max_abs";
    check_out(OP, &out)?;
    match device {
        Device::Cpu => with_real!(OP, x.dtype(), T => {
            out.host::<f64>()[0] = cpu::max_abs(x.host::<T>());
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::max_abs(cuda, out, x),
    }
}

/// Adds out\[n\] += Σₘ x\[m, n\]: the gradient of a bias.
///
/// Errors: shapes or dtypes that do not fit.
pub fn column_sums(device: &Device, out: ViewMut<'_>, x: View<'_>) -> Result<()> {
    const OP: &str = "reduce.column_sums";
    let [_, num_columns] = check_rank(OP, "x", &x)?;
    check_shape(OP, "out", &out, &[num_columns])?;
    check_sum_dtype(OP, "out", &out, x.dtype())?;
    match device {
        Device::Cpu => with_real!(OP, x.dtype(), T => {
            cpu::column_sums(out.host::<T>(), x.host(), num_columns);
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::column_sums(cuda, out, x),
    }
}

/// Fails unless the result is one f64.
fn check_out(op: &'static str, out: &impl Operand) -> Result<()> {
    check_shape(op, "out", out, &[1])?;
    check_dtype(op, "out", out, DType::F64)
}

/// [`sum`], [`max_abs`] and [`column_sums`]: one operation per element.
pub fn cost(num_elems: usize, elem_bytes: usize) -> Cost {
    let n = num_elems as f64;
    Cost { flops: n, bytes: n * elem_bytes as f64 }
}

/// [`sum_squares`] of one operand, [`dot`] of two: a multiply-add per element.
pub fn product_cost(num_elems: usize, num_operands: usize, elem_bytes: usize) -> Cost {
    let n = num_elems as f64;
    Cost { flops: 2.0 * n, bytes: n * num_operands as f64 * elem_bytes as f64 }
}

/// Scratch of the CUDA kernels of the reductions to one number, for tensors of any size.
pub fn workspace() -> Vec<(&'static str, usize)> {
    vec![("reduce.parts", cuda::MAX_PARTS * size_of::<f64>())]
}

/// Scratch of the CUDA kernels of [`column_sums`] for up to these dimensions.
pub fn column_sums_workspace(num_rows: usize, num_columns: usize) -> Vec<(&'static str, usize)> {
    let [min_rows, max_chunks] = cuda::CHUNKS;
    let chunks = most_chunks(num_rows, min_rows, max_chunks);
    vec![("reduce.columns", chunks * num_columns * size_of::<f32>())]
}
