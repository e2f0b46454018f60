//! Element types between files and memory. Every conversion rounds once, to nearest even; one
//! that widens is exact, so that widening and narrowing back gives the same bits.

use crate::dtype::{DType, Element};
use crate::tensor::{View, ViewMut};
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

/// Elements that one thread converts at a time.
const CHUNK: usize = 1 << 16;

/// A value that has no finite image in the target type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Unrepresentable {
    /// Position among the elements converted.
    pub(super) index: usize,
    /// What stands there.
    pub(super) value: f64,
}

/// The floating-point types of files and memory.
trait Float: Element {
    fn to_f64(self) -> f64;
    fn from_f64(x: f64) -> Self;
}

impl Float for f64 {
    fn to_f64(self) -> f64 {
        self
    }
    fn from_f64(x: f64) -> Self {
        x
    }
}
impl Float for f32 {
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x as f32
    }
}
impl Float for bf16 {
    #[inline(always)]
    fn to_f64(self) -> f64 {
        bf16::to_f64(self)
    }
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        bf16::from_f32(to_f32_odd(x))
    }
}
impl Float for f16 {
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f16::to_f64(self)
    }
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        f16::from_f32(to_f32_odd(x))
    }
}

/// Rounds to odd: exact, or the neighbour with the odd last bit. f32 has more than two bits beyond
/// f16 and bf16, so that rounding the result to nearest gives what rounding `x` itself would.
/// `f16::from_f64` rounds to nearest twice on machines with F16C, and once on others.
#[inline(always)]
fn to_f32_odd(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest) == x || !nearest.is_finite() {
        return nearest;
    }
    let away_from_zero = f64::from(nearest).abs() > x.abs();
    f32::from_bits((nearest.to_bits() - u32::from(away_from_zero)) | 1)
}

/// Runs `$body` with `$t` bound to the type that `$dtype` names; panics for integers.
macro_rules! with_float {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            DType::F64 => {
                type $t = f64;
                $body
            }
            DType::F32 => {
                type $t = f32;
                $body
            }
            DType::BF16 => {
                type $t = bf16;
                $body
            }
            DType::F16 => {
                type $t = f16;
                $body
            }
            DType::I32 | DType::U8 => panic!("integers are not converted to floating point"),
        }
    };
}

/// The memory type that a floating-point type of files corresponds to.
pub(super) fn float_dtype(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F64 => Some(DType::F64),
        Dtype::F32 => Some(DType::F32),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F16 => Some(DType::F16),
        _ => None,
    }
}

/// out = bytes, which hold as many elements of type `from`. Fails at the first value that is not
/// finite, or not finite any more; `out` is then filled only in part.
pub(super) fn decode(bytes: &[u8], from: DType, out: ViewMut<'_>) -> Result<(), Unrepresentable> {
    let to = out.dtype();
    with_float!(from, S => with_float!(to, D => decode_as::<S, D>(bytes, out.host::<D>())))
}

fn decode_as<S: Float, D: Float>(bytes: &[u8], out: &mut [D]) -> Result<(), Unrepresentable> {
    assert_eq!(bytes.len(), size_of_val(out) / size_of::<D>() * size_of::<S>(), "elements");
    let failure = out
        .par_chunks_mut(CHUNK)
        .zip(bytes.par_chunks(CHUNK * size_of::<S>()))
        .enumerate()
        .find_map_first(|(chunk, (out, bytes))| {
            let mut finite = true;
            for (o, source) in out.iter_mut().zip(bytes.chunks_exact(size_of::<S>())) {
                *o = D::from_f64(bytemuck::pod_read_unaligned::<S>(source).to_f64());
                finite &= o.to_f64().is_finite();
            }
            if finite {
                return None;
            }
            let offset = out.iter().position(|o| !o.to_f64().is_finite())?;
            let source = &bytes[offset * size_of::<S>()..][..size_of::<S>()];
            let value = bytemuck::pod_read_unaligned::<S>(source).to_f64();
            Some(Unrepresentable { index: chunk * CHUNK + offset, value })
        });
    failure.map_or(Ok(()), Err)
}

/// out = the elements of `values` as type `to`, replacing what `out` held. Fails at the first
/// value that is not finite, or not finite any more.
pub(super) fn encode(
    values: View<'_>,
    to: DType,
    out: &mut Vec<u8>,
) -> Result<(), Unrepresentable> {
    let from = values.dtype();
    out.clear();
    out.resize(values.shape().num_elems() * to.size_bytes(), 0);
    with_float!(from, S => with_float!(to, D => encode_as::<S, D>(values.host::<S>(), out)))
}

