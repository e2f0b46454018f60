//! rope: against complex multiplication in f64, inverse, differences, hostile positions.

use super::assert_same_bits_for_any_thread_count;
use hooke::device::Device;
use hooke::dtype::Real;
use hooke::error::Error;
use hooke::ops::{Heads, rope};
use hooke::tensor::{View, ViewMut};
use hooke::testing::compare::assert_close;
use hooke::testing::fill::{below, normal, to_f64};
use hooke::testing::gradcheck::{assert_gradient, weighted_sum};

const fn heads(num_heads: usize, num_kv_heads: usize, head_dim: usize) -> Heads {
    Heads { num_heads, num_kv_heads, head_dim }
}

/// The angle of pair `i` at `position`.
fn angle(position: usize, i: usize, head_dim: usize) -> f64 {
    position as f64 / 10_000f64.powf(2.0 * i as f64 / head_dim as f64)
}

fn tables<T: Real>(num_positions: usize, head_dim: usize) -> (Vec<T>, Vec<T>) {
    let half = head_dim / 2;
    let angles = (0..num_positions * half).map(|n| angle(n / half, n % half, head_dim));
    angles.map(|a| (T::from_f64(a.cos()), T::from_f64(a.sin()))).unzip()
}

enum Pass {
    Forward,
    Backward,
}

fn rotate<T: Real>(
    pass: Pass,
    rows: &mut [T],
    positions: &[i32],
    num_positions: usize,
    heads: Heads,
) -> Result<(), Error> {
    let (t, half) = (positions.len(), heads.head_dim / 2);
    let (cos, sin) = tables::<T>(num_positions, heads.head_dim);
    let rows = ViewMut::from_host(rows, [t, heads.qkv_dim()]);
    let positions = View::from_host(positions, [t]);
    let cos = View::from_host(&cos, [num_positions, half]);
    let sin = View::from_host(&sin, [num_positions, half]);
    match pass {
        Pass::Forward => rope::forward(&Device::Cpu, rows, positions, cos, sin, heads),
        Pass::Backward => rope::backward(&Device::Cpu, rows, positions, cos, sin, heads),
    }
}

/// z e^(i angle) for the pair z = (x(i), x(i + D/2)) of every query and key head.
fn definition(rows: &[f64], positions: &[i32], heads: Heads) -> Vec<f64> {
    let (d, width) = (heads.head_dim, heads.qkv_dim());
    let mut want = rows.to_vec();
    for (t, &position) in positions.iter().enumerate() {
        for head in 0..heads.num_heads + heads.num_kv_heads {
            for i in 0..d / 2 {
                let at = t * width + head * d + i;
                let radius = rows[at].hypot(rows[at + d / 2]);
                let turned = rows[at + d / 2].atan2(rows[at]) + angle(position as usize, i, d);
                want[at] = radius * turned.cos();
                want[at + d / 2] = radius * turned.sin();
            }
        }
    }
    want
}

const CASES: [(usize, Heads); 5] = [
    (1, heads(1, 1, 2)),
    (7, heads(3, 1, 6)),
    (33, heads(4, 2, 10)),
    (65, heads(2, 2, 64)),
    (127, heads(9, 3, 34)),
];

fn check<T: Real>(t: usize, heads: Heads) {
    let positions = below(t, 200, 1);
    let rows = normal::<T>(t * heads.qkv_dim(), 1.0, 2);
    let want = definition(&to_f64(&rows), &positions, heads);
    let mut got = rows.clone();
    rotate(Pass::Forward, &mut got, &positions, 200, heads).unwrap();
    // Two products with rounded table entries and a sum: at most 2.5 roundoffs of the pair's
    // length. In f64 the oracle's own angle, up to 200, is off by as many roundoffs.
    let tolerance = T::UNIT_ROUNDOFF * if T::UNIT_ROUNDOFF < 1e-10 { 400.0 } else { 4.0 };
    let what = format!("{t} {heads:?}");
    assert_close(&what, &to_f64(&got), &want, tolerance);
    // The rotation back gives the input again: twice the error, no oracle.
    rotate(Pass::Backward, &mut got, &positions, 200, heads).unwrap();
    assert_close(&format!("back {what}"), &to_f64(&got), &to_f64(&rows), 8.0 * T::UNIT_ROUNDOFF);
}

