//! What the CPU passes share: tiles, rows split among tasks, gathered queries.
//!
//! The unit of work is a block of rows of one document. Tiles are counted from the document's
//! first token, so neither the number of threads nor the neighbours change a document's bits.

use super::Heads;
use crate::device::gemm::Matrix;
use crate::dtype::Real;
use crate::ops::lanes::PAD;
use std::ops::Range;

/// Queries of one tile; with the query heads that share a key head, `QUERY_TILE * group` rows.
pub(super) const QUERY_TILE: usize = 64;
/// Keys of one tile. The tile of probabilities stays in the second-level cache.
pub(super) const KEY_TILE: usize = 256;

/// Columns from one row of a tile to the next, for `num_keys` keys.
pub(super) fn score_stride(num_keys: usize) -> usize {
    num_keys.next_multiple_of(PAD)
}

/// Applies the mask to one row of scores: the first `visible` columns stay, the part returned is
/// padded to whole vectors with minus infinity, and what lies beyond it becomes 0, the value the
/// exponential gives the padding. Whole vectors, because a tail of single exponentials costs more
/// than the row.
pub(super) fn mask_row<T: Real>(row: &mut [T], visible: usize) -> &mut [T] {
    let (seen, unseen) = row.split_at_mut(visible.next_multiple_of(PAD));
    seen[visible..].fill(T::NEG_INFINITY);
    unseen.fill(T::ZERO);
    seen
}

/// A run of rows of one document that one task computes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RowBlock {
    /// Tokens of the whole document.
    pub document: Range<usize>,
    /// Tokens this task writes.
    pub rows: Range<usize>,
}

/// Splits a range into tiles of `size`, the last one shorter.
pub(super) fn tiles(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(size).map(move |start| start..end.min(start + size))
}

/// Splits every document into blocks of at most `max_rows`, in the order of the rows.
pub(super) fn row_blocks(documents: &[Range<usize>], max_rows: usize) -> Vec<RowBlock> {
    let split = |document: &Range<usize>| {
        let document = document.clone();
        tiles(document.clone(), max_rows)
            .map(move |rows| RowBlock { document: document.clone(), rows })
    };
    documents.iter().flat_map(split).collect()
}

/// Splits rows of `width` elements into the parts that belong to consecutive blocks.
pub(super) fn split_rows<'a, T>(
    mut data: &'a mut [T],
    width: usize,
    blocks: &[RowBlock],
) -> Vec<&'a mut [T]> {
    let mut parts = Vec::with_capacity(blocks.len());
    for block in blocks {
        let (part, rest) = data.split_at_mut(block.rows.len() * width);
        parts.push(part);
        data = rest;
    }
    parts
}

/// Keys `tokens` of key head `kv_head`, in place in the packed rows.
pub(super) fn keys<T>(
    qkv: &[T],
    tokens: Range<usize>,
    kv_head: usize,
    heads: Heads,
) -> Matrix<'_, T> {
    let column = heads.q_dim() + kv_head * heads.head_dim;
    let first = tokens.start * heads.qkv_dim() + column;
    Matrix::new(&qkv[first..], tokens.len(), heads.head_dim, heads.qkv_dim())
}

/// Values `tokens` of value head `kv_head`, in place in the packed rows.
pub(super) fn values<T>(
    qkv: &[T],
    tokens: Range<usize>,
    kv_head: usize,
    heads: Heads,
) -> Matrix<'_, T> {
    let column = heads.q_dim() + heads.kv_dim() + kv_head * heads.head_dim;
    let first = tokens.start * heads.qkv_dim() + column;
    Matrix::new(&qkv[first..], tokens.len(), heads.head_dim, heads.qkv_dim())
}

/// Copies the query heads of one key head, times `factor`, into a dense matrix.
///
/// `rows` is row-major with `stride` elements per token, query head h at column h * D. Row
/// `t * group + j` of the result is token t, head `kv_head * group + j`: one tall matrix instead
/// of `group` small ones, because a product of a few rows costs mostly its call.
pub(super) fn gather<T: Real>(
    dense: &mut [T],
    rows: &[T],
    stride: usize,
    tokens: Range<usize>,
    kv_head: usize,
    factor: T,
    heads: Heads,
) {
    let width = heads.group() * heads.head_dim;
    for (to, token) in dense.chunks_exact_mut(width).zip(tokens) {
        let from = &rows[token * stride + kv_head * width..][..width];
        for (to, &from) in to.iter_mut().zip(from) {
            *to = from * factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_every_row_once_and_never_cross_a_document() {
        let documents = [0..5, 5..6, 6..14];
        let blocks = row_blocks(&documents, 4);
        let rows: Vec<_> = blocks.iter().map(|b| b.rows.clone()).collect();
        assert_eq!(rows, [0..4, 4..5, 5..6, 6..10, 10..14]);
        assert_eq!(blocks[4].document, 6..14);
        let mut data: Vec<usize> = (0..28).collect();
        let parts = split_rows(&mut data, 2, &blocks);
        assert_eq!(parts[2], [10, 11]);
        assert_eq!(parts.iter().map(|p| p.len()).sum::<usize>(), 28);
    }
}
