//! CPU reference: rows in parallel.

use super::Heads;
use crate::dtype::Real;
use rayon::prelude::*;

/// Rows per task: enough to pay for the task.
const TASK_ROWS: usize = 32;

/// Rotates every query and key head by the angle of its row times `direction` (1 or -1).
pub(super) fn rotate<T: Real>(
    qkv: &mut [T],
    positions: &[i32],
    cos: &[T],
    sin: &[T],
    direction: T,
    heads: Heads,
) {
    let (width, d, half) = (heads.qkv_dim(), heads.head_dim, heads.head_dim / 2);
    let num_rotated = heads.q_dim() + heads.kv_dim();
    qkv.par_chunks_mut(TASK_ROWS * width).zip(positions.par_chunks(TASK_ROWS)).for_each(
        |(qkv, positions)| {
            for (row, &position) in qkv.chunks_exact_mut(width).zip(positions) {
                let first = position as usize * half;
                let (cos, sin) = (&cos[first..first + half], &sin[first..first + half]);
                for head in row[..num_rotated].chunks_exact_mut(d) {
                    let (low, high) = head.split_at_mut(half);
                    let angles = cos.iter().zip(sin);
                    for ((a, b), (&cos, &sin)) in low.iter_mut().zip(high).zip(angles) {
                        let (x, y, sin) = (*a, *b, sin * direction);
                        *a = x * cos - y * sin;
                        *b = y * cos + x * sin;
                    }
                }
            }
        },
    );
}
