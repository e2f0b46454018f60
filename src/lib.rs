//! hooke: a trainer for Llama/Qwen transformers, and a laboratory for the elasticity of
//! language models.
//!
//! # Layers
//! Each may use those above it in this list, never those below (`tests/policy.rs` checks it):
//! 0. [`error`], [`dtype`], [`shape`], [`rng`] — plain values
//! 1. [`cuda`] — the driver of NVIDIA GPUs
//! 2. [`device`] — memory
//! 3. [`tensor`] — owned tensors and views
//! 4. [`memory`] — tensors by the dozen, made or only counted
//! 5. [`ops`] — one folder per operator: contract, CPU reference, launchers of CUDA kernels
//! 6. [`model`], [`optim`] — side by side
//! 7. [`data`] — from rows of text to the model's packed input
//! 8. [`checkpoint`] — files of weights and references
//! 9. [`train`], [`eval`], [`generate`] — side by side
//! 10. [`validate`], [`doctor`] — compute, train, and compare
//! 11. [`cli`]
//!
//! # Letters
//! `T` tokens of a packed micro-batch · `C` hidden size · `H` query heads · `G` key/value heads ·
//! `D` head size · `F` feed-forward size · `V` vocabulary · `L` layers · `M N K` of a product.
//! The gradient of `x` is `dx`.

pub mod checkpoint;
pub mod cli;
pub mod cuda;
pub mod data;
pub mod device;
pub mod doctor;
pub mod dtype;
pub mod error;
pub mod eval;
pub mod generate;
pub mod memory;
pub mod model;
pub mod ops;
pub mod optim;
pub mod rng;
pub mod shape;
pub mod tensor;
#[doc(hidden)]
pub mod testing;
pub mod train;
pub mod validate;
