//! Launchers of kernels/matmul.cu (bf16) and kernels/matmul_f32.cu.
//!
//! The kernel depends on dtypes, shape and alignment only. All bf16 kernels sum in the same order,
//! so a row has the same bits whichever is picked.

use super::{Accumulate, Layout};
use crate::cuda::{CudaDevice, DeviceOperand, KernelSpec, Param};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{View, ViewMut};

const P: Param = Param::Pointer;
const I: Param = Param::I32;
const L: Param = Param::I64;

/// Fewer large tiles than this leave multiprocessors of the largest GPUs idle; four times as many
/// small ones do not.
const MIN_LARGE_TILES: usize = 128;

/// A kernel of matmul.cu.
const fn bf16(entry: &'static str, threads: u32) -> KernelSpec {
    KernelSpec { module: "matmul", entry, params: &[P, P, P, P, I, I, I, I, I, I], threads }
}

/// Bytes of shared memory per row of a square tile: four stages of 32 bf16 of both operands.
const SHARED_BYTES_PER_ROW: usize = 4 * 32 * 2 * 2;

/// Kernels of one tile size and alignment: by layout, then for outputs in bf16 and in f32.
struct Family {
    /// Rows and columns of the output per block.
    tile: usize,
    kernels: [[KernelSpec; 2]; 3],
}

static LARGE: Family = Family {
    tile: 128,
    kernels: [
        [bf16("matmul_nt_large_bf16", 256), bf16("matmul_nt_large_f32", 256)],
        [bf16("matmul_nn_large_bf16", 256), bf16("matmul_nn_large_f32", 256)],
        [bf16("matmul_tn_large_bf16", 256), bf16("matmul_tn_large_f32", 256)],
    ],
};
static SMALL: Family = Family {
    tile: 64,
    kernels: [
        [bf16("matmul_nt_small_bf16", 128), bf16("matmul_nt_small_f32", 128)],
        [bf16("matmul_nn_small_bf16", 128), bf16("matmul_nn_small_f32", 128)],
        [bf16("matmul_tn_small_bf16", 128), bf16("matmul_tn_small_f32", 128)],
    ],
};
/// For rows that do not start on 16-byte boundaries.
static ANY: Family = Family {
    tile: 64,
    kernels: [
        [bf16("matmul_nt_any_bf16", 128), bf16("matmul_nt_any_f32", 128)],
        [bf16("matmul_nn_any_bf16", 128), bf16("matmul_nn_any_f32", 128)],
        [bf16("matmul_tn_any_bf16", 128), bf16("matmul_tn_any_f32", 128)],
    ],
};

static F32: KernelSpec = KernelSpec {
    module: "matmul_f32",
    entry: "matmul_f32",
    params: &[P, P, P, P, I, I, I, I, L, L, L, L],
    threads: 256,
};
const F32_TILE: usize = 32;
/// Two tiles of 16 rows of 33 elements.
const F32_SHARED_BYTES: u32 = 2 * 16 * 33 * 4;

/// What a product is computed from.
pub(super) struct Inputs<'a> {
    pub a: View<'a>,
    pub b: View<'a>,
    pub bias: Option<View<'a>>,
}

pub(super) fn matmul(
    cuda: &CudaDevice,
    out: ViewMut<'_>,
    inputs: Inputs<'_>,
    layout: Layout,
    accumulate: Accumulate,
    dims: [usize; 3],
) -> Result<()> {
    match inputs.a.dtype() {
        DType::BF16 => matmul_bf16(cuda, out, &inputs, layout, accumulate, dims),
        DType::F32 => matmul_f32(cuda, out, &inputs, layout, accumulate, dims),
        other => Err(Error::Operand {
            op: "matmul",
            operand: "a",
            expected: "bf16 or f32 on a GPU".into(),
            got: other.to_string(),
        }),
    }
}

fn matmul_bf16(
    cuda: &CudaDevice,
    mut out: ViewMut<'_>,
    Inputs { a, b, bias }: &Inputs<'_>,
    layout: Layout,
    accumulate: Accumulate,
    [m, n, k]: [usize; 3],
) -> Result<()> {
    let (a_row, b_row) = match layout {
        Layout::NT => (k, k),
        Layout::NN => (k, n),
        Layout::TN => (m, n),
    };
    let (a_width, b_width) = (copy_width(a, a_row), copy_width(b, b_row));
    let family = if a_width < 16 || b_width < 16 {
        &ANY
    } else if num_tiles(m, n, LARGE.tile) >= MIN_LARGE_TILES {
        &LARGE
    } else {
        &SMALL
    };
    let spec = &family.kernels[layout as usize][usize::from(out.dtype() == DType::F32)];
    let launch = cuda
        .launch(spec)
        .grid([u32::try_from(num_tiles(m, n, family.tile)).unwrap_or(u32::MAX), 1, 1])
        .shared_bytes((family.tile * SHARED_BYTES_PER_ROW) as u32)
        .output(&mut out)
        .input(a)
        .input(b);
    let launch = match bias {
        Some(bias) => launch.input(bias),
        None => launch.null(),
    };
    launch
        .i32(i32::from(accumulate == Accumulate::Yes))
        .i32(a_width)
        .i32(b_width)
        .dim(m)
        .dim(n)
        .dim(k)
        .run()
}

fn matmul_f32(
    cuda: &CudaDevice,
    mut out: ViewMut<'_>,
    Inputs { a, b, bias }: &Inputs<'_>,
    layout: Layout,
    accumulate: Accumulate,
    [m, n, k]: [usize; 3],
) -> Result<()> {
    // Strides of the kept and of the summed index.
    let (a_strides, b_strides) = match layout {
        Layout::NT => ([k, 1], [k, 1]),
        Layout::NN => ([k, 1], [1, n]),
        Layout::TN => ([1, m], [1, n]),
    };
    let blocks = u32::try_from(num_tiles(m, n, F32_TILE)).unwrap_or(u32::MAX);
    let launch = cuda
        .launch(&F32)
        .grid([blocks, 1, 1])
        .shared_bytes(F32_SHARED_BYTES)
        .output(&mut out)
        .input(a)
        .input(b);
    let launch = match bias {
        Some(bias) => launch.input(bias),
        None => launch.null(),
    };
    let launch = launch.i32(i32::from(accumulate == Accumulate::Yes)).dim(m).dim(n).dim(k);
    let strides = a_strides.into_iter().chain(b_strides);
    strides.fold(launch, |launch, stride| launch.count(stride)).run()
}

fn num_tiles(m: usize, n: usize, tile: usize) -> usize {
    m.div_ceil(tile).saturating_mul(n.div_ceil(tile))
}

/// Bytes, at most 16, to which every row of `row` bf16 elements is aligned.
fn copy_width(operand: &View<'_>, row: usize) -> i32 {
    let start = operand.device_slice().map_or(16, |slice| slice.alignment());
    1 << (start | (row * 2) | 16).trailing_zeros()
}
