//! The CUDA backend.

pub mod images;
