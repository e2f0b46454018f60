//! rmsnorm on the CUDA backend.

use super::rounded::{DTYPES, assert_rounded, reference, to_vec, values};
use super::{device, nans, outputs, upload_as};
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::ops::rmsnorm;
use hooke::tensor::Tensor;

const EPS: f64 = 1e-5;

/// Rows x columns: one element, odd widths, a tail behind whole vectors, more rows than a chunk of
/// the weight gradient, rows that do not fit the registers.
const SHAPES: [[usize; 2]; 7] =
    [[1, 1], [2, 7], [3, 8], [17, 341], [9, 1032], [2, 4104], [1, 4099]];

fn forward(device: &Device, x: &Tensor, weight: &Tensor, dtype: DType) -> Vec<Tensor> {
    let [t, c]: [usize; 2] = x.shape().dims().try_into().unwrap();
    let (mut y, mut rstd) = (nans(device, [t, c], dtype), nans(device, [t], dtype.accumulator()));
    rmsnorm::forward(device, y.view_mut(), rstd.view_mut(), x.view(), weight.view(), EPS).unwrap();
    vec![y, rstd]
}

/// y and rstd in f64.
fn want(x: &[f64], weight: &[f64], [t, c]: [usize; 2]) -> [Vec<f64>; 2] {
    let (x, weight) = (reference(&[t, c], x), reference(&[c], weight));
    let out = forward(&Device::Cpu, &x, &weight, DType::F64);
    [to_vec(&out[0]), to_vec(&out[1])]
}

/// Half units of f32: a mean over c squares (a thread adds c / 128 of them, the rest is a tree),
/// the root, two divisions, two products.
fn ulps(c: usize) -> f64 {
    10.0 + (c as f64 / 128.0).sqrt()
}

#[test]
fn forward_equals_the_reference() {
    for [t, c] in SHAPES {
        let (x, weight) = (values(t * c, 2.0, 1), values(c, 1.0, 2));
        let [want_y, want_rstd] = want(&x, &weight, [t, c]);
        for dtype in DTYPES {
            let got = outputs(|device| {
                let x = upload_as(device, [t, c], &x, dtype);
                forward(device, &x, &upload_as(device, [c], &weight, dtype), dtype)
            });
            let what = format!("({t}, {c})");
            assert_rounded(&format!("y {what}"), &got[0], &want_y, dtype, ulps(c));
            assert_rounded(&format!("rstd {what}"), &got[1], &want_rstd, DType::F32, ulps(c));
        }
    }
}

#[test]
fn the_fused_addition_rounds_the_sum_and_norms_what_it_wrote() {
    for [t, c] in SHAPES {
        let (residual, x, weight) =
            (values(t * c, 3.0, 1), values(t * c, 1.0, 2), values(c, 1.0, 3));
        let sum: Vec<f64> = residual.iter().zip(&x).map(|(a, b)| a + b).collect();
        for dtype in DTYPES {
            let got = outputs(|device| {
                let [residual, x] = [&residual, &x].map(|v| upload_as(device, [t, c], v, dtype));
                let weight = upload_as(device, [c], &weight, dtype);
                let mut out = [(); 2].map(|()| nans(device, [t, c], dtype));
                let mut rstd = nans(device, [t], DType::F32);
                let [y, residual_out] = &mut out;
                rmsnorm::forward_residual(
                    device,
                    y.view_mut(),
                    residual_out.view_mut(),
                    rstd.view_mut(),
                    residual.view(),
                    x.view(),
                    weight.view(),
                    EPS,
                )
                .unwrap();
                out.into_iter().chain([rstd]).collect()
            });
            let what = format!("({t}, {c})");
            assert_rounded(&format!("residual_out {what}"), &got[1], &sum, dtype, 1.0);
            let [want_y, want_rstd] = want(&got[1], &weight, [t, c]);
            assert_rounded(&format!("y {what}"), &got[0], &want_y, dtype, ulps(c));
            assert_rounded(&format!("rstd {what}"), &got[2], &want_rstd, DType::F32, ulps(c));
        }
    }
}

fn backward(
    device: &Device,
    [dx, dweight, dy, x, weight, rstd]: [&[f64]; 6],
    [t, c]: [usize; 2],
    dtype: DType,
) -> Vec<Tensor> {
    let mut dx = upload_as(device, [t, c], dx, dtype);
    let mut dweight = upload_as(device, [c], dweight, dtype.accumulator());
    rmsnorm::backward(
        device,
        dx.view_mut(),
        dweight.view_mut(),
        upload_as(device, [t, c], dy, dtype).view(),
        upload_as(device, [t, c], x, dtype).view(),
        upload_as(device, [c], weight, dtype).view(),
        upload_as(device, [t], rstd, dtype.accumulator()).view(),
    )
    .unwrap();
    vec![dx, dweight]
}

