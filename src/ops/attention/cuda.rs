//! Launchers of the kernels in kernels/attention.cu.

use crate::cuda::CudaDevice;
use crate::error::Result;
use crate::ops::{Heads, no_kernel};
use crate::tensor::{View, ViewMut};

pub(super) fn forward(
    cuda: &CudaDevice,
    out: ViewMut<'_>,
    lse: ViewMut<'_>,
    qkv: View<'_>,
    cu_seqlens: View<'_>,
    scale: f64,
    heads: Heads,
) -> Result<()> {
    let _ = (cuda, out, lse, qkv, cu_seqlens, scale, heads);
    Err(no_kernel("attention.forward"))
}

pub(super) fn backward(
    cuda: &CudaDevice,
    dqkv: ViewMut<'_>,
    dout: View<'_>,
    qkv: View<'_>,
    out: View<'_>,
    lse: View<'_>,
    cu_seqlens: View<'_>,
    scale: f64,
    heads: Heads,
) -> Result<()> {
    let _ = (cuda, dqkv, dout, qkv, out, lse, cu_seqlens, scale, heads);
    Err(no_kernel("attention.backward"))
}

pub(super) fn store_kv(
    cuda: &CudaDevice,
    k_cache: ViewMut<'_>,
    v_cache: ViewMut<'_>,
    qkv: View<'_>,
    rows: View<'_>,
    heads: Heads,
) -> Result<()> {
    let _ = (cuda, k_cache, v_cache, qkv, rows, heads);
    Err(no_kernel("attention.store_kv"))
}

pub(super) fn decode(
    cuda: &CudaDevice,
    out: ViewMut<'_>,
    qkv: View<'_>,
    k_cache: View<'_>,
    v_cache: View<'_>,
    lengths: View<'_>,
    scale: f64,
    heads: Heads,
) -> Result<()> {
    let _ = (cuda, out, qkv, k_cache, v_cache, lengths, scale, heads);
    Err(no_kernel("attention.decode"))
}
