//! attention: against the definition in f64, differences, isolation, large scores.

mod cache;
mod contract;
pub mod oracle;

use super::assert_same_bits_for_any_thread_count;
use hooke::device::Device;
use hooke::dtype::Real;
use hooke::ops::{Heads, attention};
use hooke::tensor::{View, ViewMut};
use hooke::testing::compare::assert_close;
use hooke::testing::fill::{normal, to_f64};
use hooke::testing::gradcheck::{assert_gradient, weighted_sum};

const fn heads(num_heads: usize, num_kv_heads: usize, head_dim: usize) -> Heads {
    Heads { num_heads, num_kv_heads, head_dim }
}

fn scale(heads: Heads) -> f64 {
    1.0 / (heads.head_dim as f64).sqrt()
}

fn cu_seqlens(lengths: &[usize]) -> Vec<i32> {
    let mut ends = vec![0];
    for &length in lengths {
        ends.push(ends[ends.len() - 1] + length as i32);
    }
    ends
}

/// Outputs start as NaN: an element that is not written, or added to, shows.
fn forward<T: Real>(qkv: &[T], lengths: &[usize], heads: Heads) -> (Vec<T>, Vec<T>) {
    let t: usize = lengths.iter().sum();
    let cu_seqlens = cu_seqlens(lengths);
    let mut out = vec![T::from_f64(f64::NAN); t * heads.q_dim()];
    let mut lse = vec![T::from_f64(f64::NAN); t * heads.num_heads];
    attention::forward(
        &Device::Cpu,
        ViewMut::from_host(&mut out, [t, heads.q_dim()]),
        ViewMut::from_host(&mut lse, [t, heads.num_heads]),
        View::from_host(qkv, [t, heads.qkv_dim()]),
        View::from_host(&cu_seqlens, [cu_seqlens.len()]),
        scale(heads),
        heads,
    )
    .unwrap();
    (out, lse)
}

fn backward<T: Real>(qkv: &[T], dout: &[T], lengths: &[usize], heads: Heads) -> Vec<T> {
    let t: usize = lengths.iter().sum();
    let cu_seqlens = cu_seqlens(lengths);
    let (out, lse) = forward(qkv, lengths, heads);
    let mut dqkv = vec![T::from_f64(f64::NAN); qkv.len()];
    attention::backward(
        &Device::Cpu,
        ViewMut::from_host(&mut dqkv, [t, heads.qkv_dim()]),
        View::from_host(dout, [t, heads.q_dim()]),
        View::from_host(qkv, [t, heads.qkv_dim()]),
        View::from_host(&out, [t, heads.q_dim()]),
        View::from_host(&lse, [t, heads.num_heads]),
        View::from_host(&cu_seqlens, [cu_seqlens.len()]),
        scale(heads),
        heads,
    )
    .unwrap();
    dqkv
}

fn inputs<T: Real>(lengths: &[usize], heads: Heads) -> (Vec<T>, Vec<T>) {
    let t: usize = lengths.iter().sum();
    (normal(t * heads.qkv_dim(), 1.0, 1), normal(t * heads.q_dim(), 1.0, 2))
}

fn check_against_oracle<T: Real>(lengths: &[usize], heads: Heads) {
    let (qkv, dout) = inputs::<T>(lengths, heads);
    let want = oracle::attention(&to_f64(&qkv), &to_f64(&dout), lengths, scale(heads), heads);
    let (out, lse) = forward(&qkv, lengths, heads);
    let dqkv = backward(&qkv, &dout, lengths, heads);
    // A score is a sum of D products, its exponential is good to 4 roundoffs, and an output sums
    // up to n terms: the errors add like a random walk. The gradient sums both ways once more,
    // over the n rows of the group's heads, and subtracts delta, which is as large as what remains.
    let n = lengths.iter().copied().max().unwrap() as f64;
    let walk = 4.0 + (heads.head_dim as f64).sqrt() + n.sqrt();
    let tolerance = 2.0 * T::UNIT_ROUNDOFF * walk;
    let what = format!("{lengths:?} {heads:?}");
    assert_close(&format!("out {what}"), &to_f64(&out), &want.out, tolerance);
    assert_close(&format!("lse {what}"), &to_f64(&lse), &want.lse, tolerance);
    // The columns of q, k and v have different scales; each is held to its own.
    let parts = [0..heads.q_dim(), heads.q_dim()..heads.q_dim() + heads.kv_dim()];
    let parts = [parts[0].clone(), parts[1].clone(), parts[1].end..heads.qkv_dim()];
    for (name, columns) in ["dq", "dk", "dv"].iter().zip(parts) {
        let select = |rows: &[f64]| -> Vec<f64> {
            let rows = rows.chunks_exact(heads.qkv_dim());
            rows.flat_map(|row| row[columns.clone()].to_vec()).collect()
        };
        let (got, want) = (select(&to_f64(&dqkv)), select(&want.dqkv));
        assert_close(&format!("{name} {what}"), &got, &want, 2.0 * tolerance);
    }
}

