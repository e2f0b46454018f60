//! matmul: every layout, tile and alignment against the exact product, with integers bit for bit.

use super::{cuda, device, nans, outputs, upload_as};
use half::bf16;
use hooke::cuda::{KernelSpec, Param};
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::ops::matmul::{Accumulate, Layout, matmul};
use hooke::tensor::{Tensor, View, ViewMut};
use hooke::testing::compare::assert_close;
use hooke::testing::fill::{below, normal};

const LAYOUTS: [Layout; 3] = [Layout::NT, Layout::NN, Layout::TN];

/// One product. `shift` elements lie before each operand, which moves it off its alignment; they and
/// as many behind are NaN.
#[derive(Debug, Clone, Copy)]
struct Case {
    layout: Layout,
    dims: [usize; 3],
    accumulate: Accumulate,
    bias: bool,
    data: DType,
    out: DType,
    shift: usize,
}

impl Case {
    fn new(layout: Layout, dims: [usize; 3]) -> Self {
        let (data, out) = (DType::BF16, DType::BF16);
        Self { layout, dims, accumulate: Accumulate::No, bias: false, data, out, shift: 0 }
    }

    fn shapes(&self) -> [[usize; 2]; 3] {
        let [m, n, k] = self.dims;
        match self.layout {
            Layout::NT => [[m, k], [n, k], [m, n]],
            Layout::NN => [[m, k], [k, n], [m, n]],
            Layout::TN => [[k, m], [k, n], [m, n]],
        }
    }
}

/// Values of the operands, exact in the data type (`before` in the output's).
struct Values {
    a: Vec<f64>,
    b: Vec<f64>,
    bias: Vec<f64>,
    before: Vec<f64>,
}

impl Values {
    /// Integers of magnitude up to 7: all sums of up to 2^18 products are exact in f32.
    fn integers(case: &Case) -> Self {
        let [m, n, k] = case.dims;
        let draw = |len, bound: u32, seed| -> Vec<f64> {
            let centre = (bound / 2) as f64;
            below(len, bound, seed).iter().map(|&x| f64::from(x) - centre).collect()
        };
        let (a, b) = (draw(m * k, 15, 1), draw(k * n, 15, 2));
        Self { a, b, bias: draw(n, 255, 3), before: draw(m * n, 255, 4) }
    }

    fn random(case: &Case) -> Self {
        let [m, n, k] = case.dims;
        let draw = |len, seed| -> Vec<f64> {
            let round = |x: &f64| match case.data {
                DType::BF16 => f64::from(bf16::from_f64(*x)),
                _ => *x,
            };
            normal::<f64>(len, 1.0, seed).iter().map(round).collect()
        };
        Self { a: draw(m * k, 1), b: draw(k * n, 2), bias: draw(n, 3), before: draw(m * n, 4) }
    }

    /// The product in f64, and the same as plain f32 code without fused operations has it.
    fn products(&self, case: &Case) -> (Vec<f64>, Vec<f64>) {
        let [m, n, k] = case.dims;
        let (mut exact, mut plain) = (Vec::new(), Vec::new());
        for i in 0..m {
            for j in 0..n {
                let (mut sum, mut sum32) = (0.0f64, 0.0f32);
                for l in 0..k {
                    let (x, y) = match case.layout {
                        Layout::NT => (self.a[i * k + l], self.b[j * k + l]),
                        Layout::NN => (self.a[i * k + l], self.b[l * n + j]),
                        Layout::TN => (self.a[l * m + i], self.b[l * n + j]),
                    };
                    sum += x * y;
                    sum32 += x as f32 * y as f32;
                }
                let mut add = |x: f64| {
                    sum += x;
                    sum32 += x as f32;
                };
                if case.bias {
                    add(self.bias[j]);
                }
                if case.accumulate == Accumulate::Yes {
                    add(self.before[i * n + j]);
                }
                exact.push(sum);
                plain.push(f64::from(sum32));
            }
        }
        (exact, plain)
    }
}

/// NaNs around the values.
fn padded(values: &[f64], shift: usize) -> Vec<f64> {
    let nans = vec![f64::NAN; shift];
    [&nans, values, &nans].concat()
}

fn inner(tensor: &Tensor, shift: usize, shape: [usize; 2]) -> View<'_> {
    tensor.view().slice_rows(shift, shape[0] * shape[1]).reshape(shape)
}

