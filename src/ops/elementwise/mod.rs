//! Elementwise helpers: fill, cast, scale, and y += a · x.
//!
//! Operands of one call have the same shape, any. Each element is computed on its own, hence
//! deterministic.

mod cast;
mod cpu;
mod cuda;

pub(crate) use cast::nearest_bf16;

use super::{Cost, Operand, check_dtype, check_shape};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{View, ViewMut};
use crate::with_real;

/// Sets every element to `value`, rounded to nearest even; out is f64, f32, bf16 or f16.
///
/// Errors: an integer tensor.
pub fn fill(device: &Device, out: ViewMut<'_>, value: f64) -> Result<()> {
    match device {
        Device::Cpu => cpu::fill("elementwise.fill", out, value),
        Device::Cuda(cuda) => cuda::fill(cuda, out, value),
    }
}

/// Copies `x` into `out`, each of them f64, f32, bf16 or f16: exactly where `out` is wider, else
/// rounded once, to nearest even, overflow to infinity. NaN stays NaN.
///
/// Errors: shapes that differ, an integer tensor.
pub fn cast(device: &Device, out: ViewMut<'_>, x: View<'_>) -> Result<()> {
    const OP: &str = "elementwise.cast";
    check_shape(OP, "out", &out, x.shape().dims())?;
    match device {
        Device::Cpu => cast::cast(OP, out, x),
        Device::Cuda(cuda) => cuda::cast(cuda, out, x),
    }
}

/// Multiplies every element by `factor`, itself rounded to what the data type is computed in (f32 for
/// bf16).
///
/// Errors: an element type that is not computed in.
pub fn scale(device: &Device, x: ViewMut<'_>, factor: f64) -> Result<()> {
    const OP: &str = "elementwise.scale";
    match device {
        Device::Cpu => with_real!(OP, Operand::dtype(&x), T => {
            cpu::scale(x.host::<T>(), factor);
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::scale(cuda, x, factor),
    }
}

/// Adds y += a · x, with `a` rounded as in [`scale`], and one rounding of the result of bf16.
///
/// Errors: shapes or dtypes that do not fit.
pub fn axpy(device: &Device, y: ViewMut<'_>, a: f64, x: View<'_>) -> Result<()> {
    const OP: &str = "elementwise.axpy";
    check_shape(OP, "y", &y, x.shape().dims())?;
    check_dtype(OP, "y", &y, x.dtype())?;
    match device {
        Device::Cpu => with_real!(OP, x.dtype(), T => {
            cpu::axpy(y.host::<T>(), a, x.host());
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::axpy(cuda, y, a, x),
    }
}

/// The complaint about an integer tensor where floats are meant.
fn not_float(op: &'static str, operand: &'static str, dtype: DType) -> Error {
    let expected = "f64, f32, bf16 or f16".into();
    Error::Operand { op, operand, expected, got: dtype.to_string() }
}

/// [`fill`]: one write per element.
pub fn fill_cost(num_elems: usize, elem_bytes: usize) -> Cost {
    Cost { flops: 0.0, bytes: num_elems as f64 * elem_bytes as f64 }
}

/// [`cast`]: one read and one write per element.
pub fn cast_cost(num_elems: usize, out_bytes: usize, x_bytes: usize) -> Cost {
    Cost { flops: 0.0, bytes: num_elems as f64 * (out_bytes as f64 + x_bytes as f64) }
}

/// [`scale`]: a product per element, in place.
pub fn scale_cost(num_elems: usize, elem_bytes: usize) -> Cost {
    let n = num_elems as f64;
    Cost { flops: n, bytes: 2.0 * n * elem_bytes as f64 }
}

/// [`axpy`]: a multiply-add per element; y is read and written, x read.
pub fn axpy_cost(num_elems: usize, elem_bytes: usize) -> Cost {
    let n = num_elems as f64;
    Cost { flops: 2.0 * n, bytes: 3.0 * n * elem_bytes as f64 }
}
