//! rmsnorm: against the definition in f64, differences, accumulation, threads.

use super::{EDGE_SIZES, assert_same_bits_for_any_thread_count};
use hooke::device::Device;
use hooke::dtype::Real;
use hooke::error::Error;
use hooke::ops::rmsnorm;
use hooke::tensor::{View, ViewMut};
use hooke::testing::compare::assert_close;
use hooke::testing::fill::{normal, to_f64};
use hooke::testing::gradcheck::{assert_gradient, weighted_sum};

const EPS: f64 = 1e-5;

fn forward<T: Real>(x: &[T], weight: &[T], eps: f64) -> (Vec<T>, Vec<T>) {
    let (t, c) = (x.len() / weight.len(), weight.len());
    let mut y = vec![T::from_f64(f64::NAN); t * c];
    let mut rstd = vec![T::from_f64(f64::NAN); t];
    rmsnorm::forward(
        &Device::Cpu,
        ViewMut::from_host(&mut y, [t, c]),
        ViewMut::from_host(&mut rstd, [t]),
        View::from_host(x, [t, c]),
        View::from_host(weight, [c]),
        eps,
    )
    .unwrap();
    (y, rstd)
}

/// Adds to what `dx` and `dweight` hold.
fn backward_into<T: Real>(
    dx: &mut [T],
    dweight: &mut [T],
    dy: &[T],
    x: &[T],
    weight: &[T],
    rstd: &[T],
) {
    let (t, c) = (rstd.len(), weight.len());
    rmsnorm::backward(
        &Device::Cpu,
        ViewMut::from_host(dx, [t, c]),
        ViewMut::from_host(dweight, [c]),
        View::from_host(dy, [t, c]),
        View::from_host(x, [t, c]),
        View::from_host(weight, [c]),
        View::from_host(rstd, [t]),
    )
    .unwrap();
}

/// (y, rstd, dx, dweight) from the definition; dx through the full Jacobian of each row.
fn definition(x: &[f64], weight: &[f64], dy: &[f64], eps: f64) -> [Vec<f64>; 4] {
    let c = weight.len();
    let mut want = [vec![], vec![], vec![], vec![0.0; c]];
    for (x, dy) in x.chunks(c).zip(dy.chunks(c)) {
        let mut mean_square = 0.0;
        for x in x {
            mean_square += x * x / c as f64;
        }
        let root = (mean_square + eps).sqrt();
        want[1].push(1.0 / root);
        let projection: f64 = (0..c).map(|j| dy[j] * weight[j] * x[j]).sum();
        for i in 0..c {
            want[0].push(weight[i] * x[i] / root);
            // d y(j) / d x(i) = w(j) (delta(i, j) / root - x(j) x(i) / (c root^3))
            want[2].push(dy[i] * weight[i] / root - x[i] * projection / (c as f64 * root.powi(3)));
            want[3][i] += dy[i] * x[i] / root;
        }
    }
    want
}

fn check<T: Real>(t: usize, c: usize) {
    let (x, weight) = (normal::<T>(t * c, 2.0, 1), normal::<T>(c, 1.0, 2));
    let dy = normal::<T>(t * c, 1.0, 3);
    let (x64, w64, dy64) = (to_f64(&x), to_f64(&weight), to_f64(&dy));
    let [want_y, want_rstd, want_dx, want_dweight] = definition(&x64, &w64, &dy64, EPS);
    let what = format!("({t}, {c})");
    let (y, rstd) = forward(&x, &weight, EPS);
    // A mean over c squares (32 lanes, then a tree), a root, a division, two products.
    let tolerance = T::UNIT_ROUNDOFF * (6.0 + (c as f64).sqrt() / 4.0);
    assert_close(&format!("y {what}"), &to_f64(&y), &want_y, tolerance);
    assert_close(&format!("rstd {what}"), &to_f64(&rstd), &want_rstd, tolerance);
    // Gradients are added to what is there; the scale of that, 1, adds its own rounding. In one
    // column dx is a difference that nearly vanishes, so it is held to the scale of its terms.
    let (before_dx, before_dweight) = (normal::<T>(t * c, 1.0, 4), normal::<T>(c, 1.0, 5));
    let (mut dx, mut dweight) = (before_dx.clone(), before_dweight.clone());
    backward_into(&mut dx, &mut dweight, &dy, &x, &weight, &rstd);
    let add =
        |a: &[T], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a.to_f64() + b).collect() };
    let dx_tolerance = 8.0 * tolerance * if c == 1 { 4.0 } else { 1.0 };
    assert_close(&format!("dx {what}"), &to_f64(&dx), &add(&before_dx, &want_dx), dx_tolerance);
    let want = add(&before_dweight, &want_dweight);
    let sum_tolerance = 2.0 * tolerance + 2.0 * T::UNIT_ROUNDOFF * (t as f64).sqrt();
    assert_close(&format!("dweight {what}"), &to_f64(&dweight), &want, sum_tolerance);
}

