//! Launchers of the kernels in kernels/qk_norm.cu.

use crate::cuda::{CudaDevice, Param};
use crate::error::Result;
use crate::ops::by_dtype::{ByDType, blocks, chunk_rows, eights, shared};
use crate::ops::{Heads, Operand, check_rank, reduce};
use crate::tensor::{View, ViewMut};

/// Rows of a block of the backward pass, at least, and blocks, at most.
pub(super) const CHUNKS: [usize; 2] = [4, 1024];

const P: Param = Param::Pointer;
const I: Param = Param::I32;
const F: Param = Param::F32;

const THREADS: u32 = 128;

static FORWARD: ByDType = ByDType::new(
    "qk_norm",
    ["qk_norm_forward_f32", "qk_norm_forward_bf16"],
    &[P, P, P, P, P, F, I, I, I, I],
    THREADS,
);
static BACKWARD: ByDType = ByDType::new(
    "qk_norm",
    ["qk_norm_backward_f32", "qk_norm_backward_bf16"],
    &[P, P, P, P, P, P, P, I, I, I, I, I, I],
    THREADS,
);

/// Lanes that share a head: a power of two, at most a warp, at most one per eight elements.
fn lanes(head_dim: usize) -> usize {
    eights(head_dim).next_power_of_two().min(32)
}

pub(super) fn forward(
    cuda: &CudaDevice,
    mut out: ViewMut<'_>,
    mut rstd: ViewMut<'_>,
    qkv: View<'_>,
    q_weight: View<'_>,
    k_weight: View<'_>,
    eps: f64,
    heads: Heads,
) -> Result<()> {
    const OP: &str = "qk_norm.forward";
    let [num_tokens, _] = check_rank(OP, "qkv", &qkv)?;
    cuda.launch(FORWARD.get(OP, "qkv", qkv.dtype())?)
        .grid([blocks(num_tokens), 1, 1])
        .output(&mut out)
        .output(&mut rstd)
        .input(&qkv)
        .input(&q_weight)
        .input(&k_weight)
        .f32(eps as f32)
        .dim(heads.num_heads)
        .dim(heads.num_kv_heads)
        .dim(heads.head_dim)
        .dim(lanes(heads.head_dim))
        .run()
}

/// Two stages, as the backward of rmsnorm.
pub(super) fn backward(
    cuda: &CudaDevice,
    mut dqkv: ViewMut<'_>,
    dq_weight: ViewMut<'_>,
    dk_weight: ViewMut<'_>,
    qkv: View<'_>,
    rstd: View<'_>,
    q_weight: View<'_>,
    k_weight: View<'_>,
    heads: Heads,
) -> Result<()> {
    const OP: &str = "qk_norm.backward";
    let kernel = BACKWARD.get(OP, "qkv", qkv.dtype())?;
    reduce::check_partials(OP, "dq_weight", Operand::dtype(&dq_weight))?;
    reduce::check_partials(OP, "dk_weight", Operand::dtype(&dk_weight))?;
    let [num_tokens, _] = check_rank(OP, "qkv", &qkv)?;
    let (d, lanes) = (heads.head_dim, lanes(heads.head_dim));
    let chunk_rows = chunk_rows(num_tokens, CHUNKS[0], CHUNKS[1]);
    let num_chunks = num_tokens.div_ceil(chunk_rows);
    let bytes = num_chunks * d * size_of::<f32>();
    let mut dq_partials = cuda.scratch("qk_norm.dq_weight", bytes)?;
    let mut dk_partials = cuda.scratch("qk_norm.dk_weight", bytes)?;
    // Per group of lanes both weight gradients.
    let groups = THREADS as usize / lanes;
    cuda.launch(kernel)
        .grid([blocks(num_chunks), 1, 1])
        .shared_bytes(shared(groups * 2 * eights(d) * 8 * size_of::<f32>()))
        .output(&mut dqkv)
        .output(&mut dq_partials)
        .output(&mut dk_partials)
        .input(&qkv)
        .input(&rstd)
        .input(&q_weight)
        .input(&k_weight)
        .dim(num_tokens)
        .dim(heads.num_heads)
        .dim(heads.num_kv_heads)
        .dim(d)
        .dim(lanes)
        .dim(chunk_rows)
        .run()?;
    reduce::add_partials(cuda, dq_weight, &dq_partials, [num_chunks, d])?;
    reduce::add_partials(cuda, dk_weight, &dk_partials, [num_chunks, d])
}
