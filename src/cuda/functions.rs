//! Loaded kernels: a module per source file, loaded when first used, each kernel's signature
//! compared once with what its launcher declares.

use super::core::Core;
use super::driver::{describe, failed};
use super::images::Image;
use super::launch::{KernelSpec, Param};
use super::pending::Pending;
use crate::error::{Error, Result};
use cudarc::driver::sys::CUfunction_attribute as Attribute;
use cudarc::driver::{DriverError, result, sys};
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};

/// A loaded image, unloaded on drop.
struct Module {
    raw: sys::CUmodule,
    pending: Arc<Pending>,
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: loaded once, unloaded once; the device drains its stream before dropping it.
        let unloaded = unsafe { result::module::unload(self.raw) };
        self.pending.record(unloaded.map_err(failed("cuModuleUnload")));
    }
}

/// A kernel that is ready to be launched.
#[derive(Clone, Copy)]
pub(super) struct Function {
    /// What it was compared with.
    spec: &'static KernelSpec,
    pub(super) raw: sys::CUfunction,
    /// Shared memory declared in the kernel itself.
    static_shared_bytes: u32,
    /// Dynamic shared memory that the driver will grant.
    granted_shared_bytes: u32,
}

// SAFETY: a name of an object that the driver lets every thread use.
unsafe impl Send for Function {}

#[derive(Default)]
struct Loaded {
    functions: HashMap<&'static str, Function>,
    modules: HashMap<&'static str, Module>,
}

// SAFETY: as for `Function`.
unsafe impl Send for Loaded {}

/// The kernels of one device.
pub(super) struct Functions {
    loaded: Mutex<Loaded>,
    images: &'static [Image],
    core: Arc<Core>,
}

/// What every kernel gets without asking.
const DEFAULT_SHARED_BYTES: u32 = 48 << 10;

impl Functions {
    pub(super) fn new(core: &Arc<Core>, images: &'static [Image]) -> Self {
        Self { loaded: Mutex::default(), images, core: Arc::clone(core) }
    }

    /// The kernel of `spec`, granted `shared_bytes` of dynamic shared memory, of which one block can
    /// have `max_shared_bytes` together with the kernel's own. The context is current.
    pub(super) fn get(
        &self,
        spec: &'static KernelSpec,
        shared_bytes: u32,
        max_shared_bytes: u32,
    ) -> Result<Function> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut function = match loaded.functions.get(spec.entry) {
            Some(function) if std::ptr::eq(function.spec, spec) || function.spec == spec => {
                *function
            }
            _ => {
                let module = self.module(&mut loaded, spec)?;
                let function = load(module, spec)?;
                loaded.functions.insert(spec.entry, function);
                function
            }
        };
        if shared_bytes > function.granted_shared_bytes {
            let most = max_shared_bytes.saturating_sub(function.static_shared_bytes);
            if shared_bytes > most {
                let problem = format!("{}: {shared_bytes} bytes of shared memory", spec.entry);
                return Err(Error::Device { problem: format!("{problem}, this GPU has {most}") });
            }
            let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let value = i32::try_from(shared_bytes).unwrap_or(i32::MAX);
            // SAFETY: the function belongs to a module that is loaded as long as `self` lives.
            unsafe { result::function::set_function_attribute(function.raw, attribute, value) }
                .map_err(failed("cuFuncSetAttribute"))?;
            function.granted_shared_bytes = shared_bytes;
            loaded.functions.insert(spec.entry, function);
        }
        Ok(function)
    }

    fn module(&self, loaded: &mut Loaded, spec: &'static KernelSpec) -> Result<sys::CUmodule> {
        if let Some(module) = loaded.modules.get(spec.module) {
            return Ok(module.raw);
        }
        let Some(image) = self.images.iter().find(|image| image.name == spec.module) else {
            let problem = format!("this binary has no kernels/{}.cu", spec.module);
            return Err(Error::Device { problem });
        };
        // SAFETY: a complete fatbin, made by nvcc and embedded with its alignment; it is static.
        let raw = unsafe { result::module::load_data(image.fatbin.as_ptr().cast()) }.map_err(
            |DriverError(code)| {
                let file = spec.module;
                let text = describe(DriverError(code));
                let problem = match code {
                    sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU => format!(
                        "the kernels of {file} were not compiled for this GPU's architecture\n  \
                         fix: build with HOOKE_CUDA_ARCHS naming it"
                    ),
                    _ => format!("cuModuleLoadData of {file} failed: {text}"),
                };
                Error::Device { problem }
            },
        )?;
        let pending = Arc::clone(self.core.pending());
        loaded.modules.insert(spec.module, Module { raw, pending });
        Ok(raw)
    }
}

