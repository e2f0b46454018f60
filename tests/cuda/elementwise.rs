//! fill, cast, scale and axpy on the CUDA backend: against exact results, rounded once.

use super::rounded::{DTYPES, values};
use super::{bits, device, nans, outputs, upload, upload_as};
use half::bf16;
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::ops::elementwise;
use hooke::tensor::{Tensor, View};

/// One, less than a vector, whole vectors, tails, more than one block.
const SIZES: [usize; 6] = [1, 7, 8, 64, 341, 2057];

/// What an f64 is in a type, rounded once.
fn rounded(x: f64, dtype: DType) -> f64 {
    let (mut out, values) = ([0.0f32], [x]);
    match dtype {
        DType::F32 => f64::from(x as f32),
        _ => {
            let mut half = [bf16::ZERO];
            let view = hooke::tensor::ViewMut::from_host(&mut half, [1]);
            elementwise::cast(&Device::Cpu, view, View::from_host(&values, [1])).unwrap();
            out[0] = half[0].to_f32();
            f64::from(out[0])
        }
    }
}

#[test]
fn fill_rounds_the_value_once() {
    // 1 + 2^-8 + 2^-40 is above the middle of two bf16, but in f32 it is the middle.
    for value in [0.0, -1.5, 1.0 + 2f64.powi(-8) + 2f64.powi(-40), f64::INFINITY, 1e39] {
        for dtype in DTYPES {
            for n in SIZES {
                let got = outputs(|device| {
                    let mut out = nans(device, [n], dtype);
                    elementwise::fill(device, out.view_mut(), value).unwrap();
                    vec![out]
                });
                let want = rounded(value, dtype);
                assert!(got[0].iter().all(|&x| x == want), "{value:e} {dtype} {n}");
            }
        }
    }
}

#[test]
fn cast_is_exact_or_rounds_to_nearest_even() {
    let mut x: Vec<f32> = hooke::testing::fill::normal(2057, 3.0, 1);
    // Ties both ways, the largest, infinities, zeros, subnormals, NaN.
    let special = [1.003_906_2, 1.011_718_8, f32::MAX, -f32::INFINITY, -0.0, 1e-40, f32::NAN];
    x[..7].copy_from_slice(&special);
    for n in SIZES {
        for dtype in DTYPES {
            let wide = |device: &Device| upload(device, [n], &x[..n]);
            let cast = |device: &Device, x: Tensor, to| {
                let mut out = nans(device, [n], to);
                elementwise::cast(device, out.view_mut(), x.view()).unwrap();
                out
            };
            let got = outputs(|device| {
                let narrow = cast(device, wide(device), dtype);
                vec![cast(device, narrow, DType::F32)]
            });
            let same = outputs(|device| {
                let narrow = cast(device, wide(device), dtype);
                vec![cast(device, narrow, dtype)]
            });
            for (i, (&got, &x)) in got[0].iter().zip(&x).enumerate() {
                let want = rounded(x.into(), dtype);
                assert!(got == want || (got.is_nan() && want.is_nan()), "{x:e} {dtype}: {got:e}");
                let same = same[0][i];
                assert!(same == want || (same.is_nan() && want.is_nan()), "{x:e} {dtype}");
            }
        }
    }
}

#[test]
fn scale_and_axpy_round_once() {
    for n in SIZES {
        let (x, y) = (values(n, 1.0, 1), values(n, 4.0, 2));
        for dtype in DTYPES {
            let got = outputs(|device| {
                let (mut scaled, mut sum) =
                    (upload_as(device, [n], &x, dtype), upload_as(device, [n], &y, dtype));
                let x = upload_as(device, [n], &x, dtype);
                elementwise::scale(device, scaled.view_mut(), 0.75).unwrap();
                elementwise::axpy(device, sum.view_mut(), -1.25, x.view()).unwrap();
                vec![scaled, sum]
            });
            for i in 0..n {
                // Products of bf16 and these factors have at most 11 bits, sums with them fewer
                // than 53: f64 is exact. In f32 the fused sum rounds once, then bf16 once more,
                // which differs from one rounding only next to a tie.
                assert_eq!(got[0][i], rounded(x[i] * 0.75, dtype), "scale {dtype} [{i}] of {n}");
                let want = rounded(f64::from((y[i] - 1.25 * x[i]) as f32), dtype);
                assert_eq!(got[1][i], want, "axpy {dtype} [{i}] of {n}");
            }
        }
    }
}

#[test]
fn ranges_that_begin_anywhere_are_written_and_nothing_else() {
    let device = device();
    for dtype in DTYPES {
        for (start, n) in [(1, 40), (3, 8), (8, 17), (5, 1)] {
            let mut out = upload_as(&device, [64], &[7.0; 64], dtype);
            let range = out.view_mut().slice_rows(start, n);
            elementwise::fill(&device, range, 2.0).unwrap();
            elementwise::scale(&device, out.view_mut().slice_rows(start, n), 2.0).unwrap();
            let got = out.view().to_f64_vec().unwrap();
            for (i, &x) in got.iter().enumerate() {
                let inside = (start..start + n).contains(&i);
                assert_eq!(x, if inside { 4.0 } else { 7.0 }, "{dtype} {start}+{n} [{i}]");
            }
        }
    }
}

#[test]
fn empty_tensors_are_fine_and_other_types_are_refused() {
    let device = device();
    let mut empty = upload_as(&device, [0], &[], DType::BF16);
    elementwise::fill(&device, empty.view_mut(), 1.0).unwrap();
    elementwise::scale(&device, empty.view_mut(), 1.0).unwrap();
    assert!(bits(empty.view()).is_empty());
    let mut half = upload_as(&device, [1], &[1.0], DType::F16);
    let error = elementwise::scale(&device, half.view_mut(), 1.0).unwrap_err().to_string();
    assert_eq!(error, "elementwise.scale: x has f16, expected f32 or bf16 on a GPU");
    let x = upload_as(&device, [1], &[1.0], DType::F32);
    let error = elementwise::cast(&device, half.view_mut(), x.view()).unwrap_err().to_string();
    assert_eq!(error, "elementwise.cast: out has f16, expected f32 or bf16 on a GPU");
}
