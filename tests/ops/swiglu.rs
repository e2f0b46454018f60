//! swiglu: both passes against f64, the gradient against differences, extreme gates.

use super::{EDGE_SIZES, assert_same_bits_for_any_thread_count};
use hooke::device::Device;
use hooke::dtype::Real;
use hooke::ops::swiglu::{backward, forward};
use hooke::tensor::{View, ViewMut};
use hooke::testing::compare::assert_close;
use hooke::testing::fill::{normal, to_f64};
use hooke::testing::gradcheck::{assert_gradient, weighted_sum};

fn run_forward<T: Real>(gate_up: &[T], [t, f]: [usize; 2]) -> Vec<T> {
    let mut y = vec![T::from_f64(f64::NAN); t * f];
    let y_view = ViewMut::from_host(&mut y, [t, f]);
    forward(&Device::Cpu, y_view, View::from_host(gate_up, [t, 2 * f])).unwrap();
    y
}

fn run_backward<T: Real>(dy: &[T], gate_up: &[T], [t, f]: [usize; 2]) -> Vec<T> {
    let mut dgate_up = vec![T::from_f64(f64::NAN); 2 * t * f];
    let dgate_up_view = ViewMut::from_host(&mut dgate_up, [t, 2 * f]);
    let (dy, gate_up) = (View::from_host(dy, [t, f]), View::from_host(gate_up, [t, 2 * f]));
    backward(&Device::Cpu, dgate_up_view, dy, gate_up).unwrap();
    dgate_up
}

/// y and dgate_up from the derivative of g / (1 + e^-g) as a quotient.
fn oracle(dy: &[f64], gate_up: &[f64], [t, f]: [usize; 2]) -> (Vec<f64>, Vec<f64>) {
    let (mut y, mut dgate_up) = (vec![0.0; t * f], vec![0.0; 2 * t * f]);
    for row in 0..t {
        for column in 0..f {
            let gate_index = row * 2 * f + column;
            let (gate, up) = (gate_up[gate_index], gate_up[gate_index + f]);
            let dy = dy[row * f + column];
            let e = (-gate).exp();
            let silu = gate / (1.0 + e);
            y[row * f + column] = silu * up;
            dgate_up[gate_index] = dy * up * (1.0 + e + gate * e) / ((1.0 + e) * (1.0 + e));
            dgate_up[gate_index + f] = dy * silu;
        }
    }
    (y, dgate_up)
}

fn check<T: Real>(dims: [usize; 2]) {
    let [t, f] = dims;
    let (gate_up, dy) = (normal::<T>(2 * t * f, 2.0, 1), normal::<T>(t * f, 1.0, 2));
    let (want_y, want_dgate_up) = oracle(&to_f64(&dy), &to_f64(&gate_up), dims);
    // Forward: an exponential (4 u), a sum, a quotient and two products. Backward: the factor
    // 1 + gate (1 - s) adds at most the error of gate s, |gate| up to about 8, cancelling 1 - s
    // included, and is seldom more than 1; the bound is on the scale of the largest element.
    let u = T::UNIT_ROUNDOFF;
    assert_close(&format!("y {dims:?}"), &to_f64(&run_forward(&gate_up, dims)), &want_y, 8.0 * u);
    let dgate_up = run_backward(&dy, &gate_up, dims);
    assert_close(&format!("dgate_up {dims:?}"), &to_f64(&dgate_up), &want_dgate_up, 16.0 * u);
}

#[test]
fn both_passes_match_f64_at_edge_sizes() {
    for (i, &t) in EDGE_SIZES.iter().enumerate() {
        for f in [EDGE_SIZES[5 - i], EDGE_SIZES[(i + 3) % 6]] {
            check::<f32>([t, f]);
            check::<f64>([t, f]);
        }
    }
    check::<f32>([9, 1536]);
}