/// Finds the kernel and compares its signature with `spec`.
fn load(module: sys::CUmodule, spec: &'static KernelSpec) -> Result<Function> {
    let name = CString::new(spec.entry)
        .map_err(|_| Error::Device { problem: format!("kernel name {:?}", spec.entry) })?;
    // SAFETY: the module is loaded.
    let raw = unsafe { result::module::get_function(module, name) }.map_err(|error| {
        let (entry, file) = (spec.entry, spec.module);
        Error::Device { problem: format!("no kernel {entry} in {file}: {}", describe(error)) }
    })?;
    check_parameters(raw, spec)?;
    let attribute = |attribute| {
        // SAFETY: the function was just found in a loaded module.
        unsafe { result::function::get_function_attribute(raw, attribute) }
            .map(i32::unsigned_abs)
            .map_err(failed("cuFuncGetAttribute"))
    };
    let max_threads = attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?;
    let static_shared_bytes = attribute(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
    if spec.threads == 0 || spec.threads > max_threads {
        let (entry, threads) = (spec.entry, spec.threads);
        let problem = format!("{entry}: {threads} threads per block, compiled for {max_threads}");
        return Err(Error::Device { problem });
    }
    let granted_shared_bytes = DEFAULT_SHARED_BYTES.saturating_sub(static_shared_bytes);
    Ok(Function { spec, raw, static_shared_bytes, granted_shared_bytes })
}

/// Asks the driver for the size of every parameter, and that there is no further one.
fn check_parameters(function: sys::CUfunction, spec: &'static KernelSpec) -> Result<()> {
    let size_of = |index: usize| {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the function is loaded; both results are written to locals.
        let code = unsafe { sys::cuFuncGetParamInfo(function, index, &mut offset, &mut size) };
        code.result().map(|()| size)
    };
    let complain = |what: String| Error::Device { problem: format!("{}: {what}", spec.entry) };
    for (index, param) in spec.params.iter().enumerate() {
        let size = size_of(index).map_err(|DriverError(code)| match code {
            sys::CUresult::CUDA_ERROR_INVALID_VALUE => {
                complain(format!("{} parameters declared, {index} compiled", spec.params.len()))
            }
            code => failed("cuFuncGetParamInfo")(DriverError(code)),
        })?;
        if size != param.size_bytes() {
            let want = param.size_bytes();
            return Err(complain(format!("parameter {index} has {size} bytes, {want} declared")));
        }
    }
    match size_of(spec.params.len()) {
        Err(DriverError(sys::CUresult::CUDA_ERROR_INVALID_VALUE)) => Ok(()),
        Err(error) => Err(failed("cuFuncGetParamInfo")(error)),
        Ok(_) => Err(complain(format!("more than the {} parameters declared", spec.params.len()))),
    }
}

impl Param {
    /// Size of the kernel parameter.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::Pointer | Self::I64 | Self::U64 => 8,
            Self::I32 | Self::U32 | Self::F32 => 4,
        }
    }

    /// Whether a PTX parameter of this type is one of these.
    pub fn matches_ptx(self, ptx: &str) -> bool {
        match self {
            Self::Pointer | Self::I64 | Self::U64 => ["u64", "s64", "b64"].contains(&ptx),
            Self::I32 | Self::U32 => ["u32", "s32", "b32"].contains(&ptx),
            Self::F32 => ptx == "f32",
        }
    }
}
