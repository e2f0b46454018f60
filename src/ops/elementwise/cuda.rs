//! Launchers of the kernels in kernels/elementwise.cu.

use crate::cuda::CudaDevice;
use crate::error::Result;
use crate::ops::no_kernel;
use crate::tensor::{View, ViewMut};

pub(super) fn fill(cuda: &CudaDevice, out: ViewMut<'_>, value: f64) -> Result<()> {
    let _ = (cuda, out, value);
    Err(no_kernel("elementwise.fill"))
}

pub(super) fn cast(cuda: &CudaDevice, out: ViewMut<'_>, x: View<'_>) -> Result<()> {
    let _ = (cuda, out, x);
    Err(no_kernel("elementwise.cast"))
}

pub(super) fn scale(cuda: &CudaDevice, x: ViewMut<'_>, factor: f64) -> Result<()> {
    let _ = (cuda, x, factor);
    Err(no_kernel("elementwise.scale"))
}

pub(super) fn axpy(cuda: &CudaDevice, y: ViewMut<'_>, a: f64, x: View<'_>) -> Result<()> {
    let _ = (cuda, y, a, x);
    Err(no_kernel("elementwise.axpy"))
}
