//! Elementary functions and conversions.

use super::device::{Arg, Launch, bytes};
use half::bf16;
use hooke::testing::fill::normal;

fn interesting_floats() -> Vec<f32> {
    let mut values: Vec<f32> = normal(500, 4.0, 5);
    values.extend([0.0, -0.0, 1.0, -1.0, 126.0, -126.0, 127.5, f32::INFINITY, f32::NEG_INFINITY]);
    values.extend([f32::NAN, f32::MIN_POSITIVE, 1e-40, f32::MAX, 3.0e38, 65504.0]);
    // 257 and 259 lie exactly between two bf16 values: ties go to the even one.
    values.extend([257.0, 259.0, -257.0, 1.5]);
    values
}

#[test]
fn approximations_are_within_the_bounds_that_ptx_states() {
    let x = interesting_floats();
    let n = x.len();
    let out = Launch {
        kernel: "conform_math",
        grid: n.div_ceil(128) as u32,
        block: 128,
        args: vec![Arg::Out(5 * n * 4), Arg::In(bytes(&x)), Arg::I32(n as i32)],
        ..Launch::default()
    }
    .output::<f32>();
    // "ftz": denormal inputs and outputs count as zero of their sign.
    let flush =
        |x: f64| if x.abs() < f64::from(f32::MIN_POSITIVE) { 0.0f64.copysign(x) } else { x };
    for (i, &x) in x.iter().enumerate() {
        let x = flush(f64::from(x));
        let a = x.abs();
        // (value, relative bound, absolute bound) from the PTX ISA's tables.
        let want = [
            (flush(x.exp2()), 2f64.powi(-22), 0.0),
            (a.log2(), 2f64.powi(-22), 2f64.powi(-22)),
            (1.0 / a.sqrt(), 2f64.powi(-22), 0.0),
            (flush(1.0 / x), 2f64.powi(-23), 0.0),
            (flush(x.tanh()), 2f64.powi(-10), 1e-38),
        ];
        for (row, (want, relative, absolute)) in want.into_iter().enumerate() {
            let got = f64::from(out[row * n + i]);
            let overflow = want.abs() > f64::from(f32::MAX);
            let want = if overflow { f64::INFINITY.copysign(want) } else { want };
            let close = (got - want).abs() <= want.abs() * relative + absolute;
            assert!(got == want || close || (got.is_nan() && want.is_nan()), "{row}({x}): {got}");
        }
    }
}

#[test]
fn bf16_conversion_rounds_to_nearest_even() {
    let x = interesting_floats();
    let n = x.len();
    let out = Launch {
        kernel: "conform_bf16",
        grid: n.div_ceil(128) as u32,
        block: 128,
        args: vec![Arg::Out(2 * n * 4), Arg::In(bytes(&x)), Arg::I32(n as i32)],
        ..Launch::default()
    }
    .output::<u32>();
    let bits = |x: f32| if x.is_nan() { 0x7fff } else { u32::from(bf16::from_f32(x).to_bits()) };
    for (i, &x) in x.iter().enumerate() {
        assert_eq!(out[i], bits(x), "{x}");
        assert_eq!(out[n + i], bits(x) | bits(-x) << 16, "{x} packed");
    }
}
