//! Launchers of kernels/cross_entropy.cu.
//!
//! Targets are not checked here, as that would wait for the GPU: the host code that uploads them
//! has. The kernels turn the loss and the gradient of a row with a wrong target into NaN.

use crate::cuda::{CudaDevice, KernelSpec, Param};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{View, ViewMut};

const P: Param = Param::Pointer;
const I: Param = Param::I32;
const F: Param = Param::F32;

/// Rows up to this many logits get the small block: more threads would wait for each other.
const SHORT_ROW: usize = 8192;

const fn forward_kernel(entry: &'static str, threads: u32) -> KernelSpec {
    KernelSpec { module: "cross_entropy", entry, params: &[P, P, P, I], threads }
}

const fn both_kernel(entry: &'static str, threads: u32) -> KernelSpec {
    KernelSpec { module: "cross_entropy", entry, params: &[P, P, P, F, I], threads }
}

/// The same kernel for short and for long rows.
type BySize = [KernelSpec; 2];

static FORWARD_BF16: BySize = [
    forward_kernel("cross_entropy_forward_bf16", 128),
    forward_kernel("cross_entropy_forward_bf16", 1024),
];
static FORWARD_F32: BySize = [
    forward_kernel("cross_entropy_forward_f32", 128),
    forward_kernel("cross_entropy_forward_f32", 1024),
];
static BOTH_BF16: BySize = [
    both_kernel("cross_entropy_forward_backward_bf16", 128),
    both_kernel("cross_entropy_forward_backward_bf16", 1024),
];
static BOTH_F32: BySize = [
    both_kernel("cross_entropy_forward_backward_f32", 128),
    both_kernel("cross_entropy_forward_backward_f32", 1024),
];
/// A maximum and a sum for each of 32 warps.
const SHARED_BYTES: u32 = 32 * 8;

pub(super) fn forward(
    cuda: &CudaDevice,
    mut losses: ViewMut<'_>,
    logits: View<'_>,
    targets: View<'_>,
    [num_rows, vocab_size]: [usize; 2],
) -> Result<()> {
    let kernels = match logits.dtype() {
        DType::BF16 => &FORWARD_BF16,
        DType::F32 => &FORWARD_F32,
        other => return Err(unsupported("cross_entropy.forward", other)),
    };
    cuda.launch(&kernels[usize::from(vocab_size > SHORT_ROW)])
        .grid([u32::try_from(num_rows).unwrap_or(u32::MAX), 1, 1])
        .shared_bytes(SHARED_BYTES)
        .output(&mut losses)
        .input(&logits)
        .input(&targets)
        .dim(vocab_size)
        .run()
}

pub(super) fn forward_backward(
    cuda: &CudaDevice,
    mut losses: ViewMut<'_>,
    mut logits: ViewMut<'_>,
    targets: View<'_>,
    scale: f64,
    [num_rows, vocab_size]: [usize; 2],
) -> Result<()> {
    let kernels = match logits.dtype() {
        DType::BF16 => &BOTH_BF16,
        DType::F32 => &BOTH_F32,
        other => return Err(unsupported("cross_entropy.forward_backward", other)),
    };
    cuda.launch(&kernels[usize::from(vocab_size > SHORT_ROW)])
        .grid([u32::try_from(num_rows).unwrap_or(u32::MAX), 1, 1])
        .shared_bytes(SHARED_BYTES)
        .output(&mut losses)
        .output(&mut logits)
        .input(&targets)
        .f32(scale as f32)
        .dim(vocab_size)
        .run()
}

fn unsupported(op: &'static str, dtype: DType) -> Error {
    let expected = "bf16 or f32 on a GPU".to_string();
    Error::Operand { op, operand: "logits", expected, got: dtype.to_string() }
}
