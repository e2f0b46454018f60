//! Launchers of the kernels in kernels/attention_{forward,backward,plain}.cu.
//!
//! bf16 runs on the tensor cores, for the head sizes in [`FAMILIES`]; f32 in the plain kernels, for
//! any. `cu_seqlens` is read by the kernels only: see kernels/common/documents.cuh for how a block
//! finds its rows. Offsets that do not increase from 0 to T give wrong results there, within the
//! operands, where the CPU finds them; they are made by [`crate::data::batch`].

use crate::cuda::CudaDevice;
use crate::cuda::Param::{F32, I32, I64, Pointer};
use crate::cuda::{KernelSpec, Param};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::{Heads, Operand, check};
use crate::tensor::{View, ViewMut};
use std::f64::consts::LOG2_E;

/// Elements behind each row of a tile in shared memory, as in kernels/common/attention.cuh.
const PAD: usize = 8;
/// Rows of a block per tile of the tensor cores: four warps of 16 rows.
const ROWS: usize = 64;

/// A kernel whose blocks own `rows` rows of a document and visit the others `columns` at a time.
pub(super) struct Tiled {
    pub spec: KernelSpec,
    rows: usize,
    columns: usize,
}

/// The kernels of one head size.
pub(super) struct Family {
    pub head_dim: usize,
    forward: Tiled,
    keys: Tiled,
    queries: Tiled,
    pub decode: KernelSpec,
}

const FORWARD: &[Param] = &[Pointer, Pointer, Pointer, Pointer, F32, I32, I32, I32, I32];
const BACKWARD: &[Param] =
    &[Pointer, Pointer, Pointer, Pointer, Pointer, Pointer, F32, F32, I32, I32, I32, I32];
const DECODE: &[Param] =
    &[Pointer, Pointer, Pointer, Pointer, Pointer, Pointer, F32, I32, I32, I32];

macro_rules! tiled {
    ($module:literal, $entry:literal, $d:literal, $params:expr, ($m_tiles:literal, $n:literal)) => {
        Tiled {
            spec: KernelSpec {
                module: $module,
                entry: concat!($entry, "_bf16_d", $d),
                params: $params,
                threads: 128,
            },
            rows: ROWS * $m_tiles,
            columns: $n,
        }
    };
}

macro_rules! family {
    ($d:literal, $forward:tt, $keys:tt, $queries:tt, $decode_threads:literal) => {
        Family {
            head_dim: $d,
            forward: tiled!("attention_forward", "attention_forward", $d, FORWARD, $forward),
            keys: tiled!("attention_backward", "attention_backward_keys", $d, BACKWARD, $keys),
            queries: tiled!(
                "attention_backward",
                "attention_backward_queries",
                $d,
                BACKWARD,
                $queries
            ),
            decode: KernelSpec {
                module: "attention_decode",
                entry: concat!("attention_decode_bf16_d", $d),
                params: DECODE,
                threads: $decode_threads,
            },
        }
    };
}

/// Head sizes, and the tiles (M_TILES, N) their kernels are compiled with.
pub(super) static FAMILIES: [Family; 6] = [
    family!(32, (2, 64), (2, 64), (2, 64), 128),
    family!(64, (2, 64), (2, 32), (2, 32), 128),
    family!(80, (2, 64), (1, 64), (2, 32), 128),
    family!(96, (2, 64), (1, 64), (2, 32), 128),
    family!(128, (2, 48), (1, 32), (1, 32), 128),
    family!(256, (1, 32), (1, 32), (1, 32), 64),
];

static DELTA: KernelSpec = KernelSpec {
    module: "attention_backward",
    entry: "attention_backward_delta_bf16",
    params: &[Pointer, Pointer, Pointer, I64, I32],
    threads: 256,
};

const fn plain(entry: &'static str, params: &'static [Param]) -> KernelSpec {
    KernelSpec { module: "attention_plain", entry, params, threads: 128 }
}

static FORWARD_F32: KernelSpec = plain(
    "attention_forward_f32",
    &[Pointer, Pointer, Pointer, Pointer, F32, I32, I32, I32, I32, I32],
);
const BACKWARD_F32: &[Param] =
    &[Pointer, Pointer, Pointer, Pointer, Pointer, Pointer, F32, I32, I32, I32, I32, I32];
