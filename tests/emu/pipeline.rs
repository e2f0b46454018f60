//! Instructions together: two pipelined GEMMs at ragged sizes, with every depth of the ring.

use super::device::{Arg, Boxes, Launch, bytes, seeds, values};
use cudarc::driver::sys::{CUtensorMapDataType as Element, CUtensorMapSwizzle as Swizzle};
use half::bf16;
use hooke::testing::fill::normal;

const SHARED_SM80: u32 = 2 * 128 * 32 * 2;
const SHARED_SM90: u32 = 3 * 32768 + 4 * 8192 + 6 * 8;

fn operands(m: usize, n: usize, k: usize) -> (Vec<bf16>, Vec<bf16>) {
    let round = |x: Vec<f32>| x.into_iter().map(bf16::from_f32).collect();
    (round(normal(m * k, 1.0, 1)), round(normal(n * k, 1.0, 2)))
}

/// |got - want| may be what tensor cores cut off plus `relative` of the result.
fn check(got: &[f64], a: &[bf16], b: &[bf16], n: usize, k: usize, relative: f64) {
    for (i, got) in got.iter().enumerate() {
        let (row, column) = (i / n, i % n);
        let terms = (0..k).map(|l| a[row * k + l].to_f64() * b[column * k + l].to_f64());
        let (want, size) = terms.fold((0.0, 0.0), |(s, z), t| (s + t, z + t.abs()));
        let tolerance = size * 2f64.powi(-20) + want.abs() * relative;
        assert!((got - want).abs() <= tolerance, "[{row}][{column}]: {got}, want {want}");
    }
}

fn boxed<'a>(dims: &'a [u64; 2], strides: &'a [u64; 1], boxes: &'a [u32; 2]) -> Boxes<'a> {
    Boxes {
        element: Element::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        dims,
        strides,
        boxes,
        swizzle: Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
    }
}

#[test]
fn a_cp_async_gemm_is_right_at_ragged_sizes() {
    for (m, n, k) in [(64, 64, 32), (100, 72, 72), (1, 8, 8), (65, 129, 200)] {
        let (a, b) = operands(m, n, k);
        for seed in seeds() {
            let outcome = Launch {
                kernel: "pipeline_sm80",
                grid: n.div_ceil(64) as u32,
                grid_y: m.div_ceil(64) as u32,
                block: 128,
                shared_bytes: SHARED_SM80,
                args: vec![
                    Arg::Out(m * n * 4),
                    Arg::In(bytes(&a)),
                    Arg::In(bytes(&b)),
                    Arg::I32(m as i32),
                    Arg::I32(n as i32),
                    Arg::I32(k as i32),
                ],
                ..Launch::default()
            }
            .run(seed);
            assert_eq!(outcome.findings, "", "{m} {n} {k} seed {seed}");
            let c: Vec<f32> = values(&outcome.outputs[0]);
            let c: Vec<f64> = c.into_iter().map(f64::from).collect();
            check(&c, &a, &b, n, k, 0.0);
        }
    }
}

#[test]
fn a_warp_specialised_gemm_is_right_at_ragged_sizes() {
    for (m, n, k) in [(128, 128, 64), (100, 136, 72), (150, 264, 328), (1, 8, 8), (300, 128, 200)] {
        let (a, b) = operands(m, n, k);
        let dim = |x: usize| x as u64;
        let outputs = Launch {
            kernel: "pipeline_sm90",
            grid: (m.div_ceil(128) * n.div_ceil(128)).min(2) as u32,
            block: 384,
            shared_bytes: SHARED_SM90,
            args: vec![
                Arg::MapInOut(
                    bytes(&vec![bf16::NAN; m * n]),
                    boxed(&[dim(n), dim(m)], &[dim(2 * n)], &[64, 64]),
                ),
                Arg::MapIn(bytes(&a), boxed(&[dim(k), dim(m)], &[dim(2 * k)], &[64, 128])),
                Arg::MapIn(bytes(&b), boxed(&[dim(k), dim(n)], &[dim(2 * k)], &[64, 128])),
                Arg::I32(m as i32),
                Arg::I32(n as i32),
                Arg::I32(k as i32),
            ],
            ..Launch::default()
        }
        .outputs();
        let c: Vec<bf16> = values(&outputs[0]);
        let c: Vec<f64> = c.into_iter().map(bf16::to_f64).collect();
        // The result is rounded once to bf16: half a unit in the last of 8 bits.
        check(&c, &a, &b, n, k, 2f64.powi(-8));
    }
}

/// By hand: `cargo test --release --features emu speed -- --ignored --nocapture`.
#[test]
#[ignore = "prints times"]
fn speed_of_the_emulation() {
    let n = 256;
    let (a, b) = operands(n, n, n);
    let unwritten = vec![bf16::NAN; n * n];
    let (dims, pitch) = ([n as u64; 2], [2 * n as u64]);
    let sizes = || [Arg::I32(n as i32), Arg::I32(n as i32), Arg::I32(n as i32)];
    let mut sm80 = Launch {
        kernel: "pipeline_sm80",
        grid: 4,
        grid_y: 4,
        block: 128,
        shared_bytes: SHARED_SM80,
        args: vec![Arg::Out(n * n * 4), Arg::In(bytes(&a)), Arg::In(bytes(&b))],
        ..Launch::default()
    };
    let mut sm90 = Launch {
        kernel: "pipeline_sm90",
        grid: 4,
        block: 384,
        shared_bytes: SHARED_SM90,
        args: vec![
            Arg::MapInOut(bytes(&unwritten), boxed(&dims, &pitch, &[64, 64])),
            Arg::MapIn(bytes(&a), boxed(&dims, &pitch, &[64, 128])),
            Arg::MapIn(bytes(&b), boxed(&dims, &pitch, &[64, 128])),
        ],
        ..Launch::default()
    };
    for launch in [&mut sm80, &mut sm90] {
        launch.args.extend(sizes());
        let times: Vec<f64> = (0..18)
            .map(|seed| {
                let start = std::time::Instant::now();
                launch.run(seed);
                start.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        let best = times.iter().copied().fold(f64::INFINITY, f64::min);
        println!("{} {n}^3: best {best:.1} ms of {times:.0?}", launch.kernel);
    }
}
