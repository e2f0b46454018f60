//! attention kernels: against the definition, exact copies, isolation, large scores, refusals.

mod cache;

use super::{device, nans, outputs, upload, upload_as};
use crate::ops::attention::oracle::{self, Want};
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::error::Result;
use hooke::ops::{Heads, attention};
use hooke::tensor::Tensor;
use hooke::testing::compare::{assert_close, compare};
use hooke::testing::fill::{below, normal};

fn heads(num_heads: usize, num_kv_heads: usize, head_dim: usize) -> Heads {
    Heads { num_heads, num_kv_heads, head_dim }
}

fn default_scale(heads: Heads) -> f64 {
    1.0 / (heads.head_dim as f64).sqrt()
}

pub fn bf16(x: f64) -> f64 {
    half::bf16::from_f64(x).to_f64()
}

/// Operands of both passes; `qkv` and `dout` hold numbers of the type they are sent as.
#[derive(Clone)]
struct Case {
    qkv: Vec<f64>,
    dout: Vec<f64>,
    lengths: Vec<usize>,
    scale: f64,
    heads: Heads,
    dtype: DType,
}

/// What the kernels wrote.
struct Got {
    out: Vec<f64>,
    lse: Vec<f64>,
    dqkv: Vec<f64>,
}

impl Case {
    fn random(lengths: &[usize], heads: Heads, dtype: DType) -> Self {
        let t: usize = lengths.iter().sum();
        let values = |n, seed| -> Vec<f64> {
            let values: Vec<f64> = normal(n, 1.0, seed);
            if dtype == DType::BF16 { values.into_iter().map(bf16).collect() } else { values }
        };
        Self {
            qkv: values(t * heads.qkv_dim(), 1),
            dout: values(t * heads.q_dim(), 2),
            lengths: lengths.to_vec(),
            scale: default_scale(heads),
            heads,
            dtype,
        }
    }

    fn num_tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    fn cu_seqlens(&self) -> Vec<i32> {
        let mut ends = vec![0];
        for &length in &self.lengths {
            ends.push(ends[ends.len() - 1] + length as i32);
        }
        ends
    }

    /// Both passes on the device; outputs are NaN before.
    fn launch(&self, device: &Device) -> Result<Vec<Tensor>> {
        let (t, heads) = (self.num_tokens(), self.heads);
        let qkv = upload_as(device, [t, heads.qkv_dim()], &self.qkv, self.dtype);
        let dout = upload_as(device, [t, heads.q_dim()], &self.dout, self.dtype);
        let ends = self.cu_seqlens();
        let ends = upload(device, [ends.len()], &ends);
        let mut out = nans(device, [t, heads.q_dim()], self.dtype);
        let mut lse = nans(device, [t, heads.num_heads], DType::F32);
        let mut dqkv = nans(device, [t, heads.qkv_dim()], self.dtype);
        attention::forward(
            device,
            out.view_mut(),
            lse.view_mut(),
            qkv.view(),
            ends.view(),
            self.scale,
            heads,
        )?;
        attention::backward(
            device,
            dqkv.view_mut(),
            dout.view(),
            qkv.view(),
            out.view(),
            lse.view(),
            ends.view(),
            self.scale,
            heads,
        )?;
        Ok(vec![out, lse, dqkv])
    }

    /// Under several schedules; all findings and differences fail.
    fn run(&self) -> Got {
        let mut values = outputs(|device| self.launch(device).unwrap()).into_iter();
        let mut next = || values.next().unwrap();
        Got { out: next(), lse: next(), dqkv: next() }
    }

    fn exact(&self) -> Want {
        oracle::attention(&self.qkv, &self.dout, &self.lengths, self.scale, self.heads)
    }

    fn plain(&self) -> Want {
        oracle::rounded(&self.qkv, &self.dout, &self.lengths, self.scale, self.heads, bf16)
    }

    /// Columns of queries, keys and values, which differ in scale, of rows like `qkv`.
    fn parts(&self, rows: &[f64]) -> [Vec<f64>; 3] {
        let (q, k) = (self.heads.q_dim(), self.heads.q_dim() + self.heads.kv_dim());
        [0..q, q..k, k..self.heads.qkv_dim()].map(|columns| {
            let rows = rows.chunks_exact(self.heads.qkv_dim());
            rows.flat_map(|row| row[columns.clone()].to_vec()).collect()
        })
    }
}