#[test]
fn forward_and_backward_match_the_definition_at_edge_sizes() {
    // Around the tiles (64 queries, 256 keys, blocks of 256 rows), odd head sizes, one head, one
    // key head for all (MQA), groups of three (GQA), a key head for each (MHA).
    let cases: [(&[usize], Heads); 9] = [
        (&[1], heads(1, 1, 1)),
        (&[2, 1], heads(2, 1, 5)),
        (&[7, 1, 2, 1], heads(3, 1, 5)),
        (&[16, 17, 15], heads(6, 2, 3)),
        (&[65, 63, 1, 64], heads(4, 4, 8)),
        (&[127, 3], heads(9, 3, 64)),
        (&[341], heads(3, 1, 7)),
        (&[257, 255, 256], heads(2, 2, 4)),
        (&[600], heads(2, 1, 16)),
    ];
    for (lengths, heads) in cases {
        check_against_oracle::<f32>(lengths, heads);
        check_against_oracle::<f64>(lengths, heads);
    }
}

#[test]
fn backward_matches_finite_differences() {
    for (lengths, heads) in
        [(vec![3, 1, 5], heads(4, 2, 3)), (vec![4, 2], heads(3, 1, 5)), (vec![6], heads(2, 2, 2))]
    {
        let (qkv, weights) = inputs::<f64>(&lengths, heads);
        let gradient = backward(&qkv, &weights, &lengths, heads);
        // q, k and v are columns of the one packed input: every element of each is probed.
        assert_gradient(&format!("dqkv {lengths:?} {heads:?}"), &qkv, &gradient, |qkv| {
            weighted_sum(&forward(qkv, &lengths, heads).0, &weights)
        });
    }
}

#[test]
fn scores_shifted_by_a_thousand_give_the_same_attention() {
    let (lengths, heads) = ([90, 300], heads(2, 1, 16));
    for shift in [-1e3, 1e3] {
        let (mut qkv, dout) = inputs::<f32>(&lengths, heads);
        for row in qkv.chunks_exact_mut(heads.qkv_dim()) {
            // The last component of every key is 1, so that of a query shifts all its scores.
            row[heads.q_dim() + heads.head_dim - 1] = 1.0;
            for h in 0..heads.num_heads {
                row[h * heads.head_dim + heads.head_dim - 1] = (shift / scale(heads)) as f32;
            }
        }
        let (out, lse) = forward(&qkv, &lengths, heads);
        let dqkv = backward(&qkv, &dout, &lengths, heads);
        let want = oracle::attention(&to_f64(&qkv), &to_f64(&dout), &lengths, scale(heads), heads);
        assert!(want.lse.iter().all(|x| (x - shift).abs() < 20.0));
        // A score near 1000 is rounded to a relative roundoff a few times (the last products of
        // its sum), so a probability is off by a few times 1000 roundoffs, relative.
        let tolerance = 4.0 * 1e3 * f32::UNIT_ROUNDOFF;
        assert_close("out", &to_f64(&out), &want.out, tolerance);
        assert_close("lse", &to_f64(&lse), &want.lse, 4.0 * f32::UNIT_ROUNDOFF);
        assert_close("dqkv", &to_f64(&dqkv), &want.dqkv, 2.0 * tolerance);
    }
}

