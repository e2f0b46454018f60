//! Launchers of the kernels in kernels/rope.cu.

use crate::cuda::CudaDevice;
use crate::error::Result;
use crate::ops::{Heads, no_kernel};
use crate::tensor::{View, ViewMut};

pub(super) fn forward(
    cuda: &CudaDevice,
    qkv: ViewMut<'_>,
    positions: View<'_>,
    cos: View<'_>,
    sin: View<'_>,
    heads: Heads,
) -> Result<()> {
    let _ = (cuda, qkv, positions, cos, sin, heads);
    Err(no_kernel("rope.forward"))
}

pub(super) fn backward(
    cuda: &CudaDevice,
    dqkv: ViewMut<'_>,
    positions: View<'_>,
    cos: View<'_>,
    sin: View<'_>,
    heads: Heads,
) -> Result<()> {
    let _ = (cuda, dqkv, positions, cos, sin, heads);
    Err(no_kernel("rope.backward"))
}
