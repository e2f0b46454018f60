//! CPU reference: rows are copied; gradients are added token by token, in position order.

use crate::dtype::Real;
use rayon::prelude::*;

/// Elements below which a task is not worth splitting.
const MIN_TASK_ELEMS: usize = 1 << 14;

pub(super) fn forward<T: Real>(out: &mut [T], tokens: &[i32], weight: &[T], width: usize) {
    if width == 0 {
        return;
    }
    out.par_chunks_mut(width).zip(tokens).with_min_len(MIN_TASK_ELEMS.div_ceil(width)).for_each(
        |(row, &token)| {
            let start = token as usize * width;
            row.copy_from_slice(&weight[start..start + width]);
        },
    );
}

pub(super) fn backward<T: Real>(dweight: &mut [T], dout: &[T], tokens: &[i32], width: usize) {
    if width == 0 {
        return;
    }
    // Positions grouped by token, and in order within a token, since pairs have no ties.
    let mut order: Vec<(usize, usize)> =
        tokens.iter().enumerate().map(|(t, &token)| (token as usize, t)).collect();
    order.sort_unstable();
    add_rows(dweight, 0, &order, dout, width);
}

/// Adds the rows of `dout` that `order` lists; `dweight` starts at row `first_token`.
///
/// Both are cut in two at a boundary between tokens, so the halves share no row and every row
/// sees the same additions in the same order however often the work is cut.
fn add_rows<T: Real>(
    dweight: &mut [T],
    first_token: usize,
    order: &[(usize, usize)],
    dout: &[T],
    width: usize,
) {
    if let Some(cut) = cut_between_tokens(order, width) {
        let (low, high) = order.split_at(cut);
        let token = high[0].0;
        let (dweight_low, dweight_high) = dweight.split_at_mut((token - first_token) * width);
        rayon::join(
            || add_rows(dweight_low, first_token, low, dout, width),
            || add_rows(dweight_high, token, high, dout, width),
        );
        return;
    }
    for &(token, t) in order {
        let row = &mut dweight[(token - first_token) * width..][..width];
        for (d, &g) in row.iter_mut().zip(&dout[t * width..][..width]) {
            *d += g;
        }
    }
}

/// The boundary between two tokens next to the middle, or `None` if a cut does not pay or one
/// token fills the list.
fn cut_between_tokens(order: &[(usize, usize)], width: usize) -> Option<usize> {
    if order.len() * width < 2 * MIN_TASK_ELEMS {
        return None;
    }
    let middle_token = order[order.len() / 2].0;
    let start = order.partition_point(|&(token, _)| token < middle_token);
    let end = order.partition_point(|&(token, _)| token <= middle_token);
    // Whichever end of the middle token's run cuts more evenly.
    [start, end]
        .into_iter()
        .filter(|&cut| cut > 0 && cut < order.len())
        .min_by_key(|cut| cut.abs_diff(order.len() / 2))
}
