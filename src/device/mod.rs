//! Where tensors live and operators run.

pub mod gemm;
pub mod host;
pub mod mapped;

use crate::error::Result;
use host::HostBytes;

/// A place where memory can be allocated and operators run.
///
/// The variants are matched exhaustively in every operator, so a missing backend is a compile
/// error and there is nothing to stub.
#[derive(Debug, Clone)]
pub enum Device {
    /// The reference backend: Rust on the host's cores, the same bits for any number of threads.
    Cpu,
}

impl Device {
    /// Allocates zeroed memory for `what` (named in the error).
    pub fn alloc_zeroed(&self, what: &str, num_bytes: usize) -> Result<Buffer> {
        match self {
            Self::Cpu => Ok(Buffer::Host(HostBytes::zeroed(what, num_bytes)?)),
        }
    }
}

/// Owns bytes on one device. The only owner of tensor memory.
#[derive(Debug)]
pub enum Buffer {
    /// Host memory, 64-byte aligned.
    Host(HostBytes),
}

impl Buffer {
    /// Size in bytes.
    pub fn num_bytes(&self) -> usize {
        match self {
            Self::Host(bytes) => bytes.as_slice().len(),
        }
    }
}
