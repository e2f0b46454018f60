//! Cross-entropy of a softmax over the vocabulary, and its gradient in place of the logits.
//!
//! loss\[r\] = ln Σᵥ exp(logits\[r, v\]) − logits\[r, targets\[r\]\]
//!
//! | operand | shape | dtype |
//! |---|---|---|
//! | losses | (R) | [`DType::accumulator`] of the data type |
//! | logits | (R, V) | the data type |
//! | targets | (R) | i32, each in 0 .. V or [`IGNORE`] |
//!
//! A row with target [`IGNORE`] is not trained: its loss is 0, its gradient is 0 and its logits
//! are not read. The largest logit is subtracted before exponentials, so finite logits of any
//! size are safe; a NaN anywhere in a trained row gives a NaN loss. Rows are independent and the
//! sum over V has a fixed order: deterministic.
//!
//! On a GPU a target that is neither is not an error, since finding it would wait for the device: its
//! loss and its row of gradients are NaN. Whoever uploads targets checks them.

mod cpu;
mod cuda;

use super::{Cost, Operand, check, check_dtype, check_rank, check_shape};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{View, ViewMut};
use crate::with_real;

/// The target of a position that is not trained.
pub const IGNORE: i32 = -1;

/// Computes `losses =` the negative log-likelihood of each target, in nats.
///
/// Errors: shapes or dtypes that do not fit; on the CPU a target that is neither in 0 .. V nor
/// [`IGNORE`].
pub fn forward(
    device: &Device,
    losses: ViewMut<'_>,
    logits: View<'_>,
    targets: View<'_>,
) -> Result<()> {
    const OP: &str = "cross_entropy.forward";
    let [num_rows, vocab_size] = check_operands(OP, &losses, &logits, &targets)?;
    match device {
        Device::Cpu => with_real!(OP, logits.dtype(), T => {
            check_targets(OP, targets.host(), vocab_size)?;
            cpu::forward(losses.host::<T>(), logits.host(), targets.host(), vocab_size);
            Ok(())
        }),
        Device::Cuda(cuda) => cuda::forward(cuda, losses, logits, targets, [num_rows, vocab_size]),
    }
}

/// Computes `losses =` as [`forward`] and overwrites the logits with the gradient of
/// scale · Σ losses: scale · (softmax(logits) − onehot(target)).
///
/// Errors: as [`forward`].
pub fn forward_backward(
    device: &Device,
    losses: ViewMut<'_>,
    logits: ViewMut<'_>,
    targets: View<'_>,
    scale: f64,
) -> Result<()> {
    const OP: &str = "cross_entropy.forward_backward";
    let [num_rows, vocab_size] = check_operands(OP, &losses, &logits, &targets)?;
    match device {
        Device::Cpu => with_real!(OP, Operand::dtype(&logits), T => {
            check_targets(OP, targets.host(), vocab_size)?;
            let (losses, logits) = (losses.host::<T>(), logits.host());
            cpu::forward_backward(losses, logits, targets.host(), vocab_size, scale);
            Ok(())
        }),
        Device::Cuda(cuda) => {
            let dims = [num_rows, vocab_size];
            cuda::forward_backward(cuda, losses, logits, targets, scale, dims)
        }
    }
}

/// Shapes and dtypes of both passes; returns R and V.
fn check_operands(
    op: &'static str,
    losses: &impl Operand,
    logits: &impl Operand,
    targets: &View<'_>,
) -> Result<[usize; 2]> {
    let [num_rows, vocab_size] = check_rank(op, "logits", logits)?;
    check_shape(op, "losses", losses, &[num_rows])?;
    check_dtype(op, "losses", losses, logits.dtype().accumulator())?;
    check_shape(op, "targets", targets, &[num_rows])?;
    check_dtype(op, "targets", targets, DType::I32)?;
    Ok([num_rows, vocab_size])
}

/// Fails at the first target that is neither a column of the logits nor [`IGNORE`].
pub(crate) fn check_targets(op: &'static str, targets: &[i32], vocab_size: usize) -> Result<()> {
    let fits = |target: i32| {
        target == IGNORE || usize::try_from(target).is_ok_and(|target| target < vocab_size)
    };
    let bad = targets.iter().position(|&target| !fits(target));
    check(
        op,
        "targets",
        bad.is_none(),
        || format!("ids in 0..{vocab_size} or {IGNORE}"),
        || bad.map_or_else(String::new, |r| format!("id {} in row {r}", targets[r])),
    )
}

/// Per logit a comparison, a difference, an exponential and a sum.
pub fn forward_cost(num_rows: usize, vocab_size: usize, elem_bytes: usize) -> Cost {
    let elems = num_rows as f64 * vocab_size as f64;
    Cost { flops: 4.0 * elems, bytes: elems * elem_bytes as f64 }
}

/// As [`forward_cost`], and a product and a write per logit.
pub fn forward_backward_cost(num_rows: usize, vocab_size: usize, elem_bytes: usize) -> Cost {
    let elems = num_rows as f64 * vocab_size as f64;
    Cost { flops: 5.0 * elems, bytes: 2.0 * elems * elem_bytes as f64 }
}
