//! stmatrix, elect, mbarriers, TMA, bulk copies and clusters.

use super::device::{Arg, Boxes, Launch, bytes, values};
use cudarc::driver::sys::{CUtensorMapDataType as Element, CUtensorMapSwizzle as Swizzle};
use hooke::testing::fill::{below, normal};

#[test]
fn stmatrix_is_the_inverse_of_ldmatrix() {
    let input: Vec<u32> = below(128, 1 << 31, 1).iter().map(|x| *x as u32).collect();
    let out = Launch {
        kernel: "conform_stmatrix",
        shared_bytes: 1536,
        args: vec![Arg::Out(1536), Arg::In(bytes(&input))],
        ..Launch::default()
    }
    .output::<u16>();
    for lane in 0..32 {
        let row = lane ^ 1; // the kernel reads its neighbour's row
        let (m, r) = (row / 8, row % 8);
        for c in 0..8 {
            let plain = (input[m * 32 + r * 4 + c / 2] >> (16 * (c % 2))) as u16;
            let transposed = (input[m * 32 + c * 4 + r / 2] >> (16 * (r % 2))) as u16;
            let untouched = if c % 2 == 0 { 7 } else { 0 };
            assert_eq!(out[lane * 8 + c], plain, "x4 {lane} {c}");
            assert_eq!(out[256 + lane * 8 + c], transposed, "x4 transposed {lane} {c}");
            let want = if row < 16 { plain } else { untouched };
            assert_eq!(out[512 + lane * 8 + c], want, "x2 {lane} {c}");
        }
    }
}

#[test]
fn elect_picks_the_same_single_lane_each_time() {
    let out = Launch {
        kernel: "conform_elect",
        block: 64,
        args: vec![Arg::Out(256)],
        ..Launch::default()
    }
    .output::<u32>();
    assert_eq!(out, [0x101; 64]);
}

#[test]
fn a_ring_of_mbarriers_works_for_every_number_of_rounds() {
    for stages in [1usize, 2, 3] {
        for n in [1, stages - 1, stages, stages + 1, 2 * stages + 1, 4 * stages] {
            if n == 0 {
                continue;
            }
            let input: Vec<f32> = normal(n * 32, 1.0, 2);
            let out = Launch {
                kernel: "conform_ring",
                block: 64,
                shared_bytes: 1024 + 128,
                args: vec![
                    Arg::Out(n * 128),
                    Arg::In(bytes(&input)),
                    Arg::I32(n as i32),
                    Arg::I32(stages as i32),
                ],
                ..Launch::default()
            }
            .output::<f32>();
            for i in 0..n * 32 {
                assert_eq!(
                    out[i],
                    input[i / 32 * 32 + 31 - i % 32] + 1.0,
                    "{n} in {stages} stages"
                );
            }
        }
    }
}

/// Where byte `offset` of a dense box lies after the swizzle: bits 4-6 ^= some of bits 7-9.
fn swizzled(offset: usize, swizzle: Swizzle) -> usize {
    let mask = match swizzle {
        Swizzle::CU_TENSOR_MAP_SWIZZLE_128B => 7,
        Swizzle::CU_TENSOR_MAP_SWIZZLE_64B => 3,
        Swizzle::CU_TENSOR_MAP_SWIZZLE_32B => 1,
        _ => 0,
    };
    offset ^ ((offset >> 7 & mask) << 4)
}

#[test]
fn a_2d_box_is_dense_swizzled_and_zero_outside_the_tensor() {
    let (rows, columns, pitch) = (19usize, 40usize, 48usize);
    let input: Vec<u16> = below(rows * pitch, 60000, 3).iter().map(|x| *x as u16 + 1).collect();
    for (swizzle, width) in [
        (Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE, 24usize),
        (Swizzle::CU_TENSOR_MAP_SWIZZLE_32B, 16),
        (Swizzle::CU_TENSOR_MAP_SWIZZLE_64B, 32),
        (Swizzle::CU_TENSOR_MAP_SWIZZLE_128B, 64),
    ] {
        for (x, y) in [(0, 0), (8, 3), (-8, -2), (32, 12), (100, 100)] {
            let height = 16;
            let num_bytes = width * height * 2;
            let out = Launch {
                kernel: "conform_tma_2d",
                shared_bytes: 32768 + 8,
                args: vec![
                    Arg::MapIn(
                        bytes(&input),
                        Boxes {
                            element: Element::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                            dims: &[columns as u64, rows as u64],
                            strides: &[pitch as u64 * 2],
                            boxes: &[width as u32, height as u32],
                            swizzle,
                        },
                    ),
                    Arg::Out(num_bytes),
                    Arg::I32(num_bytes as i32),
                    Arg::I32(x),
                    Arg::I32(y),
                ],
                ..Launch::default()
            }
            .output::<u16>();
            for row in 0..height {
                for column in 0..width {
                    let (gx, gy) = (i64::from(x) + column as i64, i64::from(y) + row as i64);
                    let inside =
                        (0..columns as i64).contains(&gx) && (0..rows as i64).contains(&gy);
                    let want = if inside { input[gy as usize * pitch + gx as usize] } else { 0 };
                    let at = swizzled((row * width + column) * 2, swizzle) / 2;
                    assert_eq!(out[at], want, "{swizzle:?} at ({x}, {y}): {row}, {column}");
                }
            }
        }
    }
}

