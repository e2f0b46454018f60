//! qk_norm on the CUDA backend.

use super::rounded::{DTYPES, assert_rounded, to_vec, values};
use super::{nans, outputs, upload_as};
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::ops::{Heads, qk_norm};
use hooke::tensor::Tensor;

const EPS: f64 = 1e-6;

/// Tokens and heads: fewer and more heads than groups of lanes, odd sizes, heads wider than a warp's
/// eights, more rows than a chunk of the weight gradient.
const SHAPES: [(usize, [usize; 3]); 7] = [
    (1, [1, 1, 1]),
    (5, [4, 2, 16]),
    (3, [7, 1, 9]),
    (2, [12, 4, 64]),
    (2, [12, 2, 128]),
    (1, [6, 1, 264]),
    (6, [2, 1, 80]),
];

fn heads([num_heads, num_kv_heads, head_dim]: [usize; 3]) -> Heads {
    Heads { num_heads, num_kv_heads, head_dim }
}

fn forward(
    device: &Device,
    [qkv, q_weight, k_weight]: [&[f64]; 3],
    t: usize,
    heads: Heads,
    dtype: DType,
) -> Vec<Tensor> {
    let (width, d) = (heads.qkv_dim(), heads.head_dim);
    let mut out = nans(device, [t, width], dtype);
    let mut rstd = nans(device, [t, heads.num_heads + heads.num_kv_heads], dtype.accumulator());
    qk_norm::forward(
        device,
        out.view_mut(),
        rstd.view_mut(),
        upload_as(device, [t, width], qkv, dtype).view(),
        upload_as(device, [d], q_weight, dtype).view(),
        upload_as(device, [d], k_weight, dtype).view(),
        EPS,
        heads,
    )
    .unwrap();
    vec![out, rstd]
}

/// Outputs: dqkv, dq_weight, dk_weight.
fn backward(
    device: &Device,
    [dqkv, dq_weight, dk_weight, qkv, rstd, q_weight, k_weight]: [&[f64]; 7],
    t: usize,
    heads: Heads,
    dtype: DType,
) -> Vec<Tensor> {
    let (width, d) = (heads.qkv_dim(), heads.head_dim);
    let sums = dtype.accumulator();
    let mut dqkv = upload_as(device, [t, width], dqkv, dtype);
    let mut dq_weight = upload_as(device, [d], dq_weight, sums);
    let mut dk_weight = upload_as(device, [d], dk_weight, sums);
    let num_stats = heads.num_heads + heads.num_kv_heads;
    qk_norm::backward(
        device,
        dqkv.view_mut(),
        dq_weight.view_mut(),
        dk_weight.view_mut(),
        upload_as(device, [t, width], qkv, dtype).view(),
        upload_as(device, [t, num_stats], rstd, sums).view(),
        upload_as(device, [d], q_weight, dtype).view(),
        upload_as(device, [d], k_weight, dtype).view(),
        heads,
    )
    .unwrap();
    vec![dqkv, dq_weight, dk_weight]
}

#[test]
fn forward_equals_the_reference_and_copies_the_values() {
    for (t, shape) in SHAPES {
        let heads = heads(shape);
        let (width, d) = (heads.qkv_dim(), heads.head_dim);
        let qkv = values(t * width, 2.0, 1);
        let (q_weight, k_weight) = (values(d, 1.0, 2), values(d, 1.0, 3));
        let operands = [&qkv[..], &q_weight, &k_weight];
        let want = forward(&Device::Cpu, operands, t, heads, DType::F64);
        for dtype in DTYPES {
            let got = outputs(|device| forward(device, operands, t, heads, dtype));
            let what = format!("{t} tokens, {heads:?}");
            // A mean over a head, the root, two divisions, two products.
            assert_rounded(&format!("out {what}"), &got[0], &to_vec(&want[0]), dtype, 12.0);
            assert_rounded(&format!("rstd {what}"), &got[1], &to_vec(&want[1]), DType::F32, 12.0);
            let v = heads.q_dim() + heads.kv_dim();
            for (out, qkv) in got[0].chunks(width).zip(qkv.chunks(width)) {
                assert_eq!(out[v..], qkv[v..], "{what}");
            }
        }
    }
}

#[test]
fn backward_equals_the_reference_and_leaves_the_values() {
    for (t, shape) in SHAPES {
        let heads = heads(shape);
        let (width, d) = (heads.qkv_dim(), heads.head_dim);
        let [dqkv, qkv] = [1, 2].map(|seed| values(t * width, 1.0, seed));
        let [q_weight, k_weight, dq, dk] = [3, 4, 5, 6].map(|seed| values(d, 1.0, seed));
        let saved = forward(&Device::Cpu, [&qkv, &q_weight, &k_weight], t, heads, DType::F64);
        let rstd: Vec<f64> = to_vec(&saved[1]).iter().map(|&r| f64::from(r as f32)).collect();
        let operands = [&dqkv[..], &dq, &dk, &qkv, &rstd, &q_weight, &k_weight];
        let want = backward(&Device::Cpu, operands, t, heads, DType::F64);
        for dtype in DTYPES {
            let got = outputs(|device| backward(device, operands, t, heads, dtype));
            let what = format!("{t} tokens, {heads:?}");
            // In one column the two terms nearly cancel; rstd is then up to 10^3 in some heads.
            let ulps = if d == 1 { 1e4 } else { 64.0 };
            assert_rounded(&format!("dqkv {what}"), &got[0], &to_vec(&want[0]), dtype, ulps);
            for (i, name) in [(1, "dq_weight"), (2, "dk_weight")] {
                let want = to_vec(&want[i]);
                assert_rounded(&format!("{name} {what}"), &got[i], &want, DType::F32, 12.0);
            }
            let v = heads.q_dim() + heads.kv_dim();
            for (out, before) in got[0].chunks(width).zip(dqkv.chunks(width)) {
                assert_eq!(out[v..], before[v..], "{what}");
            }
        }
    }
}

/// With rstd 1 and small integers every sum is exact: no head may be left out or counted twice.
#[test]
fn the_weight_gradients_of_integers_are_exact() {
    let (t, heads) = (9, heads([5, 5, 24]));
    let (width, d) = (heads.qkv_dim(), heads.head_dim);
    let dqkv: Vec<f64> = (0..t * width).map(|i| (i * 7 % 11) as f64 - 5.0).collect();
    let qkv: Vec<f64> = (0..t * width).map(|i| (i * 5 % 13) as f64 - 6.0).collect();
    let sum = |first: usize, i: usize, begin: f64| -> f64 {
        let place = |row: usize, head: usize| row * width + (first + head) * d + i;
        let terms = (0..t).flat_map(|row| (0..5).map(move |head| place(row, head)));
        begin + terms.map(|p| dqkv[p] * qkv[p]).sum::<f64>()
    };
    let want_q: Vec<f64> = (0..d).map(|i| sum(0, i, 2.0)).collect();
    let want_k: Vec<f64> = (0..d).map(|i| sum(5, i, -1.0)).collect();
    let (ones, rstd) = (vec![1.0; d], vec![1.0; t * 10]);
    let (dq, dk) = (vec![2.0; d], vec![-1.0; d]);
    let operands = [&dqkv[..], &dq, &dk, &qkv, &rstd, &ones, &ones];
    for dtype in DTYPES {
        let got = outputs(|device| backward(device, operands, t, heads, dtype));
        assert_eq!(got[1], want_q, "{dtype}");
        assert_eq!(got[2], want_k, "{dtype}");
    }
}