/// Half the distance of neighbouring bf16 numbers, relative.
const BF16_ROUNDOFF: f64 = 1.0 / 256.0;

/// Twice the largest error of the plain computation, and two roundings of the result, per element;
/// and no more noise in all than that computation has.
#[track_caller]
fn assert_as_good_as_plain(what: &str, got: &[f64], exact: &[f64], plain: &[f64]) {
    let by_plain = compare(plain, exact);
    for (i, (&got, &exact)) in got.iter().zip(exact).enumerate() {
        let allowed = 2.0 * by_plain.max_abs + 2.0 * BF16_ROUNDOFF * exact.abs();
        assert!((got - exact).abs() <= allowed, "{what}[{i}]: {got}, not {exact} +- {allowed:e}");
    }
    let c = compare(got, exact);
    let allowed = 1.5 * by_plain.norm_rel + 1e-6;
    assert!(c.norm_rel <= allowed, "{what}: {:.2e} of the norm, allowed {allowed:.2e}", c.norm_rel);
}

#[track_caller]
fn check_bf16(case: &Case, lse_tolerance: f64) {
    let what = format!("{:?} {:?}", case.lengths, case.heads);
    let (got, exact, plain) = (case.run(), case.exact(), case.plain());
    assert_as_good_as_plain(&format!("out {what}"), &got.out, &exact.out, &plain.out);
    assert_close(&format!("lse {what}"), &got.lse, &exact.lse, lse_tolerance);
    let parts = [&got.dqkv, &exact.dqkv, &plain.dqkv].map(|rows| case.parts(rows));
    for (i, name) in ["dq", "dk", "dv"].iter().enumerate() {
        let [got, exact, plain] = [&parts[0][i], &parts[1][i], &parts[2][i]];
        assert_as_good_as_plain(&format!("{name} {what}"), got, exact, plain);
    }
}

/// Sums of D products of f32 precision, an approximate exponential and logarithm (2^-21 each).
const LSE_TOLERANCE: f64 = 4e-6;

#[test]
fn every_head_size_matches_the_definition() {
    // Lengths around the tiles of 16, 32, 64 and 128 rows; two groups of two, one key head for all, a
    // key head for each.
    let cases: [(&[usize], Heads); 6] = [
        (&[1, 17, 66], heads(4, 2, 32)),
        (&[65, 1, 15], heads(2, 1, 64)),
        (&[33, 16], heads(2, 2, 80)),
        (&[2, 49], heads(2, 1, 96)),
        (&[50, 31], heads(2, 1, 128)),
        (&[34, 5], heads(2, 2, 256)),
    ];
    for (lengths, heads) in cases {
        check_bf16(&Case::random(lengths, heads, DType::BF16), LSE_TOLERANCE);
    }
}

#[test]
fn documents_longer_than_a_tile_match_the_definition() {
    let cases: [(&[usize], Heads); 2] = [(&[130], heads(2, 1, 32)), (&[129, 127], heads(1, 1, 64))];
    for (lengths, heads) in cases {
        check_bf16(&Case::random(lengths, heads, DType::BF16), LSE_TOLERANCE);
    }
}

#[test]
fn f32_matches_the_definition_for_any_head_size() {
    let cases: [(&[usize], Heads); 3] =
        [(&[1], heads(1, 1, 1)), (&[7, 1, 2, 1], heads(3, 1, 5)), (&[21, 16], heads(6, 2, 7))];
    for (lengths, heads) in cases {
        let case = Case::random(lengths, heads, DType::F32);
        let (got, exact) = (case.run(), case.exact());
        let n = lengths.iter().copied().max().unwrap() as f64;
        // As for the CPU: tests/ops/attention.rs.
        let roundoff = f64::from(f32::EPSILON) / 2.0;
        let tolerance = 2.0 * roundoff * (4.0 + (heads.head_dim as f64).sqrt() + n.sqrt());
        assert_close("out", &got.out, &exact.out, tolerance);
        assert_close("lse", &got.lse, &exact.lse, tolerance);
        let [got, exact] = [&got.dqkv, &exact.dqkv].map(|rows| case.parts(rows));
        for (i, name) in ["dq", "dk", "dv"].iter().enumerate() {
            assert_close(name, &got[i], &exact[i], 2.0 * tolerance);
        }
    }
}

