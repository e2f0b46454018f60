//! Launchers of the kernels in kernels/rmsnorm.cu.

use crate::cuda::CudaDevice;
use crate::error::Result;
use crate::ops::no_kernel;
use crate::tensor::{View, ViewMut};

pub(super) fn forward(
    cuda: &CudaDevice,
    y: ViewMut<'_>,
    rstd: ViewMut<'_>,
    x: View<'_>,
    weight: View<'_>,
    eps: f64,
) -> Result<()> {
    let _ = (cuda, y, rstd, x, weight, eps);
    Err(no_kernel("rmsnorm.forward"))
}

pub(super) fn forward_residual(
    cuda: &CudaDevice,
    y: ViewMut<'_>,
    residual_out: ViewMut<'_>,
    rstd: ViewMut<'_>,
    residual: View<'_>,
    x: View<'_>,
    weight: View<'_>,
    eps: f64,
) -> Result<()> {
    let _ = (cuda, y, residual_out, rstd, residual, x, weight, eps);
    Err(no_kernel("rmsnorm.forward_residual"))
}

pub(super) fn backward(
    cuda: &CudaDevice,
    dx: ViewMut<'_>,
    dweight: ViewMut<'_>,
    dy: View<'_>,
    x: View<'_>,
    weight: View<'_>,
    rstd: View<'_>,
) -> Result<()> {
    let _ = (cuda, dx, dweight, dy, x, weight, rstd);
    Err(no_kernel("rmsnorm.backward"))
}
