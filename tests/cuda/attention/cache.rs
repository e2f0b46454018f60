//! The key/value cache on the device: what is stored, and that decoding continues the forward pass.

use super::{Case, assert_as_good_as_plain, heads};
use crate::cuda::{nans, outputs, upload, upload_as};
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::ops::{Heads, attention};
use hooke::tensor::Tensor;
use hooke::testing::compare::assert_close;
use hooke::testing::fill::normal;

/// Caches (B, S, G·D) that hold the documents of a case, stored by the kernel, and NaN behind them.
fn stored(device: &Device, case: &Case, capacity: usize) -> [Tensor; 2] {
    let (t, heads) = (case.num_tokens(), case.heads);
    let shape = [case.lengths.len() * capacity, heads.kv_dim()];
    let mut caches = [0, 1].map(|_| nans(device, shape, case.dtype));
    let [k_cache, v_cache] = &mut caches;
    let rows = case.lengths.iter().enumerate();
    let rows: Vec<i32> =
        rows.flat_map(|(b, &n)| (0..n).map(move |t| (b * capacity + t) as i32)).collect();
    attention::store_kv(
        device,
        k_cache.view_mut(),
        v_cache.view_mut(),
        upload_as(device, [t, heads.qkv_dim()], &case.qkv, case.dtype).view(),
        upload(device, [t], &rows).view(),
        heads,
    )
    .unwrap();
    caches
}

/// The last query of every document, with NaN for its key and value: they are in the cache.
fn last_queries(case: &Case) -> Vec<f64> {
    let (width, mut end, mut queries) = (case.heads.qkv_dim(), 0, Vec::new());
    for length in &case.lengths {
        end += length;
        queries.extend(&case.qkv[(end - 1) * width..][..case.heads.q_dim()]);
        queries.extend(vec![f64::NAN; 2 * case.heads.kv_dim()]);
    }
    queries
}

fn decode(case: &Case, capacity: usize, lengths: &[i32]) -> Vec<f64> {
    let (batch, heads) = (case.lengths.len(), case.heads);
    let queries = last_queries(case);
    let launch = |device: &Device| {
        let caches = stored(device, case, capacity);
        let [k_cache, v_cache] =
            caches.each_ref().map(|t| t.view().reshape([batch, capacity, heads.kv_dim()]));
        let mut out = nans(device, [batch, heads.q_dim()], case.dtype);
        attention::decode(
            device,
            out.view_mut(),
            upload_as(device, [batch, heads.qkv_dim()], &queries, case.dtype).view(),
            k_cache,
            v_cache,
            upload(device, [batch], lengths).view(),
            case.scale,
            heads,
        )
        .unwrap();
        vec![out]
    };
    outputs(launch).remove(0)
}

fn last_rows(case: &Case, out: &[f64]) -> Vec<f64> {
    let (width, mut end, mut rows) = (case.heads.q_dim(), 0, Vec::new());
    for length in &case.lengths {
        end += length;
        rows.extend(&out[(end - 1) * width..end * width]);
    }
    rows
}

fn lengths_of(case: &Case) -> Vec<i32> {
    case.lengths.iter().map(|&n| n as i32).collect()
}

#[test]
fn decoding_gives_the_last_row_of_the_forward_pass() {
    // One warp, one tile, several splits of one tile, more query heads than rows of a product.
    let cases: [(&[usize], Heads); 7] = [
        (&[1, 17, 66], heads(3, 1, 32)),
        (&[64, 130], heads(4, 2, 64)),
        (&[33], heads(2, 2, 80)),
        (&[16, 49], heads(2, 1, 96)),
        (&[129], heads(7, 1, 128)),
        (&[34, 5], heads(2, 2, 256)),
        (&[40], heads(17, 1, 32)),
    ];
    for (lengths, heads) in cases {
        let case = Case::random(lengths, heads, DType::BF16);
        let capacity = lengths.iter().max().unwrap() + 1;
        let got = decode(&case, capacity, &lengths_of(&case));
        let [exact, plain] = [case.exact(), case.plain()].map(|want| last_rows(&case, &want.out));
        assert_as_good_as_plain(&format!("{lengths:?} {heads:?}"), &got, &exact, &plain);
    }
}

#[test]
fn a_sequence_longer_than_sixteen_tiles_is_split_into_longer_parts() {
    // 16 splits of tiles of 64 keys hold 1,024.
    let mut case = Case::random(&[1100], heads(1, 1, 32), DType::BF16);
    let got = decode(&case, 1100, &[1100]);
    // The definition for the last row only: the others are not compared.
    let width = case.heads.qkv_dim();
    let query = case.qkv[1099 * width..][..32].to_vec();
    let scores: Vec<f64> = case
        .qkv
        .chunks_exact(width)
        .map(|row| query.iter().zip(&row[32..64]).map(|(q, k)| q * k).sum::<f64>() * case.scale)
        .collect();
    let total: f64 = scores.iter().map(|s| s.exp()).sum();
    let mut want = vec![0.0; 32];
    for (row, score) in case.qkv.chunks_exact(width).zip(&scores) {
        for (want, v) in want.iter_mut().zip(&row[64..]) {
            *want += score.exp() / total * v;
        }
    }
    // Rounding of 1,100 probabilities to bf16 averages out; that of the result does not.
    assert_close("out", &got, &want, 1.0 / 128.0);
    // A length below the capacity: what lies behind is not read, even if it is NaN.
    case.qkv[1030 * width..1099 * width].fill(f64::NAN);
    assert!(decode(&case, 1100, &[1030]).iter().all(|x| x.is_finite()));
}

