//! CPU reference of fill, scale and axpy: chunks in parallel.

use super::cast::{nearest_bf16, round_to_odd};
use super::not_float;
use crate::dtype::{DType, Element, Real};
use crate::error::Result;
use crate::tensor::ViewMut;
use half::f16;
use rayon::prelude::*;

/// Elements per task.
pub(super) const CHUNK: usize = 1 << 16;

pub(super) fn fill(op: &'static str, out: ViewMut<'_>, value: f64) -> Result<()> {
    match out.dtype() {
        DType::F64 => fill_with(out.host(), value),
        DType::F32 => fill_with(out.host(), value as f32),
        DType::BF16 => fill_with(out.host(), nearest_bf16(round_to_odd(value))),
        DType::F16 => fill_with(out.host(), f16::from_f32(round_to_odd(value))),
        other @ (DType::I32 | DType::U8) => return Err(not_float(op, "out", other)),
    }
    Ok(())
}

fn fill_with<T: Element>(out: &mut [T], value: T) {
    out.par_chunks_mut(CHUNK).for_each(|chunk| chunk.fill(value));
}

pub(super) fn scale<T: Real>(x: &mut [T], factor: f64) {
    let factor = T::from_f64(factor);
    x.par_chunks_mut(CHUNK).for_each(|chunk| {
        for x in chunk {
            *x *= factor;
        }
    });
}

pub(super) fn axpy<T: Real>(y: &mut [T], a: f64, x: &[T]) {
    let a = T::from_f64(a);
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += a * x;
        }
    });
}