#[test]
fn both_passes_match_the_definition_at_edge_sizes() {
    for (i, &c) in EDGE_SIZES.iter().enumerate() {
        // 33 rows: one more than a chunk of the weight gradient.
        for t in [EDGE_SIZES[(i + 3) % EDGE_SIZES.len()], 33, 1] {
            check::<f32>(t, c);
            check::<f64>(t, c);
        }
    }
}

#[test]
fn the_fused_addition_equals_addition_then_norm_bit_for_bit() {
    for (t, c) in [(1, 1), (33, 65), (7, 341)] {
        let (residual, x) = (normal::<f32>(t * c, 1.0, 1), normal::<f32>(t * c, 1.0, 2));
        let weight = normal::<f32>(c, 1.0, 3);
        let sum: Vec<f32> = residual.iter().zip(&x).map(|(a, b)| a + b).collect();
        let (want_y, want_rstd) = forward(&sum, &weight, EPS);
        let (mut y, mut residual_out) = (vec![f32::NAN; t * c], vec![f32::NAN; t * c]);
        let mut rstd = vec![f32::NAN; t];
        rmsnorm::forward_residual(
            &Device::Cpu,
            ViewMut::from_host(&mut y, [t, c]),
            ViewMut::from_host(&mut residual_out, [t, c]),
            ViewMut::from_host(&mut rstd, [t]),
            View::from_host(&residual, [t, c]),
            View::from_host(&x, [t, c]),
            View::from_host(&weight, [c]),
            EPS,
        )
        .unwrap();
        assert_eq!((y, residual_out, rstd), (want_y, sum, want_rstd), "({t}, {c})");
    }
}