/// Rows `start .. start + rows` of something with `width` columns.
fn rows<T: Clone>(x: &[T], width: usize, start: usize, rows: usize) -> Vec<T> {
    x[start * width..(start + rows) * width].to_vec()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_document_has_the_same_bits_alone_and_among_others_even_when_those_are_nan() {
    let (lengths, heads) = ([5, 300, 70], heads(4, 2, 5));
    let (mut qkv, mut dout) = inputs::<f32>(&lengths, heads);
    let (start, length) = (5, 300);
    let alone_qkv = rows(&qkv, heads.qkv_dim(), start, length);
    let alone_dout = rows(&dout, heads.q_dim(), start, length);
    let (alone_out, alone_lse) = forward(&alone_qkv, &[length], heads);
    let alone_dqkv = backward(&alone_qkv, &alone_dout, &[length], heads);
    for poisoned in [false, true] {
        if poisoned {
            for (x, width) in [(&mut qkv, heads.qkv_dim()), (&mut dout, heads.q_dim())] {
                x[..start * width].fill(f32::NAN);
                x[(start + length) * width..].fill(f32::NAN);
            }
        }
        let (out, lse) = forward(&qkv, &lengths, heads);
        let dqkv = backward(&qkv, &dout, &lengths, heads);
        let same = |what: &str, all: &[f32], width: usize, alone: &[f32]| {
            let part = rows(all, width, start, length);
            assert_eq!(bits(&part), bits(alone), "{what}, neighbours NaN: {poisoned}");
        };
        same("out", &out, heads.q_dim(), &alone_out);
        same("lse", &lse, heads.num_heads, &alone_lse);
        same("dqkv", &dqkv, heads.qkv_dim(), &alone_dqkv);
        assert_eq!(out[0].is_nan(), poisoned);
        assert_eq!(dqkv[dqkv.len() - 1].is_nan(), poisoned);
    }
}

#[test]
fn nothing_flows_from_a_later_token_to_an_earlier_one() {
    let (lengths, heads) = ([330], heads(2, 1, 8));
    let (qkv, mut dout) = inputs::<f32>(&lengths, heads);
    for t in [0, 63, 64, 200, 256, 328] {
        let mut changed = qkv.clone();
        for x in &mut changed[(t + 1) * heads.qkv_dim()..] {
            *x = 3.0 - *x;
        }
        let earlier = (t + 1) * heads.q_dim();
        let (out, changed_out) =
            (forward(&qkv, &lengths, heads), forward(&changed, &lengths, heads));
        assert_eq!(bits(&out.0[..earlier]), bits(&changed_out.0[..earlier]), "token {t}");
        assert_ne!(out.0[earlier..], changed_out.0[earlier..], "token {t}");
        // Only the outputs up to t matter: later tokens get exactly no gradient, t itself some.
        dout[earlier..].fill(0.0);
        let dqkv = backward(&qkv, &dout, &lengths, heads);
        let (until_t, later) = dqkv.split_at((t + 1) * heads.qkv_dim());
        assert!(later.iter().all(|&x| x == 0.0), "token {t}");
        assert!(until_t[t * heads.qkv_dim()..].iter().any(|&x| x != 0.0), "token {t}");
        dout = normal(dout.len(), 1.0, 2);
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for (lengths, heads) in [(vec![600], heads(4, 2, 16)), (vec![70, 1, 300, 2], heads(3, 1, 5))] {
        let (qkv, dout) = inputs::<f32>(&lengths, heads);
        assert_same_bits_for_any_thread_count(&format!("forward {lengths:?}"), || {
            let (out, lse) = forward(&qkv, &lengths, heads);
            [out, lse].concat()
        });
        assert_same_bits_for_any_thread_count(&format!("backward {lengths:?}"), || {
            backward(&qkv, &dout, &lengths, heads)
        });
    }
}

#[test]
fn a_batch_without_tokens_is_nothing() {
    let heads = heads(2, 1, 4);
    let (out, lse) = forward::<f32>(&[], &[], heads);
    assert_eq!((out.len(), lse.len()), (0, 0));
    assert!(backward::<f32>(&[], &[], &[], heads).is_empty());
}

#[test]
fn cost_counts_the_pairs_that_the_mask_leaves() {
    let heads = heads(4, 2, 8);
    // 1 + 3 pairs over 4 heads; two products of 8 multiply-adds and an exponential for each.
    let forward = attention::forward_cost(&[1, 2], 4, heads);
    assert_eq!(forward.flops, 16.0 * (2.0 * 2.0 * 8.0 + 1.0));
    // Rows of qkv (64), out (32) and lse (4) columns, four bytes each.
    assert_eq!(forward.bytes, 4.0 * 3.0 * (64.0 + 32.0 + 4.0));
    let backward = attention::backward_cost(&[1, 2], 4, heads);
    assert_eq!(backward.flops, 16.0 * (5.0 * 2.0 * 8.0 + 1.0));
    assert_eq!(backward.bytes, 4.0 * 3.0 * (2.0 * 64.0 + 2.0 * 32.0 + 4.0));
}
