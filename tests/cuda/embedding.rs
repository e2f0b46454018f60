//! embedding: rows gathered, gradients added in position order, to the bit of a plain loop.

use super::{cuda, nans, outputs, upload, upload_as};
use half::bf16;
use hooke::cuda::{KernelSpec, Param};
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::ops::embedding::{backward, forward};
use hooke::tensor::Tensor;
use hooke::testing::fill::{below, normal};

fn random(n: usize, seed: u64, dtype: DType) -> Vec<f64> {
    rounded(&normal::<f64>(n, 1.0, seed), dtype)
}

fn rounded(values: &[f64], to: DType) -> Vec<f64> {
    let round = |x: &f64| match to {
        DType::BF16 => f64::from(bf16::from_f64(*x)),
        _ => f64::from(*x as f32),
    };
    values.iter().map(round).collect()
}

/// Token lists in which tokens differ, are drawn, one is frequent, two alternate, one fills all.
fn token_lists(t: usize, v: usize) -> Vec<Vec<i32>> {
    let drawn = below(t, v as u32, 3);
    let skewed = drawn.iter().map(|&id| id * (id % 3) / 2).collect();
    let two = drawn.iter().map(|&id| if id % 2 == 0 { 0 } else { v as i32 - 1 }).collect();
    let distinct = (0..t).map(|i| (i * 7 % v) as i32).collect();
    vec![drawn, skewed, two, vec![v as i32 / 2; t], distinct]
}

#[track_caller]
fn assert_equal(what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    let wrong = got.iter().zip(want).position(|(g, w)| g != w && !(g.is_nan() && w.is_nan()));
    assert_eq!(
        wrong,
        None,
        "{what}: got {:?}, want {:?}",
        wrong.map(|i| got[i]),
        wrong.map(|i| want[i])
    );
}

#[test]
fn rows_are_copied_whatever_their_width_and_address() {
    // Whole vectors of 16 bytes, more of them than threads, odd rows, and one element.
    for (t, v, c) in [(5, 9, 64), (2, 3, 1064), (7, 5, 341), (3, 2, 1), (4, 4, 12)] {
        for dtype in [DType::BF16, DType::F32] {
            // An element before the table moves every row off its alignment.
            for shift in [0, 1] {
                let table = random(v * c + shift, 1, dtype);
                let tokens = below(t, v as u32, 2);
                let got = outputs(|device| {
                    let weight = upload_as(device, [v * c + shift], &table, dtype);
                    let weight = weight.view().slice_rows(shift, v * c).reshape([v, c]);
                    let mut out = nans(device, [t, c], dtype);
                    let ids = upload(device, [t], &tokens);
                    forward(device, out.view_mut(), ids.view(), weight).unwrap();
                    vec![out]
                });
                let rows = tokens.iter().map(|&id| &table[shift + id as usize * c..][..c]);
                let want: Vec<f64> = rows.flatten().copied().collect();
                assert_equal(&format!("{dtype} T={t} V={v} C={c} +{shift}"), &got[0], &want);
            }
        }
    }
}

#[test]
fn a_wrong_id_makes_its_row_nan_and_adds_to_no_gradient() {
    let (v, c, tokens) = (4, 10, [1, -1, 3, 4, i32::MAX, i32::MIN, 1]);
    let t = tokens.len();
    for dtype in [DType::BF16, DType::F32] {
        let table = random(v * c, 1, dtype);
        let got = outputs(|device| {
            let (weight, ids) =
                (upload_as(device, [v, c], &table, dtype), upload(device, [t], &tokens));
            let mut out = upload_as(device, [t, c], &vec![0.0; t * c], dtype);
            forward(device, out.view_mut(), ids.view(), weight.view()).unwrap();
            let ones = upload_as(device, [t, c], &vec![1.0; t * c], dtype);
            let mut dweight = Tensor::zeros(device, "dweight", [v, c], DType::F32).unwrap();
            backward(device, dweight.view_mut(), ones.view(), ids.view()).unwrap();
            vec![out, dweight]
        });
        let mut want = Vec::new();
        for id in tokens {
            match usize::try_from(id).ok().filter(|&id| id < v) {
                Some(id) => want.extend_from_slice(&table[id * c..][..c]),
                None => want.extend(vec![f64::NAN; c]),
            }
        }
        assert_equal("out", &got[0], &want);
        let counts = [0.0, 2.0, 0.0, 1.0].map(|count| vec![count; c]).concat();
        assert_equal("dweight", &got[1], &counts);
    }
}

/// The types of dout and dweight.
const PAIRS: [(DType, DType); 3] =
    [(DType::BF16, DType::F32), (DType::BF16, DType::BF16), (DType::F32, DType::F32)];

/// What a plain loop over the positions has, summed in f32 and rounded once per row.
fn plain_loop(before: &[f64], dout: &[f64], tokens: &[i32], c: usize, to: DType) -> Vec<f64> {
    let mut sums: Vec<f32> = before.iter().map(|&x| x as f32).collect();
    for (i, &gradient) in dout.iter().enumerate() {
        sums[tokens[i / c] as usize * c + i % c] += gradient as f32;
    }
    rounded(&sums.into_iter().map(f64::from).collect::<Vec<_>>(), to)
}

