//! Launchers of the kernels in kernels/adamw.cu.

use super::Hyper;
use super::element::Factors;
use super::rounding::Rounding;
use super::states::CodesMut;
use crate::cuda::{CudaDevice, KernelSpec, Launch, Param};
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::Operand;
use crate::ops::by_dtype::{ByDType, blocks, eights, unsupported};
use crate::tensor::{View, ViewMut};

const P: Param = Param::Pointer;
const F: Param = Param::F32;
const L: Param = Param::I64;
const U: Param = Param::U32;
const U64: Param = Param::U64;
const THREADS: u32 = 256;

static STEP: KernelSpec = KernelSpec {
    module: "adamw",
    entry: "adamw_step_f32",
    params: &[P, P, P, P, F, F, F, F, F, F, F, F, L],
    threads: THREADS,
};
/// By the type of the gradients.
static MASTER: ByDType = ByDType::new(
    "adamw",
    ["adamw_master_f32", "adamw_master_bf16"],
    &[P, P, P, P, P, F, F, F, F, F, F, F, F, L],
    THREADS,
);
static ROUNDED: ByDType = ByDType::new(
    "adamw",
    ["adamw_rounded_f32", "adamw_rounded_bf16"],
    &[P, P, P, P, F, F, F, F, F, F, F, F, U64, U64, U, L],
    THREADS,
);
const BLOCKWISE_PARAMS: &[Param] = &[P, P, P, P, P, P, F, F, F, F, F, F, F, F, U64, U64, U, L];
static BLOCKWISE_BF16: ByDType = ByDType::new(
    "adamw",
    ["adamw_blockwise_bf16_f32", "adamw_blockwise_bf16_bf16"],
    BLOCKWISE_PARAMS,
    THREADS,
);
static BLOCKWISE_F32: KernelSpec = KernelSpec {
    module: "adamw",
    entry: "adamw_blockwise_f32_f32",
    params: BLOCKWISE_PARAMS,
    threads: THREADS,
};

/// One thread per eight parameters.
fn grid(n: usize) -> [u32; 3] {
    [blocks(eights(n).div_ceil(THREADS as usize)), 1, 1]
}

fn factors<'a>(launch: Launch<'a>, hyper: &Hyper) -> Launch<'a> {
    let f = Factors::new(hyper);
    launch
        .f32(f.grad_scale)
        .f32(f.decay)
        .f32(f.one_minus_beta1)
        .f32(f.beta2)
        .f32(f.one_minus_beta2)
        .f32(f.step_size)
        .f32(f.inverse_root_bias2)
        .f32(f.epsilon)
}

fn rounded<'a>(launch: Launch<'a>, hyper: &Hyper, rounding: Rounding, step: u32) -> Launch<'a> {
    factors(launch, hyper).u64(rounding.seed).u64(rounding.first_element / 8).u32(step)
}

pub(super) fn step(
    cuda: &CudaDevice,
    mut weights: ViewMut<'_>,
    mut m: ViewMut<'_>,
    mut v: ViewMut<'_>,
    grads: View<'_>,
    hyper: &Hyper,
) -> Result<()> {
    let dtype = Operand::dtype(&weights);
    if dtype != DType::F32 {
        let expected = "f32, or one of the other steps, on a GPU";
        return Err(unsupported("adamw.step", "weights", expected, dtype));
    }
    let n = grads.shape().num_elems();
    let launch = cuda
        .launch(&STEP)
        .grid(grid(n))
        .output(&mut weights)
        .output(&mut m)
        .output(&mut v)
        .input(&grads);
    factors(launch, hyper).count(n).run()
}

pub(super) fn step_master(
    cuda: &CudaDevice,
    mut weights: ViewMut<'_>,
    mut master: ViewMut<'_>,
    mut m: ViewMut<'_>,
    mut v: ViewMut<'_>,
    grads: View<'_>,
    hyper: &Hyper,
) -> Result<()> {
    let n = grads.shape().num_elems();
    let launch = cuda
        .launch(MASTER.get("adamw.step_master", "grads", grads.dtype())?)
        .grid(grid(n))
        .output(&mut weights)
        .output(&mut master)
        .output(&mut m)
        .output(&mut v)
        .input(&grads);
    factors(launch, hyper).count(n).run()
}

pub(super) fn step_rounded(
    cuda: &CudaDevice,
    mut weights: ViewMut<'_>,
    mut m: ViewMut<'_>,
    mut v: ViewMut<'_>,
    grads: View<'_>,
    hyper: &Hyper,
    rounding: Rounding,
    step: u32,
) -> Result<()> {
    let n = grads.shape().num_elems();
    let launch = cuda
        .launch(ROUNDED.get("adamw.step_rounded", "grads", grads.dtype())?)
        .grid(grid(n))
        .output(&mut weights)
        .output(&mut m)
        .output(&mut v)
        .input(&grads);
    rounded(launch, hyper, rounding, step).count(n).run()
}

pub(super) fn step_blockwise(
    cuda: &CudaDevice,
    mut weights: ViewMut<'_>,
    mut m: CodesMut<'_>,
    mut v: CodesMut<'_>,
    grads: View<'_>,
    hyper: &Hyper,
    rounding: Rounding,
    step: u32,
) -> Result<()> {
    let n = grads.shape().num_elems();
    let kernel = match Operand::dtype(&weights) {
        DType::BF16 => BLOCKWISE_BF16.get("adamw.step_blockwise", "grads", grads.dtype())?,
        _ => &BLOCKWISE_F32,
    };
    let launch = cuda
        .launch(kernel)
        .grid(grid(n))
        .output(&mut weights)
        .output(&mut m.codes)
        .output(&mut m.scales)
        .output(&mut v.codes)
        .output(&mut v.scales)
        .input(&grads);
    rounded(launch, hyper, rounding, step).count(n).run()
}
