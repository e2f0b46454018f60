//! reduce: exact on integers, f64 throughout, NaN never lost, threads without influence.

use super::{EDGE_SIZES, assert_same_bits_for_any_thread_count};
use hooke::device::Device;
use hooke::dtype::Real;
use hooke::error::Result;
use hooke::ops::reduce::{column_sums, dot, max_abs, sum, sum_squares};
use hooke::tensor::{View, ViewMut};
use hooke::testing::fill::{below, normal};

/// The edge sizes, the lanes, and both sides of the chunks.
const SIZES: [usize; 11] = [0, 1, 2, 7, 16, 65, 127, 341, 65_535, 65_536, 2 * 65_536 + 17];

fn reduce<T: Real>(
    op: fn(&Device, ViewMut<'_>, View<'_>) -> Result<()>,
    values: &[T],
) -> Result<f64> {
    let mut out = [-1.0f64];
    let out_view = ViewMut::from_host(&mut out, [1]);
    op(&Device::Cpu, out_view, View::from_host(values, [values.len()]))?;
    Ok(out[0])
}

fn reduce_dot<T: Real>(x: &[T], y: &[T]) -> f64 {
    let mut out = [-1.0f64];
    let out_view = ViewMut::from_host(&mut out, [1]);
    let (x, y) = (View::from_host(x, [x.len()]), View::from_host(y, [y.len()]));
    dot(&Device::Cpu, out_view, x, y).unwrap();
    out[0]
}

fn run_column_sums<T: Real>(out: &mut [T], x: &[T], [m, n]: [usize; 2]) {
    let out = ViewMut::from_host(out, [n]);
    column_sums(&Device::Cpu, out, View::from_host(x, [m, n])).unwrap();
}

/// Integers between -500 and 499: every sum of their products below 2^53 is exact, in any order.
fn integers(n: usize, seed: u64) -> Vec<i64> {
    below(n, 1000, seed).into_iter().map(|i| i64::from(i) - 500).collect()
}

fn as_real<T: Real>(values: &[i64]) -> Vec<T> {
    values.iter().map(|&i| T::from_f64(i as f64)).collect()
}

fn check_integers<T: Real>(n: usize) {
    let (x, y) = (integers(n, 1), integers(n, 2));
    let (real_x, real_y) = (as_real::<T>(&x), as_real::<T>(&y));
    let exact = |terms: &mut dyn Iterator<Item = i64>| terms.sum::<i64>() as f64;
    assert_eq!(reduce(sum, &real_x).unwrap(), exact(&mut x.iter().copied()), "n={n}");
    assert_eq!(reduce(sum_squares, &real_x).unwrap(), exact(&mut x.iter().map(|i| i * i)));
    assert_eq!(reduce_dot(&real_x, &real_y), exact(&mut x.iter().zip(&y).map(|(a, b)| a * b)));
    let largest = x.iter().map(|i| i.abs()).max().unwrap_or(0);
    assert_eq!(reduce(max_abs, &real_x).unwrap(), largest as f64, "n={n}");
}

#[test]
fn integers_are_reduced_exactly_at_every_size() {
    for n in SIZES {
        check_integers::<f32>(n);
        check_integers::<f64>(n);
    }
}

#[test]
fn column_sums_of_integers_are_exact_and_added_to_what_was_there() {
    // Both sides of the chunks of 64 rows.
    for m in [0, 1, 2, 63, 64, 65, 129, 1000] {
        for n in EDGE_SIZES {
            let (x, before) = (integers(m * n, 1), integers(n, 2));
            let mut want = before.clone();
            for (i, value) in x.iter().enumerate() {
                want[i % n] += value;
            }
            let mut out = as_real::<f32>(&before);
            run_column_sums(&mut out, &as_real(&x), [m, n]);
            assert_eq!(out, as_real::<f32>(&want), "M={m} N={n}");
            let mut out = as_real::<f64>(&before);
            run_column_sums(&mut out, &as_real(&x), [m, n]);
            assert_eq!(out, as_real::<f64>(&want), "M={m} N={n}");
        }
    }
    run_column_sums::<f32>(&mut [], &[], [3, 0]);
}

#[test]
fn f32_is_accumulated_in_f64() {
    // Each 1 is lost beside 2^30 in f32; the exact sum needs 31 bits.
    let mut values = vec![1.0f32; 1000];
    values[0] = (1u32 << 30) as f32;
    assert_eq!(reduce(sum, &values).unwrap(), f64::from(1u32 << 30) + 999.0);
    let mut out = [0.0f32];
    values[500] = -values[0];
    run_column_sums(&mut out, &values, [1000, 1]);
    assert_eq!(out, [998.0]);
    // Squares overflow f32, and have up to 48 bits.
    let x = 3e38f32;
    let square = f64::from(x) * f64::from(x);
    assert_eq!(reduce(sum_squares, &[x; 4]).unwrap(), 4.0 * square);
    assert_eq!(reduce_dot(&[x, 1.0], &[-x, 0.5]), 0.5 - square);
}

