//! qk_norm: each head against the definition in f64, differences, threads.

use super::assert_same_bits_for_any_thread_count;
use hooke::device::Device;
use hooke::dtype::Real;
use hooke::ops::{Heads, qk_norm};
use hooke::tensor::{View, ViewMut};
use hooke::testing::compare::assert_close;
use hooke::testing::fill::{normal, to_f64};
use hooke::testing::gradcheck::{assert_gradient, weighted_sum};

const EPS: f64 = 1e-6;

const fn heads(num_heads: usize, num_kv_heads: usize, head_dim: usize) -> Heads {
    Heads { num_heads, num_kv_heads, head_dim }
}

fn forward<T: Real>(qkv: &[T], weights: [&[T]; 2], eps: f64, heads: Heads) -> (Vec<T>, Vec<T>) {
    let t = qkv.len() / heads.qkv_dim();
    let stats = heads.num_heads + heads.num_kv_heads;
    let mut out = vec![T::from_f64(f64::NAN); qkv.len()];
    let mut rstd = vec![T::from_f64(f64::NAN); t * stats];
    qk_norm::forward(
        &Device::Cpu,
        ViewMut::from_host(&mut out, [t, heads.qkv_dim()]),
        ViewMut::from_host(&mut rstd, [t, stats]),
        View::from_host(qkv, [t, heads.qkv_dim()]),
        View::from_host(weights[0], [heads.head_dim]),
        View::from_host(weights[1], [heads.head_dim]),
        eps,
        heads,
    )
    .unwrap();
    (out, rstd)
}

/// `dqkv` in place; adds to `dweights`.
fn backward<T: Real>(
    dqkv: &mut [T],
    dweights: [&mut [T]; 2],
    qkv: &[T],
    rstd: &[T],
    weights: [&[T]; 2],
    heads: Heads,
) {
    let (t, d) = (qkv.len() / heads.qkv_dim(), heads.head_dim);
    let [dq_weight, dk_weight] = dweights;
    qk_norm::backward(
        &Device::Cpu,
        ViewMut::from_host(dqkv, [t, heads.qkv_dim()]),
        ViewMut::from_host(dq_weight, [d]),
        ViewMut::from_host(dk_weight, [d]),
        View::from_host(qkv, [t, heads.qkv_dim()]),
        View::from_host(rstd, [t, heads.num_heads + heads.num_kv_heads]),
        View::from_host(weights[0], [d]),
        View::from_host(weights[1], [d]),
        heads,
    )
    .unwrap();
}

/// (out, dqkv, dq_weight, dk_weight), head by head.
fn definition(qkv: &[f64], dout: &[f64], weights: [&[f64]; 2], heads: Heads) -> [Vec<f64>; 4] {
    let d = heads.head_dim;
    let mut want = [qkv.to_vec(), dout.to_vec(), vec![0.0; d], vec![0.0; d]];
    let heads_per_row = heads.num_heads + 2 * heads.num_kv_heads;
    for start in (0..qkv.len()).step_by(d) {
        let head = start / d % heads_per_row;
        if head >= heads.num_heads + heads.num_kv_heads {
            continue;
        }
        let which = usize::from(head >= heads.num_heads);
        let w = weights[which];
        let x = &qkv[start..start + d];
        let root = (x.iter().map(|x| x * x).sum::<f64>() / d as f64 + EPS).sqrt();
        let projection: f64 = (0..d).map(|j| dout[start + j] * w[j] * x[j]).sum();
        for i in 0..d {
            want[0][start + i] = w[i] * x[i] / root;
            want[1][start + i] =
                dout[start + i] * w[i] / root - x[i] * projection / (d as f64 * root.powi(3));
            want[2 + which][i] += dout[start + i] * x[i] / root;
        }
    }
    want
}

