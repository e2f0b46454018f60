//! Launchers of the kernels in kernels/reduce.cu.

use crate::cuda::CudaDevice;
use crate::error::Result;
use crate::ops::no_kernel;
use crate::tensor::{View, ViewMut};

pub(super) fn sum(cuda: &CudaDevice, out: ViewMut<'_>, x: View<'_>) -> Result<()> {
    let _ = (cuda, out, x);
    Err(no_kernel("reduce.sum"))
}

pub(super) fn sum_squares(cuda: &CudaDevice, out: ViewMut<'_>, x: View<'_>) -> Result<()> {
    let _ = (cuda, out, x);
    Err(no_kernel("reduce.sum_squares"))
}

pub(super) fn dot(cuda: &CudaDevice, out: ViewMut<'_>, x: View<'_>, y: View<'_>) -> Result<()> {
    let _ = (cuda, out, x, y);
    Err(no_kernel("reduce.dot"))
}

pub(super) fn max_abs(cuda: &CudaDevice, out: ViewMut<'_>, x: View<'_>) -> Result<()> {
    let _ = (cuda, out, x);
    Err(no_kernel("reduce.max_abs"))
}

pub(super) fn column_sums(cuda: &CudaDevice, out: ViewMut<'_>, x: View<'_>) -> Result<()> {
    let _ = (cuda, out, x);
    Err(no_kernel("reduce.column_sums"))
}
