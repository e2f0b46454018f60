//! elementwise: every rounding boundary of the narrow types, and plain loops for the rest.

use super::{EDGE_SIZES, assert_same_bits_for_any_thread_count};
use half::{bf16, f16};
use hooke::device::Device;
use hooke::dtype::{DType, Element, Real};
use hooke::ops::elementwise::{axpy, cast, fill, scale};
use hooke::tensor::{Tensor, View, ViewMut};
use hooke::testing::fill::normal;

const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::BF16, DType::F16];

fn cast_to<D: Element>(x: &[impl Element]) -> Vec<D> {
    let mut out = vec![D::zeroed(); x.len()];
    let out_view = ViewMut::from_host(&mut out, [x.len()]);
    cast(&Device::Cpu, out_view, View::from_host(x, [x.len()])).unwrap();
    out
}

/// The value that a sign, exponent and mantissa mean, from the definition of the format.
fn meaning(bits: u16, mantissa_bits: i32, bias: i32) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits & 0x7fff) >> mantissa_bits;
    let mantissa = f64::from(bits & ((1 << mantissa_bits) - 1)) / f64::from(1 << mantissa_bits);
    if exponent == 2 * bias + 1 {
        return if mantissa == 0.0 { sign * f64::INFINITY } else { f64::NAN };
    }
    let (exponent, implied) = if exponent == 0 { (1, 0.0) } else { (exponent, 1.0) };
    sign * (implied + mantissa) * 2.0f64.powi(exponent - bias)
}

fn meaning_bf16(bits: u16) -> f64 {
    meaning(bits, 7, 127)
}

fn meaning_f16(bits: u16) -> f64 {
    meaning(bits, 10, 15)
}

/// For each pair of positive neighbours of a 16-bit type, the last one being infinity: their
/// midpoint and the numbers beside it in the wider type, with the bits they must round to.
fn boundaries<S: Copy>(
    infinity: u16,
    meaning: fn(u16) -> f64,
    around: impl Fn(f64) -> [S; 3],
) -> (Vec<S>, Vec<u16>) {
    let (mut inputs, mut want) = (Vec::new(), Vec::new());
    for low in 0..infinity {
        let high = low + 1;
        // Infinity stands where the next finite number would be.
        let step = if high < infinity {
            meaning(high) - meaning(low)
        } else {
            meaning(low) - meaning(low - 1)
        };
        let even = if low % 2 == 0 { low } else { high };
        inputs.extend(around(meaning(low) + step / 2.0));
        want.extend([low, even, high]);
    }
    (inputs, want)
}

fn around_f64(midpoint: f64) -> [f64; 3] {
    let bits = midpoint.to_bits();
    [f64::from_bits(bits - 1), midpoint, f64::from_bits(bits + 1)]
}

fn around_f32(midpoint: f64) -> [f32; 3] {
    let exact = midpoint as f32;
    assert_eq!(f64::from(exact), midpoint, "midpoints have one bit more than their neighbours");
    [f32::from_bits(exact.to_bits() - 1), exact, f32::from_bits(exact.to_bits() + 1)]
}

#[test]
fn every_midpoint_of_bf16_rounds_to_even_and_its_neighbours_away_from_it() {
    let bits = |values: Vec<bf16>| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let (inputs, want) = boundaries(0x7f80, meaning_bf16, around_f64);
    assert_eq!(bits(cast_to(&inputs)), want);
    let negative: Vec<f64> = inputs.iter().map(|x| -x).collect();
    let want_negative: Vec<u16> = want.iter().map(|bits| bits | 0x8000).collect();
    assert_eq!(bits(cast_to(&negative)), want_negative);
    let (inputs, want) = boundaries(0x7f80, meaning_bf16, around_f32);
    assert_eq!(bits(cast_to(&inputs)), want);
}

#[test]
fn every_midpoint_of_f16_rounds_to_even_and_its_neighbours_away_from_it() {
    let bits = |values: Vec<f16>| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let (inputs, want) = boundaries(0x7c00, meaning_f16, around_f64);
    assert_eq!(bits(cast_to(&inputs)), want);
    let negative: Vec<f64> = inputs.iter().map(|x| -x).collect();
    let want_negative: Vec<u16> = want.iter().map(|bits| bits | 0x8000).collect();
    assert_eq!(bits(cast_to(&negative)), want_negative);
    let (inputs, want) = boundaries(0x7c00, meaning_f16, around_f32);
    assert_eq!(bits(cast_to(&inputs)), want);
}

