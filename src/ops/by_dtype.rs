//! What the launchers of elementwise and row kernels share.

use crate::cuda::{KernelSpec, Param};
use crate::dtype::DType;
use crate::error::{Error, Result};

/// The two instances of a kernel.
pub(super) struct ByDType {
    f32: KernelSpec,
    bf16: KernelSpec,
}

impl ByDType {
    /// `entries`: the names, of f32 and of bf16.
    pub(super) const fn new(
        module: &'static str,
        entries: [&'static str; 2],
        params: &'static [Param],
        threads: u32,
    ) -> Self {
        let [f32, bf16] = entries;
        Self {
            f32: KernelSpec { module, entry: f32, params, threads },
            bf16: KernelSpec { module, entry: bf16, params, threads },
        }
    }

    /// The instance for data of this type.
    pub(super) fn get(
        &'static self,
        op: &'static str,
        operand: &'static str,
        dtype: DType,
    ) -> Result<&'static KernelSpec> {
        match dtype {
            DType::F32 => Ok(&self.f32),
            DType::BF16 => Ok(&self.bf16),
            other => Err(unsupported(op, operand, "f32 or bf16 on a GPU", other)),
        }
    }
}

/// No kernel takes this element type.
pub(super) fn unsupported(
    op: &'static str,
    operand: &'static str,
    expected: &str,
    got: DType,
) -> Error {
    Error::Operand { op, operand, expected: expected.into(), got: got.to_string() }
}

/// A number of blocks; beyond 32 bits one that the launch refuses.
pub(super) fn blocks(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Bytes of shared memory; beyond 32 bits as many as the launch refuses.
pub(super) fn shared(num_bytes: usize) -> u32 {
    u32::try_from(num_bytes).unwrap_or(u32::MAX)
}

/// How many eights of elements cover `n` of them: what one thread works on (kernels/common/vector.cuh).
pub(super) fn eights(n: usize) -> usize {
    n.div_ceil(8)
}

/// Rows that one block sums up: as few as the number of rows allows with `max_chunks` partial sums,
/// but `min_rows`. It depends on the number of rows alone, as the order of the sums must.
pub(super) fn chunk_rows(num_rows: usize, min_rows: usize, max_chunks: usize) -> usize {
    num_rows.div_ceil(max_chunks).max(min_rows)
}

/// The most chunks that [`chunk_rows`] makes of up to `num_rows` rows.
pub(super) fn most_chunks(num_rows: usize, min_rows: usize, max_chunks: usize) -> usize {
    num_rows.div_ceil(min_rows).min(max_chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_all_rows_and_do_not_become_too_many() {
        for num_rows in [0, 1, 7, 8, 9, 1000, 8192, 8193, 1 << 20] {
            let rows = chunk_rows(num_rows, 8, 1024);
            let chunks = num_rows.div_ceil(rows);
            assert!((0..200).all(|fewer| {
                let fewer = num_rows.saturating_sub(fewer);
                fewer.div_ceil(chunk_rows(fewer, 8, 1024)) <= most_chunks(num_rows, 8, 1024)
            }));
            assert!(rows >= 8 && chunks <= 1024 && chunks * rows >= num_rows, "{num_rows}");
        }
    }
}
