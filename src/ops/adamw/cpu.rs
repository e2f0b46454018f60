//! CPU reference: one fused loop over chunks in parallel.

use super::Hyper;
use crate::dtype::Real;
use rayon::prelude::*;

/// Elements per task: four operands of 64 KiB, which a core streams in a few microseconds.
const CHUNK: usize = 1 << 14;

/// The scalars as the inner loop needs them, computed in f64 and rounded once.
#[derive(Clone, Copy)]
struct Factors<T> {
    grad_scale: T,
    decay: T,
    one_minus_beta1: T,
    beta2: T,
    one_minus_beta2: T,
    step_size: T,
    root_bias2: T,
    epsilon: T,
}

impl<T: Real> Factors<T> {
    fn new(hyper: &Hyper) -> Self {
        let bias1 = 1.0 - hyper.beta1.powf(hyper.step as f64);
        let bias2 = 1.0 - hyper.beta2.powf(hyper.step as f64);
        Self {
            grad_scale: T::from_f64(hyper.grad_scale),
            decay: T::from_f64(1.0 - hyper.learning_rate * hyper.weight_decay),
            one_minus_beta1: T::from_f64(1.0 - hyper.beta1),
            beta2: T::from_f64(hyper.beta2),
            one_minus_beta2: T::from_f64(1.0 - hyper.beta2),
            step_size: T::from_f64(hyper.learning_rate / bias1),
            root_bias2: T::from_f64(bias2.sqrt()),
            epsilon: T::from_f64(hyper.epsilon),
        }
    }
}

pub(super) fn step<T: Real>(
    weights: &mut [T],
    m: &mut [T],
    v: &mut [T],
    grads: &[T],
    hyper: &Hyper,
) {
    let factors = Factors::new(hyper);
    weights
        .par_chunks_mut(CHUNK)
        .zip(m.par_chunks_mut(CHUNK))
        .zip(v.par_chunks_mut(CHUNK))
        .zip(grads.par_chunks(CHUNK))
        .for_each(|(((weights, m), v), grads)| step_chunk(weights, m, v, grads, factors));
}

fn step_chunk<T: Real>(
    weights: &mut [T],
    m: &mut [T],
    v: &mut [T],
    grads: &[T],
    factors: Factors<T>,
) {
    let state = m.iter_mut().zip(v);
    for ((p, (m, v)), &grad) in weights.iter_mut().zip(state).zip(grads) {
        let g = grad * factors.grad_scale;
        *m += factors.one_minus_beta1 * (g - *m);
        *v = factors.beta2 * *v + factors.one_minus_beta2 * (g * g);
        let denominator = v.sqrt() / factors.root_bias2 + factors.epsilon;
        *p = *p * factors.decay - factors.step_size * (*m / denominator);
    }
}
