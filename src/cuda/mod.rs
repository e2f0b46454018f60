//! The CUDA backend: the driver, memory, and checked launches of the embedded kernels.
//!
//! # Design
//! The driver library is opened at run time (cudarc), so the binary starts without one. Handles are
//! owned here rather than by cudarc's safe types, because theirs keep or lose errors that happen
//! while they are dropped; here such an error is kept in [`Pending`] and comes back from the next
//! [`CudaDevice::synchronize`], the last ones from [`CudaDevice::close`].
//!
//! All work of a device is queued on one stream, in program order. That order, and dropping nothing
//! before the stream has drained, is what makes device memory safe to reuse; no events are needed.
//! Nothing else in hooke is `unsafe` about the GPU: operators build a [`Launch`] from borrowed views.

// The driver is a C library. Every block says why it is sound.
#![allow(unsafe_code)]

mod arena;
mod core;
mod device;
mod driver;
mod functions;
pub mod images;
mod launch;
mod memory;
mod pending;
mod staging;

pub use arena::ScratchView;
pub use device::{CudaDevice, Properties, Seal};
pub use driver::{DRIVER_VERSION, driver_version};
pub use launch::{KernelSpec, Launch, Param};
pub use memory::{DeviceBytes, DeviceOperand, DeviceOperandMut, DeviceSlice, DeviceSliceMut};
pub use pending::Pending;