/// Every query picks one earlier key, so surely that its probability is exactly 1 and the others'
/// exactly 0: outputs are copies, dv sums of integers, and dq and dk are 0, all exactly.
#[test]
fn a_query_that_is_sure_copies_exactly_one_value() {
    let lengths = [1usize, 2, 63, 64, 65];
    for heads in [heads(4, 2, 32), heads(3, 3, 64)] {
        let (d, width) = (heads.head_dim, heads.qkv_dim());
        let mut case = Case::random(&lengths, heads, DType::BF16);
        let code = below(195 * d, 2, 3);
        let code = |t: usize, i: usize| f64::from(2 * code[t * d + i] - 1);
        let integers = below(195 * (width + heads.q_dim()), 7, 4);
        let mut integers = integers.into_iter().map(|x| f64::from(x - 3));
        let pick = below(195 * heads.num_heads, 1 << 20, 5);
        let (mut out, mut dv) = (Vec::new(), vec![0.0; 195 * heads.kv_dim()]);
        case.dout.fill_with(|| integers.next().unwrap());
        let mut start = 0;
        for length in lengths {
            for t in start..start + length {
                for x in
                    &mut case.qkv[t * width + heads.q_dim() + heads.kv_dim()..][..heads.kv_dim()]
                {
                    *x = integers.next().unwrap();
                }
                for g in 0..heads.num_kv_heads {
                    for i in 0..d {
                        case.qkv[t * width + heads.q_dim() + g * d + i] = code(t, i);
                    }
                }
                for h in 0..heads.num_heads {
                    let g = h / heads.group();
                    let j = start + pick[t * heads.num_heads + h] as usize % (t - start + 1);
                    for i in 0..d {
                        // Codes differ in several bits: the scores by hundreds.
                        case.qkv[t * width + h * d + i] = 1024.0 * code(j, i);
                        out.push(case.qkv[j * width + heads.q_dim() + heads.kv_dim() + g * d + i]);
                        dv[j * heads.kv_dim() + g * d + i] +=
                            case.dout[(t * heads.num_heads + h) * d + i];
                    }
                }
            }
            start += length;
        }
        let got = case.run();
        assert_eq!(got.out, out, "{heads:?}");
        let [got_dq, got_dk, got_dv] = case.parts(&got.dqkv);
        // Sums above 256 are rounded, once.
        assert_eq!(got_dv, dv.into_iter().map(bf16).collect::<Vec<_>>(), "{heads:?}");
        assert!(got_dq.iter().chain(&got_dk).all(|&x| x == 0.0), "{heads:?}");
    }
}

#[test]
fn scores_shifted_by_a_thousand_give_the_same_attention() {
    let heads = heads(2, 1, 64);
    for shift in [-1024.0, 1024.0] {
        let mut case = Case::random(&[70, 20], heads, DType::BF16);
        for row in case.qkv.chunks_exact_mut(heads.qkv_dim()) {
            // The last component of every key is 1, so that of a query shifts all its scores.
            row[heads.q_dim() + heads.head_dim - 1] = 1.0;
            for h in 0..heads.num_heads {
                row[h * heads.head_dim + heads.head_dim - 1] = 8.0 * shift;
            }
        }
        assert!(case.exact().lse.iter().all(|x| (x - shift).abs() < 20.0));
        check_bf16(&case, LSE_TOLERANCE);
    }
}

#[test]
fn scores_that_span_thousands_keep_their_gradient() {
    let mut case = Case::random(&[66], heads(1, 1, 32), DType::BF16);
    for row in case.qkv.chunks_exact_mut(case.heads.qkv_dim()) {
        for x in &mut row[..2 * 32] {
            *x = bf16(*x * 20.0);
        }
    }
    // A score of 2500 is off by 2^-24 of it, a few times, and a probability by as much.
    check_bf16(&case, LSE_TOLERANCE);
}