fn encode_as<S: Float, D: Float>(values: &[S], out: &mut [u8]) -> Result<(), Unrepresentable> {
    let failure = out
        .par_chunks_mut(CHUNK * size_of::<D>())
        .zip(values.par_chunks(CHUNK))
        .enumerate()
        .find_map_first(|(chunk, (out, values))| {
            let mut finite = true;
            for (o, value) in out.chunks_exact_mut(size_of::<D>()).zip(values) {
                let converted = D::from_f64(value.to_f64());
                finite &= converted.to_f64().is_finite();
                o.copy_from_slice(bytemuck::bytes_of(&converted));
            }
            if finite {
                return None;
            }
            let lost = |value: &S| !D::from_f64(value.to_f64()).to_f64().is_finite();
            let offset = values.iter().position(lost)?;
            let value = values[offset].to_f64();
            Some(Unrepresentable { index: chunk * CHUNK + offset, value })
        });
    failure.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every finite half, at an odd address.
    fn all_finite<T: Float>(from_bits: fn(u16) -> T) -> Vec<u8> {
        let finite = (0..=u16::MAX).map(from_bits).filter(|x| x.to_f64().is_finite());
        std::iter::once(0).chain(finite.flat_map(|x| bytemuck::bytes_of(&x).to_vec())).collect()
    }

    #[test]
    fn every_finite_half_survives_the_way_through_f32_and_f64() {
        for (from, bytes) in
            [(DType::F16, all_finite(f16::from_bits)), (DType::BF16, all_finite(bf16::from_bits))]
        {
            let bytes = &bytes[1..];
            let n = bytes.len() / 2;
            let mut back = Vec::new();
            let mut single = vec![0.0f32; n];
            decode(bytes, from, ViewMut::from_host(&mut single, [n])).unwrap();
            encode(View::from_host(&single, [n]), from, &mut back).unwrap();
            assert_eq!(back, bytes);
            let mut double = vec![0.0f64; n];
            decode(bytes, from, ViewMut::from_host(&mut double, [n])).unwrap();
            encode(View::from_host(&double, [n]), from, &mut back).unwrap();
            assert_eq!(back, bytes);
            assert!(single.iter().zip(&double).all(|(&s, &d)| f64::from(s) == d));
        }
    }

    #[test]
    fn narrowing_rounds_once_to_nearest_even() {
        // Around the middle between two neighbours, closer to it than f32 can tell.
        for (to, bits, first) in [(DType::F16, 10, 0x3c00u16), (DType::BF16, 7, 0x3f80)] {
            for sign in [1.0, -1.0] {
                let ulp = (0.5f64).powi(bits);
                let near = 1e-12;
                let values = [0.5 * ulp, 0.5 * ulp + near, ulp, 1.5 * ulp - near, 1.5 * ulp];
                let values = values.map(|x| sign * (1.0 + x));
                let mut out = Vec::new();
                encode(View::from_host(&values, [5]), to, &mut out).unwrap();
                let got: Vec<u16> = bytemuck::pod_collect_to_vec(&out);
                let sign_bit = if sign < 0.0 { 0x8000 } else { 0 };
                assert_eq!(got, [0, 1, 1, 1, 2].map(|step| (first + step) | sign_bit));
            }
        }
        // Far below the smallest subnormal, and just above half of it.
        let tiny = [1e-300, (0.5f64).powi(25) * (1.0 + 1e-12)];
        let mut out = Vec::new();
        encode(View::from_host(&tiny, [2]), DType::F16, &mut out).unwrap();
        assert_eq!(out, [0, 0, 1, 0]);
    }

    #[test]
    fn the_first_value_that_does_not_fit_is_named_whatever_the_threads_do() {
        let mut values = vec![1.0f32; 5 * CHUNK];
        values[4 * CHUNK + 1] = f32::NAN;
        values[3 * CHUNK + 7] = -65_520.0;
        let mut out = Vec::new();
        let view = View::from_host(&values, [5 * CHUNK]);
        let got = encode(view, DType::F16, &mut out).unwrap_err();
        assert_eq!(got, Unrepresentable { index: 3 * CHUNK + 7, value: -65_520.0 });
        let got = encode(view, DType::BF16, &mut out).unwrap_err();
        assert_eq!(got.index, 4 * CHUNK + 1);
        assert!(got.value.is_nan());
        // The largest f16, and the largest value that still rounds to it.
        let fits = [65_504.0f32, 65_519.99];
        encode(View::from_host(&fits, [2]), DType::F16, &mut out).unwrap();
        let mut back = [0.0f32; 2];
        let bytes = bytemuck::cast_slice::<f32, u8>(&[1.0, f32::INFINITY]);
        let error = decode(bytes, DType::F32, ViewMut::from_host(&mut back, [2])).unwrap_err();
        assert_eq!(error, Unrepresentable { index: 1, value: f64::INFINITY });
    }
}