/// Uploads, multiplies, and returns the whole memory of the output with what surrounds it.
fn run(device: &Device, case: &Case, values: &Values) -> Tensor {
    let (shift, [a_shape, b_shape, out_shape]) = (case.shift, case.shapes());
    let put = |values: &[f64], dtype| {
        let values = padded(values, shift);
        upload_as(device, [values.len()], &values, dtype)
    };
    let (a, b) = (put(&values.a, case.data), put(&values.b, case.data));
    let bias = case.bias.then(|| upload_as(device, [values.bias.len()], &values.bias, case.data));
    let mut out = match case.accumulate {
        Accumulate::Yes => put(&values.before, case.out),
        Accumulate::No => nans(device, [values.before.len() + 2 * shift], case.out),
    };
    let out_view = out.view_mut().slice_rows(shift, values.before.len()).reshape(out_shape);
    matmul(
        device,
        out_view,
        inner(&a, shift, a_shape),
        inner(&b, shift, b_shape),
        bias.as_ref().map(Tensor::view),
        case.layout,
        case.accumulate,
    )
    .unwrap();
    out
}

/// Takes off what surrounds the output, after checking that it is still NaN.
fn result(case: &Case, with_surroundings: &[f64]) -> Vec<f64> {
    let (front, rest) = with_surroundings.split_at(case.shift);
    let (middle, back) = rest.split_at(rest.len() - case.shift);
    assert!(front.iter().chain(back).all(|x| x.is_nan()), "{case:?} wrote around its output");
    middle.to_vec()
}

fn rounded(values: &[f64], to: DType) -> Vec<f64> {
    let round = |x: &f64| match to {
        DType::BF16 => f64::from(bf16::from_f64(*x)),
        _ => f64::from(*x as f32),
    };
    values.iter().map(round).collect()
}

#[track_caller]
fn assert_equal(what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    let wrong = got.iter().zip(want).position(|(g, w)| g != w);
    assert_eq!(
        wrong,
        None,
        "{what}: got {:?}, want {:?}",
        wrong.map(|i| got[i]),
        wrong.map(|i| want[i])
    );
}

/// Integer operands: the sum is exact, so the one rounding to the output's type is all there is.
#[track_caller]
fn assert_exact(case: &Case) {
    let values = Values::integers(case);
    let got = outputs(|device| vec![run(device, case, &values)]);
    let want = rounded(&values.products(case).0, case.out);
    assert_equal(&format!("{case:?}"), &result(case, &got[0]), &want);
}

#[test]
fn integers_are_exact_in_every_layout_epilogue_and_output_type() {
    for layout in LAYOUTS {
        for (i, accumulate) in [Accumulate::No, Accumulate::Yes].into_iter().enumerate() {
            for bias in [false, true] {
                for out in [DType::BF16, DType::F32] {
                    // Aligned rows in the one, odd ones in the other; 5 steps of k wrap the ring.
                    let dims = [[72, 80, 136], [67, 35, 69]][i ^ usize::from(bias)];
                    let case = Case { accumulate, bias, out, ..Case::new(layout, dims) };
                    assert_exact(&case);
                }
            }
        }
    }
}

#[test]
fn integers_are_exact_at_ragged_sizes_and_every_number_of_steps() {
    // M, N and K around tiles of 64 and around 1, 2, 3, 4, 5, 8 and 9 steps of 32.
    let dims = [
        [1, 1, 1],
        [8, 8, 8],
        [64, 64, 32],
        [65, 2, 33],
        [7, 127, 65],
        [127, 7, 97],
        [16, 136, 128],
        [2, 65, 129],
        [72, 8, 256],
        [8, 72, 264],
        [17, 20, 12],
        [66, 30, 34],
    ];
    for (i, dims) in dims.into_iter().enumerate() {
        let accumulate = if i % 2 == 0 { Accumulate::No } else { Accumulate::Yes };
        let case = Case { accumulate, bias: i % 3 == 0, ..Case::new(LAYOUTS[i % 3], dims) };
        assert_exact(&case);
        let layout = LAYOUTS[(i + 1) % 3];
        assert_exact(&Case { layout, out: DType::F32, ..case });
    }
}

#[test]
fn operands_on_any_address_give_the_same_bits() {
    for layout in LAYOUTS {
        let aligned = Case::new(layout, [24, 40, 72]);
        let values = Values::random(&aligned);
        let want = outputs(|device| vec![run(device, &aligned, &values)]).remove(0);
        // 2, 4 and 8 bytes off; the NaNs around every operand would show in the result.
        for shift in [1, 2, 4, 8] {
            let case = Case { shift, ..aligned };
            let got = outputs(|device| vec![run(device, &case, &values)]).remove(0);
            assert_equal(&format!("{case:?}"), &result(&case, &got), &want);
        }
    }
}