#[test]
fn a_document_has_the_same_bits_alone_and_among_others_even_when_those_are_nan() {
    let heads = heads(2, 1, 32);
    let together = Case::random(&[5, 67, 30], heads, DType::BF16);
    let rows = |x: &[f64], width: usize| x[5 * width..72 * width].to_vec();
    let (wide, narrow) = (heads.qkv_dim(), heads.q_dim());
    let alone = Case {
        qkv: rows(&together.qkv, wide),
        dout: rows(&together.dout, narrow),
        lengths: vec![67],
        ..together.clone()
    };
    let want = alone.run();
    for poisoned in [false, true] {
        let mut case = together.clone();
        if poisoned {
            for (x, width) in [(&mut case.qkv, wide), (&mut case.dout, narrow)] {
                x[..5 * width].fill(f64::NAN);
                x[72 * width..].fill(f64::NAN);
            }
        }
        let got = case.run();
        assert_eq!(rows(&got.out, narrow), want.out, "neighbours NaN: {poisoned}");
        assert_eq!(rows(&got.lse, heads.num_heads), want.lse, "neighbours NaN: {poisoned}");
        assert_eq!(rows(&got.dqkv, wide), want.dqkv, "neighbours NaN: {poisoned}");
        assert_eq!(got.out[0].is_nan(), poisoned);
        assert_eq!(got.dqkv[got.dqkv.len() - 1].is_nan(), poisoned);
    }
}

#[test]
fn nothing_flows_from_a_later_token_to_an_earlier_one() {
    let heads = heads(2, 1, 32);
    let case = Case::random(&[68], heads, DType::BF16);
    let got = case.run();
    for t in [0, 15, 63, 66] {
        let mut changed = case.clone();
        changed.qkv[(t + 1) * heads.qkv_dim()..].iter_mut().for_each(|x| *x = bf16(3.0 - *x));
        // Only the outputs up to t matter: later tokens get exactly no gradient, t itself some.
        let earlier = (t + 1) * heads.q_dim();
        changed.dout[earlier..].fill(0.0);
        let changed = changed.run();
        assert_eq!(got.out[..earlier], changed.out[..earlier], "token {t}");
        assert_ne!(got.out[earlier..], changed.out[earlier..], "token {t}");
        let (until_t, later) = changed.dqkv.split_at((t + 1) * heads.qkv_dim());
        assert!(later.iter().all(|&x| x == 0.0), "token {t}");
        assert!(until_t[t * heads.qkv_dim()..].iter().any(|&x| x != 0.0), "token {t}");
    }
}

#[test]
fn a_row_whose_scores_are_all_minus_infinity_is_zero_and_not_nan() {
    // Finite operands whose products overflow to minus infinity.
    let heads = heads(1, 1, 32);
    let mut case = Case::random(&[20], heads, DType::BF16);
    for row in case.qkv.chunks_exact_mut(heads.qkv_dim()) {
        row[..32].fill(-bf16(1e30));
        row[32..64].fill(bf16(1e30));
    }
    let got = case.run();
    assert!(got.out.iter().all(|&x| x == 0.0));
    assert!(got.lse.iter().all(|&x| x == f64::NEG_INFINITY));
    assert!(got.dqkv.iter().all(|&x| x == 0.0));
}

#[test]
fn a_batch_without_tokens_is_nothing() {
    for dtype in [DType::BF16, DType::F32] {
        assert!(Case::random(&[], heads(2, 1, 32), dtype).run().dqkv.is_empty());
    }
}

#[test]
fn what_has_no_kernel_is_refused_by_name() {
    let device = device();
    let refused = |case: Case| case.launch(&device).unwrap_err().to_string();
    let random = |head_dim| Case::random(&[3], heads(2, 1, head_dim), DType::BF16);
    assert_eq!(
        refused(random(48)),
        "attention.forward: heads has head_dim 48, expected head_dim 32, 64, 80, 96, 128, 256 for \
         bf16 on the GPU"
    );
    for scale in [0.0, -1.0, f64::INFINITY, f64::NAN] {
        let message = refused(Case { scale, ..random(32) });
        assert!(message.starts_with("attention.forward: scale has "), "{message}");
    }
    let message = refused(Case { dtype: DType::F16, ..random(32) });
    let want = "attention.forward: element type has f16, expected bf16 or f32 on the GPU";
    assert_eq!(message, want);
}
