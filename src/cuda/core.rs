//! Context and stream of one GPU, shared by everything that lives on it.

use super::driver::failed;
use super::pending::Pending;
use super::staging::Staging;
use crate::error::Result;
use cudarc::driver::{result, sys};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The primary context of a device, retained; released on drop.
struct Context {
    device: sys::CUdevice,
    raw: sys::CUcontext,
    pending: Arc<Pending>,
}

impl Context {
    fn retain(device: sys::CUdevice, pending: &Arc<Pending>) -> Result<Self> {
        // SAFETY: `device` came from cuDeviceGet.
        let raw = unsafe { result::primary_ctx::retain(device) }
            .map_err(failed("cuDevicePrimaryCtxRetain"))?;
        Ok(Self { device, raw, pending: Arc::clone(pending) })
    }

    fn bind(&self) -> Result<()> {
        // SAFETY: the context is retained as long as `self` lives.
        unsafe { result::ctx::set_current(self.raw) }.map_err(failed("cuCtxSetCurrent"))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once by `retain`, released once here.
        let released = unsafe { result::primary_ctx::release(self.device) };
        self.pending.record(released.map_err(failed("cuDevicePrimaryCtxRelease")));
    }
}

/// A context and its one stream. Whoever holds an `Arc` of it may keep device addresses.
pub(super) struct Core {
    // Dropped by hand, in this order.
    staging: Mutex<Option<Staging>>,
    stream: sys::CUstream,
    context: Context,
    pending: Arc<Pending>,
}

// SAFETY: the handles are plain names of objects that the driver lets every thread use, once the
// context is current there; `bind` is called before each use.
unsafe impl Send for Core {}
// SAFETY: as above; what is mutable is behind a mutex.
unsafe impl Sync for Core {}

impl Core {
    pub(super) fn new(device: sys::CUdevice, pending: &Arc<Pending>) -> Result<Self> {
        let context = Context::retain(device, pending)?;
        context.bind()?;
        // Does not wait for the legacy default stream, which other libraries may use.
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(failed("cuStreamCreate"))?;
        let pending = Arc::clone(pending);
        let core = Self { staging: Mutex::new(None), stream, context, pending };
        let staging = Staging::new(&core)?;
        *core.staging() = Some(staging);
        Ok(core)
    }

    /// Makes the context current on this thread: before every other call.
    pub(super) fn bind(&self) -> Result<()> {
        self.context.bind()
    }

    pub(super) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    pub(super) fn pending(&self) -> &Arc<Pending> {
        &self.pending
    }

    pub(super) fn staging(&self) -> MutexGuard<'_, Option<Staging>> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for all queued work; returns its error, or one kept from a drop.
    pub(super) fn synchronize(&self) -> Result<()> {
        let mut staging = self.staging();
        self.drain()?;
        if let Some(staging) = &mut *staging {
            staging.reuse();
        }
        self.pending.take()
    }

    /// Waits for all queued work, with the staging memory held by the caller.
    pub(super) fn drain(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream) }.map_err(failed("cuStreamSynchronize"))
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.pending.record(self.drain());
        if let Some(staging) = self.staging().take() {
            self.pending.record(staging.free());
        }
        // SAFETY: created by `new`, destroyed once here; nothing is queued any more.
        let destroyed = unsafe { result::stream::destroy(self.stream) };
        self.pending.record(destroyed.map_err(failed("cuStreamDestroy")));
        // The context goes last, with its field.
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("device", &self.context.device).finish_non_exhaustive()
    }
}
