//! The operators: one folder each, with the contract and its checks in `mod.rs`, the CPU
//! reference in `cpu.rs`, and one `match` on the device between them.
//!
//! Conventions shared by all:
//! * operands come in the order outputs, inputs, saved statistics, scalars, dimensions;
//! * `=` and `+=` are stated per output: activations are overwritten, gradients of parameters
//!   and of the residual stream are accumulated;
//! * every reduction has a fixed order, so results do not depend on the number of threads;
//! * a violated contract is [`Error::Operand`], found before anything is written.

pub mod adamw;
pub mod attention;
mod by_dtype;
pub mod cross_entropy;
pub mod elementwise;
pub mod embedding;
mod lanes;
pub mod matmul;
pub mod qk_norm;
pub mod reduce;
pub mod rmsnorm;
pub mod rope;
pub mod sample;
pub mod swiglu;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::tensor::{View, ViewMut};

/// Work an operator must do for given dimensions, whatever the implementation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Floating-point operations; a multiply-add counts two, an exponential one.
    pub flops: f64,
    /// Bytes that must cross memory if every operand is moved once.
    pub bytes: f64,
}

/// Head counts and size of grouped-query attention; the columns of a packed `qkv` row are
/// `num_heads` query heads, then `num_kv_heads` key heads, then `num_kv_heads` value heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads H.
    pub num_heads: usize,
    /// Key/value heads G; divides H.
    pub num_kv_heads: usize,
    /// Elements per head D.
    pub head_dim: usize,
}

impl Heads {
    /// Width of the query part: H · D.
    pub fn q_dim(&self) -> usize {
        self.num_heads * self.head_dim
    }
    /// Width of the key (or value) part: G · D.
    pub fn kv_dim(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }
    /// Width of a packed row: (H + 2G) · D.
    pub fn qkv_dim(&self) -> usize {
        self.q_dim() + 2 * self.kv_dim()
    }
    /// Query heads that share one key/value head: H / G.
    pub fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }
}

/// What the checks below need of a view, shared or unique.
pub(crate) trait Operand {
    fn shape(&self) -> Shape;
    fn dtype(&self) -> DType;
}

impl Operand for View<'_> {
    fn shape(&self) -> Shape {
        View::shape(self)
    }
    fn dtype(&self) -> DType {
        View::dtype(self)
    }
}

impl Operand for ViewMut<'_> {
    fn shape(&self) -> Shape {
        ViewMut::shape(self)
    }
    fn dtype(&self) -> DType {
        ViewMut::dtype(self)
    }
}

/// Fails unless the operand has exactly these dimensions.
pub(crate) fn check_shape(
    op: &'static str,
    operand: &'static str,
    view: &impl Operand,
    dims: &[usize],
) -> Result<()> {
    if view.shape().dims() == dims {
        return Ok(());
    }
    let expected = format!("shape {dims:?}");
    Err(Error::Operand { op, operand, expected, got: format!("shape {}", view.shape()) })
}

/// Fails unless the operand has this rank; returns its dimensions.
pub(crate) fn check_rank<const R: usize>(
    op: &'static str,
    operand: &'static str,
    view: &impl Operand,
) -> Result<[usize; R]> {
    view.shape().dims().try_into().map_err(|_| Error::Operand {
        op,
        operand,
        expected: format!("rank {R}"),
        got: format!("shape {}", view.shape()),
    })
}

/// Fails unless the operand has this element type.
pub(crate) fn check_dtype(
    op: &'static str,
    operand: &'static str,
    view: &impl Operand,
    dtype: DType,
) -> Result<()> {
    if view.dtype() == dtype {
        return Ok(());
    }
    let got = view.dtype().to_string();
    Err(Error::Operand { op, operand, expected: dtype.to_string(), got })
}

/// Fails unless the operand's element type is `dtype` or what sums of it are kept in: gradients of
/// bf16 parameters are summed up in f32.
pub(crate) fn check_sum_dtype(
    op: &'static str,
    operand: &'static str,
    view: &impl Operand,
    dtype: DType,
) -> Result<()> {
    match view.dtype() == dtype.accumulator() {
        true => Ok(()),
        false => check_dtype(op, operand, view, dtype),
    }
}

/// Fails with `expected`/`got` unless `holds`.
pub(crate) fn check(
    op: &'static str,
    operand: &'static str,
    holds: bool,
    expected: impl FnOnce() -> String,
    got: impl FnOnce() -> String,
) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::Operand { op, operand, expected: expected(), got: got() })
}

/// Fails unless the head counts and size are positive, divide evenly and do not overflow.
pub(crate) fn check_heads(op: &'static str, heads: Heads) -> Result<()> {
    let Heads { num_heads, num_kv_heads, head_dim } = heads;
    let divides = num_heads > 0 && num_kv_heads > 0 && num_heads.is_multiple_of(num_kv_heads);
    let width = num_kv_heads.checked_mul(2).and_then(|n| n.checked_add(num_heads));
    let width = width.and_then(|n| n.checked_mul(head_dim));
    check(
        op,
        "heads",
        divides && head_dim > 0 && width.is_some(),
        || "positive sizes, query heads a multiple of the key/value heads".into(),
        || format!("{heads:?}"),
    )
}

/// Fails, naming the first offender, unless every value lies in `range`.
pub(crate) fn check_values(
    op: &'static str,
    operand: &'static str,
    values: &[i32],
    range: std::ops::Range<usize>,
) -> Result<()> {
    let outside = |&v: &i32| !usize::try_from(v).is_ok_and(|v| range.contains(&v));
    match values.iter().position(outside) {
        None => Ok(()),
        Some(i) => Err(Error::Operand {
            op,
            operand,
            expected: format!("values in {}..{}", range.start, range.end),
            got: format!("{} at index {i}", values[i]),
        }),
    }
}
