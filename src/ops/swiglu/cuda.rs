//! Launchers of the kernels in kernels/swiglu.cu.

use crate::cuda::{CudaDevice, Param};
use crate::error::Result;
use crate::ops::Operand;
use crate::ops::by_dtype::{ByDType, blocks, eights};
use crate::tensor::{View, ViewMut};

const P: Param = Param::Pointer;
const I: Param = Param::I32;
const THREADS: u32 = 128;

static FORWARD: ByDType =
    ByDType::new("swiglu", ["swiglu_forward_f32", "swiglu_forward_bf16"], &[P, P, I, I], THREADS);
static BACKWARD: ByDType = ByDType::new(
    "swiglu",
    ["swiglu_backward_f32", "swiglu_backward_bf16"],
    &[P, P, P, I, I],
    THREADS,
);

/// Blocks that cover a row, and the grid over all rows.
fn geometry(num_tokens: usize, ffn: usize) -> (usize, [u32; 3]) {
    let tiles = eights(ffn).div_ceil(THREADS as usize);
    (tiles, [blocks(num_tokens.saturating_mul(tiles)), 1, 1])
}

pub(super) fn forward(
    cuda: &CudaDevice,
    mut y: ViewMut<'_>,
    gate_up: View<'_>,
    [num_tokens, ffn]: [usize; 2],
) -> Result<()> {
    let (tiles, grid) = geometry(num_tokens, ffn);
    cuda.launch(FORWARD.get("swiglu.forward", "y", Operand::dtype(&y))?)
        .grid(grid)
        .output(&mut y)
        .input(&gate_up)
        .dim(tiles)
        .dim(ffn)
        .run()
}

pub(super) fn backward(
    cuda: &CudaDevice,
    mut dgate_up: ViewMut<'_>,
    dy: View<'_>,
    gate_up: View<'_>,
    [num_tokens, ffn]: [usize; 2],
) -> Result<()> {
    let (tiles, grid) = geometry(num_tokens, ffn);
    cuda.launch(BACKWARD.get("swiglu.backward", "dy", dy.dtype())?)
        .grid(grid)
        .output(&mut dgate_up)
        .input(&dy)
        .input(&gate_up)
        .dim(tiles)
        .dim(ffn)
        .run()
}
