//! swiglu on the CUDA backend.

use super::rounded::{DTYPES, assert_rounded, to_vec, values};
use super::{nans, outputs, upload_as};
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::ops::swiglu;
use hooke::tensor::Tensor;

/// Tokens x F: one, odd widths, whole eights, a row of more than one block.
const SHAPES: [[usize; 2]; 6] = [[1, 1], [3, 7], [2, 8], [5, 341], [3, 1032], [2, 2049]];

fn forward(device: &Device, gate_up: &[f64], [t, f]: [usize; 2], dtype: DType) -> Vec<Tensor> {
    let mut y = nans(device, [t, f], dtype);
    let gate_up = upload_as(device, [t, 2 * f], gate_up, dtype);
    swiglu::forward(device, y.view_mut(), gate_up.view()).unwrap();
    vec![y]
}

fn backward(
    device: &Device,
    [dy, gate_up]: [&[f64]; 2],
    [t, f]: [usize; 2],
    dtype: DType,
) -> Vec<Tensor> {
    let mut dgate_up = nans(device, [t, 2 * f], dtype);
    let (dy, gate_up) =
        (upload_as(device, [t, f], dy, dtype), upload_as(device, [t, 2 * f], gate_up, dtype));
    swiglu::backward(device, dgate_up.view_mut(), dy.view(), gate_up.view()).unwrap();
    vec![dgate_up]
}

#[test]
fn both_passes_equal_the_reference() {
    for [t, f] in SHAPES {
        let (gate_up, dy) = (values(t * 2 * f, 3.0, 1), values(t * f, 1.0, 2));
        let want_y = to_vec(&forward(&Device::Cpu, &gate_up, [t, f], DType::F64)[0]);
        let want_d = to_vec(&backward(&Device::Cpu, [&dy, &gate_up], [t, f], DType::F64)[0]);
        for dtype in DTYPES {
            let what = format!("({t}, {f})");
            // The argument of the exponential, up to 12, is rounded, and the exponential and the
            // reciprocal of the hardware are off by 2 units: 30 half units, and a few products.
            let y = outputs(|device| forward(device, &gate_up, [t, f], dtype));
            assert_rounded(&format!("y {what}"), &y[0], &want_y, dtype, 40.0);
            let d = outputs(|device| backward(device, [&dy, &gate_up], [t, f], dtype));
            assert_rounded(&format!("dgate_up {what}"), &d[0], &want_d, dtype, 60.0);
        }
    }
}

/// Where the gate is far below 0 the result is small: its own size counts, not the tensor's.
#[test]
fn nearly_closed_gates_are_relatively_accurate() {
    let f = 200;
    let gates: Vec<f64> = (0..f).map(|i| -0.25 * f64::from(i)).collect();
    let gate_up = [gates.clone(), vec![1.0; f as usize]].concat();
    let y = &outputs(|device| forward(device, &gate_up, [1, f as usize], DType::F32))[0];
    for (gate, y) in gates.iter().zip(y) {
        let want = gate / (1.0 + (-gate).exp());
        // The product with log2 e rounds: half a unit of the argument. The constant, the exponential
        // and the reciprocal are off by less than 2 units each.
        let bound = (10.0 + 3.0 * gate.abs()) * 2f64.powi(-24) * want.abs();
        assert!((y - want).abs() <= bound, "{gate}: got {y:e}, want {want:e}");
    }
}

#[test]
fn large_gates_saturate_and_nan_stays_where_it_is() {
    let gates = [0.0, 1e4, -1e4, 88.5, -88.5, 200.0, -200.0, -1e30];
    let f = gates.len();
    let gate_up = [&gates[..], &[2.0; 8]].concat();
    for dtype in DTYPES {
        let y = &outputs(|device| forward(device, &gate_up, [1, f], dtype))[0];
        let d = &outputs(|device| backward(device, [&[1.0; 8], &gate_up], [1, f], dtype))[0];
        let gates: Vec<f64> = gates.iter().map(|&g| (g as f32).into()).collect();
        for (i, gate) in gates.iter().enumerate().skip(1) {
            let (want_y, want_d) =
                if *gate > 0.0 { (2.0 * gate, [2.0, *gate]) } else { (0.0, [0.0; 2]) };
            let close = |got: f64, want: f64| (got - want).abs() <= want.abs() / 256.0 + 1e-30;
            assert!(close(y[i], want_y), "{gate}: {}", y[i]);
            assert!(close(d[i], want_d[0]) && close(d[f + i], want_d[1]), "{gate}");
        }
        assert_eq!((y[0], d[0], d[f]), (0.0, 1.0, 0.0));
    }
    let mut gate_up = values(2 * 16, 1.0, 1);
    gate_up[3] = f64::NAN;
    let y = outputs(|device| forward(device, &gate_up, [1, 16], DType::BF16));
    assert!(y[0].iter().enumerate().all(|(i, y)| y.is_nan() == (i == 3)));
}
