//! AdamW: Adam with decoupled weight decay, over a flat range of parameters.
//!
//! With g = grad_scale · grads, at step t (1-based), in this order:
//! ```text
//! p ← p · (1 − learning_rate · weight_decay)
//! m ← m + (1 − beta1) · (g − m)
//! v ← beta2 · v + (1 − beta2) · g²
//! p ← p − learning_rate / (1 − beta1ᵗ) · m / (√v / √(1 − beta2ᵗ) + epsilon)
//! ```
//! | operand | shape | dtype |
//! |---|---|---|
//! | weights | (n) | the data type |
//! | grads, m, v | (n) | [`crate::dtype::DType::accumulator`] of the data type |
//!
//! That is [`step`], with f32 (or f64) weights. bf16 weights take one of three states:
//!
//! | | beside the bf16 weights | bytes per parameter with them |
//! |---|---|---|
//! | [`step_master`] | f32 weights, m, v | 14 |
//! | [`step_rounded`] | bf16 m, v; all rounded stochastically | 6 |
//! | [`step_blockwise`] | 8-bit m, v with a scale per 256 ([`codes`]), rounded stochastically | 4.03 |
//!
//! Elementwise, hence deterministic; random bits are a function of seed, step and element
//! ([`Rounding`]). A NaN or infinite gradient spoils its parameter: the caller
//! looks at the gradient norm first. Source: Loshchilov and Hutter, "Decoupled Weight Decay
//! Regularization", 2019; operation order of `torch.optim.AdamW`.

pub mod codes;
mod cpu;
mod cpu_states;
mod cuda;
mod element;
mod rounding;
mod states;

pub use rounding::Rounding;
pub use states::{CodesMut, step_blockwise, step_master, step_rounded};

use super::{Cost, check, check_dtype, check_rank, check_shape};
use crate::device::Device;
use crate::error::Result;
use crate::tensor::{View, ViewMut};
use crate::with_real;

/// The scalars of one step over one range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hyper {
    /// Step length of this step.
    pub learning_rate: f64,
    /// Decay of the mean of gradients, in \[0, 1).
    pub beta1: f64,
    /// Decay of the mean of squared gradients, in \[0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay; 0 for norms and biases.
    pub weight_decay: f64,
    /// Gradients are multiplied by this first: loss normalisation and clipping.
    pub grad_scale: f64,
    /// 1 for the first update.
    pub step: u64,
}

/// Applies one update to `weights`, `m` and `v`.
///
/// Errors: shapes or dtypes that do not fit, step 0, a beta outside \[0, 1).
pub fn step(
    device: &Device,
    weights: ViewMut<'_>,
    m: ViewMut<'_>,
    v: ViewMut<'_>,
    grads: View<'_>,
    hyper: &Hyper,
) -> Result<()> {
    const OP: &str = "adamw.step";
    let [n] = check_rank(OP, "weights", &weights)?;
    let dtype = weights.dtype();
    for (name, state) in [("m", &m), ("v", &v)] {
        check_shape(OP, name, state, &[n])?;
        check_dtype(OP, name, state, dtype.accumulator())?;
    }
    check_shape(OP, "grads", &grads, &[n])?;
    check_dtype(OP, "grads", &grads, dtype.accumulator())?;
    check_hyper(OP, hyper)?;
    match device {
        Device::Cpu => with_real!(OP, dtype, T => {
            cpu::step(weights.host::<T>(), m.host(), v.host(), grads.host(), hyper);
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::step(cuda, weights, m, v, grads, hyper),
    }
}

fn check_hyper(op: &'static str, hyper: &Hyper) -> Result<()> {
    check(op, "step", hyper.step > 0, || "1 or more".into(), || hyper.step.to_string())?;
    for (name, beta) in [("beta1", hyper.beta1), ("beta2", hyper.beta2)] {
        check(op, name, (0.0..1.0).contains(&beta), || "[0, 1)".into(), || beta.to_string())?;
    }
    Ok(())
}

/// Fifteen operations per parameter; weights, m and v are read and written, grads read.
pub fn cost(n: usize, elem_bytes: usize, state_bytes: usize) -> Cost {
    let n = n as f64;
    Cost { flops: 15.0 * n, bytes: n * (3.0 * elem_bytes as f64 + 4.0 * state_bytes as f64) }
}