fn check<T: Real>(t: usize, heads: Heads) {
    let (d, what) = (heads.head_dim, format!("{t} {heads:?}"));
    let qkv = normal::<T>(t * heads.qkv_dim(), 1.0, 1);
    let dout = normal::<T>(qkv.len(), 1.0, 2);
    let weights = [normal::<T>(d, 1.0, 3), normal::<T>(d, 1.0, 4)];
    let before = [normal::<T>(d, 1.0, 5), normal::<T>(d, 1.0, 6)];
    let weights64 = [to_f64(&weights[0]), to_f64(&weights[1])];
    let weights64 = [&weights64[0][..], &weights64[1][..]];
    let mut want = definition(&to_f64(&qkv), &to_f64(&dout), weights64, heads);
    for (want, before) in want[2..].iter_mut().zip(&before) {
        want.iter_mut().zip(before).for_each(|(want, before)| *want += before.to_f64());
    }
    let weights = [&weights[0][..], &weights[1][..]];
    let (out, rstd) = forward(&qkv, weights, EPS, heads);
    let (mut dqkv, [mut dq_weight, mut dk_weight]) = (dout, before);
    backward(&mut dqkv, [&mut dq_weight, &mut dk_weight], &qkv, &rstd, weights, heads);
    // As for rmsnorm: a mean of d squares, a root, a division, two products; then the difference
    // of dx, which is held to the scale of the tensor; then a sum over tokens and heads.
    let tolerance = T::UNIT_ROUNDOFF * (6.0 + (d as f64).sqrt() / 4.0);
    assert_close(&format!("out {what}"), &to_f64(&out), &want[0], tolerance);
    assert_close(&format!("dqkv {what}"), &to_f64(&dqkv), &want[1], 8.0 * tolerance);
    let rows = (t * heads.num_heads) as f64;
    let tolerance = 2.0 * tolerance + 2.0 * T::UNIT_ROUNDOFF * rows.sqrt();
    assert_close(&format!("dq_weight {what}"), &to_f64(&dq_weight), &want[2], tolerance);
    assert_close(&format!("dk_weight {what}"), &to_f64(&dk_weight), &want[3], tolerance);
}

#[test]
fn both_passes_match_the_definition_at_edge_sizes() {
    for (t, heads) in [
        (1, heads(1, 1, 2)),
        (2, heads(3, 1, 5)),
        (33, heads(4, 2, 7)),
        (65, heads(2, 2, 64)),
        (127, heads(6, 3, 33)),
        (7, heads(2, 1, 128)),
    ] {
        check::<f32>(t, heads);
        check::<f64>(t, heads);
    }
}

#[test]
fn the_values_pass_through_both_ways_untouched() {
    let heads = heads(2, 1, 3);
    let qkv = normal::<f32>(40 * heads.qkv_dim(), 1.0, 1);
    let weights = [&[1.5f32; 3][..], &[0.5f32; 3][..]];
    let (out, rstd) = forward(&qkv, weights, EPS, heads);
    let dout = normal::<f32>(qkv.len(), 1.0, 2);
    let mut dqkv = dout.clone();
    backward(&mut dqkv, [&mut [0.0; 3], &mut [0.0; 3]], &qkv, &rstd, weights, heads);
    for start in (0..qkv.len()).step_by(heads.qkv_dim()) {
        let values = start + 9..start + 12;
        assert_eq!(out[values.clone()], qkv[values.clone()]);
        assert_eq!(dqkv[values.clone()], dout[values]);
    }
}

