//! Inputs that every element type holds exactly, and the bound of one rounding.

use super::{DType, upload_as};
use hooke::device::Device;
use hooke::tensor::Tensor;
use hooke::testing::compare::compare;
use hooke::testing::fill::normal;

/// The types that kernels of norms and elementwise operators exist for.
pub const DTYPES: [DType; 2] = [DType::F32, DType::BF16];

/// Normal values that are bf16, so that f64, f32 and bf16 operators see the same numbers.
pub fn values(n: usize, scale: f64, seed: u64) -> Vec<f64> {
    let rounded = |x: f32| half::bf16::from_f32(x).to_f64();
    normal::<f32>(n, scale, seed).into_iter().map(rounded).collect()
}

/// The same on the CPU in f64, for the reference.
pub fn reference(dims: &[usize], values: &[f64]) -> Tensor {
    let shape = hooke::shape::Shape::new(dims).unwrap();
    upload_as(&Device::Cpu, shape, values, DType::F64)
}

pub fn to_vec(tensor: &Tensor) -> Vec<f64> {
    tensor.view().to_f64_vec().unwrap()
}

/// Panics unless `got` is `want` (computed in f64 from the same inputs) rounded once to `dtype`,
/// element by element, after an error in f32 of `f32_ulps` half units of the last place of the
/// largest element; and unless the two point the same way.
#[track_caller]
pub fn assert_rounded(what: &str, got: &[f64], want: &[f64], dtype: DType, f32_ulps: f64) {
    // Half a unit of the last place, relative to the smallest number with that unit.
    let unit = if dtype == DType::BF16 { 2f64.powi(-8) } else { 2f64.powi(-24) };
    let scale = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let bound = unit * want.abs() + f32_ulps * 2f64.powi(-24) * scale;
        let error = (got - want).abs();
        assert!(error <= bound, "{what} {dtype} [{i}]: got {got:e}, want {want:e} +- {bound:e}");
    }
    let cosine = compare(got, want).cosine;
    let allowed = (unit * unit).max(1e-12);
    assert!(
        want.len() < 2 || cosine >= 1.0 - allowed,
        "{what} {dtype}: cosine 1-{:e}",
        1.0 - cosine
    );
}