static QUERIES_F32: KernelSpec = plain("attention_backward_queries_f32", BACKWARD_F32);
static KEYS_F32: KernelSpec = plain("attention_backward_keys_f32", BACKWARD_F32);

/// Name of the scratch for Σ dout · out of every row, f32.
pub(super) const DELTA_SCRATCH: &str = "attention.delta";

/// And its size.
pub(super) fn delta_bytes(num_tokens: usize, heads: Heads) -> usize {
    num_tokens * heads.num_heads * 4
}

/// Blocks of `threads` for one thread per item.
pub(super) fn blocks(num_items: usize, threads: u32) -> [u32; 3] {
    let blocks = num_items.div_ceil(threads as usize);
    [u32::try_from(blocks).unwrap_or(u32::MAX), 1, 1]
}

/// Bytes of one row of a tile.
pub(super) fn row_bytes(head_dim: usize) -> u32 {
    2 * (head_dim + PAD) as u32
}

/// The kernels for a head size, and the factor of the scores in the exponent of 2.
pub(super) fn family(op: &'static str, scale: f64, heads: Heads) -> Result<(&'static Family, f32)> {
    check(
        op,
        "scale",
        scale > 0.0 && scale.is_finite(),
        || "a positive number".into(),
        || scale.to_string(),
    )?;
    let family = FAMILIES.iter().find(|family| family.head_dim == heads.head_dim);
    let family = family.ok_or_else(|| {
        let sizes: Vec<String> = FAMILIES.iter().map(|f| f.head_dim.to_string()).collect();
        Error::Operand {
            op,
            operand: "heads",
            expected: format!("head_dim {} for bf16 on the GPU", sizes.join(", ")),
            got: format!("head_dim {}", heads.head_dim),
        }
    })?;
    Ok((family, (scale * LOG2_E) as f32))
}

pub(super) fn no_dtype(op: &'static str, got: DType) -> Error {
    let expected = "bf16 or f32 on the GPU".into();
    Error::Operand { op, operand: "element type", expected, got: got.to_string() }
}

impl Tiled {
    /// A block for every tile there can be, per head.
    fn grid(&self, num_tokens: usize, num_documents: usize, num_heads: usize) -> [u32; 3] {
        let tiles = (num_tokens / self.rows + num_documents).saturating_mul(num_heads);
        [if num_tokens == 0 { 0 } else { u32::try_from(tiles).unwrap_or(u32::MAX) }, 1, 1]
    }

    /// Bytes of `rows` tiles of the block's own rows and `columns` tiles of the others.
    fn shared_bytes(&self, rows: usize, columns: usize, head_dim: usize) -> u32 {
        (rows * self.rows + columns * self.columns) as u32 * row_bytes(head_dim)
    }
}

/// Documents, at least one if there are tokens.
fn num_documents(op: &'static str, cu_seqlens: &View<'_>, num_tokens: usize) -> Result<usize> {
    let n = cu_seqlens.shape().num_elems();
    let enough = n > usize::from(num_tokens > 0);
    check(
        op,
        "cu_seqlens",
        enough,
        || "an end for every document".into(),
        || format!("{n} elements"),
    )?;
    Ok(n - 1)
}

pub(super) fn forward(
    cuda: &CudaDevice,
    mut out: ViewMut<'_>,
    mut lse: ViewMut<'_>,
    qkv: View<'_>,
    cu_seqlens: View<'_>,
    scale: f64,
    heads: Heads,
) -> Result<()> {
    const OP: &str = "attention.forward";
    let num_tokens = qkv.shape().dims()[0];
    let num_documents = num_documents(OP, &cu_seqlens, num_tokens)?;
    match Operand::dtype(&qkv) {
        DType::BF16 => {
            let (family, scale_log2) = family(OP, scale, heads)?;
            let kernel = &family.forward;
            let launch = cuda.launch(&kernel.spec);
            launch
                .grid(kernel.grid(num_tokens, num_documents, heads.num_heads))
                .shared_bytes(kernel.shared_bytes(1, 2, heads.head_dim))
                .output(&mut out)
                .output(&mut lse)
                .input(&qkv)
                .input(&cu_seqlens)
                .f32(scale_log2)
                .dim(num_tokens)
                .dim(num_documents)
                .dim(heads.num_heads)
                .dim(heads.num_kv_heads)
                .run()
        }
        DType::F32 => cuda
            .launch(&FORWARD_F32)
            .grid(blocks(num_tokens * heads.num_heads, 128))
            .output(&mut out)
            .output(&mut lse)
            .input(&qkv)
            .input(&cu_seqlens)
            .f32(scale as f32)
            .dim(num_tokens)
            .dim(num_documents)
            .dim(heads.num_heads)
            .dim(heads.num_kv_heads)
            .dim(heads.head_dim)
            .run(),
        other => Err(no_dtype(OP, other)),
    }
}

