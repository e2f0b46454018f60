//! Launchers of the kernels in kernels/rope.cu.
//!
//! Positions are not looked at here, which would wait for the GPU: the kernels turn the query and key
//! columns of a row without a valid one into NaN.

use crate::cuda::{CudaDevice, Param};
use crate::error::Result;
use crate::ops::by_dtype::{ByDType, blocks};
use crate::ops::{Heads, Operand};
use crate::tensor::{View, ViewMut};

const P: Param = Param::Pointer;
const I: Param = Param::I32;
const PARAMS: &[Param] = &[P, P, P, P, I, I, I, I];
const THREADS: u32 = 128;

static FORWARD: ByDType =
    ByDType::new("rope", ["rope_forward_f32", "rope_forward_bf16"], PARAMS, THREADS);
static BACKWARD: ByDType =
    ByDType::new("rope", ["rope_backward_f32", "rope_backward_bf16"], PARAMS, THREADS);

pub(super) fn forward(
    cuda: &CudaDevice,
    qkv: ViewMut<'_>,
    positions: View<'_>,
    cos: View<'_>,
    sin: View<'_>,
    heads: Heads,
) -> Result<()> {
    rotate(cuda, "rope.forward", &FORWARD, qkv, positions, cos, sin, heads)
}

pub(super) fn backward(
    cuda: &CudaDevice,
    dqkv: ViewMut<'_>,
    positions: View<'_>,
    cos: View<'_>,
    sin: View<'_>,
    heads: Heads,
) -> Result<()> {
    rotate(cuda, "rope.backward", &BACKWARD, dqkv, positions, cos, sin, heads)
}

fn rotate(
    cuda: &CudaDevice,
    op: &'static str,
    kernels: &'static ByDType,
    mut rows: ViewMut<'_>,
    positions: View<'_>,
    cos: View<'_>,
    sin: View<'_>,
    heads: Heads,
) -> Result<()> {
    let num_positions = cos.shape().dims().first().copied().unwrap_or(0);
    cuda.launch(kernels.get(op, "qkv", Operand::dtype(&rows))?)
        .grid([blocks(positions.shape().num_elems()), 1, 1])
        .output(&mut rows)
        .input(&positions)
        .input(&cos)
        .input(&sin)
        .dim(num_positions)
        .dim(heads.num_heads + heads.num_kv_heads)
        .dim(heads.qkv_dim())
        .dim(heads.head_dim)
        .run()
}
