//! The key/value cache: what is stored, and that decoding continues the forward pass.

use super::{forward, heads, inputs, rows, scale};
use crate::ops::assert_same_bits_for_any_thread_count;
use hooke::device::Device;
use hooke::dtype::Real;
use hooke::error::Error;
use hooke::ops::{Heads, attention};
use hooke::tensor::{View, ViewMut};
use hooke::testing::compare::assert_close;
use hooke::testing::fill::{normal, to_f64};

fn store<T: Real>(
    k_cache: &mut [T],
    v_cache: &mut [T],
    qkv: &[T],
    destinations: &[i32],
    heads: Heads,
) -> Result<(), Error> {
    let shape = [k_cache.len() / heads.kv_dim(), heads.kv_dim()];
    attention::store_kv(
        &Device::Cpu,
        ViewMut::from_host(k_cache, shape),
        ViewMut::from_host(v_cache, shape),
        View::from_host(qkv, [destinations.len(), heads.qkv_dim()]),
        View::from_host(destinations, [destinations.len()]),
        heads,
    )
}

fn decode<T: Real>(
    qkv: &[T],
    k_cache: &[T],
    v_cache: &[T],
    lengths: &[i32],
    heads: Heads,
) -> Result<Vec<T>, Error> {
    let batch = lengths.len();
    let shape = [batch, k_cache.len() / batch / heads.kv_dim(), heads.kv_dim()];
    let mut out = vec![T::from_f64(f64::NAN); batch * heads.q_dim()];
    attention::decode(
        &Device::Cpu,
        ViewMut::from_host(&mut out, [batch, heads.q_dim()]),
        View::from_host(qkv, [batch, heads.qkv_dim()]),
        View::from_host(k_cache, shape),
        View::from_host(v_cache, shape),
        View::from_host(lengths, [batch]),
        scale(heads),
        heads,
    )?;
    Ok(out)
}

/// Caches of `capacity` rows per sequence that hold the documents and NaN behind them.
fn filled<T: Real>(
    qkv: &[T],
    lengths: &[usize],
    capacity: usize,
    heads: Heads,
) -> (Vec<T>, Vec<T>) {
    let mut k_cache = vec![T::from_f64(f64::NAN); lengths.len() * capacity * heads.kv_dim()];
    let mut v_cache = k_cache.clone();
    let destinations = lengths.iter().enumerate();
    let destinations: Vec<i32> = destinations
        .flat_map(|(b, &length)| (0..length).map(move |t| (b * capacity + t) as i32))
        .collect();
    store(&mut k_cache, &mut v_cache, qkv, &destinations, heads).unwrap();
    (k_cache, v_cache)
}

fn check_decode<T: Real>(lengths: &[usize], heads: Heads) {
    let (qkv, _) = inputs::<T>(lengths, heads);
    let (out, _) = forward(&qkv, lengths, heads);
    // One row more than the longest: what lies behind a sequence is NaN and must not be read.
    let capacity = lengths.iter().copied().max().unwrap() + 1;
    let (k_cache, v_cache) = filled(&qkv, lengths, capacity, heads);
    let (mut last_qkv, mut want, mut end) = (Vec::new(), Vec::new(), 0);
    for length in lengths {
        end += length;
        last_qkv.extend(rows(&qkv, heads.qkv_dim(), end - 1, 1));
        want.extend(rows(&out, heads.q_dim(), end - 1, 1));
    }
    let counts: Vec<i32> = lengths.iter().map(|&n| n as i32).collect();
    // The keys and values of the packed row are not read: they are already in the cache.
    for row in last_qkv.chunks_exact_mut(heads.qkv_dim()) {
        row[heads.q_dim()..].fill(T::from_f64(f64::NAN));
    }
    let got = decode(&last_qkv, &k_cache, &v_cache, &counts, heads).unwrap();
    // Two results that each differ from the exact one by the error derived in the parent module.
    let walk = 4.0 + (heads.head_dim as f64).sqrt() + (capacity as f64).sqrt();
    let tolerance = 4.0 * T::UNIT_ROUNDOFF * walk;
    assert_close(&format!("{lengths:?} {heads:?}"), &to_f64(&got), &to_f64(&want), tolerance);
}