#[test]
fn backward_adds_the_gradients_of_the_reference() {
    for [t, c] in SHAPES.into_iter().chain([[8, 16], [33, 5]]) {
        let [dy, x, dx] = [1, 2, 3].map(|seed| values(t * c, 1.0, seed));
        let (weight, dweight) = (values(c, 1.0, 4), values(c, 1.0, 5));
        // What the forward saves, as f32 holds it.
        let rstd: Vec<f64> =
            want(&x, &weight, [t, c])[1].iter().map(|&r| (r as f32).into()).collect();
        let operands = [&dx[..], &dweight, &dy, &x, &weight, &rstd];
        let want = backward(&Device::Cpu, operands, [t, c], DType::F64);
        for dtype in DTYPES {
            let got = outputs(|device| backward(device, operands, [t, c], dtype));
            let what = format!("({t}, {c})");
            // In one column the two terms of dx nearly cancel: their scale counts.
            let cancel = if c == 1 { 64.0 } else { 4.0 };
            let dx_ulps = cancel * ulps(c);
            assert_rounded(&format!("dx {what}"), &got[0], &to_vec(&want[0]), dtype, dx_ulps);
            let dweight_ulps = 4.0 + (t as f64).sqrt();
            let want_dweight = to_vec(&want[1]);
            assert_rounded(
                &format!("dweight {what}"),
                &got[1],
                &want_dweight,
                DType::F32,
                dweight_ulps,
            );
        }
    }
}

/// Small integers, rstd 1: every sum is exact in f32, so the order of it cannot hide an error.
#[test]
fn the_weight_gradient_of_integers_is_exact() {
    let (t, c) = (19, 40);
    let dy: Vec<f64> = (0..t * c).map(|i| (i * 7 % 11) as f64 - 5.0).collect();
    let x: Vec<f64> = (0..t * c).map(|i| (i * 5 % 13) as f64 - 6.0).collect();
    let want: Vec<f64> =
        (0..c).map(|n| 3.0 + (0..t).map(|m| dy[m * c + n] * x[m * c + n]).sum::<f64>()).collect();
    for dtype in DTYPES {
        let (dx, ones) = (vec![0.0; t * c], vec![1.0; c]);
        let operands = [&dx[..], &vec![3.0; c], &dy, &x, &ones, &vec![1.0; t]];
        let got = outputs(|device| backward(device, operands, [t, c], dtype));
        assert_eq!(got[1], want, "{dtype}");
    }
}

#[test]
fn a_nan_stays_in_its_row_and_rows_of_zeros_are_fine() {
    let (t, c) = (3, 24);
    let mut x = values(t * c, 1.0, 1);
    x[c + 5] = f64::NAN;
    x[2 * c..].fill(0.0);
    let got = outputs(|device| {
        let x = upload_as(device, [t, c], &x, DType::BF16);
        forward(device, &x, &upload_as(device, [c], &vec![1.0; c], DType::BF16), DType::BF16)
    });
    assert!(got[0][..c].iter().all(|y| y.is_finite()));
    assert!(got[0][c..2 * c].iter().all(|y| y.is_nan()));
    assert!(got[0][2 * c..].iter().all(|&y| y == 0.0));
    let want = (1.0 / (EPS as f32).sqrt()) as f64;
    assert!((got[1][2] - want).abs() <= 2e-7 * want);
}

#[test]
fn no_rows_are_fine_and_other_types_are_refused() {
    let device = device();
    let empty: [&[f64]; 6] = [&[], &[3.0; 4], &[], &[], &[1.0; 4], &[]];
    let got = backward(&device, empty, [0, 4], DType::BF16);
    assert_eq!(to_vec(&got[1]), [3.0; 4]);
    let x = upload_as(&device, [1, 4], &[1.0; 4], DType::F16);
    let weight = upload_as(&device, [4], &[1.0; 4], DType::F16);
    let mut y = nans(&device, [1, 4], DType::F16);
    let mut rstd = nans(&device, [1], DType::F32);
    let error =
        rmsnorm::forward(&device, y.view_mut(), rstd.view_mut(), x.view(), weight.view(), EPS);
    let message = "rmsnorm.forward: x has f16, expected f32 or bf16 on a GPU";
    assert_eq!(error.unwrap_err().to_string(), message);
}