#[test]
fn every_16_bit_number_widens_exactly_and_comes_back() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let same =
        |got: f64, want: f64| got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
    let brains: Vec<bf16> = all.iter().map(|&bits| bf16::from_bits(bits)).collect();
    let halves: Vec<f16> = all.iter().map(|&bits| f16::from_bits(bits)).collect();
    let (brains32, halves32) = (cast_to::<f32>(&brains), cast_to::<f32>(&halves));
    let (brains64, halves64) = (cast_to::<f64>(&brains), cast_to::<f64>(&halves));
    let (brains_back, halves_back) = (cast_to::<bf16>(&brains32), cast_to::<f16>(&halves32));
    for &bits in &all {
        let i = usize::from(bits);
        let (brain, half) = (meaning_bf16(bits), meaning_f16(bits));
        assert!(same(f64::from(brains32[i]), brain) && same(brains64[i], brain), "bf16 {bits:#x}");
        assert!(same(f64::from(halves32[i]), half) && same(halves64[i], half), "f16 {bits:#x}");
        assert!(brain.is_nan() && brains_back[i].is_nan() || brains_back[i].to_bits() == bits);
        assert!(half.is_nan() && halves_back[i].is_nan() || halves_back[i].to_bits() == bits);
    }
    // Between the two, by way of f64, whose roundings are checked above.
    let bits = |values: Vec<f16>| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let numbers: Vec<bf16> = brains.iter().copied().filter(|x| !x.is_nan()).collect();
    assert_eq!(bits(cast_to(&numbers)), bits(cast_to(&cast_to::<f64>(&numbers))));
    let bits = |values: Vec<bf16>| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let numbers: Vec<f16> = halves.iter().copied().filter(|x| !x.is_nan()).collect();
    assert_eq!(bits(cast_to(&numbers)), bits(cast_to(&cast_to::<f64>(&numbers))));
}

#[test]
fn f64_rounds_to_f32_to_even_and_overflows_to_infinity() {
    let ulp = f64::from(f32::EPSILON);
    let inputs = [1.0 + ulp / 2.0, 1.0 + 1.5 * ulp, 1.0 + ulp * 0.500_001, 1e39, -1e39, 1e-50];
    let want = [1.0, 1.0 + 2.0 * f32::EPSILON, 1.0 + f32::EPSILON, f32::INFINITY];
    let got = cast_to::<f32>(&inputs);
    assert_eq!((&got[..4], got[4], got[5]), (&want[..], f32::NEG_INFINITY, 0.0));
    assert_eq!(cast_to::<f64>(&[0.1f32]), [f64::from(0.1f32)]);
}

#[test]
fn extremes_of_f64_reach_the_narrow_types_as_infinity_zero_and_nan() {
    let inputs = [1e300, -1e300, 1e-300, -1e-300, f64::INFINITY, -0.0, f64::NAN];
    let brains = cast_to::<bf16>(&inputs);
    let halves = cast_to::<f16>(&inputs);
    let want_brains = [0x7f80, 0xff80, 0, 0x8000, 0x7f80, 0x8000];
    let want_halves = [0x7c00, 0xfc00, 0, 0x8000, 0x7c00, 0x8000];
    for i in 0..6 {
        assert_eq!((brains[i].to_bits(), halves[i].to_bits()), (want_brains[i], want_halves[i]));
    }
    assert!(brains[6].is_nan() && halves[6].is_nan());
}

#[test]
fn all_pairs_cast_at_any_size_and_keep_nan() {
    for n in EDGE_SIZES.into_iter().chain([0, 65_536 + 9]) {
        // Small integers are exact in all four types; their order shows misplaced elements.
        let mut values: Vec<f64> = (0..n).map(|i| ((i * 37) % 201) as f64 - 100.0).collect();
        if let Some(last) = values.last_mut() {
            *last = f64::NAN;
        }
        for from in FLOATS {
            let mut x = Tensor::zeros(&Device::Cpu, "x", [n], from).unwrap();
            cast(&Device::Cpu, x.view_mut(), View::from_host(&values, [n])).unwrap();
            for to in FLOATS {
                let mut out = Tensor::zeros(&Device::Cpu, "out", [n], to).unwrap();
                cast(&Device::Cpu, out.view_mut(), x.view()).unwrap();
                for (got, want) in out.view().to_f64_vec().unwrap().iter().zip(&values) {
                    assert!(got == want || got.is_nan() && want.is_nan(), "{from} to {to}, {n}");
                }
            }
        }
    }
}