pub(super) fn backward(
    cuda: &CudaDevice,
    dqkv: ViewMut<'_>,
    dout: View<'_>,
    qkv: View<'_>,
    out: View<'_>,
    lse: View<'_>,
    cu_seqlens: View<'_>,
    scale: f64,
    heads: Heads,
) -> Result<()> {
    const OP: &str = "attention.backward";
    let num_tokens = qkv.shape().dims()[0];
    let num_documents = num_documents(OP, &cu_seqlens, num_tokens)?;
    let operands = Backward { dout, qkv, out, lse, cu_seqlens, num_tokens, num_documents, heads };
    match Operand::dtype(&qkv) {
        DType::BF16 => operands.tiled(cuda, dqkv, scale),
        DType::F32 => operands.plain(cuda, dqkv, scale),
        other => Err(no_dtype(OP, other)),
    }
}

/// What the kernels of the backward pass read.
struct Backward<'a> {
    dout: View<'a>,
    qkv: View<'a>,
    out: View<'a>,
    lse: View<'a>,
    cu_seqlens: View<'a>,
    num_tokens: usize,
    num_documents: usize,
    heads: Heads,
}

impl Backward<'_> {
    fn tiled(&self, cuda: &CudaDevice, mut dqkv: ViewMut<'_>, scale: f64) -> Result<()> {
        let heads = self.heads;
        let (family, scale_log2) = family("attention.backward", scale, heads)?;
        let num_rows = self.num_tokens * heads.num_heads;
        let mut delta = cuda.scratch(DELTA_SCRATCH, delta_bytes(self.num_tokens, heads))?;
        cuda.launch(&DELTA)
            .grid(blocks(num_rows * 4, DELTA.threads))
            .output(&mut delta)
            .input(&self.dout)
            .input(&self.out)
            .count(num_rows)
            .dim(heads.head_dim)
            .run()?;
        // The two halves of the grid at 256: kernels/attention_backward.cu.
        let passes = if heads.head_dim == 256 { 2 } else { 1 };
        let stats_bytes = 2 * 8 * family.keys.columns as u32;
        let parts = [
            (&family.keys, heads.num_kv_heads, stats_bytes, passes),
            (&family.queries, heads.num_heads, 0, 1),
        ];
        for (kernel, num_heads, more_bytes, passes) in parts {
            let [x, ..] = kernel.grid(self.num_tokens, self.num_documents, num_heads);
            cuda.launch(&kernel.spec)
                .grid([x, passes, 1])
                .shared_bytes(kernel.shared_bytes(2, 4, heads.head_dim) + more_bytes)
                .output(&mut dqkv)
                .input(&self.dout)
                .input(&self.qkv)
                .input(&self.lse)
                .input(&delta)
                .input(&self.cu_seqlens)
                .f32(scale_log2)
                .f32(scale as f32)
                .dim(self.num_tokens)
                .dim(self.num_documents)
                .dim(heads.num_heads)
                .dim(heads.num_kv_heads)
                .run()?;
        }
        Ok(())
    }

    fn plain(&self, cuda: &CudaDevice, mut dqkv: ViewMut<'_>, scale: f64) -> Result<()> {
        let heads = self.heads;
        for (spec, num_heads) in [(&QUERIES_F32, heads.num_heads), (&KEYS_F32, heads.num_kv_heads)]
        {
            cuda.launch(spec)
                .grid(blocks(self.num_tokens * num_heads, spec.threads))
                .output(&mut dqkv)
                .input(&self.dout)
                .input(&self.qkv)
                .input(&self.out)
                .input(&self.lse)
                .input(&self.cu_seqlens)
                .f32(scale as f32)
                .dim(self.num_tokens)
                .dim(self.num_documents)
                .dim(heads.num_heads)
                .dim(heads.num_kv_heads)
                .dim(heads.head_dim)
                .run()?;
        }
        Ok(())
    }
}