#[track_caller]
fn check_backward(
    [t, v, c]: [usize; 3],
    tokens: &[i32],
    (data, sum): (DType, DType),
    run: impl Fn(&Device, &mut Tensor, &Tensor, &Tensor),
) {
    let (before, dout) = (random(v * c, 1, sum), random(t * c, 2, data));
    let got = outputs(|device| {
        let mut dweight = upload_as(device, [v, c], &before, sum);
        let dout = upload_as(device, [t, c], &dout, data);
        run(device, &mut dweight, &dout, &upload(device, [t], tokens));
        vec![dweight]
    });
    let want = plain_loop(&before, &dout, tokens, c, sum);
    assert_equal(&format!("T={t} V={v} C={c} {data} {sum}"), &got[0], &want);
}

fn operator(device: &Device, dweight: &mut Tensor, dout: &Tensor, tokens: &Tensor) {
    backward(device, dweight.view_mut(), dout.view(), tokens.view()).unwrap();
}

#[test]
fn gradients_are_added_in_position_order() {
    for (i, [t, v, c]) in [[1, 2, 7], [7, 65, 130], [65, 5, 3], [127, 341, 1]].iter().enumerate() {
        for (j, tokens) in token_lists(*t, *v).iter().enumerate() {
            check_backward([*t, *v, *c], tokens, PAIRS[(i + j) % 3], operator);
        }
    }
}

#[test]
fn runs_that_cross_chunks_are_added_in_position_order() {
    // Chunks of 1024: the second one is a single position, and the token has occurred before.
    let tokens = below(1025, 40, 5).into_iter().map(|id| id.min(30)).collect::<Vec<_>>();
    check_backward([1025, 40, 2], &tokens, PAIRS[0], operator);
}

#[test]
fn more_chunks_than_threads_in_a_block_are_all_found() {
    // The kernels themselves, with chunks of two positions: 150 chunks, 128 threads.
    static SORT: KernelSpec = KernelSpec {
        module: "embedding",
        entry: "embedding_sort",
        params: &[Param::Pointer, Param::Pointer, Param::I32, Param::I32],
        threads: 512,
    };
    const PARAMS: [Param; 7] = [
        Param::Pointer,
        Param::Pointer,
        Param::Pointer,
        Param::I32,
        Param::I32,
        Param::I32,
        Param::I32,
    ];
    static BACKWARD: KernelSpec = KernelSpec {
        module: "embedding",
        entry: "embedding_backward_f32_f32",
        params: &PARAMS,
        threads: 128,
    };
    let (t, v, c, chunk) = (299, 50, 3, 2);
    // Token 49 only in the last chunks, token 7 in the first and the last.
    let mut tokens = below(t, 49, 5);
    (tokens[0], tokens[297], tokens[298]) = (7, 7, 49);
    check_backward([t, v, c], &tokens, PAIRS[2], |device, dweight, dout, tokens| {
        let cuda = cuda();
        let mut order = nans(device, [2 * t], DType::I32);
        let (mut order_view, tokens) = (order.view_mut(), tokens.view());
        let launch = cuda.launch(&SORT).grid([t.div_ceil(chunk) as u32, 1, 1]).shared_bytes(16);
        launch.output(&mut order_view).input(&tokens).dim(t).dim(chunk).run().unwrap();
        let (mut dweight, dout) = (dweight.view_mut(), dout.view());
        let launch = cuda.launch(&BACKWARD).grid([t as u32, 1, 1]).shared_bytes(1024);
        let launch = launch.output(&mut dweight).input(&dout).input(&order_view);
        launch.dim(t).dim(chunk).dim(v).dim(c).run().unwrap();
    });
}

#[test]
fn rows_of_absent_tokens_are_not_touched() {
    let (v, c, tokens) = (9, 3, [4, 4, 7]);
    let mut before = vec![f64::NAN; v * c];
    before[4 * c..5 * c].fill(0.0);
    before[7 * c..8 * c].fill(1.0);
    let got = outputs(|device| {
        let mut dweight = upload_as(device, [v, c], &before, DType::F32);
        let dout = upload_as(device, [3, c], &[1.0; 9], DType::BF16);
        operator(device, &mut dweight, &dout, &upload(device, [3], &tokens));
        vec![dweight]
    });
    for (row, values) in got[0].chunks(c).enumerate() {
        match row {
            4 | 7 => assert_eq!(values, [2.0; 3]),
            _ => assert!(values.iter().all(|x| x.is_nan()), "row {row}"),
        }
    }
}

#[test]
fn nothing_to_gather_is_fine() {
    for (t, v, c) in [(0, 2, 3), (2, 2, 0), (0, 0, 3)] {
        outputs(|device| {
            let weight = Tensor::zeros(device, "weight", [v, c], DType::BF16).unwrap();
            let mut out = nans(device, [t, c], DType::BF16);
            let ids = upload(device, [t], &vec![0i32; t]);
            forward(device, out.view_mut(), ids.view(), weight.view()).unwrap();
            let mut dweight = Tensor::zeros(device, "dweight", [v, c], DType::F32).unwrap();
            operator(device, &mut dweight, &out, &ids);
            vec![out, dweight]
        });
    }
}
