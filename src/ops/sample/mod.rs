//! Choice of the next token from its logits, for a batch of rows.
//!
//! Temperature, then top-k, then top-p, as in transformers; ties go to the smaller id. A choice is
//! a pure function of the row's logits, the settings, and its address (row, position): it depends
//! neither on what else is in the batch nor on what was drawn before.
//!
//! | operand | shape | dtype |
//! |---|---|---|
//! | `ids` (=) | (R) | i32; [`INVALID`] for a row that has no distribution |
//! | `logits` | (R, V) | any float, only the first `num_tokens` columns are read |
//!
//! The GPU chooses the same tokens as the CPU, but for a draw or a top-p limit that falls within
//! 10⁻⁹ or so of the border of two tokens: it adds integer weights, the CPU adds f64.

mod cpu;
mod cuda;

use super::{Cost, Operand, check, check_dtype, check_rank, check_shape};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{View, ViewMut};
use crate::with_real;

/// The id of a row with a NaN or +∞ among its logits, or nothing above −∞.
pub const INVALID: i32 = -1;

/// Most tokens to choose from: a sum of weights on the GPU must fit 64 bits.
const MAX_TOKENS: usize = 1 << 19;

/// How a token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0: the likeliest token. Otherwise logits are divided by it.
    pub temperature: f64,
    /// Keep the fewest likeliest tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f64,
    /// Keep this many likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Decides every draw, together with row and position.
    pub seed: u64,
}

/// Chooses a token per row; row i draws at the address (`first_row` + i, `position`).
///
/// Errors: shapes or dtypes that do not fit, no token to choose from, a negative temperature.
pub fn sample(
    device: &Device,
    ids: ViewMut<'_>,
    logits: View<'_>,
    num_tokens: usize,
    sampling: &Sampling,
    first_row: u32,
    position: u32,
) -> Result<()> {
    const OP: &str = "sample";
    let [num_rows, row_length] = check_rank(OP, "logits", &logits)?;
    check_shape(OP, "ids", &ids, &[num_rows])?;
    check_dtype(OP, "ids", &ids, DType::I32)?;
    check(
        OP,
        "num_tokens",
        (1..=row_length.min(MAX_TOKENS)).contains(&num_tokens),
        || format!("1..={}", row_length.min(MAX_TOKENS)),
        || num_tokens.to_string(),
    )?;
    check(
        OP,
        "temperature",
        sampling.temperature >= 0.0 && sampling.temperature.is_finite(),
        || "0 or a positive number".into(),
        || sampling.temperature.to_string(),
    )?;
    match device {
        Device::Cpu => with_real!(OP, Operand::dtype(&logits), T => {
            let rows = logits.host::<T>().chunks_exact(row_length);
            for (i, (id, row)) in ids.host::<i32>().iter_mut().zip(rows).enumerate() {
                let address = [first_row.wrapping_add(i as u32), position];
                *id = cpu::sample(&row[..num_tokens], sampling, address);
            }
            Ok(())
        }),
        Device::Cuda(cuda) => {
            cuda::sample(cuda, ids, logits, num_tokens, sampling, first_row, position)
        }
    }
}

/// An exponential per token; every logit read once.
pub fn cost(num_rows: usize, num_tokens: usize, elem_bytes: usize) -> Cost {
    let n = num_rows as f64 * num_tokens as f64;
    Cost { flops: n, bytes: n * elem_bytes as f64 }
}