#[test]
fn a_rotation_is_a_complex_product_and_backward_undoes_it() {
    for (t, heads) in CASES {
        check::<f32>(t, heads);
        check::<f64>(t, heads);
    }
}

#[test]
fn the_values_and_position_zero_are_left_alone() {
    let heads = heads(2, 1, 4);
    let rows = normal::<f32>(2 * heads.qkv_dim(), 1.0, 1);
    let mut got = rows.clone();
    rotate(Pass::Forward, &mut got, &[0, 3], 4, heads).unwrap();
    assert_eq!(got[..16], rows[..16]);
    assert_eq!(got[16 + 12..], rows[16 + 12..]);
    assert_ne!(got[16..16 + 12], rows[16..16 + 12]);
}

#[test]
fn backward_matches_finite_differences() {
    let heads = heads(2, 1, 6);
    let positions = [3, 0, 11];
    let x = normal::<f64>(3 * heads.qkv_dim(), 1.0, 1);
    let weights = normal::<f64>(x.len(), 1.0, 2);
    let mut gradient = weights.clone();
    rotate(Pass::Backward, &mut gradient, &positions, 12, heads).unwrap();
    assert_gradient("dqkv", &x, &gradient, |x| {
        let mut out = x.to_vec();
        rotate(Pass::Forward, &mut out, &positions, 12, heads).unwrap();
        weighted_sum(&out, &weights)
    });
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let heads = heads(4, 2, 10);
    let positions = below(150, 200, 1);
    let rows = normal::<f32>(150 * heads.qkv_dim(), 1.0, 2);
    assert_same_bits_for_any_thread_count("rope", || {
        let mut rows = rows.clone();
        rotate(Pass::Forward, &mut rows, &positions, 200, heads).unwrap();
        rows
    });
}

#[test]
fn a_position_outside_the_tables_is_refused_and_nothing_is_written() {
    let heads = heads(2, 1, 2);
    for (position, index) in [(12, 1), (-1, 0), (i32::MAX, 2), (i32::MIN, 2)] {
        for (pass, name) in [(Pass::Forward, "forward"), (Pass::Backward, "backward")] {
            let mut positions = [11, 3, 0];
            positions[index] = position;
            let mut rows = [1.0f32; 24];
            let error = rotate(pass, &mut rows, &positions, 12, heads).unwrap_err();
            let want = format!(
                "rope.{name}: positions has {position} at index {index}, expected values in 0..12"
            );
            assert_eq!(error.to_string(), want);
            assert_eq!(rows, [1.0; 24]);
        }
    }
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let mut rows = [1.0f32; 12];
    let error = rotate(Pass::Forward, &mut rows, &[0], 1, heads(2, 1, 3)).unwrap_err();
    assert_eq!(error.to_string(), "rope.forward: heads has 3, expected an even head size");
    let run = |cos: [usize; 2], sin: [usize; 2], width: usize| {
        let tables = [1.0f32; 8];
        let error = rope::forward(
            &Device::Cpu,
            ViewMut::from_host(&mut vec![1.0f32; width], [1, width]),
            View::from_host(&[0], [1]),
            View::from_host(&tables[..cos[0] * cos[1]], cos),
            View::from_host(&tables[..sin[0] * sin[1]], sin),
            heads(2, 1, 2),
        );
        error.unwrap_err().to_string()
    };
    assert_eq!(run([2, 2], [2, 1], 8), "rope.forward: cos has shape [2, 2], expected shape [2, 1]");
    assert_eq!(run([2, 1], [3, 1], 8), "rope.forward: sin has shape [3, 1], expected shape [2, 1]");
    assert_eq!(run([2, 1], [2, 1], 9), "rope.forward: qkv has shape [1, 9], expected shape [1, 8]");
}

#[test]
fn a_batch_without_tokens_is_nothing() {
    rotate::<f32>(Pass::Forward, &mut [], &[], 0, heads(2, 1, 2)).unwrap();
}

#[test]
fn cost_counts_the_rotated_columns() {
    // 12 of 16 columns in and out, 4 table entries and a position per token; 6 pairs.
    let cost = rope::cost(5, 4, heads(2, 1, 4));
    assert_eq!(cost.bytes, 5.0 * 4.0 * (24.0 + 4.0 + 1.0));
    assert_eq!(cost.flops, 5.0 * 6.0 * 6.0);
}
