//! Launchers of the kernels in kernels/adamw.cu.

use super::Hyper;
use crate::cuda::CudaDevice;
use crate::error::Result;
use crate::ops::no_kernel;
use crate::tensor::{View, ViewMut};

pub(super) fn step(
    cuda: &CudaDevice,
    weights: ViewMut<'_>,
    m: ViewMut<'_>,
    v: ViewMut<'_>,
    grads: View<'_>,
    hyper: &Hyper,
) -> Result<()> {
    let _ = (cuda, weights, m, v, grads, hyper);
    Err(no_kernel("adamw.step"))
}
