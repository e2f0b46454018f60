//! Steps whose state is smaller than f32 weights with f32 moments, or kept beside them.

use super::codes::BLOCK;
use super::rounding::Rounding;
use super::{Hyper, check_hyper, cpu_states, cuda};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::{Operand, check, check_dtype, check_rank, check_shape, check_sum_dtype};
use crate::tensor::{View, ViewMut};

/// A moment in eight bits.
pub struct CodesMut<'a> {
    /// u8 (n): see [`super::codes`].
    pub codes: ViewMut<'a>,
    /// f32 (⌈n / 256⌉): what the codes of each block are multiplied by.
    pub scales: ViewMut<'a>,
}

/// Applies one update to `master`, `m` and `v`, all f32 (n), and rounds the new weights to nearest
/// into `weights`, bf16 (n) (=). `grads` is f32 or bf16.
///
/// Errors: as [`super::step`].
pub fn step_master(
    device: &Device,
    weights: ViewMut<'_>,
    master: ViewMut<'_>,
    m: ViewMut<'_>,
    v: ViewMut<'_>,
    grads: View<'_>,
    hyper: &Hyper,
) -> Result<()> {
    const OP: &str = "adamw.step_master";
    let [n] = check_rank(OP, "weights", &weights)?;
    check_dtype(OP, "weights", &weights, DType::BF16)?;
    for (name, state) in [("master", &master), ("m", &m), ("v", &v)] {
        check_shape(OP, name, state, &[n])?;
        check_dtype(OP, name, state, DType::F32)?;
    }
    check_grads(OP, &grads, n, DType::BF16)?;
    check_hyper(OP, hyper)?;
    match device {
        Device::Cpu => {
            cpu_states::step_master(weights, master, m, v, grads, hyper);
            Ok(())
        }
        Device::Cuda(device) => cuda::step_master(device, weights, master, m, v, grads, hyper),
    }
}

/// Applies one update to `weights`, `m` and `v`, all bf16 (n), each rounded stochastically; nothing
/// else is kept. `grads` is f32 or bf16.
///
/// Finite values stay finite; NaN and infinity stay what they are. Errors: as [`super::step`]; a
/// step beyond 32 bits; a first element that is not a multiple of 8.
pub fn step_rounded(
    device: &Device,
    weights: ViewMut<'_>,
    m: ViewMut<'_>,
    v: ViewMut<'_>,
    grads: View<'_>,
    hyper: &Hyper,
    rounding: Rounding,
) -> Result<()> {
    const OP: &str = "adamw.step_rounded";
    let [n] = check_rank(OP, "weights", &weights)?;
    for (name, state) in [("weights", &weights), ("m", &m), ("v", &v)] {
        check_shape(OP, name, state, &[n])?;
        check_dtype(OP, name, state, DType::BF16)?;
    }
    check_grads(OP, &grads, n, DType::BF16)?;
    let step = check_rounding(OP, hyper, rounding)?;
    match device {
        Device::Cpu => {
            cpu_states::step_rounded(weights, m, v, grads, hyper, rounding, step);
            Ok(())
        }
        Device::Cuda(device) => {
            cuda::step_rounded(device, weights, m, v, grads, hyper, rounding, step)
        }
    }
}

/// Applies one update to `weights` (n), bf16 rounded stochastically or f32, and to moments in eight
/// bits. `grads` is f32, or bf16 like the weights. New moments are all zeros, codes and scales.
///
/// A NaN or infinite gradient spoils the moments of its block of 256. Errors: as [`step_rounded`].
pub fn step_blockwise(
    device: &Device,
    weights: ViewMut<'_>,
    m: CodesMut<'_>,
    v: CodesMut<'_>,
    grads: View<'_>,
    hyper: &Hyper,
    rounding: Rounding,
) -> Result<()> {
    const OP: &str = "adamw.step_blockwise";
    let [n] = check_rank(OP, "weights", &weights)?;
    let dtype = Operand::dtype(&weights);
    let known = matches!(dtype, DType::F32 | DType::BF16);
    check(OP, "weights", known, || "f32 or bf16".into(), || dtype.to_string())?;
    for (codes, scales, moment) in [("m.codes", "m.scales", &m), ("v.codes", "v.scales", &v)] {
        check_shape(OP, codes, &moment.codes, &[n])?;
        check_dtype(OP, codes, &moment.codes, DType::U8)?;
        check_shape(OP, scales, &moment.scales, &[n.div_ceil(BLOCK)])?;
        check_dtype(OP, scales, &moment.scales, DType::F32)?;
    }
    check_grads(OP, &grads, n, dtype)?;
    let step = check_rounding(OP, hyper, rounding)?;
    match device {
        Device::Cpu => {
            cpu_states::step_blockwise(weights, m, v, grads, hyper, rounding, step);
            Ok(())
        }
        Device::Cuda(device) => {
            cuda::step_blockwise(device, weights, m, v, grads, hyper, rounding, step)
        }
    }
}

fn check_grads(op: &'static str, grads: &View<'_>, n: usize, weights: DType) -> Result<()> {
    check_shape(op, "grads", grads, &[n])?;
    check_sum_dtype(op, "grads", grads, weights)
}

/// Returns the step as the random numbers are addressed by it.
fn check_rounding(op: &'static str, hyper: &Hyper, rounding: Rounding) -> Result<u32> {
    check_hyper(op, hyper)?;
    let step = u32::try_from(hyper.step);
    let got = || hyper.step.to_string();
    check(op, "step", step.is_ok(), || "below 2^32".into(), got)?;
    let aligned = rounding.first_element.is_multiple_of(8);
    let got = || rounding.first_element.to_string();
    check(op, "first_element", aligned, || "a multiple of 8".into(), got)?;
    Ok(step.unwrap_or(u32::MAX))
}