#[test]
fn decoding_gives_the_last_row_of_the_forward_pass() {
    let cases: [(&[usize], Heads); 5] = [
        (&[1], heads(1, 1, 1)),
        (&[7, 1, 2], heads(3, 1, 5)),
        (&[127, 129, 128], heads(6, 2, 33)),
        (&[341, 1], heads(4, 4, 7)),
        (&[65], heads(9, 3, 64)),
    ];
    for (lengths, heads) in cases {
        check_decode::<f32>(lengths, heads);
        check_decode::<f64>(lengths, heads);
    }
}

#[test]
fn decoding_has_the_same_bits_for_any_number_of_threads_and_any_batch() {
    let (lengths, heads) = ([200, 3, 77], heads(4, 2, 8));
    let (qkv, _) = inputs::<f32>(&lengths, heads);
    let (k_cache, v_cache) = filled(&qkv, &lengths, 200, heads);
    let queries = normal::<f32>(3 * heads.qkv_dim(), 1.0, 5);
    let counts = lengths.map(|n| n as i32);
    let all = || decode(&queries, &k_cache, &v_cache, &counts, heads).unwrap();
    assert_same_bits_for_any_thread_count("decode", all);
    let size = 200 * heads.kv_dim();
    let second = decode(
        &rows(&queries, heads.qkv_dim(), 1, 1),
        &k_cache[size..2 * size],
        &v_cache[size..2 * size],
        &counts[1..2],
        heads,
    );
    assert_eq!(second.unwrap(), rows(&all(), heads.q_dim(), 1, 1));
}

#[test]
fn storing_writes_the_named_rows_and_no_other() {
    let heads = heads(2, 1, 2);
    let qkv: Vec<f32> = (0..16).map(|i| i as f32).collect();
    let (mut k_cache, mut v_cache) = (vec![-1.0f32; 8], vec![-2.0f32; 8]);
    store(&mut k_cache, &mut v_cache, &qkv, &[3, 1], heads).unwrap();
    assert_eq!(k_cache, [-1.0, -1.0, 12.0, 13.0, -1.0, -1.0, 4.0, 5.0]);
    assert_eq!(v_cache, [-2.0, -2.0, 14.0, 15.0, -2.0, -2.0, 6.0, 7.0]);
}

#[test]
fn rows_outside_the_cache_or_used_twice_are_refused_and_nothing_is_written() {
    let heads = heads(2, 1, 2);
    let qkv = [1.0f32; 16];
    for (destinations, message) in [
        ([0, 4], "attention.store_kv: rows has 4 at index 1, expected values in 0..4"),
        ([-1, 2], "attention.store_kv: rows has -1 at index 0, expected values in 0..4"),
        ([2, 2], "attention.store_kv: rows has 2 twice, expected distinct values"),
    ] {
        let (mut k_cache, mut v_cache) = ([0.0f32; 8], [0.0f32; 8]);
        let error = store(&mut k_cache, &mut v_cache, &qkv, &destinations, heads).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!((k_cache, v_cache), ([0.0; 8], [0.0; 8]));
    }
}

#[test]
fn a_length_of_zero_or_beyond_the_cache_is_refused() {
    let heads = heads(2, 1, 2);
    for length in [0, 5, -1, i32::MIN] {
        let error = decode(&[1.0f32; 8], &[1.0; 8], &[1.0; 8], &[length], heads).unwrap_err();
        let want =
            format!("attention.decode: lengths has {length} at index 0, expected values in 1..5");
        assert_eq!(error.to_string(), want);
    }
}