#[test]
fn operands_that_are_aligned_differently_are_exact() {
    // Rows of 16-byte multiples in one operand, odd ones in the other.
    for (layout, dims) in [
        (Layout::NN, [40, 35, 72]),
        (Layout::NN, [9, 72, 41]),
        (Layout::TN, [40, 35, 65]),
        (Layout::TN, [35, 40, 65]),
    ] {
        assert_exact(&Case::new(layout, dims));
    }
}

#[test]
fn many_rows_of_tiles_are_all_computed_once() {
    // 18 x 2 tiles of 64: a whole group of the walk and a partial one. Accumulation shows a tile
    // that is computed twice.
    for dims in [[1091, 72, 8], [1024, 130, 8]] {
        let accumulate = Accumulate::Yes;
        assert_exact(&Case { accumulate, out: DType::F32, ..Case::new(Layout::NT, dims) });
    }
}

#[test]
fn a_product_large_enough_for_the_large_tile_is_exact() {
    // 17 x 8 tiles of 128.
    assert_exact(&Case { bias: true, ..Case::new(Layout::NT, [2052, 1016, 8]) });
}

/// The kernels with the large tile, at sizes for which the launcher would not pick them.
static LARGE: [[KernelSpec; 2]; 3] = [
    [large("matmul_nt_large_bf16"), large("matmul_nt_large_f32")],
    [large("matmul_nn_large_bf16"), large("matmul_nn_large_f32")],
    [large("matmul_tn_large_bf16"), large("matmul_tn_large_f32")],
];

const fn large(entry: &'static str) -> KernelSpec {
    const P: Param = Param::Pointer;
    const I: Param = Param::I32;
    let params = &[P, P, P, P, I, I, I, I, I, I];
    KernelSpec { module: "matmul", entry, params, threads: 256 }
}

fn run_large(device: &Device, case: &Case, values: &Values) -> Tensor {
    let ([m, n, k], [a_shape, b_shape, out_shape]) = (case.dims, case.shapes());
    let a = upload_as(device, a_shape, &values.a, case.data);
    let b = upload_as(device, b_shape, &values.b, case.data);
    let bias = upload_as(device, [n], &values.bias, case.data);
    let mut out = match case.accumulate {
        Accumulate::Yes => upload_as(device, out_shape, &values.before, case.out),
        Accumulate::No => nans(device, out_shape, case.out),
    };
    let (mut out_view, a, b, bias) = (out.view_mut(), a.view(), b.view(), bias.view());
    let cuda = cuda();
    let launch = cuda
        .launch(&LARGE[case.layout as usize][usize::from(case.out == DType::F32)])
        .grid([(m.div_ceil(128) * n.div_ceil(128)) as u32, 1, 1])
        .shared_bytes(64 << 10)
        .output(&mut out_view)
        .input(&a)
        .input(&b);
    let launch = if case.bias { launch.input(&bias) } else { launch.null() };
    let accumulate = i32::from(case.accumulate == Accumulate::Yes);
    launch.i32(accumulate).i32(16).i32(16).dim(m).dim(n).dim(k).run().unwrap();
    out
}

#[test]
fn the_large_tile_is_exact_on_integers_and_gives_the_bits_of_the_small_one() {
    for (i, layout) in LAYOUTS.into_iter().enumerate() {
        for (j, dims) in [[136, 264, 168], [8, 16, 32], [200, 120, 264]].into_iter().enumerate() {
            let accumulate = if (i + j) % 2 == 0 { Accumulate::No } else { Accumulate::Yes };
            let out = if j == i { DType::F32 } else { DType::BF16 };
            let case = Case { accumulate, out, bias: j != 0, ..Case::new(layout, dims) };
            let values = Values::integers(&case);
            let got = outputs(|device| vec![run_large(device, &case, &values)]);
            let want = rounded(&values.products(&case).0, out);
            assert_equal(&format!("{case:?}"), &got[0], &want);
        }
        let case = Case { out: DType::F32, ..Case::new(layout, [136, 72, 104]) };
        let values = Values::random(&case);
        let got =
            outputs(|device| vec![run_large(device, &case, &values), run(device, &case, &values)]);
        assert_equal(&format!("{case:?}"), &got[0], &got[1]);
    }
}

