//! matmul: all layouts against a triple loop in f64.

use super::{EDGE_SIZES, assert_same_bits_for_any_thread_count};
use hooke::device::Device;
use hooke::dtype::Real;
use hooke::ops::matmul::{Accumulate, Layout, matmul};
use hooke::tensor::{View, ViewMut};
use hooke::testing::compare::assert_close;
use hooke::testing::fill::{normal, to_f64};

const LAYOUTS: [Layout; 3] = [Layout::NT, Layout::NN, Layout::TN];

fn shapes(layout: Layout, [m, n, k]: [usize; 3]) -> ([usize; 2], [usize; 2]) {
    match layout {
        Layout::NT => ([m, k], [n, k]),
        Layout::NN => ([m, k], [k, n]),
        Layout::TN => ([k, m], [k, n]),
    }
}

fn naive(layout: Layout, a: &[f64], b: &[f64], [m, n, k]: [usize; 3]) -> Vec<f64> {
    let mut out = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            out[i * n + j] = (0..k)
                .map(|l| match layout {
                    Layout::NT => a[i * k + l] * b[j * k + l],
                    Layout::NN => a[i * k + l] * b[l * n + j],
                    Layout::TN => a[l * m + i] * b[l * n + j],
                })
                .sum();
        }
    }
    out
}

fn run<T: Real>(
    layout: Layout,
    dims: [usize; 3],
    accumulate: Accumulate,
    with_bias: bool,
) -> (Vec<T>, Vec<f64>) {
    let [m, n, k] = dims;
    let (a, b) = (normal::<T>(m * k, 1.0, 1), normal::<T>(k * n, 1.0, 2));
    let bias = normal::<T>(n, 1.0, 3);
    // NaN shows that an overwriting product does not read what was there.
    let before = match accumulate {
        Accumulate::No => vec![T::from_f64(f64::NAN); m * n],
        Accumulate::Yes => normal::<T>(m * n, 1.0, 4),
    };
    let mut out = before.clone();
    let (a_shape, b_shape) = shapes(layout, dims);
    matmul(
        &Device::Cpu,
        ViewMut::from_host(&mut out, [m, n]),
        View::from_host(&a, a_shape),
        View::from_host(&b, b_shape),
        with_bias.then(|| View::from_host(&bias, [n])),
        layout,
        accumulate,
    )
    .unwrap();
    let mut want = naive(layout, &to_f64(&a), &to_f64(&b), dims);
    for (i, w) in want.iter_mut().enumerate() {
        if accumulate == Accumulate::Yes {
            *w += before[i].to_f64();
        }
        if with_bias {
            *w += bias[i % n].to_f64();
        }
    }
    (out, want)
}

fn check<T: Real>(dims: [usize; 3]) {
    // Each of k products and additions may round once; random signs make it √k, doubled for the
    // largest of many elements.
    let tolerance = 4.0 * T::UNIT_ROUNDOFF * ((dims[2] + 2) as f64).sqrt();
    for layout in LAYOUTS {
        for accumulate in [Accumulate::No, Accumulate::Yes] {
            for with_bias in [false, true] {
                let (out, want) = run::<T>(layout, dims, accumulate, with_bias);
                let what = format!("{layout:?} {dims:?} {accumulate:?} bias {with_bias}");
                assert_close(&what, &to_f64(&out), &want, tolerance.max(1e-14));
            }
        }
    }
}

#[test]
fn every_layout_matches_a_triple_loop_at_edge_sizes() {
    for (i, &m) in EDGE_SIZES.iter().enumerate() {
        let n = EDGE_SIZES[(i + 2) % EDGE_SIZES.len()];
        let k = EDGE_SIZES[(i + 5) % EDGE_SIZES.len()];
        check::<f32>([m, n, k]);
        check::<f64>([m, n, k]);
    }
}

#[test]
fn an_empty_sum_is_zero() {
    let mut out = [f32::NAN; 6];
    matmul(
        &Device::Cpu,
        ViewMut::from_host(&mut out, [2, 3]),
        View::from_host::<f32>(&[], [2, 0]),
        View::from_host::<f32>(&[], [3, 0]),
        None,
        Layout::NT,
        Accumulate::No,
    )
    .unwrap();
    assert_eq!(out, [0.0; 6]);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for layout in LAYOUTS {
        for dims in [[129, 341, 576], [1000, 128, 77], [1, 4096, 576], [576, 1536, 1024]] {
            assert_same_bits_for_any_thread_count(&format!("{layout:?} {dims:?}"), || {
                run_only(layout, dims)
            });
        }
    }
}

#[test]
fn a_row_has_the_same_bits_however_many_rows_there_are() {
    for layout in [Layout::NT, Layout::NN] {
        for [n, k] in [[1, 576], [7, 341], [17, 12], [64, 1000], [576, 576], [1025, 128]] {
            let all = run_only(layout, [600, n, k]);
            for m in [1, 2, 3, 4, 5, 8, 17, 33, 64, 100, 257, 511] {
                assert_eq!(run_only(layout, [m, n, k]), all[..m * n], "{layout:?} {m}x{n}x{k}");
            }
        }
    }
}

fn run_only(layout: Layout, [m, n, k]: [usize; 3]) -> Vec<f32> {
    let (a, b) = (normal::<f32>(m * k, 1.0, 1), normal::<f32>(k * n, 1.0, 2));
    let mut out = vec![0.0f32; m * n];
    let (a_shape, b_shape) = shapes(layout, [m, n, k]);
    let (a, b) = (View::from_host(&a, a_shape), View::from_host(&b, b_shape));
    let out_view = ViewMut::from_host(&mut out, [m, n]);
    matmul(&Device::Cpu, out_view, a, b, None, layout, Accumulate::No).unwrap();
    out
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let mut out = [0.0f32; 6];
    let error = matmul(
        &Device::Cpu,
        ViewMut::from_host(&mut out, [2, 3]),
        View::from_host(&[0.0f32; 8], [2, 4]),
        View::from_host(&[0.0f32; 15], [3, 5]),
        None,
        Layout::NT,
        Accumulate::No,
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "matmul: b has 5, expected 4 along the summed dimension");
}
