//! Launches a conformance kernel through cudarc and brings its outputs back.
//!
//! Normally on the stand-in driver, once per seed; with `HOOKE_TEST_DEVICE=gpu` on the real one.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::sync::{Arc, Mutex, OnceLock};

use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, sys,
};
use cudarc::nvrtc::Ptx;
use hooke::cuda::images::{Aligned, Image, Kernel, Parameter};
use libloading::Library;

pub mod table {
    #![allow(dead_code)] // the name of the toolchain, which only the product prints
    use super::{Aligned, Image, Kernel, Parameter};
    include!(concat!(env!("OUT_DIR"), "/conformance.rs"));
}

/// Seeds 0 to 8 are all combinations of when asynchronous work happens and who runs next;
/// `HOOKE_TEST_SEEDS=200` for a long run.
pub fn seeds() -> std::ops::Range<u64> {
    0..std::env::var("HOOKE_TEST_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(9)
}

pub struct TestDevice {
    pub ctx: Arc<CudaContext>,
    modules: Mutex<HashMap<&'static str, Arc<CudaModule>>>,
}

/// The stand-in driver; loaded before cudarc looks for one, and never unloaded.
pub fn emulator() -> Option<&'static Library> {
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    LIBRARY
        .get_or_init(|| {
            if std::env::var("HOOKE_TEST_DEVICE").is_ok_and(|d| d == "gpu") {
                return None;
            }
            // The mutation tests name another library.
            let built = env!("HOOKE_EMU_LIBCUDA").to_string();
            let path = std::env::var("HOOKE_EMU_LIBCUDA").unwrap_or(built);
            // SAFETY: built by this project's build script; its initialisers only fill tables.
            Some(unsafe { Library::new(path) }.unwrap())
        })
        .as_ref()
}

pub fn device() -> &'static TestDevice {
    static DEVICE: OnceLock<TestDevice> = OnceLock::new();
    DEVICE.get_or_init(|| {
        emulator();
        let ctx = CudaContext::new(0).unwrap();
        // SAFETY: nothing has been allocated yet; streams are ordered by hand from here on.
        unsafe { ctx.disable_event_tracking() };
        TestDevice { ctx, modules: Mutex::new(HashMap::new()) }
    })
}

impl TestDevice {
    pub fn function(&self, kernel: &str) -> CudaFunction {
        let image = table::IMAGES
            .iter()
            .find(|image| image.kernels.iter().any(|k| k.name == kernel))
            .unwrap_or_else(|| panic!("no image holds kernel {kernel}"));
        let mut modules = self.modules.lock().unwrap();
        let module = modules.entry(image.name).or_insert_with(|| {
            self.ctx.load_module(Ptx::from_binary(image.fatbin.to_vec())).unwrap()
        });
        module.load_function(kernel).unwrap()
    }
}

/// A tensor map: sizes innermost first, strides of the outer dimensions in bytes.
#[derive(Clone)]
pub struct Boxes<'a> {
    pub element: sys::CUtensorMapDataType,
    pub dims: &'a [u64],
    pub strides: &'a [u64],
    pub boxes: &'a [u32],
    pub swizzle: sys::CUtensorMapSwizzle,
}

pub enum Arg<'a> {
    In(&'a [u8]),
    /// Bytes that the kernel must write; they come back.
    Out(usize),
    InOut(&'a [u8]),
    I32(i32),
    MapIn(&'a [u8], Boxes<'a>),
    MapInOut(&'a [u8], Boxes<'a>),
}

pub struct Launch<'a> {
    pub kernel: &'a str,
    pub grid: u32,
    pub grid_y: u32,
    pub block: u32,
    pub cluster: u32,
    pub shared_bytes: u32,
    pub args: Vec<Arg<'a>>,
}

impl Default for Launch<'_> {
    fn default() -> Self {
        let args = Vec::new();
        Self { kernel: "", grid: 1, grid_y: 1, block: 32, cluster: 1, shared_bytes: 0, args }
    }
}

pub struct Outcome {
    /// Of `Out`, `InOut` and `MapInOut`, in the order of the arguments.
    pub outputs: Vec<Vec<u8>>,
    /// One finding a line; empty on a GPU.
    pub findings: String,
}

pub fn bytes<T: bytemuck::NoUninit>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

pub fn values<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    bytemuck::pod_collect_to_vec(bytes)
}

#[repr(C, align(128))]
struct Map(sys::CUtensorMap);

fn encode(pointer: u64, boxes: &Boxes<'_>) -> Box<Map> {
    let mut map = Box::new(Map(sys::CUtensorMap { opaque: [0; 16] }));
    let element_strides = [1u32; 5];
    // SAFETY: all arrays have `rank` entries (strides one less), and the map is writable.
    let result = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map.0,
            boxes.element,
            boxes.dims.len() as u32,
            pointer as *mut c_void,
            boxes.dims.as_ptr(),
            boxes.strides.as_ptr(),
            boxes.boxes.as_ptr(),
            element_strides.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            boxes.swizzle,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    result.result().unwrap();
    map
}

/// Storage of one argument for the time of the launch.
enum Held {
    Pointer(u64),
    Scalar(i32),
    Map(Box<Map>),
}

