//! cp.async, hinted accesses, atomics, and order between blocks.

use super::device::{Arg, Launch, bytes};
use hooke::testing::fill::{below, normal};

#[test]
fn cp_async_fills_the_rest_with_zeros() {
    let input: Vec<u8> = below(512, 255, 6).iter().map(|x| *x as u8 + 1).collect();
    let out = Launch {
        kernel: "conform_cp_async",
        shared_bytes: 1536,
        args: vec![Arg::Out(3 * 512), Arg::In(&input)],
        ..Launch::default()
    }
    .output::<u8>();
    for lane in 0..32 {
        let from = lane ^ 1;
        for byte in 0..16 {
            let value = input[from * 16 + byte];
            let copied =
                [byte < from % 17, byte >= 8 || byte < from % 9, byte >= 4 || byte < from % 5];
            for (part, copied) in copied.into_iter().enumerate() {
                let want = if copied { value } else { 0 };
                assert_eq!(out[part * 512 + lane * 16 + byte], want, "{part} {lane} {byte}");
            }
        }
    }
}

#[test]
fn hinted_loads_and_stores_move_16_bytes() {
    let input: Vec<u32> = below(256, 1 << 30, 7).iter().map(|x| *x as u32).collect();
    let out = Launch {
        kernel: "conform_hints",
        block: 64,
        args: vec![Arg::Out(1024), Arg::In(bytes(&input))],
        ..Launch::default()
    }
    .output::<u32>();
    for (i, got) in out.into_iter().enumerate() {
        assert_eq!(got, if i % 4 == 0 { input[i] * 2 } else { input[i] });
    }
}

#[test]
fn blocks_take_turns_by_release_and_acquire() {
    let state = [1.0f32; 32];
    let launch = Launch {
        kernel: "conform_turns",
        // Two blocks are alive at once: more would deadlock when they start in another order.
        grid: 2,
        args: vec![Arg::InOut(bytes(&state)), Arg::InOut(bytes(&[0u32]))],
        ..Launch::default()
    };
    let outputs = launch.outputs();
    assert_eq!(outputs[0], bytes(&[(1.0f32 * 2.0) * 2.0 + 1.0; 32]));
}

#[test]
fn the_last_block_sees_what_all_blocks_wrote() {
    let blocks = 7;
    let input: Vec<f32> = normal(blocks * 32, 1.0, 8);
    for kernel in ["conform_last_block", "conform_fence_atomic"] {
        let outputs = Launch {
            kernel,
            grid: blocks as u32,
            args: vec![
                Arg::Out(128),
                Arg::Out(blocks * 128),
                Arg::InOut(bytes(&[0u32])),
                Arg::In(bytes(&input)),
            ],
            ..Launch::default()
        }
        .outputs();
        let want: Vec<f32> = (0..32)
            .map(|t| (0..blocks).fold(0.0, |sum, b| sum + input[b * 32 + t] * 2.0))
            .collect();
        assert_eq!(outputs[0], bytes(&want), "{kernel}");
    }
}

#[test]
fn integer_atomics_lose_nothing() {
    let n = 1000;
    let input: Vec<u32> = below(n, 1 << 20, 9).iter().map(|x| *x as u32).collect();
    let outputs = Launch {
        kernel: "conform_atomics",
        grid: 3,
        block: 64,
        shared_bytes: 64,
        args: vec![Arg::InOut(bytes(&[0u32; 16])), Arg::In(bytes(&input)), Arg::I32(n as i32)],
        ..Launch::default()
    }
    .outputs();
    let mut want = [0u32; 16];
    for x in input {
        want[x as usize % 16] += 1;
    }
    assert_eq!(outputs[0], bytes(&want));
}
