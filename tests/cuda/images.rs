//! What the real compiler said of the kernels, for every architecture.

use hooke::cuda::images::{IMAGES, TOOLCHAIN};

#[test]
fn no_kernel_spills_or_keeps_a_stack_frame() {
    let toolchain = TOOLCHAIN.unwrap();
    let num_architectures = toolchain.split("architectures ").nth(1).unwrap().split(' ').count();
    for image in IMAGES {
        let frames: Vec<&str> =
            image.ptxas.lines().filter(|line| line.contains("bytes stack frame")).collect();
        let num_kernels = image.kernels.len();
        assert!(num_kernels > 0, "{}: no kernel", image.name);
        // Every kernel is reported for every architecture.
        assert!(
            frames.len() >= num_kernels * num_architectures,
            "{}: {} reports of {num_kernels} kernels on {num_architectures} architectures",
            image.name,
            frames.len()
        );
        let clean = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads";
        for frame in frames {
            assert_eq!(frame.trim(), clean, "{}", image.name);
        }
    }
    assert!(IMAGES.len() >= 12, "only {} images", IMAGES.len());
}

#[test]
fn the_compiler_has_nothing_to_warn_of() {
    for image in IMAGES {
        for sign in ["C7508", "C7510", "warning"] {
            assert!(!image.ptxas.contains(sign), "{}: {sign} in\n{}", image.name, image.ptxas);
        }
    }
}
