//! hooke: a trainer for Llama/Qwen transformers, and a laboratory for the elasticity of
//! language models.
//!
//! # Layers
//! Each may use those above it in this list, never those below (`tests/policy.rs` checks it):
//! 0. [`error`], [`dtype`], [`shape`], [`rng`] — plain values
//! 1. [`device`] — memory
//! 2. [`tensor`] — owned tensors and views
//! 3. [`ops`] — one folder per operator: contract, CPU reference
//! 4. [`model`], [`optim`] — side by side
//! 5. [`data`] — from rows of text to the model's packed input
//! 6. [`checkpoint`] — files of weights and references
//! 7. [`train`], [`eval`], [`generate`] — side by side
//! 8. [`validate`] — computes and trains, and compares
//! 9. [`cli`]
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
pub mod dtype;
pub mod error;
pub mod eval;
pub mod generate;
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
