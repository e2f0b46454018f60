//! CPU reference: rows in parallel, one fused loop per row.

use crate::dtype::Real;
use rayon::prelude::*;

/// Elements below which a task is not worth splitting.
const MIN_TASK_ELEMS: usize = 1 << 12;

pub(super) fn forward<T: Real>(y: &mut [T], gate_up: &[T], ffn: usize) {
    if ffn == 0 {
        return;
    }
    y.par_chunks_mut(ffn)
        .zip(gate_up.par_chunks(2 * ffn))
        .with_min_len(MIN_TASK_ELEMS.div_ceil(ffn))
        .for_each(|(y, gate_up)| {
            let (gate, up) = gate_up.split_at(ffn);
            for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
                *y = gate * gate.sigmoid() * up;
            }
        });
}

pub(super) fn backward<T: Real>(dgate_up: &mut [T], dy: &[T], gate_up: &[T], ffn: usize) {
    if ffn == 0 {
        return;
    }
    dgate_up
        .par_chunks_mut(2 * ffn)
        .zip(gate_up.par_chunks(2 * ffn))
        .zip(dy.par_chunks(ffn))
        .with_min_len(MIN_TASK_ELEMS.div_ceil(ffn))
        .for_each(|((dgate_up, gate_up), dy)| {
            let (gate, up) = gate_up.split_at(ffn);
            let (dgate, dup) = dgate_up.split_at_mut(ffn);
            let inputs = gate.iter().zip(up).zip(dy);
            for ((dgate, dup), ((&gate, &up), &dy)) in dgate.iter_mut().zip(dup).zip(inputs) {
                let s = gate.sigmoid();
                *dgate = dy * up * s * (T::ONE + gate * (T::ONE - s));
                *dup = dy * gate * s;
            }
        });
}
