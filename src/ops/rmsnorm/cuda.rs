//! Launchers of the kernels in kernels/rmsnorm.cu.

use crate::cuda::{CudaDevice, Param};
use crate::error::Result;
use crate::ops::by_dtype::{ByDType, blocks, chunk_rows, eights, shared};
use crate::ops::{Operand, reduce};
use crate::tensor::{View, ViewMut};

/// Rows of a block of the backward pass, at least, and blocks, at most.
pub(super) const CHUNKS: [usize; 2] = [8, 1024];

const P: Param = Param::Pointer;
const I: Param = Param::I32;
const F: Param = Param::F32;

const THREADS: u32 = 128;
/// One f32 per warp.
const SCRATCH_BYTES: usize = THREADS as usize / 32 * size_of::<f32>();

static FORWARD: ByDType = ByDType::new(
    "rmsnorm",
    ["rmsnorm_forward_f32", "rmsnorm_forward_bf16"],
    &[P, P, P, P, F, I],
    THREADS,
);
static FORWARD_RESIDUAL: ByDType = ByDType::new(
    "rmsnorm",
    ["rmsnorm_forward_residual_f32", "rmsnorm_forward_residual_bf16"],
    &[P, P, P, P, P, P, F, I],
    THREADS,
);
static BACKWARD: ByDType = ByDType::new(
    "rmsnorm",
    ["rmsnorm_backward_f32", "rmsnorm_backward_bf16"],
    &[P, P, P, P, P, P, I, I, I],
    THREADS,
);

pub(super) fn forward(
    cuda: &CudaDevice,
    mut y: ViewMut<'_>,
    mut rstd: ViewMut<'_>,
    x: View<'_>,
    weight: View<'_>,
    eps: f64,
    [num_rows, c]: [usize; 2],
) -> Result<()> {
    cuda.launch(FORWARD.get("rmsnorm.forward", "x", x.dtype())?)
        .grid([blocks(num_rows), 1, 1])
        .shared_bytes(shared(SCRATCH_BYTES))
        .output(&mut y)
        .output(&mut rstd)
        .input(&x)
        .input(&weight)
        .f32(eps as f32)
        .dim(c)
        .run()
}

pub(super) fn forward_residual(
    cuda: &CudaDevice,
    mut y: ViewMut<'_>,
    mut residual_out: ViewMut<'_>,
    mut rstd: ViewMut<'_>,
    residual: View<'_>,
    x: View<'_>,
    weight: View<'_>,
    eps: f64,
    [num_rows, c]: [usize; 2],
) -> Result<()> {
    cuda.launch(FORWARD_RESIDUAL.get("rmsnorm.forward_residual", "x", x.dtype())?)
        .grid([blocks(num_rows), 1, 1])
        .shared_bytes(shared(SCRATCH_BYTES))
        .output(&mut y)
        .output(&mut residual_out)
        .output(&mut rstd)
        .input(&residual)
        .input(&x)
        .input(&weight)
        .f32(eps as f32)
        .dim(c)
        .run()
}

/// Two stages: chunks of rows, each with its part of the weight gradient, then the parts in order.
pub(super) fn backward(
    cuda: &CudaDevice,
    mut dx: ViewMut<'_>,
    dweight: ViewMut<'_>,
    dy: View<'_>,
    x: View<'_>,
    weight: View<'_>,
    rstd: View<'_>,
    [num_rows, c]: [usize; 2],
) -> Result<()> {
    const OP: &str = "rmsnorm.backward";
    let kernel = BACKWARD.get(OP, "x", x.dtype())?;
    reduce::check_partials(OP, "dweight", Operand::dtype(&dweight))?;
    let chunk_rows = chunk_rows(num_rows, CHUNKS[0], CHUNKS[1]);
    let num_chunks = num_rows.div_ceil(chunk_rows);
    let mut partials = cuda.scratch("rmsnorm.dweight", num_chunks * c * size_of::<f32>())?;
    cuda.launch(kernel)
        .grid([blocks(num_chunks), 1, 1])
        .shared_bytes(shared(SCRATCH_BYTES + eights(c) * 8 * size_of::<f32>()))
        .output(&mut dx)
        .output(&mut partials)
        .input(&dy)
        .input(&x)
        .input(&weight)
        .input(&rstd)
        .dim(num_rows)
        .dim(c)
        .dim(chunk_rows)
        .run()?;
    reduce::add_partials(cuda, dweight, &partials, [num_chunks, c])
}
