//! kernels/common: vectors, block reductions, random numbers.

use super::device::{Arg, Launch, bytes};
use half::bf16;
use hooke::rng;
use hooke::testing::fill::normal;

#[test]
fn vectors_and_tails_cover_every_element() {
    for n in [1, 7, 8, 256, 511, 512] {
        let x: Vec<f32> = normal(n, 1.0, 1);
        let launch = |kernel, size, data| Launch {
            kernel,
            block: 64,
            args: vec![Arg::Out(n * size), Arg::In(data), Arg::I32(n as i32)],
            ..Launch::default()
        };
        let doubled: Vec<f32> = launch("conform_twice_f32", 4, bytes(&x)).output();
        assert!(doubled.iter().zip(&x).all(|(y, x)| *y == 2.0 * x), "f32, {n}");
        let x: Vec<bf16> = x.iter().copied().map(bf16::from_f32).collect();
        let doubled: Vec<bf16> = launch("conform_twice_bf16", 2, bytes(&x)).output();
        let right = doubled.iter().zip(&x).all(|(y, x)| y.to_f32() == 2.0 * x.to_f32());
        assert!(right && doubled.len() == n, "bf16, {n}");
    }
}

#[test]
fn block_reductions_add_in_the_documented_order() {
    let x: Vec<f32> = normal(128, 1.0, 2);
    let out = Launch {
        kernel: "conform_reduce",
        block: 128,
        shared_bytes: 16,
        args: vec![Arg::Out(1024), Arg::In(bytes(&x))],
        ..Launch::default()
    }
    .output::<f32>();
    let mut total = 0.0f32;
    for warp in x.chunks(32) {
        let mut lanes = warp.to_vec();
        for distance in [16, 8, 4, 2, 1] {
            lanes = (0..32).map(|i| lanes[i] + lanes[i ^ distance]).collect();
        }
        total += lanes[0];
    }
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    assert_eq!(out[..128], [total; 128]);
    assert_eq!(out[128..], [largest; 128]);
}

#[test]
fn philox_gives_the_words_of_the_host() {
    for (seed, stream) in [(1i32, rng::Stream::Test), (-77, rng::Stream::Init)] {
        let out = Launch {
            kernel: "conform_philox",
            block: 64,
            args: vec![Arg::Out(1024), Arg::I32(seed), Arg::I32(stream as i32)],
            ..Launch::default()
        }
        .output::<u32>();
        let wide = u64::from(seed as u32) << 32 | u64::from(!seed as u32);
        for (i, got) in out.chunks(4).enumerate() {
            assert_eq!(got, rng::words(wide, stream, [i as u32, 7, u32::MAX]));
        }
    }
}
