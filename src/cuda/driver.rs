//! The driver library: found and checked before its first use, and its errors put into words.

use crate::error::{Error, Result};
use cudarc::driver::{DriverError, sys};
use std::sync::OnceLock;

/// The CUDA version that the bindings and the kernels are built for, as the driver counts.
pub const DRIVER_VERSION: i32 = 13000;

/// Every function that hooke calls. cudarc looks one up when it is first called, and panics if the
/// library lacks it; so all are looked up first.
const SYMBOLS: [&str; 33] = [
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncGetAttribute",
    "cuFuncGetParamInfo",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
];

/// Of the stream, beside those in [`SYMBOLS`].
const STREAM_SYMBOLS: [&str; 3] = ["cuStreamCreate", "cuStreamDestroy_v2", "cuStreamSynchronize"];

/// Opens the library and checks that it has everything, once per process.
pub(super) fn load() -> Result<()> {
    static STATE: OnceLock<Result<(), String>> = OnceLock::new();
    let problem = |problem: &String| Error::Device { problem: problem.clone() };
    STATE.get_or_init(preflight).as_ref().map(|_| ()).map_err(problem)
}

fn preflight() -> Result<(), String> {
    // SAFETY: opening the driver library runs its initialisers, as linking to it would.
    if !unsafe { sys::is_culib_present() } {
        return Err("no NVIDIA driver: libcuda.so.1 cannot be loaded\n  fix: install the driver \
                    (and in a container, pass the GPU through), or use --device cpu"
            .into());
    }
    // SAFETY: as above; it is present, so this does not panic.
    let library = unsafe { sys::culib() };
    let is_missing = |name: &&&str| {
        // SAFETY: only the address is asked for, nothing is called through it.
        unsafe { library.get::<*const ()>(name.as_bytes()) }.is_err()
    };
    let missing: Vec<&str> =
        SYMBOLS.iter().chain(&STREAM_SYMBOLS).filter(is_missing).copied().collect();
    if !missing.is_empty() {
        let list = missing.join(", ");
        return Err(format!("the NVIDIA driver lacks {list}\n  fix: {}", update()));
    }
    let version = version().map_err(|e| e.to_string())?;
    if version < DRIVER_VERSION {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        return Err(format!(
            "the NVIDIA driver is too old: it supports CUDA {major}.{minor}\n  fix: {}",
            update()
        ));
    }
    Ok(())
}

fn update() -> String {
    let (major, minor) = (DRIVER_VERSION / 1000, DRIVER_VERSION % 1000 / 10);
    format!("install one for CUDA {major}.{minor} or newer (580 or newer), or use --device cpu")
}

fn version() -> Result<i32> {
    let mut version = 0;
    // SAFETY: writes one integer; allowed before cuInit.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(failed("cuDriverGetVersion"))?;
    Ok(version)
}

/// The CUDA version that the installed driver supports, e.g. 13000 for 13.0.
///
/// Errors: no driver, or one that hooke cannot use.
pub fn driver_version() -> Result<i32> {
    load()?;
    version()
}

/// Words for a failed call; for use in `map_err`.
pub(super) fn failed(call: &'static str) -> impl FnOnce(DriverError) -> Error {
    move |error| Error::Device { problem: format!("{call} failed: {}", describe(error)) }
}

/// Name and sentence of the driver's own error.
pub(super) fn describe(error: DriverError) -> String {
    let text = |text: Result<&std::ffi::CStr, DriverError>| {
        text.map(|t| t.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let (name, sentence) = (text(error.error_name()), text(error.error_string()));
    match name.is_empty() {
        true => format!("CUDA error {}", error.0 as i32),
        false => format!("{name} ({sentence})"),
    }
}
