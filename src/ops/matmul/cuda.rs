//! Launchers of the kernels in kernels/matmul.cu.

use super::{Accumulate, Layout};
use crate::cuda::CudaDevice;
use crate::error::Result;
use crate::ops::no_kernel;
use crate::tensor::{View, ViewMut};

pub(super) fn matmul(
    cuda: &CudaDevice,
    out: ViewMut<'_>,
    a: View<'_>,
    b: View<'_>,
    bias: Option<View<'_>>,
    layout: Layout,
    accumulate: Accumulate,
) -> Result<()> {
    let _ = (cuda, out, a, b, bias, layout, accumulate);
    Err(no_kernel("matmul.matmul"))
}
