//! Launcher of the kernels in kernels/sample.cu.

use super::Sampling;
use crate::cuda::Param::{I32, Pointer, U32, U64};
use crate::cuda::{CudaDevice, KernelSpec};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::Operand;
use crate::tensor::{View, ViewMut};

const THREADS: u32 = 512;
/// Values of a digit, as in the kernel.
const DIGITS: u32 = 16;
/// Per thread a sum for every digit value and a count; sums of all threads, and one per warp.
const SHARED_BYTES: u32 = THREADS * (DIGITS * 8 + 4) + DIGITS * 8 + THREADS / 32 * 8;

const fn spec(entry: &'static str) -> KernelSpec {
    let params = &[Pointer, Pointer, U64, U64, U64, U32, U32, I32, I32, I32];
    KernelSpec { module: "sample", entry, params, threads: THREADS }
}

static SAMPLE_BF16: KernelSpec = spec("sample_bf16");
static SAMPLE_F32: KernelSpec = spec("sample_f32");

pub(super) fn sample(
    cuda: &CudaDevice,
    mut ids: ViewMut<'_>,
    logits: View<'_>,
    num_tokens: usize,
    sampling: &Sampling,
    first_row: u32,
    position: u32,
) -> Result<()> {
    let spec = match Operand::dtype(&logits) {
        DType::BF16 => &SAMPLE_BF16,
        DType::F32 => &SAMPLE_F32,
        other => {
            return Err(Error::Operand {
                op: "sample",
                operand: "element type",
                expected: "bf16 or f32 on the GPU".into(),
                got: other.to_string(),
            });
        }
    };
    let shape = logits.shape();
    let [num_rows, row_length] = [shape.dims()[0], shape.dims()[1]];
    cuda.launch(spec)
        .grid([u32::try_from(num_rows).unwrap_or(u32::MAX), 1, 1])
        .shared_bytes(SHARED_BYTES)
        .output(&mut ids)
        .input(&logits)
        .u64(sampling.seed)
        .u64(sampling.temperature.to_bits())
        .u64(sampling.top_p.to_bits())
        .u32(first_row)
        .u32(position)
        .dim(row_length)
        .dim(num_tokens)
        // More than all is all.
        .dim(sampling.top_k.min(num_tokens))
        .run()
}
