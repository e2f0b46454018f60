//! Scratch of the operators over a training step: what the GPU needs beside all tensors.

use super::config::ModelConfig;
use super::layout::ParamLayout;

/// Names and sizes in bytes for steps of up to `max_tokens`; every name once.
pub fn training(
    _config: &ModelConfig,
    _layout: &ParamLayout,
    _max_tokens: usize,
) -> Vec<(&'static str, usize)> {
    Vec::new()
}
