//! Reductions on the CUDA backend.

use super::rounded::{DTYPES, assert_rounded, reference, to_vec, values};
use super::{device, nans, outputs, upload_as};
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::error::Result;
use hooke::ops::reduce;
use hooke::tensor::{Tensor, View, ViewMut};

type Reduction = fn(&Device, ViewMut<'_>, View<'_>) -> Result<()>;

/// One, less than a vector, tails, more than one part (8192 elements).
const SIZES: [usize; 6] = [1, 7, 8, 341, 8193, 20_011];

fn run(device: &Device, reduction: Reduction, x: &[f64], dtype: DType) -> Tensor {
    let mut out = nans(device, [1], DType::F64);
    let x = upload_as(device, [x.len()], x, dtype);
    reduction(device, out.view_mut(), x.view()).unwrap();
    out
}

#[test]
fn sums_of_integers_are_exact() {
    for n in SIZES {
        let x: Vec<f64> = (0..n).map(|i| (i * 7 % 23) as f64 - 11.0).collect();
        let y: Vec<f64> = (0..n).map(|i| (i * 3 % 17) as f64 - 8.0).collect();
        let sum: f64 = x.iter().sum();
        let squares: f64 = x.iter().map(|x| x * x).sum();
        let product: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
        for dtype in DTYPES {
            let got = outputs(|device| {
                let mut dot = nans(device, [1], DType::F64);
                let (a, b) = (upload_as(device, [n], &x, dtype), upload_as(device, [n], &y, dtype));
                reduce::dot(device, dot.view_mut(), a.view(), b.view()).unwrap();
                let run = |reduction| run(device, reduction, &x, dtype);
                vec![run(reduce::sum), run(reduce::sum_squares), run(reduce::max_abs), dot]
            });
            let want = [sum, squares, 11.0, product];
            assert_eq!(got.concat(), want, "{n} {dtype}");
        }
    }
}

#[test]
fn sums_equal_the_reference() {
    for n in [341, 20_011] {
        let x = values(n, 1.0, 1);
        for dtype in DTYPES {
            let got = outputs(|device| {
                vec![
                    run(device, reduce::sum, &x, dtype),
                    run(device, reduce::sum_squares, &x, dtype),
                ]
            });
            for (got, reduction) in
                [(&got[0], reduce::sum as Reduction), (&got[1], reduce::sum_squares)]
            {
                let want = to_vec(&run(&Device::Cpu, reduction, &x, DType::F64))[0];
                // Thirty-odd additions of f64 in sequence, of terms whose magnitudes add up to n.
                let bound = 40.0 * f64::EPSILON * n as f64;
                assert!((got[0] - want).abs() <= bound, "{n} {dtype}: {} {want}", got[0]);
            }
        }
    }
}

#[test]
fn squares_of_large_gradients_do_not_overflow() {
    let x = [1e30, -3e38, 1e-40];
    let got = outputs(|device| {
        vec![
            run(device, reduce::sum_squares, &x, DType::F32),
            run(device, reduce::max_abs, &x, DType::F32),
        ]
    });
    let [a, b, c] = x.map(|x| f64::from(x as f32));
    assert_eq!(got.concat(), [a * a + b * b + c * c, -b]);
}

#[test]
fn nan_and_infinity_are_seen_at_every_place() {
    let n = 8192 + 300;
    for place in [0, 1, 2, 3, 4, 5, 6, 7, 255 * 8, 256 * 8 + 3, 8191, 8192, n - 1] {
        for (value, dtype) in [(f64::NAN, DType::BF16), (f64::NEG_INFINITY, DType::F32)] {
            let mut x = values(n, 1.0, 1);
            x[place] = value;
            let device = device();
            let got = [reduce::sum as Reduction, reduce::sum_squares, reduce::max_abs]
                .map(|reduction| to_vec(&run(&device, reduction, &x, dtype))[0]);
            let want = [value, value * value, value.abs()];
            for (got, want) in got.into_iter().zip(want) {
                assert!(got == want || got.is_nan() && want.is_nan(), "{place} {value}: {got}");
            }
        }
    }
}

#[test]
fn the_largest_is_found_at_every_place() {
    let n = 341;
    let device = device();
    for place in (0..24).chain([255, 256, n - 1]) {
        let mut x = vec![-1.0; n];
        x[place] = if place % 2 == 0 { 5.0 } else { -5.0 };
        for dtype in DTYPES {
            assert_eq!(to_vec(&run(&device, reduce::max_abs, &x, dtype)), [5.0], "{place}");
        }
    }
}

#[test]
fn nothing_sums_to_zero_and_ranges_may_begin_anywhere() {
    let device = device();
    for reduction in [reduce::sum as Reduction, reduce::sum_squares, reduce::max_abs] {
        assert_eq!(to_vec(&run(&device, reduction, &[], DType::BF16)), [0.0]);
    }
    let x: Vec<f64> = (0..600).map(|i| f64::from(i % 100)).collect();
    for dtype in DTYPES {
        let all = upload_as(&device, [600], &x, dtype);
        for (start, n) in [(1, 599), (8, 300), (13, 7)] {
            let mut out = nans(&device, [1], DType::F64);
            reduce::sum(&device, out.view_mut(), all.view().slice_rows(start, n)).unwrap();
            assert_eq!(to_vec(&out), [x[start..start + n].iter().sum::<f64>()], "{start}+{n}");
        }
    }
}

/// Rows x columns: one, odd, more rows than a chunk (16), more columns than a block (256).
const SHAPES: [[usize; 2]; 6] = [[1, 1], [3, 7], [17, 8], [40, 341], [33, 264], [9, 600]];

fn column_sums(device: &Device, x: &Tensor, before: &[f64], sums: DType) -> Tensor {
    let mut out = upload_as(device, [before.len()], before, sums);
    reduce::column_sums(device, out.view_mut(), x.view()).unwrap();
    out
}

#[test]
fn column_sums_are_added_and_exact_for_integers() {
    for [t, n] in SHAPES {
        let x: Vec<f64> = (0..t * n).map(|i| (i * 7 % 23) as f64 - 11.0).collect();
        let before: Vec<f64> = (0..n).map(|i| i as f64).collect();
        let want: Vec<f64> =
            (0..n).map(|c| before[c] + (0..t).map(|r| x[r * n + c]).sum::<f64>()).collect();
        for dtype in DTYPES {
            let got = outputs(|device| {
                let x = upload_as(device, [t, n], &x, dtype);
                vec![column_sums(device, &x, &before, DType::F32)]
            });
            assert_eq!(got[0], want, "({t}, {n}) {dtype}");
        }
    }
}

#[test]
fn column_sums_equal_the_reference() {
    for [t, n] in SHAPES {
        let (x, before) = (values(t * n, 1.0, 1), values(n, 1.0, 2));
        let want = column_sums(&Device::Cpu, &reference(&[t, n], &x), &before, DType::F64);
        for dtype in DTYPES {
            let got = outputs(|device| {
                let x = upload_as(device, [t, n], &x, dtype);
                vec![column_sums(device, &x, &before, DType::F32)]
            });
            let what = format!("({t}, {n})");
            // A thread adds two rows of a chunk, then eight rows of threads, then the chunks.
            assert_rounded(&what, &got[0], &to_vec(&want), DType::F32, 12.0);
        }
    }
    let none = column_sums(
        &device(),
        &upload_as(&device(), [0, 3], &[], DType::BF16),
        &[1.0; 3],
        DType::F32,
    );
    assert_eq!(to_vec(&none), [1.0; 3]);
}