#[test]
fn fill_sets_every_element_of_every_float_type_rounded_once() {
    // Just above a tie of bf16; 2^-40 is beyond f32, so rounding twice would go down to 1.
    let value = 1.0 + 2.0f64.powi(-8) + 2.0f64.powi(-40);
    let above = 1.0 + 2.0f64.powi(-7);
    let f32_value = f64::from(1.0 + 2.0f32.powi(-8));
    let want = [value, f32_value, above, 1.0 + 2.0f64.powi(-8)];
    for n in EDGE_SIZES.into_iter().chain([0, 65_537]) {
        for (dtype, want) in FLOATS.into_iter().zip(want) {
            let mut out = Tensor::zeros(&Device::Cpu, "out", [n], dtype).unwrap();
            fill(&Device::Cpu, out.view_mut(), value).unwrap();
            assert_eq!(out.view().to_f64_vec().unwrap(), vec![want; n], "{dtype}");
        }
    }
}

fn check_scale_and_axpy<T: Real>(n: usize) {
    let (x, before) = (normal::<T>(n, 1.0, 1), normal::<T>(n, 1.0, 2));
    let (mut scaled, mut y) = (x.clone(), before.clone());
    let factor = -0.3;
    scale(&Device::Cpu, ViewMut::from_host(&mut scaled, [n]), factor).unwrap();
    axpy(&Device::Cpu, ViewMut::from_host(&mut y, [n]), factor, View::from_host(&x, [n])).unwrap();
    for i in 0..n {
        let (x, before) = (x[i].to_f64(), before[i].to_f64());
        // The factor and the product round once each, the sum once more.
        let (product, u) = (factor * x, T::UNIT_ROUNDOFF);
        assert!((scaled[i].to_f64() - product).abs() <= 2.01 * u * product.abs(), "{i} of {n}");
        let allowed = 2.01 * u * product.abs() + u * y[i].to_f64().abs();
        assert!((y[i].to_f64() - (before + product)).abs() <= allowed * 1.01, "{i} of {n}");
    }
}

#[test]
fn scale_and_axpy_match_f64_at_edge_sizes() {
    for n in EDGE_SIZES.into_iter().chain([0, 65_537]) {
        check_scale_and_axpy::<f32>(n);
        check_scale_and_axpy::<f64>(n);
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let n = 200_001;
    let x = normal::<f32>(n, 1.0, 1);
    assert_same_bits_for_any_thread_count("elementwise", || {
        let mut y = vec![0.0f32; n];
        fill(&Device::Cpu, ViewMut::from_host(&mut y, [n]), 0.7).unwrap();
        axpy(&Device::Cpu, ViewMut::from_host(&mut y, [n]), 0.3, View::from_host(&x, [n])).unwrap();
        scale(&Device::Cpu, ViewMut::from_host(&mut y, [n]), 1.1).unwrap();
        cast_to::<f32>(&cast_to::<bf16>(&y))
    });
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let (mut floats, mut ids) = ([0.0f32; 6], [0i32; 6]);
    let x = [1.0f64; 6];
    let x = View::from_host(&x, [2, 3]);
    let error = cast(&Device::Cpu, ViewMut::from_host(&mut floats, [3, 2]), x).unwrap_err();
    assert_eq!(error.to_string(), "elementwise.cast: out has shape [3, 2], expected shape [2, 3]");
    let error = cast(&Device::Cpu, ViewMut::from_host(&mut ids, [2, 3]), x).unwrap_err();
    assert_eq!(error.to_string(), "elementwise.cast: out has i32, expected f64, f32, bf16 or f16");
    let out = ViewMut::from_host(&mut floats, [2, 3]);
    let error = cast(&Device::Cpu, out, View::from_host(&ids, [2, 3])).unwrap_err();
    assert_eq!(error.to_string(), "elementwise.cast: x has i32, expected f64, f32, bf16 or f16");
    let error = fill(&Device::Cpu, ViewMut::from_host(&mut ids, [2, 3]), 1.0).unwrap_err();
    assert_eq!(error.to_string(), "elementwise.fill: out has i32, expected f64, f32, bf16 or f16");
    let error = axpy(&Device::Cpu, ViewMut::from_host(&mut floats, [2, 3]), 1.0, x).unwrap_err();
    assert_eq!(error.to_string(), "elementwise.axpy: y has f32, expected f64");
    let error = scale(&Device::Cpu, ViewMut::from_host(&mut ids, [6]), 1.0).unwrap_err();
    let want = "elementwise.scale: element type has i32, expected f32 or f64 on the CPU";
    assert_eq!(error.to_string(), want);
}
