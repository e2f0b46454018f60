//! Scratch of the operators over a training step: what the GPU needs beside all tensors.

use super::config::ModelConfig;
use crate::ops::{attention, embedding, qk_norm, reduce, rmsnorm};

/// Names and sizes in bytes for steps of up to `max_tokens` per micro-batch; every name once, with
/// the largest size that any call asks for.
pub fn training(config: &ModelConfig, max_tokens: usize) -> Vec<(&'static str, usize)> {
    let (c, f, heads) = (config.hidden_size, config.intermediate_size, config.heads);
    // Outputs of the layers that can have a bias.
    let widest = heads.qkv_dim().max(2 * f).max(c);
    let mut pieces = attention::workspace(max_tokens, heads);
    pieces.extend(embedding::workspace(max_tokens));
    pieces.extend(rmsnorm::workspace(max_tokens, c));
    if config.qk_norm {
        pieces.extend(qk_norm::workspace(max_tokens, heads));
    }
    if config.qkv_bias || config.o_bias || config.mlp_bias {
        pieces.extend(reduce::column_sums_workspace(max_tokens, widest));
    }
    pieces.extend(reduce::workspace());
    pieces
}
