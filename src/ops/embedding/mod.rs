//! Token embedding: a gather of rows forward, a scatter-add of rows backward.
//!
//! | operand | shape | dtype |
//! |---|---|---|
//! | weight | (V, C) | the data type |
//! | dweight | (V, C) | the data type or its accumulator |
//! | out, dout | (T, C) | the data type |
//! | tokens | (T) | i32, each in 0 .. V |
//!
//! Deterministic: the backward pass adds the gradients of equal tokens in the order of their
//! positions, whatever the number of threads; a row is rounded to the type of dweight once.
//!
//! On a GPU a token outside 0 .. V is not an error, since finding it would wait for the device: its
//! row of `out` is NaN, and it adds to no row of dweight. Whoever uploads tokens checks them.

mod cpu;
mod cuda;

use super::{Cost, check, check_dtype, check_rank, check_shape};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{View, ViewMut};
use crate::with_real;

/// Computes out\[t\] = weight\[tokens\[t\]\].
///
/// Errors: shapes or dtypes that do not fit; on the CPU a token outside 0 .. V.
pub fn forward(
    device: &Device,
    out: ViewMut<'_>,
    tokens: View<'_>,
    weight: View<'_>,
) -> Result<()> {
    const OP: &str = "embedding.forward";
    let [vocab_size, width] = check_rank(OP, "weight", &weight)?;
    let [num_tokens] = check_rank(OP, "tokens", &tokens)?;
    check_dtype(OP, "tokens", &tokens, DType::I32)?;
    check_shape(OP, "out", &out, &[num_tokens, width])?;
    check_dtype(OP, "out", &out, weight.dtype())?;
    match device {
        Device::Cpu => with_real!(OP, weight.dtype(), T => {
            check_tokens(OP, tokens.host(), vocab_size)?;
            cpu::forward(out.host::<T>(), tokens.host(), weight.host(), width);
            Ok(())
        }),
        Device::Cuda(cuda) => {
            cuda::forward(cuda, out, tokens, weight, [num_tokens, vocab_size, width])
        }
    }
}

/// Adds dweight\[v\] += Σ dout\[t\] over the positions t that hold token v.
///
/// Rows of tokens that do not occur are not touched. Errors: as [`forward`].
pub fn backward(
    device: &Device,
    dweight: ViewMut<'_>,
    dout: View<'_>,
    tokens: View<'_>,
) -> Result<()> {
    const OP: &str = "embedding.backward";
    let [vocab_size, width] = check_rank(OP, "dweight", &dweight)?;
    let [num_tokens] = check_rank(OP, "tokens", &tokens)?;
    check_dtype(OP, "tokens", &tokens, DType::I32)?;
    check_shape(OP, "dout", &dout, &[num_tokens, width])?;
    if dweight.dtype() != dout.dtype().accumulator() {
        check_dtype(OP, "dout", &dout, dweight.dtype())?;
    }
    match device {
        Device::Cpu => with_real!(OP, dout.dtype(), T => {
            check_tokens(OP, tokens.host(), vocab_size)?;
            cpu::backward(dweight.host::<T>(), dout.host(), tokens.host(), width);
            Ok(())
        }),
        Device::Cuda(cuda) => {
            cuda::backward(cuda, dweight, dout, tokens, [num_tokens, vocab_size, width])
        }
    }
}

/// Fails at the first token that is not a row of the embedding.
fn check_tokens(op: &'static str, tokens: &[i32], vocab_size: usize) -> Result<()> {
    let is_row = |token: i32| usize::try_from(token).is_ok_and(|token| token < vocab_size);
    let bad = tokens.iter().position(|&token| !is_row(token));
    check(
        op,
        "tokens",
        bad.is_none(),
        || format!("ids in 0..{vocab_size}"),
        || bad.map_or_else(String::new, |t| format!("id {} at position {t}", tokens[t])),
    )
}

/// No arithmetic; T rows are read and written.
pub fn forward_cost(num_tokens: usize, width: usize, elem_bytes: usize) -> Cost {
    let elems = num_tokens as f64 * width as f64;
    Cost { flops: 0.0, bytes: 2.0 * elems * elem_bytes as f64 }
}

/// One addition per element of dout; bytes as if every token occurred once.
pub fn backward_cost(num_tokens: usize, width: usize, elem_bytes: usize) -> Cost {
    let elems = num_tokens as f64 * width as f64;
    Cost { flops: elems, bytes: 3.0 * elems * elem_bytes as f64 }
}

/// Scratch of the CUDA kernels for up to these dimensions: names and bytes.
pub fn workspace(num_tokens: usize) -> Vec<(&'static str, usize)> {
    vec![("embedding.order", num_tokens * cuda::KEY_BYTES)]
}