#[test]
fn a_3d_box_walks_its_outer_dimensions() {
    let dims = [8usize, 5, 4];
    let input: Vec<f32> = normal(dims.iter().product(), 1.0, 4);
    let (width, height, depth) = (4usize, 3usize, 2usize);
    let num_bytes = width * height * depth * 4;
    let out = Launch {
        kernel: "conform_tma_3d",
        shared_bytes: 32768 + 8,
        args: vec![
            Arg::MapIn(
                bytes(&input),
                Boxes {
                    element: Element::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
                    dims: &[8, 5, 4],
                    strides: &[32, 160],
                    boxes: &[4, 3, 2],
                    swizzle: Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
                },
            ),
            Arg::Out(num_bytes),
            Arg::I32(num_bytes as i32),
            Arg::I32(3),
            Arg::I32(3),
            Arg::I32(1),
        ],
        ..Launch::default()
    }
    .output::<f32>();
    for (i, got) in out.into_iter().enumerate() {
        let (x, y, z) = (3 + i % width, 3 + i / width % height, 1 + i / width / height);
        let want = if y < 5 { input[(z * 5 + y) * 8 + x] } else { 0.0 };
        assert_eq!(got, want, "{x} {y} {z}");
    }
}

#[test]
fn a_store_leaves_what_is_outside_the_tensor_and_a_reduction_adds() {
    let (rows, columns) = (6usize, 12usize);
    let before: Vec<f32> = normal(rows * columns, 1.0, 5);
    for add in [0, 1] {
        let outputs = Launch {
            kernel: "conform_tma_store",
            shared_bytes: 512,
            args: vec![
                Arg::MapInOut(
                    bytes(&before),
                    Boxes {
                        element: Element::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
                        dims: &[columns as u64, rows as u64],
                        strides: &[48],
                        boxes: &[8, 4],
                        swizzle: Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
                    },
                ),
                Arg::I32(128),
                Arg::I32(8),
                Arg::I32(4),
                Arg::I32(add),
            ],
            ..Launch::default()
        }
        .outputs();
        let got: Vec<f32> = values(&outputs[0]);
        for i in 0..rows * columns {
            let (y, x) = (i / columns, i % columns);
            let stored = x >= 8 && y >= 4;
            let value = if stored { ((y - 4) * 8 + x - 8) as f32 } else { 0.0 };
            let want = match (stored, add) {
                (false, _) => before[i],
                (true, 0) => value,
                (true, _) => before[i] + value + value,
            };
            assert_eq!(got[i], want, "add {add}: {y} {x}");
        }
    }
}

#[test]
fn bulk_copies_go_in_and_out_and_add() {
    let input: Vec<f32> = normal(256, 1.0, 6);
    let out = Launch {
        kernel: "conform_bulk",
        shared_bytes: 4096 + 8,
        args: vec![Arg::Out(1024), Arg::In(bytes(&input)), Arg::I32(1024)],
        ..Launch::default()
    }
    .output::<f32>();
    for (got, x) in out.into_iter().zip(input) {
        assert_eq!(got, 4.0 * x);
    }
}

#[test]
fn blocks_of_a_cluster_read_each_other() {
    for size in [2usize, 4] {
        let out = Launch {
            kernel: "conform_cluster",
            grid: 2 * size as u32,
            cluster: size as u32,
            shared_bytes: 1040,
            args: vec![Arg::Out(2 * size * 128), Arg::In(&[0; 16])],
            ..Launch::default()
        }
        .output::<u32>();
        for (i, got) in out.into_iter().enumerate() {
            let next = (i / 32 % size + 1) % size;
            assert_eq!(got as usize, next * 100 + i % 32);
        }
    }
}

#[test]
fn multicast_reaches_every_block_of_the_cluster() {
    let input: Vec<f32> = normal(64, 1.0, 7);
    let out = Launch {
        kernel: "conform_multicast",
        grid: 4,
        cluster: 4,
        shared_bytes: 32768 + 8,
        args: vec![
            Arg::MapIn(
                bytes(&input),
                Boxes {
                    element: Element::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
                    dims: &[8, 8],
                    strides: &[32],
                    boxes: &[8, 8],
                    swizzle: Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
                },
            ),
            Arg::Out(4 * 256),
            Arg::I32(256),
        ],
        ..Launch::default()
    }
    .output::<f32>();
    for (i, got) in out.into_iter().enumerate() {
        assert_eq!(got, input[i % 64]);
    }
}
