//! Launchers of the kernels in kernels/embedding.cu.

use crate::cuda::CudaDevice;
use crate::error::Result;
use crate::ops::no_kernel;
use crate::tensor::{View, ViewMut};

pub(super) fn forward(
    cuda: &CudaDevice,
    out: ViewMut<'_>,
    tokens: View<'_>,
    weight: View<'_>,
) -> Result<()> {
    let _ = (cuda, out, tokens, weight);
    Err(no_kernel("embedding.forward"))
}

pub(super) fn backward(
    cuda: &CudaDevice,
    dweight: ViewMut<'_>,
    dout: View<'_>,
    tokens: View<'_>,
) -> Result<()> {
    let _ = (cuda, dweight, dout, tokens);
    Err(no_kernel("embedding.backward"))
}