impl Held {
    fn address(&mut self) -> *mut c_void {
        match self {
            Held::Pointer(p) => std::ptr::from_mut(p).cast(),
            Held::Scalar(s) => std::ptr::from_mut(s).cast(),
            Held::Map(m) => std::ptr::from_mut(m.as_mut()).cast(),
        }
    }
}

impl Launch<'_> {
    /// Runs once. `seed` decides everything that a GPU would leave to chance.
    pub fn run(&self, seed: u64) -> Outcome {
        let device = device();
        let stream = device.ctx.new_stream().unwrap();
        let function = device.function(self.kernel);
        if self.shared_bytes > 48 * 1024 {
            let attribute =
                sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, self.shared_bytes as i32).unwrap();
        }
        let mut outcome = Outcome { outputs: Vec::new(), findings: String::new() };
        let trial = Trial::begin(seed);
        let (mut held, buffers) = self.arguments(&stream);
        self.launch(&function, &stream, &mut held);
        stream.synchronize().unwrap();
        for (buffer, is_output) in &buffers {
            if *is_output {
                outcome.outputs.push(stream.clone_dtoh(buffer).unwrap());
            }
        }
        drop(buffers);
        outcome.findings = trial.end();
        outcome
    }

    fn arguments(&self, stream: &Arc<CudaStream>) -> (Vec<Held>, Vec<(CudaSlice<u8>, bool)>) {
        let (mut held, mut buffers) = (Vec::new(), Vec::new());
        for arg in &self.args {
            let mut hold = |buffer: CudaSlice<u8>, is_output| {
                let pointer = buffer.device_ptr(stream).0;
                buffers.push((buffer, is_output));
                pointer
            };
            held.push(match arg {
                Arg::In(data) => Held::Pointer(hold(stream.clone_htod(*data).unwrap(), false)),
                Arg::InOut(data) => Held::Pointer(hold(stream.clone_htod(*data).unwrap(), true)),
                // SAFETY: bytes have no invalid values; tests compare every one of them.
                Arg::Out(n) => Held::Pointer(hold(unsafe { stream.alloc(*n) }.unwrap(), true)),
                Arg::I32(value) => Held::Scalar(*value),
                Arg::MapIn(data, boxes) => {
                    Held::Map(encode(hold(stream.clone_htod(*data).unwrap(), false), boxes))
                }
                Arg::MapInOut(data, boxes) => {
                    Held::Map(encode(hold(stream.clone_htod(*data).unwrap(), true), boxes))
                }
            });
        }
        (held, buffers)
    }

    fn launch(&self, function: &CudaFunction, stream: &CudaStream, held: &mut [Held]) {
        let mut pointers: Vec<*mut c_void> = held.iter_mut().map(Held::address).collect();
        let mut cluster = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue {
                clusterDim: sys::CUlaunchAttributeValue_union__bindgen_ty_1 {
                    x: self.cluster,
                    y: 1,
                    z: 1,
                },
            },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: self.grid,
            gridDimY: self.grid_y,
            gridDimZ: 1,
            blockDimX: self.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: self.shared_bytes,
            hStream: stream.cu_stream(),
            attrs: &mut cluster,
            numAttrs: u32::from(self.cluster > 1),
        };
        // SAFETY: one pointer per kernel parameter, alive until the call returns.
        let result = unsafe {
            sys::cuLaunchKernelEx(
                &config,
                function.cu_function(),
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        result.result().unwrap();
    }

    /// Runs under every seed, demands that nothing is found and that all outputs are the same, and
    /// returns them.
    #[track_caller]
    pub fn outputs(&self) -> Vec<Vec<u8>> {
        let mut first: Option<Vec<Vec<u8>>> = None;
        for seed in seeds() {
            let outcome = self.run(seed);
            assert_eq!(outcome.findings, "", "{} with seed {seed}", self.kernel);
            let first = first.get_or_insert_with(|| outcome.outputs.clone());
            assert!(*first == outcome.outputs, "{}: seed {seed} gives other bits", self.kernel);
        }
        first.unwrap()
    }

    /// The single output, as values.
    #[track_caller]
    pub fn output<T: bytemuck::Pod>(&self) -> Vec<T> {
        let outputs = self.outputs();
        assert_eq!(outputs.len(), 1);
        values(&outputs[0])
    }
}

/// While it lasts, launches of this thread run at once, with this seed, and their findings are
/// collected instead of poisoning the context.
pub struct Trial;

impl Trial {
    pub fn begin(seed: u64) -> Self {
        if let Some(library) = emulator() {
            // SAFETY: the function has this signature in kernels/emu/driver.cpp.
            unsafe {
                let begin = library.get::<unsafe extern "C" fn(u64)>(b"hooke_emu_trial_begin");
                begin.unwrap()(seed);
            }
        }
        Self
    }

    pub fn end(self) -> String {
        let Some(library) = emulator() else { return String::new() };
        // SAFETY: as above; the text lives until the next trial of this thread.
        unsafe {
            let end =
                library.get::<unsafe extern "C" fn() -> *const c_char>(b"hooke_emu_trial_end");
            CStr::from_ptr(end.unwrap()()).to_string_lossy().into_owned()
        }
    }
}
