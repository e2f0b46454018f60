//! The emulator: what its instructions compute, what its detectors report, and the stand-in driver
//! under the real cudarc.

// Kernels are launched here without the checks of src/cuda, on purpose.
#![allow(unsafe_code)]

mod common;
mod copies;
pub mod device;
mod driver;
mod faults;
mod hopper;
mod math;
mod matrix;
mod pipeline;
mod warp;
mod wgmma;
