//! Launchers of the kernels in kernels/elementwise.cu, of f32 and bf16.

use super::cast::round_to_odd;
use crate::cuda::{CudaDevice, Param};
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::Operand;
use crate::ops::by_dtype::{ByDType, blocks, eights, unsupported};
use crate::tensor::{View, ViewMut};

const P: Param = Param::Pointer;
const F: Param = Param::F32;
const L: Param = Param::I64;
const THREADS: u32 = 256;

const fn kernels(entries: [&'static str; 2], params: &'static [Param]) -> ByDType {
    ByDType::new("elementwise", entries, params, THREADS)
}

static FILL: ByDType = kernels(["elementwise_fill_f32", "elementwise_fill_bf16"], &[P, F, L]);
static SCALE: ByDType = kernels(["elementwise_scale_f32", "elementwise_scale_bf16"], &[P, F, L]);
static AXPY: ByDType = kernels(["elementwise_axpy_f32", "elementwise_axpy_bf16"], &[P, P, F, L]);
static CAST_TO_F32: ByDType =
    kernels(["elementwise_cast_f32_f32", "elementwise_cast_f32_bf16"], &[P, P, L]);
static CAST_TO_BF16: ByDType =
    kernels(["elementwise_cast_bf16_f32", "elementwise_cast_bf16_bf16"], &[P, P, L]);

/// One thread per eight elements.
fn grid(n: usize) -> [u32; 3] {
    [blocks(eights(n).div_ceil(THREADS as usize)), 1, 1]
}

pub(super) fn fill(cuda: &CudaDevice, mut out: ViewMut<'_>, value: f64) -> Result<()> {
    let n = out.shape().num_elems();
    let dtype = Operand::dtype(&out);
    // The kernel rounds once more, to bf16: rounded to odd here, once in all.
    let value = if dtype == DType::BF16 { round_to_odd(value) } else { value as f32 };
    cuda.launch(FILL.get("elementwise.fill", "out", dtype)?)
        .grid(grid(n))
        .output(&mut out)
        .f32(value)
        .count(n)
        .run()
}

pub(super) fn cast(cuda: &CudaDevice, mut out: ViewMut<'_>, x: View<'_>) -> Result<()> {
    const OP: &str = "elementwise.cast";
    let n = x.shape().num_elems();
    let kernels = match Operand::dtype(&out) {
        DType::F32 => &CAST_TO_F32,
        DType::BF16 => &CAST_TO_BF16,
        other => return Err(unsupported(OP, "out", "f32 or bf16 on a GPU", other)),
    };
    cuda.launch(kernels.get(OP, "x", x.dtype())?)
        .grid(grid(n))
        .output(&mut out)
        .input(&x)
        .count(n)
        .run()
}

pub(super) fn scale(cuda: &CudaDevice, mut x: ViewMut<'_>, factor: f64) -> Result<()> {
    let n = x.shape().num_elems();
    cuda.launch(SCALE.get("elementwise.scale", "x", Operand::dtype(&x))?)
        .grid(grid(n))
        .output(&mut x)
        .f32(factor as f32)
        .count(n)
        .run()
}

pub(super) fn axpy(cuda: &CudaDevice, mut y: ViewMut<'_>, a: f64, x: View<'_>) -> Result<()> {
    let n = x.shape().num_elems();
    cuda.launch(AXPY.get("elementwise.axpy", "y", x.dtype())?)
        .grid(grid(n))
        .output(&mut y)
        .input(&x)
        .f32(a as f32)
        .count(n)
        .run()
}
