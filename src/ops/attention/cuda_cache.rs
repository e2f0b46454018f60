//! Launchers of the kernels in kernels/attention_decode.cu, and of plain decoding.
//!
//! Rows and lengths are read by the kernels only. Where the CPU would refuse them, a row outside
//! the cache is skipped and a length out of range gives NaN; they are made by `model::cache`.

use super::cuda::{blocks, family, no_dtype, row_bytes};
use crate::cuda::CudaDevice;
use crate::cuda::KernelSpec;
use crate::cuda::Param::{F32, I32, Pointer};
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::{Heads, Operand};
use crate::tensor::{View, ViewMut};

/// Blocks that share the keys of a sequence, as in kernels/attention_decode.cu.
const SPLITS: usize = 16;
/// Query heads of a block, the rows of one product.
const HEADS_PER_BLOCK: usize = 16;

const fn store(entry: &'static str) -> KernelSpec {
    let params = &[Pointer, Pointer, Pointer, Pointer, I32, I32, I32, I32];
    KernelSpec { module: "attention_decode", entry, params, threads: 256 }
}

static STORE_BF16_X8: KernelSpec = store("attention_store_kv_bf16_x8");
static STORE_BF16: KernelSpec = store("attention_store_kv_bf16");
static STORE_F32: KernelSpec = store("attention_store_kv_f32");
static COMBINE: KernelSpec = KernelSpec {
    module: "attention_decode",
    entry: "attention_decode_combine_bf16",
    params: &[Pointer, Pointer, Pointer, Pointer, I32, I32, I32, I32],
    threads: 128,
};
static DECODE_F32: KernelSpec = KernelSpec {
    module: "attention_plain",
    entry: "attention_decode_f32",
    params: &[Pointer, Pointer, Pointer, Pointer, Pointer, F32, I32, I32, I32, I32, I32],
    threads: 128,
};

/// Scratch for what the splits of every row leave, f32: D sums, and a maximum and a total.
pub(super) fn partials_bytes(batch: usize, heads: Heads) -> [(&'static str, usize); 2] {
    let partials = batch * heads.num_heads * SPLITS;
    [
        ("attention.decode.sums", partials * heads.head_dim * 4),
        ("attention.decode.stats", partials * 8),
    ]
}

pub(super) fn store_kv(
    cuda: &CudaDevice,
    mut k_cache: ViewMut<'_>,
    mut v_cache: ViewMut<'_>,
    qkv: View<'_>,
    rows: View<'_>,
    heads: Heads,
) -> Result<()> {
    // Memory of a tensor is aligned, and so are its rows if their size is.
    let vectors = heads.head_dim.is_multiple_of(8);
    let (spec, width) = match Operand::dtype(&qkv) {
        DType::BF16 if vectors => (&STORE_BF16_X8, 8),
        DType::BF16 => (&STORE_BF16, 1),
        DType::F32 => (&STORE_F32, 1),
        other => return Err(no_dtype("attention.store_kv", other)),
    };
    let num_tokens = qkv.shape().dims()[0];
    let num_rows = k_cache.shape().dims()[0];
    cuda.launch(spec)
        .grid(blocks(num_tokens * 2 * heads.kv_dim() / width, spec.threads))
        .output(&mut k_cache)
        .output(&mut v_cache)
        .input(&qkv)
        .input(&rows)
        .dim(num_tokens)
        .dim(num_rows)
        .dim(heads.q_dim())
        .dim(heads.kv_dim())
        .run()
}

pub(super) fn decode(
    cuda: &CudaDevice,
    mut out: ViewMut<'_>,
    qkv: View<'_>,
    k_cache: View<'_>,
    v_cache: View<'_>,
    lengths: View<'_>,
    scale: f64,
    heads: Heads,
) -> Result<()> {
    const OP: &str = "attention.decode";
    let (batch, capacity) = (qkv.shape().dims()[0], k_cache.shape().dims()[1]);
    let num_rows = batch * heads.num_heads;
    match Operand::dtype(&qkv) {
        DType::BF16 => {}
        DType::F32 => {
            return cuda
                .launch(&DECODE_F32)
                .grid(blocks(num_rows, DECODE_F32.threads))
                .output(&mut out)
                .input(&qkv)
                .input(&k_cache)
                .input(&v_cache)
                .input(&lengths)
                .f32(scale as f32)
                .dim(batch)
                .dim(capacity)
                .dim(heads.num_heads)
                .dim(heads.num_kv_heads)
                .dim(heads.head_dim)
                .run();
        }
        other => return Err(no_dtype(OP, other)),
    }
    let (family, scale_log2) = family(OP, scale, heads)?;
    let tile = family.decode.threads as usize / 2;
    let scratch = partials_bytes(batch, heads).map(|(name, bytes)| cuda.scratch(name, bytes));
    let [sums, stats] = scratch;
    let (mut sums, mut stats) = (sums?, stats?);
    let head_blocks = heads.num_kv_heads * heads.group().div_ceil(HEADS_PER_BLOCK);
    let grid = [SPLITS, head_blocks, batch].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    cuda.launch(&family.decode)
        .grid(grid)
        .shared_bytes((HEADS_PER_BLOCK + 4 * tile) as u32 * row_bytes(heads.head_dim))
        .output(&mut sums)
        .output(&mut stats)
        .input(&qkv)
        .input(&k_cache)
        .input(&v_cache)
        .input(&lengths)
        .f32(scale_log2)
        .dim(capacity)
        .dim(heads.num_heads)
        .dim(heads.num_kv_heads)
        .run()?;
    cuda.launch(&COMBINE)
        .grid(blocks(num_rows, 1))
        .output(&mut out)
        .input(&sums)
        .input(&stats)
        .input(&lengths)
        .dim(tile)
        .dim(capacity)
        .dim(heads.num_heads)
        .dim(heads.head_dim)
        .run()
}