#[test]
fn backward_matches_finite_differences() {
    for (t, heads) in [(2, heads(2, 1, 3)), (34, heads(1, 1, 2))] {
        let d = heads.head_dim;
        let qkv = normal::<f64>(t * heads.qkv_dim(), 1.0, 1);
        let weights = [normal::<f64>(d, 1.0, 2), normal::<f64>(d, 1.0, 3)];
        let dout = normal::<f64>(qkv.len(), 1.0, 4);
        // A large eps keeps the fifth derivative, which bounds the error of the differences, small.
        let eps = 0.5;
        let loss = |qkv: &[f64], q_weight: &[f64], k_weight: &[f64]| {
            weighted_sum(&forward(qkv, [q_weight, k_weight], eps, heads).0, &dout)
        };
        let [q_weight, k_weight] = [&weights[0][..], &weights[1][..]];
        let (_, rstd) = forward(&qkv, [q_weight, k_weight], eps, heads);
        let mut dqkv = dout.clone();
        let (mut dq_weight, mut dk_weight) = (vec![0.0; d], vec![0.0; d]);
        let dweights = [&mut dq_weight[..], &mut dk_weight[..]];
        backward(&mut dqkv, dweights, &qkv, &rstd, [q_weight, k_weight], heads);
        assert_gradient("dqkv", &qkv, &dqkv, |qkv| loss(qkv, q_weight, k_weight));
        assert_gradient("dq_weight", q_weight, &dq_weight, |w| loss(&qkv, w, k_weight));
        assert_gradient("dk_weight", k_weight, &dk_weight, |w| loss(&qkv, q_weight, w));
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let heads = heads(4, 2, 33);
    let qkv = normal::<f32>(150 * heads.qkv_dim(), 1.0, 1);
    let weights = [normal::<f32>(33, 1.0, 2), normal::<f32>(33, 1.0, 3)];
    let weights = [&weights[0][..], &weights[1][..]];
    assert_same_bits_for_any_thread_count("qk_norm", || {
        let (out, rstd) = forward(&qkv, weights, EPS, heads);
        let (mut dqkv, mut dq, mut dk) = (qkv.clone(), vec![0.0; 33], vec![0.0; 33]);
        backward(&mut dqkv, [&mut dq, &mut dk], &qkv, &rstd, weights, heads);
        [out, rstd, dqkv, dq, dk].concat()
    });
}

#[test]
fn a_batch_without_tokens_is_nothing() {
    let heads = heads(2, 1, 4);
    let weights = [&[1.0f32; 4][..], &[1.0f32; 4][..]];
    let (out, rstd) = forward(&[], weights, EPS, heads);
    assert_eq!((out.len(), rstd.len()), (0, 0));
    let (mut dq, mut dk) = ([2.0f32; 4], [3.0f32; 4]);
    backward(&mut [], [&mut dq, &mut dk], &[], &[], weights, heads);
    assert_eq!((dq, dk), ([2.0; 4], [3.0; 4]));
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let run = |rstd: [usize; 2], q_weight: usize, heads: Heads, eps: f64| {
        let weight = vec![1.0f32; q_weight];
        qk_norm::forward(
            &Device::Cpu,
            ViewMut::from_host(&mut [0.0f32; 16], [2, 8]),
            ViewMut::from_host(&mut vec![0.0f32; rstd[0] * rstd[1]], rstd),
            View::from_host(&[1.0f32; 16], [2, 8]),
            View::from_host(&weight, [q_weight]),
            View::from_host(&[1.0f32; 2], [2]),
            eps,
            heads,
        )
        .map_err(|error| error.to_string())
    };
    let good = heads(2, 1, 2);
    assert_eq!(run([2, 3], 2, good, EPS), Ok(()));
    for (got, want) in [
        (run([2, 4], 2, good, EPS), "rstd has shape [2, 4], expected shape [2, 3]"),
        (run([2, 3], 3, good, EPS), "q_weight has shape [3], expected shape [2]"),
        (run([2, 3], 2, heads(2, 1, 3), EPS), "qkv has shape [2, 8], expected shape [2, 12]"),
        (
            run([2, 3], 2, good, f64::INFINITY),
            "eps has inf, expected a finite number, not negative",
        ),
    ] {
        assert_eq!(got, Err(format!("qk_norm.forward: {want}")));
    }
    let error = run([2, 3], 2, heads(3, 2, 2), EPS).unwrap_err();
    assert!(error.starts_with("qk_norm.forward: heads has Heads"), "{error}");
}

#[test]
fn cost_counts_every_operand_once() {
    let heads = heads(2, 1, 4);
    // Rows of 16 columns in and out, 3 statistics; two weights of 4.
    let forward = qk_norm::forward_cost(5, 4, heads);
    assert_eq!(forward.bytes, 4.0 * (5.0 * (16.0 + 16.0 + 3.0) + 8.0));
    // The 12 query and key columns only: gradient in and out, input in.
    let backward = qk_norm::backward_cost(5, 4, heads);
    assert_eq!(backward.bytes, 4.0 * (5.0 * (3.0 * 12.0 + 3.0) + 24.0));
    assert_eq!((forward.flops, backward.flops), (4.0 * 60.0, 9.0 * 60.0));
}
