//! ldmatrix and mma against their definitions.

use super::device::{Arg, Launch, bytes};
use half::bf16;
use hooke::testing::fill::{below, normal};

#[test]
fn ldmatrix_distributes_rows_over_lanes() {
    let input: Vec<u32> = below(512, 1 << 31, 1).iter().map(|x| *x as u32).collect();
    let out = Launch {
        kernel: "conform_ldmatrix",
        shared_bytes: 2048,
        args: vec![Arg::Out(13 * 32 * 4), Arg::In(bytes(&input))],
        ..Launch::default()
    }
    .output::<u32>();
    // Element (row, column) of matrix m: 16-bit words of the first 16 bytes of row m * 8 + row.
    let halves: &[u16] = bytemuck::cast_slice(&input);
    let element =
        |m: usize, row: usize, column: usize| u32::from(halves[(m * 8 + row) * 32 + column]);
    let expected = |m: usize, lane: usize, transposed: bool| {
        let (g, t) = (lane / 4, lane % 4 * 2);
        let at = |i: usize| if transposed { element(m, t + i, g) } else { element(m, g, t + i) };
        at(0) | at(1) << 16
    };
    // x1, then x2, x2 transposed, x4, x4 transposed: (first output row, matrices, transposed).
    for (first, matrices, transposed) in
        [(0, 1, false), (1, 2, false), (3, 2, true), (5, 4, false), (9, 4, true)]
    {
        for m in 0..matrices {
            for lane in 0..32 {
                let got = out[(first + m) * 32 + lane];
                assert_eq!(
                    got,
                    expected(m, lane, transposed),
                    "output {first}, matrix {m}, {lane}"
                );
            }
        }
    }
}

#[test]
fn mma_multiplies_integers_exactly_and_others_to_rounding() {
    let run = |a: &[bf16], b: &[bf16], c: &[f32]| {
        Launch {
            kernel: "conform_mma",
            args: vec![
                Arg::Out(16 * 8 * 4),
                Arg::In(bytes(a)),
                Arg::In(bytes(b)),
                Arg::In(bytes(c)),
            ],
            ..Launch::default()
        }
        .output::<f32>()
    };
    let small =
        |n, seed| -> Vec<f32> { below(n, 31, seed).iter().map(|x| *x as f32 - 15.0).collect() };
    for (exact, a, b, c) in [
        (true, small(256, 1), small(128, 2), small(128, 3)),
        (false, normal(256, 1.0, 1), normal(128, 1.0, 2), normal(128, 1.0, 3)),
    ] {
        let a: Vec<bf16> = a.into_iter().map(bf16::from_f32).collect();
        let b: Vec<bf16> = b.into_iter().map(bf16::from_f32).collect();
        let d = run(&a, &b, &c);
        for m in 0..16 {
            for n in 0..8 {
                let terms = (0..16).map(|k| a[m * 16 + k].to_f64() * b[k * 8 + n].to_f64());
                let (sum, size) = terms.fold((0.0, 0.0), |(s, z), t| (s + t, z + t.abs()));
                let want = sum + f64::from(c[m * 8 + n]);
                // Hardware may cut off below 2^-23 of the largest intermediate at every step.
                let tolerance = if exact { 0.0 } else { (size + want.abs()) * 2f64.powi(-20) };
                let got = f64::from(d[m * 8 + n]);
                assert!((got - want).abs() <= tolerance, "D[{m}][{n}] = {got}, want {want}");
            }
        }
    }
}
