//! The optimizer: learning-rate schedule, norm clipping, AdamW over flat buffers.

pub mod adamw;
pub mod schedule;

use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::reduce;
use crate::tensor::{Tensor, View};

/// √Σ g² over all gradients, summed in f64 in a fixed order.
pub fn grad_norm(device: &Device, grads: View<'_>) -> Result<f64> {
    let mut sum = Tensor::zeros(device, "gradient norm", [1], DType::F64)?;
    reduce::sum_squares(device, sum.view_mut(), grads)?;
    Ok(sum.view().to_f64_vec()?[0].sqrt())
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
