//! Launchers of the kernels in kernels/qk_norm.cu.

use crate::cuda::CudaDevice;
use crate::error::Result;
use crate::ops::{Heads, no_kernel};
use crate::tensor::{View, ViewMut};

pub(super) fn forward(
    cuda: &CudaDevice,
    out: ViewMut<'_>,
    rstd: ViewMut<'_>,
    qkv: View<'_>,
    q_weight: View<'_>,
    k_weight: View<'_>,
    eps: f64,
    heads: Heads,
) -> Result<()> {
    let _ = (cuda, out, rstd, qkv, q_weight, k_weight, eps, heads);
    Err(no_kernel("qk_norm.forward"))
}

pub(super) fn backward(
    cuda: &CudaDevice,
    dqkv: ViewMut<'_>,
    dq_weight: ViewMut<'_>,
    dk_weight: ViewMut<'_>,
    qkv: View<'_>,
    rstd: View<'_>,
    q_weight: View<'_>,
    k_weight: View<'_>,
    heads: Heads,
) -> Result<()> {
    let _ = (cuda, dqkv, dq_weight, dk_weight, qkv, rstd, q_weight, k_weight, heads);
    Err(no_kernel("qk_norm.backward"))
}