#[test]
fn real_numbers_are_summed_to_f64_accuracy() {
    let n = 100_003;
    let x = normal::<f64>(n, 1.0, 1);
    // Each number and its opposite, scattered by strides prime to n: the exact sum is 0.
    let mut values = vec![0.0; 2 * n];
    for (i, &x) in x.iter().enumerate() {
        values[(2 * i * 7 + 1) % (2 * n)] = x;
        values[(2 * i * 3) % (2 * n)] = -x;
    }
    // A lane adds 4096 terms of a chunk, then 4 + 4 partial results: |error| <= 4104 u sum |x|.
    let bound = 4104.0 * f64::UNIT_ROUNDOFF * values.iter().map(|x| x.abs()).sum::<f64>();
    let got = reduce(sum, &values).unwrap();
    assert!(got.abs() <= bound, "got {got:e}, allowed {bound:e}");
}

#[test]
fn nan_is_found_wherever_it_is() {
    for n in [1, 16, 17, 100, 65_536 + 20] {
        for at in [0, n / 2, n - 1] {
            // Infinity on both sides, so that NaN must survive comparisons with it.
            let mut values = normal::<f32>(n, 1.0, 1);
            values[0] = f32::INFINITY;
            values[n - 1] = f32::INFINITY;
            values[at] = f32::NAN;
            for op in [sum, sum_squares, max_abs] {
                assert!(reduce(op, &values).unwrap().is_nan(), "n={n}, NaN at {at}");
            }
            assert!(reduce_dot(&values, &vec![1.0; n]).is_nan());
            assert!(reduce_dot(&vec![1.0; n], &values).is_nan());
            // The other sign bit.
            values[at] = -f32::NAN;
            assert!(reduce(max_abs, &values).unwrap().is_nan());
        }
    }
    let mut out = [0.0f32; 2];
    run_column_sums(&mut out, &[1.0, f32::NAN, 1.0, 1.0], [2, 2]);
    assert!(out[0] == 2.0 && out[1].is_nan());
}

#[test]
fn infinities_and_signs_are_kept() {
    assert_eq!(reduce(max_abs, &[1.0f32, f32::NEG_INFINITY, 2.0]).unwrap(), f64::INFINITY);
    assert_eq!(reduce(sum_squares, &[1.0f64, f64::INFINITY]).unwrap(), f64::INFINITY);
    assert_eq!(reduce(sum, &[1.0f64, f64::NEG_INFINITY]).unwrap(), f64::NEG_INFINITY);
    assert_eq!(reduce(max_abs, &[-0.0f32, -3.0, 2.0]).unwrap(), 3.0);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (x, y) = (normal::<f64>(300_007, 1.0, 1), normal::<f64>(300_007, 1.0, 2));
    assert_same_bits_for_any_thread_count("reduce", || {
        let mut columns = vec![0.25f64; 341];
        run_column_sums(&mut columns, &x[..800 * 341], [800, 341]);
        let ops = [sum, sum_squares, max_abs];
        let scalars = ops.map(|op| reduce(op, &x).unwrap()).to_vec();
        [scalars, vec![reduce_dot(&x, &y)], columns].concat()
    });
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let x = [1.0f32; 6];
    let x = View::from_host(&x, [2, 3]);
    let mut out = [0.0f32; 3];
    let error = sum(&Device::Cpu, ViewMut::from_host(&mut out[..1], [1]), x).unwrap_err();
    assert_eq!(error.to_string(), "reduce.sum: out has f32, expected f64");
    let error = column_sums(&Device::Cpu, ViewMut::from_host(&mut out[..2], [2]), x);
    let want = "reduce.column_sums: out has shape [2], expected shape [3]";
    assert_eq!(error.unwrap_err().to_string(), want);
    let mut out = [0.0f64; 2];
    let error = max_abs(&Device::Cpu, ViewMut::from_host(&mut out, [2]), x).unwrap_err();
    assert_eq!(error.to_string(), "reduce.max_abs: out has shape [2], expected shape [1]");
    let out_view = ViewMut::from_host(&mut out[..1], [1]);
    let error = dot(&Device::Cpu, out_view, x, x.reshape([3, 2])).unwrap_err();
    assert_eq!(error.to_string(), "reduce.dot: y has shape [3, 2], expected shape [2, 3]");
    let out_view = ViewMut::from_host(&mut out[..1], [1]);
    let error = sum_squares(&Device::Cpu, out_view, View::from_host(&[1i32], [1])).unwrap_err();
    let want = "reduce.sum_squares: element type has i32, expected f32 or f64 on the CPU";
    assert_eq!(error.to_string(), want);
}
