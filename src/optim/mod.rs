//! The optimizer: learning-rate schedule, norm clipping, AdamW over flat buffers.

pub mod adamw;
pub mod schedule;
pub mod states;

use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::Allocate;
use crate::ops::reduce;
use crate::tensor::{Tensor, View};

/// √Σ g² over all gradients, summed in f64 in a fixed order, where they are.
#[derive(Debug)]
pub struct GradNorm<T = Tensor> {
    sum: T,
}

impl<T> GradNorm<T> {
    /// Allocates the sum.
    pub fn build(memory: &mut impl Allocate<Tensor = T>) -> Result<Self> {
        Ok(Self { sum: memory.zeros("gradient norm", [1].into(), DType::F64)? })
    }
}

impl GradNorm {
    /// Computes the norm of `grads`; does not wait for the device.
    pub fn compute(&mut self, device: &Device, grads: View<'_>) -> Result<()> {
        reduce::sum_squares(device, self.sum.view_mut(), grads)
    }

    /// What was computed last. Waits for the device.
    pub fn read(&self) -> Result<f64> {
        Ok(self.sum.view().to_f64_vec()?[0].sqrt())
    }
}

/// Factor that brings a gradient of norm `grad_norm` down to `max_grad_norm`; 1 if it is there
/// already, or if `max_grad_norm` is 0 (off).
///
/// min(1, max / (norm + 10⁻⁶)), as `torch.nn.utils.clip_grad_norm_` computes it.
pub fn clip_factor(grad_norm: f64, max_grad_norm: f64) -> f64 {
    if max_grad_norm == 0.0 { 1.0 } else { (max_grad_norm / (grad_norm + 1e-6)).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_is_clipped_and_never_raised() {
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert_eq!(clip_factor(1e9, 0.0), 1.0);
        assert!((clip_factor(4.0, 1.0) - 0.25).abs() < 1e-6);
    }
}