#[test]
fn backward_matches_finite_differences() {
    for (t, c) in [(1, 1), (3, 7), (35, 3)] {
        let (x, weight) = (normal::<f64>(t * c, 1.0, 1), normal::<f64>(c, 1.0, 2));
        let dy = normal::<f64>(t * c, 1.0, 3);
        // A large eps keeps the fifth derivative, which bounds the error of the differences, small.
        let eps = 0.5;
        let (_, rstd) = forward(&x, &weight, eps);
        let (mut dx, mut dweight) = (vec![0.0; t * c], vec![0.0; c]);
        backward_into(&mut dx, &mut dweight, &dy, &x, &weight, &rstd);
        let loss = |x: &[f64], weight: &[f64]| weighted_sum(&forward(x, weight, eps).0, &dy);
        assert_gradient(&format!("dx ({t}, {c})"), &x, &dx, |x| loss(x, &weight));
        assert_gradient(&format!("dweight ({t}, {c})"), &weight, &dweight, |w| loss(&x, w));
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for (t, c) in [(1, 576), (500, 65), (129, 341)] {
        let (x, weight) = (normal::<f32>(t * c, 1.0, 1), normal::<f32>(c, 1.0, 2));
        let dy = normal::<f32>(t * c, 1.0, 3);
        assert_same_bits_for_any_thread_count(&format!("({t}, {c})"), || {
            let (y, rstd) = forward(&x, &weight, EPS);
            let (mut dx, mut dweight) = (dy.clone(), weight.clone());
            backward_into(&mut dx, &mut dweight, &dy, &x, &weight, &rstd);
            [y, rstd, dx, dweight].concat()
        });
    }
}

#[test]
fn rows_of_zeros_and_batches_without_rows_are_fine() {
    let (y, rstd) = forward(&[0.0f32; 6], &[1.0, 2.0, 3.0], 0.25);
    assert_eq!((y, rstd), (vec![0.0; 6], vec![2.0; 2]));
    let (y, rstd) = forward::<f32>(&[], &[1.0, 2.0], EPS);
    assert_eq!((y.len(), rstd.len()), (0, 0));
    let mut dweight = [3.0f32; 2];
    backward_into(&mut [], &mut dweight, &[], &[], &[1.0, 2.0], &[]);
    assert_eq!(dweight, [3.0; 2]);
}

#[test]
fn a_nan_stays_in_its_row() {
    let mut x = normal::<f32>(40 * 33, 1.0, 1);
    let weight = normal::<f32>(33, 1.0, 2);
    let (clean, _) = forward(&x, &weight, EPS);
    x[17 * 33 + 5] = f32::NAN;
    let (y, _) = forward(&x, &weight, EPS);
    for (t, (row, clean)) in y.chunks(33).zip(clean.chunks(33)).enumerate() {
        if t == 17 {
            assert!(row.iter().all(|x| x.is_nan()));
        } else {
            assert_eq!(row, clean, "row {t}");
        }
    }
}

/// Forward of (2, 3) with some operand wrong; nothing may be written.
fn forward_error(y: [usize; 2], rstd: usize, weight: usize, eps: f64) -> String {
    let (mut y_data, mut rstd_data) = (vec![7.0f32; y[0] * y[1]], vec![7.0f32; rstd]);
    let result: Result<(), Error> = rmsnorm::forward(
        &Device::Cpu,
        ViewMut::from_host(&mut y_data, y),
        ViewMut::from_host(&mut rstd_data, [rstd]),
        View::from_host(&[1.0f32; 6], [2, 3]),
        View::from_host(&vec![1.0f32; weight], [weight]),
        eps,
    );
    assert!(y_data.iter().chain(&rstd_data).all(|&x| x == 7.0));
    result.unwrap_err().to_string()
}

#[test]
fn operands_that_do_not_fit_are_named() {
    for (got, want) in [
        (forward_error([2, 4], 2, 3, EPS), "y has shape [2, 4], expected shape [2, 3]"),
        (forward_error([2, 3], 3, 3, EPS), "rstd has shape [3], expected shape [2]"),
        (forward_error([2, 3], 2, 4, EPS), "weight has shape [4], expected shape [3]"),
        (forward_error([2, 3], 2, 3, -1.0), "eps has -1, expected a finite number, not negative"),
        (
            forward_error([2, 3], 2, 3, f64::NAN),
            "eps has NaN, expected a finite number, not negative",
        ),
    ] {
        assert_eq!(got, format!("rmsnorm.forward: {want}"));
    }
    let error = rmsnorm::backward(
        &Device::Cpu,
        ViewMut::from_host(&mut [0.0f32; 6], [2, 3]),
        ViewMut::from_host(&mut [0.0f32; 3], [3]),
        View::from_host(&[0.0f64; 6], [2, 3]),
        View::from_host(&[0.0f32; 6], [2, 3]),
        View::from_host(&[0.0f32; 3], [3]),
        View::from_host(&[0.0f32; 2], [2]),
    );
    assert_eq!(error.unwrap_err().to_string(), "rmsnorm.backward: dy has f64, expected f32");
    let error = rmsnorm::forward(
        &Device::Cpu,
        ViewMut::from_host::<f32>(&mut [], [2, 0]),
        ViewMut::from_host(&mut [0.0f32; 2], [2]),
        View::from_host::<f32>(&[], [2, 0]),
        View::from_host::<f32>(&[], [0]),
        EPS,
    );
    let message = "rmsnorm.forward: x has none, expected at least one column";
    assert_eq!(error.unwrap_err().to_string(), message);
}

#[test]
fn cost_counts_every_operand_once() {
    // x and y (2, 3), weight (3), rstd (2).
    assert_eq!(rmsnorm::forward_cost(2, 3, 4).bytes, 4.0 * (6.0 + 6.0 + 3.0 + 2.0));
    // x, residual in; y, residual_out out.
    assert_eq!(rmsnorm::forward_residual_cost(2, 3, 4).bytes, 4.0 * (4.0 * 6.0 + 3.0 + 2.0));
    // dy and x in, dx in and out; weight in, dweight in and out; rstd.
    assert_eq!(rmsnorm::backward_cost(2, 3, 4).bytes, 4.0 * (4.0 * 6.0 + 9.0 + 2.0));
    assert_eq!(rmsnorm::forward_cost(2, 3, 4).flops, 4.0 * 6.0);
}