#[test]
fn backward_matches_finite_differences() {
    let dims = [3, 7];
    let gate_up = normal::<f64>(42, 1.5, 1);
    let dy = normal::<f64>(21, 1.0, 2);
    let dgate_up = run_backward(&dy, &gate_up, dims);
    assert_gradient("dgate_up", &gate_up, &dgate_up, |gate_up| {
        weighted_sum(&run_forward(gate_up, dims), &dy)
    });
}

#[test]
fn extreme_gates_saturate_without_nan() {
    // Gates where the exponential over- or underflows; up = 3, dy = 2.
    let gates = [-1e30f32, -1e4, -100.0, 100.0, 1e4, 1e30];
    let gate_up = [gates, [3.0; 6]].concat();
    let y = run_forward(&gate_up, [1, 6]);
    let dgate_up = run_backward(&[2.0; 6], &gate_up, [1, 6]);
    let (dgate, dup) = dgate_up.split_at(6);
    for (i, &gate) in gates.iter().enumerate() {
        // e^-100 is 4e-44: below the smallest normal f32, so 0 is as good.
        let (silu, slope) = if gate > 0.0 { (gate, 1.0) } else { (0.0, 0.0) };
        assert!((y[i] - 3.0 * silu).abs() <= 3e-38, "y at gate {gate}: {}", y[i]);
        assert!((dgate[i] - 6.0 * slope).abs() <= 3e-38, "dgate at {gate}: {}", dgate[i]);
        assert!((dup[i] - 2.0 * silu).abs() <= 3e-38, "dup at gate {gate}: {}", dup[i]);
    }
    assert!(run_forward(&[f32::NAN, 1.0], [1, 1])[0].is_nan());
    assert!(run_forward(&[1.0, f32::NAN], [1, 1])[0].is_nan());
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let dims = [130, 341];
    assert_same_bits_for_any_thread_count("swiglu", || {
        let gate_up = normal::<f32>(2 * 130 * 341, 1.0, 1);
        let y = run_forward(&gate_up, dims);
        let dgate_up = run_backward(&y, &gate_up, dims);
        [y, dgate_up].concat()
    });
}

#[test]
fn no_rows_and_no_columns_are_fine() {
    assert!(run_forward::<f32>(&[], [0, 5]).is_empty());
    assert!(run_forward::<f32>(&[], [5, 0]).is_empty());
    assert!(run_backward::<f64>(&[], &[], [0, 5]).is_empty());
    assert!(run_backward::<f64>(&[], &[], [5, 0]).is_empty());
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let mut y = [0.0f32; 6];
    let y_view = ViewMut::from_host(&mut y, [2, 3]);
    let error = forward(&Device::Cpu, y_view, View::from_host(&[0.0f32; 10], [2, 5]));
    let want = "swiglu.forward: gate_up has shape [2, 5], expected shape [2, 6]";
    assert_eq!(error.unwrap_err().to_string(), want);

    let y_view = ViewMut::from_host(&mut y, [2, 3]);
    let error = forward(&Device::Cpu, y_view, View::from_host(&[0.0f64; 12], [2, 6]));
    assert_eq!(error.unwrap_err().to_string(), "swiglu.forward: gate_up has f64, expected f32");

    let (dy, gate_up) = (View::from_host(&y, [2, 3]), View::from_host(&[0.0f32; 12], [2, 6]));
    let mut dgate_up = [0.0f32; 6];
    let dgate_up_view = ViewMut::from_host(&mut dgate_up, [1, 6]);
    let error = backward(&Device::Cpu, dgate_up_view, dy, gate_up);
    let want = "swiglu.backward: dgate_up has shape [1, 6], expected shape [2, 6]";
    assert_eq!(error.unwrap_err().to_string(), want);

    let mut ids = [0i32; 6];
    let error = forward(
        &Device::Cpu,
        ViewMut::from_host(&mut ids, [2, 3]),
        View::from_host(&[0i32; 12], [2, 6]),
    );
    let want = "swiglu.forward: element type has i32, expected f32 or f64 on the CPU";
    assert_eq!(error.unwrap_err().to_string(), want);
}
