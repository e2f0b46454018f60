//! Launches, checked before the driver sees them. The only place that builds an argument array.

use super::device::CudaDevice;
use super::driver::describe;
use super::memory::{DeviceOperand, DeviceOperandMut, DeviceSlice};
use crate::error::{Error, Result};
use crate::shape::Shape;
use cudarc::driver::sys;
use std::ffi::c_void;
use std::fmt::Write as _;
use std::sync::Arc;

/// Kind of one kernel parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Param {
    /// Device memory, or none.
    Pointer,
    /// `int`.
    I32,
    /// `long long`.
    I64,
    /// `unsigned`.
    U32,
    /// `unsigned long long`.
    U64,
    /// `float`.
    F32,
}

/// What a launcher declares about a kernel; compared with the compiled one when it is loaded, and
/// with its PTX in the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelSpec {
    /// Stem of the source file: `rmsnorm` for `kernels/rmsnorm.cu`.
    pub module: &'static str,
    /// Name of the kernel.
    pub entry: &'static str,
    /// Its parameters in order.
    pub params: &'static [Param],
    /// Threads per block.
    pub threads: u32,
}

/// The driver's own limit on a grid's second and third dimension.
const MAX_GRID_YZ: u32 = 65_535;
/// And on the first.
const MAX_GRID_X: u32 = i32::MAX as u32;

struct Argument {
    kind: Param,
    /// The value, in the low bytes.
    bits: u64,
    shape: Option<Shape>,
}

/// A launch being put together, in the order of the kernel's parameters. It borrows its operands
/// until it is queued; the first mistake is kept and returned by [`Launch::run`].
#[must_use = "nothing is launched before run()"]
pub struct Launch<'a> {
    device: &'a CudaDevice,
    spec: &'static KernelSpec,
    grid: [u32; 3],
    shared_bytes: u32,
    arguments: Vec<Argument>,
    problem: Option<String>,
}

impl<'a> Launch<'a> {
    pub(super) fn new(device: &'a CudaDevice, spec: &'static KernelSpec) -> Self {
        let arguments = Vec::with_capacity(spec.params.len());
        Self { device, spec, grid: [1; 3], shared_bytes: 0, arguments, problem: None }
    }

    /// Number of blocks; 1 if not given. With a 0 in it, [`Self::run`] checks everything and
    /// launches nothing: an empty tensor has no blocks.
    pub fn grid(mut self, blocks: [u32; 3]) -> Self {
        self.grid = blocks;
        self
    }

    /// Dynamic shared memory per block.
    pub fn shared_bytes(mut self, num_bytes: u32) -> Self {
        self.shared_bytes = num_bytes;
        self
    }

    /// Memory that the kernel writes.
    pub fn output(self, operand: &'a mut impl DeviceOperandMut) -> Self {
        let shape = operand.operand_shape();
        let slice = operand.device_slice_mut();
        let address = slice.as_ref().map(|slice| self.address(slice.as_slice()));
        self.pointer(address, shape)
    }

    /// Memory that the kernel only reads.
    pub fn input(self, operand: &'a impl DeviceOperand) -> Self {
        let address = operand.device_slice().map(|slice| self.address(slice));
        self.pointer(address, operand.operand_shape())
    }

    /// No memory: an optional pointer that is absent.
    pub fn null(self) -> Self {
        self.push(Param::Pointer, 0, None)
    }

    /// An `int`.
    pub fn i32(self, value: i32) -> Self {
        self.push(Param::I32, u64::from(value.cast_unsigned()), None)
    }

    /// A `long long`.
    pub fn i64(self, value: i64) -> Self {
        self.push(Param::I64, value.cast_unsigned(), None)
    }

    /// An `unsigned`.
    pub fn u32(self, value: u32) -> Self {
        self.push(Param::U32, u64::from(value), None)
    }

    /// An `unsigned long long`.
    pub fn u64(self, value: u64) -> Self {
        self.push(Param::U64, value, None)
    }

    /// A `float`.
    pub fn f32(self, value: f32) -> Self {
        self.push(Param::F32, u64::from(value.to_bits()), None)
    }

    /// A dimension, as an `int`; too large a one is an error.
    pub fn dim(mut self, n: usize) -> Self {
        let value = i32::try_from(n).unwrap_or_else(|_| {
            self.complain(|| format!("dimension {n} does not fit a 32-bit integer"));
            0
        });
        self.i32(value)
    }

