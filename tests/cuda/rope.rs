//! rope on the CUDA backend.

use super::rounded::{DTYPES, assert_rounded, to_vec, values};
use super::{outputs, upload, upload_as};
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::ops::{Heads, rope};
use hooke::tensor::Tensor;

const NUM_POSITIONS: usize = 6;

/// Head sizes whose halves are whole eights, less than one, and eights with a tail; more heads than
/// a block takes at once.
const SHAPES: [[usize; 3]; 6] =
    [[1, 1, 2], [4, 2, 16], [3, 1, 10], [12, 4, 64], [2, 1, 80], [30, 10, 128]];

fn heads([num_heads, num_kv_heads, head_dim]: [usize; 3]) -> Heads {
    Heads { num_heads, num_kv_heads, head_dim }
}

#[derive(Clone, Copy)]
enum Pass {
    Forward,
    Backward,
}

fn rotate(
    device: &Device,
    pass: Pass,
    [qkv, cos, sin]: [&[f64]; 3],
    positions: &[i32],
    heads: Heads,
    dtype: DType,
) -> Vec<Tensor> {
    let t = positions.len();
    let mut qkv = upload_as(device, [t, heads.qkv_dim()], qkv, dtype);
    let positions = upload(device, [t], positions);
    let half = heads.head_dim / 2;
    let table = |values| upload_as(device, [NUM_POSITIONS, half], values, dtype.accumulator());
    let (cos, sin) = (table(cos), table(sin));
    let (rows, positions, cos, sin) = (qkv.view_mut(), positions.view(), cos.view(), sin.view());
    match pass {
        Pass::Forward => rope::forward(device, rows, positions, cos, sin, heads).unwrap(),
        Pass::Backward => rope::backward(device, rows, positions, cos, sin, heads).unwrap(),
    }
    vec![qkv]
}

/// Angles as f32 holds them.
fn tables(half: usize) -> [Vec<f64>; 2] {
    let angle = |i: usize| (i / half) as f64 * 1.7f64.powi(-((i % half) as i32));
    let table = |f: fn(f64) -> f64| {
        (0..NUM_POSITIONS * half).map(|i| f64::from(f(angle(i)) as f32)).collect()
    };
    [table(f64::cos), table(f64::sin)]
}

#[test]
fn both_passes_equal_the_reference_and_leave_the_values() {
    let positions = [0, 1, 2, 0, 5];
    for shape in SHAPES {
        let heads = heads(shape);
        let width = heads.qkv_dim();
        let qkv = values(positions.len() * width, 2.0, 1);
        let [cos, sin] = tables(heads.head_dim / 2);
        for pass in [Pass::Forward, Pass::Backward] {
            let operands = [&qkv[..], &cos, &sin];
            let cpu = rotate(&Device::Cpu, pass, operands, &positions, heads, DType::F64);
            for dtype in DTYPES {
                let got =
                    outputs(|device| rotate(device, pass, operands, &positions, heads, dtype));
                // Two products and a sum.
                assert_rounded(&format!("{heads:?}"), &got[0], &to_vec(&cpu[0]), dtype, 3.0);
                let v = heads.q_dim() + heads.kv_dim();
                for (out, before) in got[0].chunks(width).zip(qkv.chunks(width)) {
                    assert_eq!(out[v..], before[v..], "{heads:?}");
                }
            }
        }
    }
}

/// Quarter turns permute and negate: exact in every type.
#[test]
fn quarter_turns_are_exact() {
    let heads = heads([4, 2, 24]);
    let width = heads.qkv_dim();
    let qkv: Vec<f64> = (0..2 * width).map(|i| (i % 251) as f64 - 125.0).collect();
    let cos: Vec<f64> =
        (0..NUM_POSITIONS * 12).map(|i| [1.0, 0.0, -1.0, 0.0][i / 12 % 4]).collect();
    let sin: Vec<f64> =
        (0..NUM_POSITIONS * 12).map(|i| [0.0, 1.0, 0.0, -1.0][i / 12 % 4]).collect();
    let operands = [&qkv[..], &cos, &sin];
    for pass in [Pass::Forward, Pass::Backward] {
        let want = to_vec(&rotate(&Device::Cpu, pass, operands, &[1, 3], heads, DType::F64)[0]);
        for dtype in DTYPES {
            let got = outputs(|device| rotate(device, pass, operands, &[1, 3], heads, dtype));
            assert_eq!(got[0], want, "{dtype}");
        }
    }
}

#[test]
fn a_row_without_a_valid_position_becomes_nan_and_no_other() {
    let heads = heads([2, 1, 32]);
    let width = heads.qkv_dim();
    let qkv = values(4 * width, 1.0, 1);
    let [cos, sin] = tables(16);
    let got = outputs(|device| {
        let positions = [0, -1, NUM_POSITIONS as i32, 5];
        rotate(device, Pass::Forward, [&qkv, &cos, &sin], &positions, heads, DType::BF16)
    });
    for (row, values) in got[0].chunks(width).enumerate() {
        let (rotated, v) = values.split_at(heads.q_dim() + heads.kv_dim());
        assert!(rotated.iter().all(|x| x.is_nan() == (row == 1 || row == 2)), "row {row}");
        assert!(v.iter().all(|x| x.is_finite()), "row {row}");
    }
}
