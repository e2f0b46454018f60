//! The compiled kernels that are part of this binary; build.rs writes the table.

/// One compiled source file of `kernels/`.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// Stem of the source file.
    pub name: &'static str,
    /// What the driver loads: code for each architecture, 64-byte aligned.
    pub fatbin: &'static [u8],
    /// What ptxas said: registers, shared memory, spills and warnings per kernel.
    pub ptxas: &'static str,
    /// The kernels in it, by name.
    pub kernels: &'static [Kernel],
}

/// The signature of a kernel as nvcc compiled it.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Entry name.
    pub name: &'static str,
    /// Parameters in order.
    pub parameters: &'static [Parameter],
}

/// One kernel parameter in PTX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// `u64` (also a pointer), `u32`, `f32`, ..., or `b8` for a struct.
    pub ptx: &'static str,
    /// Size.
    pub bytes: usize,
}

/// Gives embedded bytes the alignment a driver may expect.
#[doc(hidden)]
#[repr(C, align(64))]
pub struct Aligned<T: ?Sized>(pub T);

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
