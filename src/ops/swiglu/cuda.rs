//! Launchers of the kernels in kernels/swiglu.cu.

use crate::cuda::CudaDevice;
use crate::error::Result;
use crate::ops::no_kernel;
use crate::tensor::{View, ViewMut};

pub(super) fn forward(cuda: &CudaDevice, y: ViewMut<'_>, gate_up: View<'_>) -> Result<()> {
    let _ = (cuda, y, gate_up);
    Err(no_kernel("swiglu.forward"))
}

pub(super) fn backward(
    cuda: &CudaDevice,
    dgate_up: ViewMut<'_>,
    dy: View<'_>,
    gate_up: View<'_>,
) -> Result<()> {
    let _ = (cuda, dgate_up, dy, gate_up);
    Err(no_kernel("swiglu.backward"))
}
