//! Page-locked host memory through which small uploads go, so that they need not wait for the GPU.
//!
//! A copy from ordinary memory makes the driver wait for the stream first. Here the bytes are copied
//! into page-locked memory and the transfer is queued. Every piece is written once, before its
//! transfer is queued, and its place is used again only after the stream has drained: the host never
//! touches bytes that a queued copy may still read.

use super::core::Core;
use super::driver::failed;
use crate::error::{Error, Result};
use cudarc::driver::{result, sys};
use std::ffi::c_void;
use std::ptr::NonNull;

/// Enough for the ids of a step of half a million tokens.
const CAPACITY_BYTES: usize = 8 << 20;
/// Pieces start on pages of their own, so that a guard on the pages of queued copies, which is how
/// the tests find mistakes here, meets only those.
const ALIGN: usize = 4096;

/// The memory and how much of it is taken by transfers that may not have run yet.
pub(super) struct Staging {
    address: NonNull<u8>,
    taken: usize,
}

// SAFETY: plain memory, touched only through `&mut self`.
unsafe impl Send for Staging {}

impl Staging {
    /// Longest upload that goes this way; longer ones, such as weights, wait instead.
    pub(super) const MAX_BYTES: usize = CAPACITY_BYTES / 4;

    /// Needs the context of `core` to be current.
    pub(super) fn new(core: &Core) -> Result<Self> {
        core.bind()?;
        // SAFETY: no flags; the memory is freed by `free`.
        let address =
            unsafe { result::malloc_host(CAPACITY_BYTES, 0) }.map_err(failed("cuMemHostAlloc"))?;
        match NonNull::new(address.cast()) {
            Some(address) => Ok(Self { address, taken: 0 }),
            None => Err(Error::Device { problem: "cuMemHostAlloc gave no memory".into() }),
        }
    }

    /// Queues the copy of `bytes`, at most [`Self::MAX_BYTES`], to device memory.
    ///
    /// # Safety
    /// `destination` has room for `bytes.len()` bytes until the stream of `core` has run the copy,
    /// and this is the staging memory of `core`.
    pub(super) unsafe fn upload(
        &mut self,
        core: &Core,
        destination: sys::CUdeviceptr,
        bytes: &[u8],
    ) -> Result<()> {
        assert!(bytes.len() <= Self::MAX_BYTES, "{} bytes to stage", bytes.len());
        if CAPACITY_BYTES - self.taken < bytes.len() {
            core.drain()?;
            self.reuse();
        }
        // SAFETY: `taken` and the length were just checked against the capacity. No queued copy
        // reads these bytes: those that did have run when `taken` was last set to 0.
        let piece = unsafe {
            let start = self.address.as_ptr().add(self.taken);
            std::slice::from_raw_parts_mut(start, bytes.len())
        };
        piece.copy_from_slice(bytes);
        self.taken = (self.taken + bytes.len()).next_multiple_of(ALIGN).min(CAPACITY_BYTES);
        // SAFETY: the destination is the caller's promise; the source stays as it is until the
        // stream has drained, since `taken` is past it.
        unsafe { result::memcpy_htod_async(destination, piece, core.stream()) }
            .map_err(failed("cuMemcpyHtoDAsync"))
    }

    /// Says that the stream has drained: every piece may be used again.
    pub(super) fn reuse(&mut self) {
        self.taken = 0;
    }

    /// Gives the memory back; the stream has drained.
    pub(super) fn free(self) -> Result<()> {
        // SAFETY: allocated by `new`, freed once because `self` is consumed.
        unsafe { result::free_host(self.address.as_ptr().cast::<c_void>()) }
            .map_err(failed("cuMemFreeHost"))
    }
}