#[test]
fn a_sequence_has_the_same_bits_alone_and_in_any_cache() {
    let heads = heads(2, 1, 32);
    let case = Case::random(&[70, 3, 40], heads, DType::BF16);
    let together = decode(&case, 71, &lengths_of(&case));
    let width = heads.qkv_dim();
    let alone = Case { qkv: case.qkv[..70 * width].to_vec(), lengths: vec![70], ..case.clone() };
    for capacity in [70, 200] {
        assert_eq!(decode(&alone, capacity, &[70]), together[..heads.q_dim()]);
    }
}

#[test]
fn scores_far_from_zero_decode_as_well() {
    let heads = heads(2, 1, 64);
    for shift in [-1024.0, 1024.0] {
        let mut case = Case::random(&[100, 20], heads, DType::BF16);
        for row in case.qkv.chunks_exact_mut(heads.qkv_dim()) {
            row[heads.q_dim() + 63] = 1.0;
            for h in 0..heads.num_heads {
                row[h * 64 + 63] = 8.0 * shift;
            }
        }
        let got = decode(&case, 101, &lengths_of(&case));
        let [exact, plain] = [case.exact(), case.plain()].map(|want| last_rows(&case, &want.out));
        assert_as_good_as_plain(&format!("shift {shift}"), &got, &exact, &plain);
    }
}

#[test]
fn a_length_out_of_range_gives_nan_and_not_another_answer() {
    let heads = heads(2, 1, 32);
    for dtype in [DType::BF16, DType::F32] {
        let case = Case::random(&[4, 4, 4], heads, dtype);
        let got = decode(&case, 4, &[0, 4, 5]);
        let nan: Vec<bool> = got.iter().map(|x| x.is_nan()).collect();
        let (first, rest) = nan.split_at(heads.q_dim());
        let (middle, last) = rest.split_at(heads.q_dim());
        assert!(first.iter().all(|&x| x) && last.iter().all(|&x| x), "{dtype}");
        assert!(middle.iter().all(|&x| !x), "{dtype}");
    }
}

#[test]
fn f32_decodes_the_last_row_of_the_forward_pass() {
    let case = Case::random(&[7, 1, 21], heads(6, 2, 5), DType::F32);
    let got = decode(&case, 22, &lengths_of(&case));
    let want = last_rows(&case, &case.exact().out);
    // As for the CPU: tests/ops/attention.rs.
    let walk = 4.0 + 5f64.sqrt() + 21f64.sqrt();
    assert_close("out", &got, &want, f64::from(f32::EPSILON) * walk);
}

#[test]
fn storing_copies_keys_and_values_to_their_rows_and_leaves_the_others() {
    // By vectors, and by elements of an odd head size.
    for (head_dim, dtype) in [(32, DType::BF16), (5, DType::BF16), (5, DType::F32)] {
        let heads = heads(4, 2, head_dim);
        let (t, num_rows, width) = (5, 9, heads.kv_dim());
        // Neither 9 nor -1 is a row; the CPU refuses them, the kernel skips them.
        let rows = [7, 0, 9, 3, -1];
        let values: Vec<f64> = normal::<f64>(t * heads.qkv_dim(), 1.0, 8);
        let values: Vec<f64> = values.into_iter().map(super::bf16).collect();
        let got = outputs(|device| {
            let filled = vec![0.5; num_rows * width];
            let mut caches = [0, 1].map(|_| upload_as(device, [num_rows, width], &filled, dtype));
            let [k_cache, v_cache] = &mut caches;
            attention::store_kv(
                device,
                k_cache.view_mut(),
                v_cache.view_mut(),
                upload_as(device, [t, heads.qkv_dim()], &values, dtype).view(),
                upload(device, [t], &rows).view(),
                heads,
            )
            .unwrap();
            caches.into()
        });
        for (part, got) in got.iter().enumerate() {
            let mut want = vec![0.5; num_rows * width];
            for (token, row) in [(0, 7), (1, 0), (3, 3)] {
                let from = token * heads.qkv_dim() + heads.q_dim() + part * width;
                want[row * width..][..width].copy_from_slice(&values[from..][..width]);
            }
            assert_eq!(*got, want, "{head_dim} {dtype}");
        }
    }
}
