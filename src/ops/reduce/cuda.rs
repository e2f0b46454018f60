//! Launchers of the kernels in kernels/reduce.cu.

use crate::cuda::{CudaDevice, DeviceOperand, KernelSpec, Param};
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::Operand;
use crate::ops::by_dtype::{ByDType, blocks, chunk_rows, eights, shared, unsupported};
use crate::tensor::{View, ViewMut};

/// Rows of a block of the column sums, at least, and blocks, at most.
pub(super) const CHUNKS: [usize; 2] = [16, 256];

const P: Param = Param::Pointer;
const I: Param = Param::I32;
const L: Param = Param::I64;

const THREADS: usize = 256;
/// Eights of a part at least: four per thread.
const MIN_PART: usize = 4 * THREADS;
/// Parts at most: a multiple of what runs at once on any GPU, and quickly added.
pub(super) const MAX_PARTS: usize = 2048;
/// Eights of columns and rows of threads per block of the column sums.
const LANES: usize = 32;
/// One f64 per warp.
const SCRATCH_BYTES: u32 = (THREADS / 32 * size_of::<f64>()) as u32;
/// Eight f32 per thread.
const ROWS_BYTES: usize = THREADS * 8 * size_of::<f32>();

const fn kernels(entries: [&'static str; 2]) -> ByDType {
    ByDType::new("reduce", entries, &[P, P, P, L, L], THREADS as u32)
}

const fn finish(entry: &'static str) -> KernelSpec {
    KernelSpec { module: "reduce", entry, params: &[P, P, I], threads: THREADS as u32 }
}

static SUM: ByDType = kernels(["reduce_sum_f32", "reduce_sum_bf16"]);
static SUM_SQUARES: ByDType = kernels(["reduce_sum_squares_f32", "reduce_sum_squares_bf16"]);
static DOT: ByDType = kernels(["reduce_dot_f32", "reduce_dot_bf16"]);
static MAX_ABS: ByDType = kernels(["reduce_max_abs_f32", "reduce_max_abs_bf16"]);
static FINISH_SUM: KernelSpec = finish("reduce_finish_sum");
static FINISH_MAX: KernelSpec = finish("reduce_finish_max");
static COLUMN_SUMS: ByDType = ByDType::new(
    "reduce",
    ["reduce_column_sums_f32", "reduce_column_sums_bf16"],
    &[P, P, I, I, I],
    THREADS as u32,
);
static ADD_PARTIALS: KernelSpec = KernelSpec {
    module: "reduce",
    entry: "reduce_add_partials_f32",
    params: &[P, P, I, I],
    threads: THREADS as u32,
};

pub(super) fn sum(cuda: &CudaDevice, out: ViewMut<'_>, x: View<'_>) -> Result<()> {
    to_scalar(cuda, SUM.get("reduce.sum", "x", x.dtype())?, &FINISH_SUM, out, x, x)
}

pub(super) fn sum_squares(cuda: &CudaDevice, out: ViewMut<'_>, x: View<'_>) -> Result<()> {
    let kernel = SUM_SQUARES.get("reduce.sum_squares", "x", x.dtype())?;
    to_scalar(cuda, kernel, &FINISH_SUM, out, x, x)
}

pub(super) fn dot(cuda: &CudaDevice, out: ViewMut<'_>, x: View<'_>, y: View<'_>) -> Result<()> {
    to_scalar(cuda, DOT.get("reduce.dot", "x", x.dtype())?, &FINISH_SUM, out, x, y)
}

pub(super) fn max_abs(cuda: &CudaDevice, out: ViewMut<'_>, x: View<'_>) -> Result<()> {
    to_scalar(cuda, MAX_ABS.get("reduce.max_abs", "x", x.dtype())?, &FINISH_MAX, out, x, x)
}

/// Parts of the tensor, then the parts in order; the result stays on the device.
fn to_scalar(
    cuda: &CudaDevice,
    kernel: &'static KernelSpec,
    finish: &'static KernelSpec,
    mut out: ViewMut<'_>,
    x: View<'_>,
    y: View<'_>,
) -> Result<()> {
    let n = x.shape().num_elems();
    let part = eights(n).div_ceil(MAX_PARTS).max(MIN_PART);
    let num_parts = eights(n).div_ceil(part);
    let mut partials = cuda.scratch("reduce.parts", num_parts * size_of::<f64>())?;
    cuda.launch(kernel)
        .grid([blocks(num_parts), 1, 1])
        .shared_bytes(SCRATCH_BYTES)
        .output(&mut partials)
        .input(&x)
        .input(&y)
        .count(part)
        .count(n)
        .run()?;
    // Without elements too: the sum of none is 0.
    cuda.launch(finish)
        .shared_bytes(SCRATCH_BYTES)
        .output(&mut out)
        .input(&partials)
        .dim(num_parts)
        .run()
}

pub(super) fn column_sums(cuda: &CudaDevice, out: ViewMut<'_>, x: View<'_>) -> Result<()> {
    const OP: &str = "reduce.column_sums";
    let kernel = COLUMN_SUMS.get(OP, "x", x.dtype())?;
    check_partials(OP, "out", Operand::dtype(&out))?;
    let [num_rows, num_columns] = super::check_rank(OP, "x", &x)?;
    let chunk_rows = chunk_rows(num_rows, CHUNKS[0], CHUNKS[1]);
    let num_chunks = num_rows.div_ceil(chunk_rows);
    let bytes = num_chunks * num_columns * size_of::<f32>();
    let mut partials = cuda.scratch("reduce.columns", bytes)?;
    cuda.launch(kernel)
        .grid([blocks(eights(num_columns).div_ceil(LANES)), blocks(num_chunks), 1])
        .shared_bytes(shared(ROWS_BYTES))
        .output(&mut partials)
        .input(&x)
        .dim(num_rows)
        .dim(num_columns)
        .dim(chunk_rows)
        .run()?;
    add_partials(cuda, out, &partials, [num_chunks, num_columns])
}

/// What [`add_partials`] adds to must be f32.
pub(crate) fn check_partials(op: &'static str, operand: &'static str, dtype: DType) -> Result<()> {
    match dtype {
        DType::F32 => Ok(()),
        other => Err(unsupported(op, operand, "f32 on a GPU", other)),
    }
}

/// Adds the rows of `partials`, (number, columns) of f32, to `out` (+=), (columns): row i to thread
/// row i mod 8, then the eight rows in order.
pub(crate) fn add_partials(
    cuda: &CudaDevice,
    mut out: ViewMut<'_>,
    partials: &impl DeviceOperand,
    [num_partials, num_columns]: [usize; 2],
) -> Result<()> {
    let num_blocks = if num_partials == 0 { 0 } else { eights(num_columns).div_ceil(LANES) };
    cuda.launch(&ADD_PARTIALS)
        .grid([blocks(num_blocks), 1, 1])
        .shared_bytes(shared(ROWS_BYTES))
        .output(&mut out)
        .input(partials)
        .dim(num_partials)
        .dim(num_columns)
        .run()
}
