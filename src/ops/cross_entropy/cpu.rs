//! CPU reference: rows in parallel; per row the maximum, the exponentials and their sum, then
//! the gradient. A row stays in the second-level cache between these passes.

use super::IGNORE;
use crate::dtype::Real;
use rayon::prelude::*;

/// Independent partial results: four AVX2 registers of f32, enough to hide the latency of an
/// addition, and a fixed order that the compiler may vectorise.
const LANES: usize = 32;
/// Terms summed in the element type before they go into the f64 total: 64 per lane.
const BLOCK: usize = 64 * LANES;

pub(super) fn forward<T: Real>(losses: &mut [T], logits: &[T], targets: &[i32], vocab: usize) {
    if vocab == 0 {
        losses.fill(T::ZERO); // every target is IGNORE, or the check had failed
        return;
    }
    let rows = losses.par_iter_mut().zip(logits.par_chunks(vocab)).zip(targets);
    rows.for_each(|((loss, logits), &target)| {
        *loss = T::ZERO;
        if target != IGNORE {
            let max = row_max(logits);
            let sum: f64 = logits.chunks(BLOCK).map(|block| sum_exp(block, max).to_f64()).sum();
            *loss = row_loss(sum, max, logits[target as usize]);
        }
    });
}

pub(super) fn forward_backward<T: Real>(
    losses: &mut [T],
    logits: &mut [T],
    targets: &[i32],
    vocab: usize,
    scale: f64,
) {
    if vocab == 0 {
        losses.fill(T::ZERO);
        return;
    }
    let rows = losses.par_iter_mut().zip(logits.par_chunks_mut(vocab)).zip(targets);
    rows.for_each(|((loss, logits), &target)| {
        if target == IGNORE {
            *loss = T::ZERO;
            logits.fill(T::ZERO);
            return;
        }
        let target = target as usize;
        let (max, target_logit) = (row_max(logits), logits[target]);
        let sum: f64 =
            logits.chunks_mut(BLOCK).map(|block| exp_in_place(block, max).to_f64()).sum();
        *loss = row_loss(sum, max, target_logit);
        let target_exp = logits[target].to_f64();
        let factor = T::from_f64(scale / sum);
        for x in logits.iter_mut() {
            *x *= factor;
        }
        // Rounded once: softmax − 1 cancels where the model is right.
        logits[target] = T::from_f64(scale * ((target_exp - sum) / sum));
    });
}

/// ln Σ exp(x − max) − (target − max): neither difference suffers from large logits.
fn row_loss<T: Real>(sum: f64, max: T, target_logit: T) -> T {
    T::from_f64(sum.ln() - (target_logit.to_f64() - max.to_f64()))
}

/// The largest logit that is not NaN; a NaN shows in the sum of exponentials.
fn row_max<T: Real>(row: &[T]) -> T {
    let larger = |a: T, b: T| if b > a { b } else { a };
    let mut lanes = [T::NEG_INFINITY; LANES];
    let (blocks, tail) = row.as_chunks::<LANES>();
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = larger(*lane, x);
        }
    }
    lanes.iter().chain(tail).copied().fold(T::NEG_INFINITY, larger)
}

/// Σ exp(x − max) of at most [`BLOCK`] logits.
fn sum_exp<T: Real>(block: &[T], max: T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (groups, tail) = block.as_chunks::<LANES>();
    for group in groups {
        for (lane, &x) in lanes.iter_mut().zip(group) {
            *lane += (x - max).exp();
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(tail) {
        *lane += (x - max).exp();
    }
    sum_lanes(lanes)
}

/// As [`sum_exp`], leaving each exponential in place of its logit.
fn exp_in_place<T: Real>(block: &mut [T], max: T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (groups, tail) = block.as_chunks_mut::<LANES>();
    for group in groups {
        for (lane, x) in lanes.iter_mut().zip(group) {
            *x = (*x - max).exp();
            *lane += *x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *x = (*x - max).exp();
        *lane += *x;
    }
    sum_lanes(lanes)
}

/// Adds halves to each other until one lane is left.
fn sum_lanes<T: Real>(mut lanes: [T; LANES]) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}
