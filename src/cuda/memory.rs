//! Device memory: its owner, and the borrowed slices that views carry.

use super::core::Core;
use super::driver::{describe, failed};
use super::staging::Staging;
use crate::error::{Error, Result};
use crate::shape::Shape;
use cudarc::driver::{DriverError, result, sys};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

/// One allocation of the driver, freed on drop after the stream has drained.
pub(super) struct Slab {
    core: Arc<Core>,
    address: sys::CUdeviceptr,
    num_bytes: usize,
}

impl Slab {
    /// Allocates at least a byte, uninitialised.
    pub(super) fn new(core: &Arc<Core>, what: &str, num_bytes: usize) -> Result<Arc<Self>> {
        core.bind()?;
        // SAFETY: the context is current; nobody reads the memory before it is written, because all
        // owners below clear it first.
        let address =
            unsafe { result::malloc_sync(num_bytes.max(1)) }.map_err(|error| match error {
                DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY) => {
                    Error::OutOfMemory { what: format!("{what} on the GPU"), bytes: num_bytes }
                }
                error => {
                    let problem = format!("cuMemAlloc for {what} failed: {}", describe(error));
                    Error::Device { problem }
                }
            })?;
        Ok(Arc::new(Self { core: Arc::clone(core), address, num_bytes }))
    }

    pub(super) fn num_bytes(&self) -> usize {
        self.num_bytes
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // Queued kernels may still use the memory: whatever ended its owner's life, wait for them.
        self.core.pending().record(self.core.drain());
        // SAFETY: allocated by `new`, freed once; no slice outlives the owners of this slab.
        let freed = unsafe { result::free_sync(self.address) };
        self.core.pending().record(freed.map_err(failed("cuMemFree")));
    }
}

/// Owns bytes of device memory: a slab of its own, or a range of a larger one that nobody else owns.
pub struct DeviceBytes {
    slab: Arc<Slab>,
    offset: usize,
    num_bytes: usize,
}

impl DeviceBytes {
    /// The range `offset ..` of `slab`; the caller sees to it that nobody else owns a byte of it.
    pub(super) fn new(slab: Arc<Slab>, offset: usize, num_bytes: usize) -> Self {
        assert!(offset + num_bytes <= slab.num_bytes, "{offset}+{num_bytes} of a slab");
        Self { slab, offset, num_bytes }
    }

    /// Size in bytes.
    pub fn num_bytes(&self) -> usize {
        self.num_bytes
    }

    /// Borrows all of it.
    pub fn slice(&self) -> DeviceSlice<'_> {
        let address = self.slab.address + self.offset as u64;
        let (core, num_bytes) = (&self.slab.core, self.num_bytes);
        DeviceSlice { core, address, num_bytes, borrowed: PhantomData }
    }

    /// Borrows all of it for writing.
    pub fn slice_mut(&mut self) -> DeviceSliceMut<'_> {
        DeviceSliceMut(self.slice())
    }
}

impl fmt::Debug for DeviceBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceBytes({} bytes)", self.num_bytes)
    }
}

/// A shared borrow of device memory.
#[derive(Clone, Copy)]
pub struct DeviceSlice<'a> {
    core: &'a Arc<Core>,
    address: sys::CUdeviceptr,
    num_bytes: usize,
    borrowed: PhantomData<&'a [u8]>,
}

/// The unique borrow of device memory.
pub struct DeviceSliceMut<'a>(DeviceSlice<'a>);

impl<'a> DeviceSlice<'a> {
    /// Size in bytes.
    pub fn num_bytes(&self) -> usize {
        self.num_bytes
    }

