//! wgmma in every operand form, against products in f64.

use super::device::{Arg, Boxes, Launch, bytes};
use cudarc::driver::sys::{CUtensorMapDataType as Element, CUtensorMapSwizzle as Swizzle};
use half::bf16;
use hooke::testing::fill::normal;

const DEPTH: usize = 64;

fn boxes<'a>(dims: &'a [u64; 2], strides: &'a [u64; 1], boxes: &'a [u32; 2]) -> Boxes<'a> {
    Boxes {
        element: Element::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        dims,
        strides,
        boxes,
        swizzle: Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
    }
}

/// `transposed`: stored with m (or n) contiguous.
fn check(kernel: &str, n: usize, a_transposed: bool, b_transposed: bool) {
    let a: Vec<f32> = normal(64 * DEPTH, 1.0, 1);
    let b: Vec<f32> = normal(DEPTH * n, 1.0, 2);
    let round = |x: f32| bf16::from_f32(x);
    let a_at = |m: usize, k: usize| round(a[m * DEPTH + k]);
    let b_at = |k: usize, j: usize| round(b[k * n + j]);
    let stored_a: Vec<bf16> = (0..64 * DEPTH)
        .map(|i| if a_transposed { a_at(i % 64, i / 64) } else { a_at(i / DEPTH, i % DEPTH) })
        .collect();
    let stored_b: Vec<bf16> = (0..DEPTH * n)
        .map(|i| if b_transposed { b_at(i / n, i % n) } else { b_at(i % DEPTH, i / DEPTH) })
        .collect();
    let (b_dims, b_stride, b_box) = if b_transposed {
        ([n as u64, DEPTH as u64], [2 * n as u64], [64, DEPTH as u32])
    } else {
        ([DEPTH as u64, n as u64], [2 * DEPTH as u64], [DEPTH as u32, n as u32])
    };
    let out = Launch {
        kernel,
        block: 128,
        shared_bytes: 64 * 128 + 256 * 128 + 8,
        args: vec![
            Arg::MapIn(bytes(&stored_a), boxes(&[64, 64], &[128], &[64, 64])),
            Arg::MapIn(bytes(&stored_b), boxes(&b_dims, &b_stride, &b_box)),
            Arg::Out(64 * n * 4),
        ],
        ..Launch::default()
    }
    .output::<f32>();
    for m in 0..64 {
        for j in 0..n {
            let terms = (0..DEPTH).map(|k| a_at(m, k).to_f64() * b_at(k, j).to_f64());
            let (want, size) = terms.fold((0.0, 0.0), |(s, z), t| (s + t, z + t.abs()));
            let got = f64::from(out[m * n + j]);
            // See kernels/emu/matrix.cpp for what tensor cores cut off.
            assert!(
                (got - want).abs() <= size * 2f64.powi(-20),
                "{kernel} [{m}][{j}]: {got} {want}"
            );
        }
    }
}

#[test]
fn every_operand_form_multiplies() {
    check("conform_wgmma_nn", 128, false, false);
    check("conform_wgmma_nt", 128, false, true);
    check("conform_wgmma_tn", 128, true, false);
    check("conform_wgmma_tt", 128, true, true);
    check("conform_wgmma_rn", 128, false, false);
    check("conform_wgmma_rt", 128, false, true);
}

#[test]
fn every_width_multiplies() {
    check("conform_wgmma_64", 64, false, false);
    check("conform_wgmma_80", 80, false, false);
    check("conform_wgmma_96", 96, false, false);
    check("conform_wgmma_112", 112, false, false);
    check("conform_wgmma_160", 160, false, false);
    check("conform_wgmma_176", 176, false, false);
    check("conform_wgmma_192", 192, false, true);
    check("conform_wgmma_224", 224, false, false);
    check("conform_wgmma_256", 256, false, true);
}