#[test]
fn random_values_are_within_the_rounding_of_the_output() {
    for (i, layout) in LAYOUTS.into_iter().enumerate() {
        for dims in [[65, 127, 341], [72, 96, 320]] {
            let accumulate = if i % 2 == 0 { Accumulate::Yes } else { Accumulate::No };
            let case = Case { bias: i != 1, accumulate, ..Case::new(layout, dims) };
            let values = Values::random(&case);
            let (exact, plain) = values.products(&case);
            let error = exact.iter().zip(&plain).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
            for out in [DType::BF16, DType::F32] {
                let case = Case { out, ..case };
                let mut values = Values { ..Values::random(&case) };
                values.before = rounded(&values.before, DType::BF16);
                let got = outputs(|device| vec![run(device, &case, &values)]).remove(0);
                // Tensor cores truncate where plain code rounds, to a bit or two less: four times
                // its largest error. Then half the spacing of the output's type.
                let spacing = if out == DType::BF16 { 2f64.powi(-8) } else { 2f64.powi(-24) };
                for (i, (g, x)) in got.iter().zip(&exact).enumerate() {
                    let allowed = 4.0 * error + spacing * x.abs();
                    assert!((g - x).abs() <= allowed, "{case:?} [{i}]: got {g}, exactly {x}");
                }
                assert_close(&format!("{case:?}"), &got, &exact, spacing + 4.0 * error);
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_however_many_rows_there_are() {
    for layout in [Layout::NT, Layout::NN] {
        for [n, k] in [[72, 136], [35, 69]] {
            let all = Case { out: DType::F32, ..Case::new(layout, [131, n, k]) };
            let values = Values::random(&all);
            let want = outputs(|device| vec![run(device, &all, &values)]).remove(0);
            for m in [1, 7, 64, 130] {
                let case = Case { dims: [m, n, k], ..all };
                let part = Values {
                    a: values.a[..m * k].to_vec(),
                    b: values.b.clone(),
                    bias: vec![],
                    before: values.before[..m * n].to_vec(),
                };
                let got = outputs(|device| vec![run(device, &case, &part)]).remove(0);
                assert_equal(&format!("{case:?}"), &got, &want[..m * n]);
            }
        }
    }
}

#[test]
fn f32_matches_in_every_layout() {
    for (i, layout) in LAYOUTS.into_iter().enumerate() {
        for dims in [[33, 65, 47], [1, 7, 341], [64, 32, 16]] {
            let (data, out) = (DType::F32, DType::F32);
            let accumulate = if i == 1 { Accumulate::No } else { Accumulate::Yes };
            let case = Case { data, out, accumulate, bias: i != 2, ..Case::new(layout, dims) };
            assert_exact(&case);
            assert_exact(&Case { shift: 1, ..case });
            let values = Values::random(&case);
            let exact = values.products(&case).0;
            let got = outputs(|device| vec![run(device, &case, &values)]).remove(0);
            // k products and sums that round once each, and three operands rounded to f32: random
            // signs make it the root, doubled twice for the largest of many.
            let tolerance = 4.0 * 2f64.powi(-24) * ((dims[2] + 4) as f64).sqrt();
            assert_close(&format!("{case:?}"), &got, &exact, tolerance);
        }
    }
}

#[test]
fn an_empty_sum_is_zero_and_an_empty_output_is_nothing() {
    for data in [DType::BF16, DType::F32] {
        for layout in LAYOUTS {
            for (accumulate, bias) in [(Accumulate::No, false), (Accumulate::Yes, true)] {
                let out = DType::F32;
                let case = Case { data, out, accumulate, bias, ..Case::new(layout, [5, 9, 0]) };
                assert_exact(&case);
                for dims in [[0, 9, 8], [5, 0, 8], [0, 0, 0]] {
                    assert_exact(&Case { dims, ..case });
                }
            }
        }
    }
}

#[test]
fn values_that_are_not_finite_pass_through() {
    let case = Case { out: DType::F32, ..Case::new(Layout::NT, [9, 10, 40]) };
    let mut values = Values::integers(&case);
    values.a[3 * 40 + 7] = f64::NAN;
    values.b[5 * 40 + 39] = f64::INFINITY;
    values.a[39] = 1.0;
    let got = outputs(|device| vec![run(device, &case, &values)]).remove(0);
    for (i, x) in got.iter().enumerate() {
        let (row, column) = (i / 10, i % 10);
        assert_eq!(x.is_nan() || x.is_infinite(), row == 3 || column == 5, "{row} {column}: {x}");
    }
    assert_eq!(got[5], f64::INFINITY);
}

#[test]
fn operands_of_an_unsupported_type_are_named() {
    let device = device();
    let x = upload_as(&device, [2, 2], &[0.0; 4], DType::F64);
    let mut out = Tensor::zeros(&device, "out", [2, 2], DType::F64).unwrap();
    let out: ViewMut<'_> = out.view_mut();
    let (a, b) = (x.view(), x.view());
    let error = matmul(&device, out, a, b, None, Layout::NT, Accumulate::No).unwrap_err();
    assert_eq!(error.to_string(), "matmul: a has f64, expected bf16 or f32 on a GPU");
}