    /// A part of it; panics beyond the end.
    pub fn range(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.num_bytes, "{range:?} of a slice");
        let address = self.address + range.start as u64;
        Self { address, num_bytes: range.len(), ..self }
    }

    /// The largest power of two, up to 256, that divides the address.
    pub fn alignment(&self) -> usize {
        1 << self.address.trailing_zeros().min(8)
    }

    pub(super) fn address(&self) -> sys::CUdeviceptr {
        self.address
    }

    pub(super) fn core(&self) -> &'a Arc<Core> {
        self.core
    }

    /// Waits for queued work and copies to the host; panics unless the sizes are equal.
    pub fn download(self, out: &mut [u8]) -> Result<()> {
        assert_eq!(out.len(), self.num_bytes, "bytes to download");
        if !out.is_empty() {
            self.core.bind()?;
            // SAFETY: the source is borrowed and as long as `out`, which is ordinary memory: the
            // call returns only once the copy into it is complete.
            unsafe { result::memcpy_dtoh_async(out, self.address, self.core.stream()) }
                .map_err(failed("cuMemcpyDtoHAsync"))?;
        }
        self.core.synchronize()
    }
}

impl<'a> DeviceSliceMut<'a> {
    /// Borrows again.
    pub fn reborrow(&mut self) -> DeviceSliceMut<'_> {
        DeviceSliceMut(self.0)
    }

    /// Reads through the unique borrow.
    pub fn as_slice(&self) -> DeviceSlice<'_> {
        self.0
    }

    /// A part of it; panics beyond the end.
    pub fn range(self, range: Range<usize>) -> Self {
        Self(self.0.range(range))
    }

    /// The first `num_bytes`, and the rest; panics beyond the end.
    pub fn split_at(self, num_bytes: usize) -> (Self, Self) {
        (Self(self.0.range(0..num_bytes)), Self(self.0.range(num_bytes..self.0.num_bytes)))
    }

    /// Queues setting every byte to `value`.
    pub fn fill_bytes(&mut self, value: u8) -> Result<()> {
        let DeviceSlice { core, address, num_bytes, .. } = self.0;
        if num_bytes == 0 {
            return Ok(());
        }
        core.bind()?;
        // SAFETY: the memory is borrowed uniquely; its owner drains the stream before freeing it.
        unsafe { result::memset_d8_async(address, value, num_bytes, core.stream()) }
            .map_err(failed("cuMemsetD8Async"))
    }

    /// Queues a copy from the host; small ones do not wait for the GPU. Panics unless the sizes are
    /// equal.
    pub fn upload(self, bytes: &[u8]) -> Result<()> {
        let DeviceSlice { core, address, num_bytes, .. } = self.0;
        assert_eq!(bytes.len(), num_bytes, "bytes to upload");
        if bytes.is_empty() {
            return Ok(());
        }
        core.bind()?;
        if let (true, Some(staging)) = (num_bytes <= Staging::MAX_BYTES, &mut *core.staging()) {
            // SAFETY: the memory is borrowed uniquely and its owner drains the stream before
            // freeing it; the staging memory is that of the same core.
            return unsafe { staging.upload(core, address, bytes) };
        }
        // SAFETY: as above; from ordinary memory the call returns once the source has been read.
        unsafe { result::memcpy_htod_async(address, bytes, core.stream()) }
            .map_err(failed("cuMemcpyHtoDAsync"))
    }

    /// Queues a copy within the device; panics unless the sizes are equal.
    pub fn copy_from(self, source: DeviceSlice<'_>) -> Result<()> {
        let DeviceSlice { core, address, num_bytes, .. } = self.0;
        assert_eq!(source.num_bytes, num_bytes, "bytes to copy");
        assert!(Arc::ptr_eq(core, source.core), "a copy between two devices");
        if num_bytes == 0 {
            return Ok(());
        }
        core.bind()?;
        // SAFETY: both are borrowed and equally long; a unique borrow overlaps no other; their
        // owners drain the stream before freeing them.
        unsafe { result::memcpy_dtod_async(address, source.address, num_bytes, core.stream()) }
            .map_err(failed("cuMemcpyDtoDAsync"))
    }
}

/// What a kernel can read: a view, or scratch.
pub trait DeviceOperand {
    /// Its memory, or `None` if that is not on a GPU.
    fn device_slice(&self) -> Option<DeviceSlice<'_>>;
    /// For messages; `None` if it has no shape.
    fn operand_shape(&self) -> Option<Shape>;
}

/// What a kernel can write.
pub trait DeviceOperandMut: DeviceOperand {
    /// Its memory, or `None` if that is not on a GPU.
    fn device_slice_mut(&mut self) -> Option<DeviceSliceMut<'_>>;
}
