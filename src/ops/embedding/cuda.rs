//! Launchers of kernels/embedding.cu.
//!
//! Ids are not checked here, as that would wait for the GPU: the host code that uploads them has.
//! The kernels turn a row of a wrong id into NaN forward, and leave it out backward.

use crate::cuda::{CudaDevice, KernelSpec, Param};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{View, ViewMut};

const P: Param = Param::Pointer;
const I: Param = Param::I32;

const THREADS: u32 = 128;

const fn forward_kernel(entry: &'static str) -> KernelSpec {
    KernelSpec { module: "embedding", entry, params: &[P, P, P, I, I], threads: THREADS }
}

const fn backward_kernel(entry: &'static str) -> KernelSpec {
    KernelSpec { module: "embedding", entry, params: &[P, P, P, I, I, I, I], threads: THREADS }
}

static FORWARD_BF16: KernelSpec = forward_kernel("embedding_forward_bf16");
static FORWARD_F32: KernelSpec = forward_kernel("embedding_forward_f32");
/// The types of dout and of dweight.
static BACKWARD_BF16_F32: KernelSpec = backward_kernel("embedding_backward_bf16_f32");
static BACKWARD_BF16_BF16: KernelSpec = backward_kernel("embedding_backward_bf16_bf16");
static BACKWARD_F32_F32: KernelSpec = backward_kernel("embedding_backward_f32_f32");
static SORT: KernelSpec = KernelSpec {
    module: "embedding",
    entry: "embedding_sort",
    params: &[P, P, I, I],
    threads: 512,
};
/// Positions that one block sorts, two per thread.
const CHUNK: usize = 1024;
pub(super) const KEY_BYTES: usize = 8;

pub(super) fn forward(
    cuda: &CudaDevice,
    mut out: ViewMut<'_>,
    tokens: View<'_>,
    weight: View<'_>,
    [num_tokens, vocab_size, width]: [usize; 3],
) -> Result<()> {
    let spec = match weight.dtype() {
        DType::BF16 => &FORWARD_BF16,
        DType::F32 => &FORWARD_F32,
        other => return Err(unsupported("embedding.forward", other)),
    };
    cuda.launch(spec)
        .grid([blocks(num_tokens), 1, 1])
        .output(&mut out)
        .input(&tokens)
        .input(&weight)
        .dim(vocab_size)
        .dim(width)
        .run()
}

pub(super) fn backward(
    cuda: &CudaDevice,
    mut dweight: ViewMut<'_>,
    dout: View<'_>,
    tokens: View<'_>,
    [num_tokens, vocab_size, width]: [usize; 3],
) -> Result<()> {
    let spec = match (dout.dtype(), dweight.dtype()) {
        (DType::BF16, DType::F32) => &BACKWARD_BF16_F32,
        (DType::BF16, DType::BF16) => &BACKWARD_BF16_BF16,
        (DType::F32, DType::F32) => &BACKWARD_F32_F32,
        (other, _) => return Err(unsupported("embedding.backward", other)),
    };
    let mut order = cuda.scratch("embedding.order", num_tokens * KEY_BYTES)?;
    cuda.launch(&SORT)
        .grid([blocks(num_tokens.div_ceil(CHUNK)), 1, 1])
        .shared_bytes((num_tokens.next_power_of_two().min(CHUNK) * KEY_BYTES) as u32)
        .output(&mut order)
        .input(&tokens)
        .dim(num_tokens)
        .dim(CHUNK)
        .run()?;
    cuda.launch(spec)
        .grid([blocks(num_tokens), blocks(width.div_ceil(THREADS as usize)), 1])
        .shared_bytes(THREADS * 8)
        .output(&mut dweight)
        .input(&dout)
        .input(&order)
        .dim(num_tokens)
        .dim(CHUNK)
        .dim(vocab_size)
        .dim(width)
        .run()
}

/// As a grid dimension; one that is too large is refused by the launch.
fn blocks(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn unsupported(op: &'static str, dtype: DType) -> Error {
    let expected = "bf16 or f32 on a GPU".to_string();
    Error::Operand { op, operand: "element type", expected, got: dtype.to_string() }
}
