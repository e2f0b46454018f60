//! One parameter's update in f32, as the kernels compute it.
//!
//! Every product that meets a sum is an explicit fused multiply-add, so no compiler has a choice and
//! the CPU, the emulator and the GPU give the same bits. That matters once results are rounded
//! stochastically: one differing bit may become another neighbour.

use super::Hyper;

/// The scalars of [`Hyper`] as the inner loop needs them, computed in f64 and rounded once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factors {
    pub(super) grad_scale: f32,
    pub(super) decay: f32,
    pub(super) one_minus_beta1: f32,
    pub(super) beta2: f32,
    pub(super) one_minus_beta2: f32,
    pub(super) step_size: f32,
    pub(super) inverse_root_bias2: f32,
    pub(super) epsilon: f32,
}

impl Factors {
    pub(super) fn new(hyper: &Hyper) -> Self {
        let bias1 = 1.0 - hyper.beta1.powf(hyper.step as f64);
        let bias2 = 1.0 - hyper.beta2.powf(hyper.step as f64);
        Self {
            grad_scale: hyper.grad_scale as f32,
            decay: (1.0 - hyper.learning_rate * hyper.weight_decay) as f32,
            one_minus_beta1: (1.0 - hyper.beta1) as f32,
            beta2: hyper.beta2 as f32,
            one_minus_beta2: (1.0 - hyper.beta2) as f32,
            step_size: (hyper.learning_rate / bias1) as f32,
            inverse_root_bias2: (1.0 / bias2.sqrt()) as f32,
            epsilon: hyper.epsilon as f32,
        }
    }
}

/// A weight and its moments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element {
    pub(super) weight: f32,
    pub(super) m: f32,
    pub(super) v: f32,
}

impl Element {
    /// The state after one step.
    #[inline(always)]
    pub(super) fn updated(self, grad: f32, f: &Factors) -> Self {
        let g = grad * f.grad_scale;
        let m = f.one_minus_beta1.mul_add(grad.mul_add(f.grad_scale, -self.m), self.m);
        let v = f.one_minus_beta2.mul_add(g * g, f.beta2 * self.v);
        let denominator = v.sqrt().mul_add(f.inverse_root_bias2, f.epsilon);
        let weight = (-f.step_size).mul_add(m / denominator, self.weight * f.decay);
        Self { weight, m, v }
    }
}
