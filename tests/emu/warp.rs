//! Shuffles, votes, integer reductions and named barriers.

use super::device::{Arg, Launch, bytes};
use hooke::testing::fill::{below, normal};

#[test]
fn shuffles_votes_and_reductions_follow_their_definitions() {
    let v: Vec<u32> = below(32, 1000, 3).iter().map(|x| *x as u32).collect();
    let out = Launch {
        kernel: "conform_warp",
        args: vec![Arg::Out(13 * 32 * 4), Arg::In(bytes(&v))],
        ..Launch::default()
    }
    .output::<u32>();
    let votes = (0..32).fold(0, |mask, lane| mask | (v[lane] & 1) << lane);
    for lane in 0..32usize {
        let segment = lane / 8 * 8;
        let half_end = lane / 16 * 16 + 16;
        let want = [
            v[5],
            v[segment + (lane + 3) % 8],
            if lane < 2 { v[lane] } else { v[lane - 2] },
            if lane + 3 < half_end { v[lane + 3] } else { v[lane] },
            v[lane ^ 9],
            votes,
            1,
            u32::from(v.iter().all(|x| *x == v[7])),
            v.iter().sum(),
            *v.iter().min().unwrap(),
            *v.iter().max().unwrap(),
            lane as u32,
            if lane < 12 { v[lane ^ 1] } else { v[lane] },
        ];
        for (row, want) in want.into_iter().enumerate() {
            assert_eq!(out[row * 32 + lane], want, "row {row}, lane {lane}");
        }
    }
}

#[test]
fn named_barriers_hand_a_slot_back_and_forth() {
    let n = 9;
    let input: Vec<f32> = normal(n * 32, 1.0, 4);
    let out = Launch {
        kernel: "conform_named_barriers",
        block: 64,
        shared_bytes: 256,
        args: vec![Arg::Out(n * 128), Arg::In(bytes(&input)), Arg::I32(n as i32)],
        ..Launch::default()
    }
    .output::<f32>();
    for i in 0..n * 32 {
        assert_eq!(out[i], input[i / 32 * 32 + 31 - i % 32]);
    }
}
