//! One GPU, opened: what it is, its memory, and its loaded kernels.

use super::arena::{Arena, ScratchView};
use super::core::Core;
use super::driver::{driver_version, failed};
use super::functions::Functions;
use super::images::{IMAGES, Image, TOOLCHAIN};
use super::launch::{KernelSpec, Launch};
use super::memory::DeviceBytes;
use super::pending::Pending;
use crate::error::{Error, Result};
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{DriverError, result, sys};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The oldest architecture that the kernels are written for.
const MIN_COMPUTE_CAPABILITY: (i32, i32) = (8, 0);

/// What the driver says about a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    /// Its number, as in `cuda:0`.
    pub ordinal: usize,
    /// Marketing name.
    pub name: String,
    /// Architecture: (9, 0) is Hopper.
    pub compute_capability: (i32, i32),
    /// CUDA version that the driver supports, e.g. 13000.
    pub driver_version: i32,
    /// Memory.
    pub memory_bytes: usize,
    /// Streaming multiprocessors.
    pub num_multiprocessors: u32,
    /// Shared memory that one block can have.
    pub max_shared_bytes: u32,
}

/// A GPU with a context, a stream and its kernels. All work goes to the stream in program order;
/// the caller sees to it that one thread at a time queues work.
pub struct CudaDevice {
    // Dropped in this order: memory and kernels need the core.
    arena: Mutex<Arena>,
    functions: Functions,
    core: Arc<Core>,
    properties: Properties,
}

impl CudaDevice {
    /// Opens GPU number `ordinal` for the kernels of this binary.
    ///
    /// Errors: [`Error::Device`] if this binary has no kernels, there is no usable driver or no such
    /// GPU, or it is too old.
    pub fn open(ordinal: usize) -> Result<Arc<Self>> {
        if let Err(why) = TOOLCHAIN {
            let problem = format!("this binary holds no GPU kernels: {why}");
            return Err(Error::Device { problem });
        }
        Self::open_with(ordinal, IMAGES)
    }

    /// The same for other kernels than those of this binary.
    pub fn open_with(ordinal: usize, images: &'static [Image]) -> Result<Arc<Self>> {
        let (device, properties) = properties(ordinal)?;
        let pending = Arc::new(Pending::default());
        let core = Arc::new(Core::new(device, &pending)?);
        let functions = Functions::new(&core, images);
        Ok(Arc::new(Self { arena: Mutex::default(), functions, core, properties }))
    }

    /// What the driver says about it.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Zeroed memory for `what` (named in the error).
    pub fn alloc_zeroed(&self, what: &str, num_bytes: usize) -> Result<DeviceBytes> {
        let mut bytes = self.arena().tensor(&self.core, what, num_bytes)?;
        bytes.slice_mut().fill_bytes(0)?;
        Ok(bytes)
    }

    /// Allocates the memory that the following calls of [`Self::alloc_zeroed`] cut from.
    pub fn reserve(&self, num_bytes: usize) -> Result<()> {
        self.arena().reserve(&self.core, num_bytes)
    }

    /// As long as the result lives, memory that would have to come from the driver is an error.
    pub fn seal(self: &Arc<Self>) -> Seal {
        self.arena().seal();
        Seal(Arc::clone(self))
    }

    /// Bytes of tensors and of scratch handed out so far.
    pub fn used_bytes(&self) -> (usize, usize) {
        let arena = self.arena();
        (arena.tensor_bytes, arena.scratch_bytes())
    }

    /// Memory of at least `num_bytes` for the kernels of one operator call; `what` names it. It grows
    /// to the largest size ever asked for, and is shared by all calls that use the name.
    pub fn scratch(&self, what: &str, num_bytes: usize) -> Result<ScratchView> {
        self.arena().scratch(&self.core, what, num_bytes)
    }

    /// Starts a launch of this kernel; nothing happens before [`Launch::run`].
    pub fn launch<'a>(&'a self, spec: &'static KernelSpec) -> Launch<'a> {
        Launch::new(self, spec)
    }

    /// Waits for all queued work; returns its error, or one from something that was dropped.
    pub fn synchronize(&self) -> Result<()> {
        self.core.synchronize()
    }

    /// Free and total memory in bytes, of all processes together.
    pub fn memory_info(&self) -> Result<(usize, usize)> {
        self.core.bind()?;
        result::mem_get_info().map_err(failed("cuMemGetInfo"))
    }

    /// Ends the use of the device, and returns the error of whatever failed in doing so.
    ///
    /// The device is only left if this is the last owner; tensors are owners too.
    pub fn close(self: Arc<Self>) -> Result<()> {
        let pending = Arc::clone(self.core.pending());
        pending.record(self.synchronize());
        drop(self);
        pending.take()
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(super) fn functions(&self) -> &Functions {
        &self.functions
    }

    fn arena(&self) -> MutexGuard<'_, Arena> {
        self.arena.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holding one proves that no memory is allocated on its device.
#[must_use = "the seal ends when this is dropped"]
#[derive(Debug)]
pub struct Seal(Arc<CudaDevice>);

impl Drop for Seal {
    fn drop(&mut self) {
        self.0.arena().unseal();
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        // Kernels must not be unloaded, nor memory freed, under queued work.
        self.core.pending().record(self.core.drain());
    }
}

impl fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CudaDevice({}: {})", self.properties.ordinal, self.properties.name)
    }
}

fn properties(ordinal: usize) -> Result<(sys::CUdevice, Properties)> {
    let driver_version = driver_version()?;
    match result::init() {
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => {
            let fix = "check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu";
            let problem = format!("the NVIDIA driver sees no GPU\n  fix: {fix}");
            return Err(Error::Device { problem });
        }
        other => other.map_err(failed("cuInit"))?,
    }
    let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
    let index = i32::try_from(ordinal).ok().filter(|&index| index < count);
    let Some(index) = index else {
        let problem = format!("there is no GPU {ordinal}: {count} found, numbered from 0");
        return Err(Error::Device { problem });
    };
    let device = result::device::get(index).map_err(failed("cuDeviceGet"))?;
    let attribute = |attribute| {
        // SAFETY: `device` came from cuDeviceGet.
        unsafe { result::device::get_attribute(device, attribute) }
            .map_err(failed("cuDeviceGetAttribute"))
    };
    let compute_capability = (
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    let name = result::device::get_name(device).map_err(failed("cuDeviceGetName"))?;
    if compute_capability < MIN_COMPUTE_CAPABILITY {
        let (major, minor) = compute_capability;
        let (least, _) = MIN_COMPUTE_CAPABILITY;
        let problem =
            format!("{name} has compute capability {major}.{minor}, hooke needs {least}.0");
        return Err(Error::Device { problem });
    }
    let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    let shared = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
    // SAFETY: `device` came from cuDeviceGet.
    let memory_bytes =
        unsafe { result::device::total_mem(device) }.map_err(failed("cuDeviceTotalMem"))?;
    let properties = Properties {
        ordinal,
        name,
        compute_capability,
        driver_version,
        memory_bytes,
        num_multiprocessors: multiprocessors.unsigned_abs(),
        max_shared_bytes: shared.unsigned_abs(),
    };
    Ok((device, properties))
}