    /// A number of elements, as a `long long`.
    pub fn count(mut self, n: usize) -> Self {
        let value = i64::try_from(n).unwrap_or_else(|_| {
            self.complain(|| format!("{n} elements do not fit a 64-bit integer"));
            0
        });
        self.i64(value)
    }

    /// Checks everything and queues the launch; it runs later, and its own faults come back from
    /// whatever waits for it.
    pub fn run(mut self) -> Result<()> {
        self.check();
        if let Some(problem) = self.problem.take() {
            return Err(self.error(&problem));
        }
        let core = self.device.core();
        core.bind()?;
        let max_shared_bytes = self.device.properties().max_shared_bytes;
        let function =
            self.device.functions().get(self.spec, self.shared_bytes, max_shared_bytes)?;
        if self.grid.contains(&0) {
            return Ok(());
        }
        let mut pointers: Vec<*mut c_void> =
            self.arguments.iter_mut().map(|a| (&raw mut a.bits).cast()).collect();
        let ([x, y, z], threads) = (self.grid, self.spec.threads);
        // SAFETY: one pointer per parameter, in number and size as the driver itself says
        // (`Functions::get`); values are little-endian in their eight bytes, and are copied by the
        // call. Device addresses are of memory that is borrowed now and whose owner drains the
        // stream before freeing it. What the kernel does within them is the kernels' contract,
        // tested under an emulator that checks every access.
        let code = unsafe {
            sys::cuLaunchKernel(
                function.raw,
                x,
                y,
                z,
                threads,
                1,
                1,
                self.shared_bytes,
                core.stream(),
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        code.result().map_err(|error| self.error(&format!("not launched: {}", describe(error))))
    }

    fn address(&self, slice: DeviceSlice<'_>) -> Option<u64> {
        Arc::ptr_eq(slice.core(), self.device.core()).then(|| slice.address())
    }

    /// `address`: `None` on the host, `Some(None)` on another device.
    fn pointer(mut self, address: Option<Option<u64>>, shape: Option<Shape>) -> Self {
        let index = self.arguments.len();
        match address {
            Some(Some(address)) => return self.push(Param::Pointer, address, shape),
            Some(None) => self.complain(|| format!("operand {index} is on another device")),
            None => self.complain(|| format!("operand {index} is on the host")),
        }
        self.push(Param::Pointer, 0, shape)
    }

    fn push(mut self, kind: Param, bits: u64, shape: Option<Shape>) -> Self {
        let index = self.arguments.len();
        let declared = self.spec.params.get(index).copied();
        if declared != Some(kind) {
            self.complain(|| match declared {
                Some(declared) => format!("argument {index} is {kind:?}, declared {declared:?}"),
                None => format!("argument {index} is one too many"),
            });
        }
        self.arguments.push(Argument { kind, bits, shape });
        self
    }

    fn check(&mut self) {
        let (given, declared) = (self.arguments.len(), self.spec.params.len());
        if given < declared {
            self.complain(|| format!("{given} arguments, {declared} declared"));
        }
        let [x, y, z] = self.grid;
        if x > MAX_GRID_X || y > MAX_GRID_YZ || z > MAX_GRID_YZ {
            self.complain(|| "the grid is too large".into());
        }
    }

    fn complain(&mut self, problem: impl FnOnce() -> String) {
        self.problem.get_or_insert_with(problem);
    }

    /// Names the kernel, its geometry and its operands.
    fn error(&self, problem: &str) -> Error {
        let [x, y, z] = self.grid;
        let (entry, threads) = (self.spec.entry, self.spec.threads);
        let mut text = format!("kernel {entry}: {problem}; grid {x}x{y}x{z} of {threads} threads");
        let _ = write!(text, ", {} bytes of shared memory; arguments", self.shared_bytes);
        for argument in &self.arguments {
            let _ = match (argument.kind, &argument.shape) {
                (Param::Pointer, Some(shape)) => write!(text, " {shape}"),
                (Param::Pointer, None) => write!(text, " pointer"),
                (Param::F32, _) => write!(text, " {}", f32::from_bits(argument.bits as u32)),
                (Param::I32, _) => write!(text, " {}", argument.bits as i32),
                _ => write!(text, " {}", argument.bits),
            };
        }
        Error::Device { problem: text }
    }
}
