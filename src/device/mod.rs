//! Where tensors live and operators run.

pub mod choice;
pub mod gemm;
pub mod host;
pub mod mapped;

use crate::cuda::{CudaDevice, DeviceBytes, Properties, Seal};
use crate::dtype::DType;
use crate::error::Result;
use host::HostBytes;
use std::sync::Arc;

/// A place where memory can be allocated and operators run.
///
/// The variants are matched exhaustively in every operator, so a missing backend is a compile
/// error and there is nothing to stub.
#[derive(Debug, Clone)]
pub enum Device {
    /// The reference backend: Rust on the host's cores, the same bits for any number of threads.
    Cpu,
    /// An NVIDIA GPU: the same operators as hand-written kernels.
    Cuda(Arc<CudaDevice>),
}

impl Device {
    /// Allocates zeroed memory for `what` (named in the error).
    pub fn alloc_zeroed(&self, what: &str, num_bytes: usize) -> Result<Buffer> {
        match self {
            Self::Cpu => Ok(Buffer::Host(HostBytes::zeroed(what, num_bytes)?)),
            Self::Cuda(cuda) => Ok(Buffer::Device(cuda.alloc_zeroed(what, num_bytes)?)),
        }
    }

    /// Element type of weights and activations on this device.
    pub fn compute_dtype(&self) -> DType {
        match self {
            Self::Cpu => DType::F32,
            Self::Cuda(_) => DType::BF16,
        }
    }

    /// For people: `cuda:0, NVIDIA H100 80GB HBM3, 79.1 GiB`.
    pub fn describe(&self) -> String {
        match self {
            Self::Cpu => "cpu".into(),
            Self::Cuda(cuda) => {
                let properties = cuda.properties();
                let gibibytes = properties.memory_bytes as f64 / (1u64 << 30) as f64;
                let Properties { ordinal, name, .. } = properties;
                format!("cuda:{ordinal}, {name}, {gibibytes:.1} GiB")
            }
        }
    }

    /// On a GPU, allocates the memory that tensors are cut from until it is used up.
    pub fn reserve(&self, num_bytes: usize) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            Self::Cuda(cuda) => cuda.reserve(num_bytes),
        }
    }

    /// As long as the result lives, allocating on a GPU is an error: a step allocates nothing. The
    /// CPU's allocator needs no such care.
    pub fn seal(&self) -> Option<Seal> {
        match self {
            Self::Cpu => None,
            Self::Cuda(cuda) => Some(cuda.seal()),
        }
    }

    /// Waits for all queued work; returns its error.
    pub fn synchronize(&self) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            Self::Cuda(cuda) => cuda.synchronize(),
        }
    }

    /// Ends the use of the device; returns the errors that nobody has seen yet. Every tensor on it
    /// should be gone by now.
    pub fn close(self) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            Self::Cuda(cuda) => cuda.close(),
        }
    }
}

/// Owns bytes on one device. The only owner of tensor memory.
#[derive(Debug)]
pub enum Buffer {
    /// Host memory, 64-byte aligned.
    Host(HostBytes),
    /// Memory of a GPU, 256-byte aligned.
    Device(DeviceBytes),
}

impl Buffer {
    /// Size in bytes.
    pub fn num_bytes(&self) -> usize {
        match self {
            Self::Host(bytes) => bytes.as_slice().len(),
            Self::Device(bytes) => bytes.num_bytes(),
        }
    }
}
