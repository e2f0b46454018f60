//! The transformer: configuration, parameter layout, forward and backward.
//!
//! A pre-norm decoder over packed documents. With r₀ the embedding of the tokens, layer i computes
//! ```text
//! n  = rmsnorm(rᵢ)                    q,k,v = rope(qk_norm(n Wqkvᵀ + b))
//! r' = rᵢ + attention(q,k,v) Woᵀ      m     = rmsnorm(r')
//! rᵢ₊₁ = r' + (silu(m Wgᵀ) ⊙ m Wuᵀ) Wdᵀ
//! ```
//! and the logits are rmsnorm(r_L) Wheadᵀ. Source: Touvron et al., "Llama 2", 2023; Qwen3
//! adds the norm over each query and key head.

pub mod activations;
pub mod backward;
pub mod cache;
pub mod config;
mod config_json;
pub mod forward;
pub mod head;
pub mod layout;
pub mod losses;
pub mod params;
pub mod rope;
pub mod workspace;

use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::attention;
use config::ModelConfig;
use params::Params;
use rope::RopeTables;

/// A model ready to compute. Holding one proves that the weights have the layout of the
/// configuration.
#[derive(Debug)]
pub struct Model {
    device: Device,
    config: ModelConfig,
    /// The weights.
    pub weights: Params,
    rope: RopeTables,
}

impl Model {
    /// Takes the weights; positions up to `max_positions` (exclusive) can be computed.
    pub fn new(
        device: &Device,
        config: ModelConfig,
        weights: Params,
        max_positions: usize,
    ) -> Result<Self> {
        check_head_dim(device, &config, weights.dtype())?;
        let rope = RopeTables::new(device, &config, max_positions, weights.dtype())?;
        Ok(Self { device: device.clone(), config, weights, rope })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Element type of weights and activations.
    pub fn dtype(&self) -> DType {
        self.weights.dtype()
    }

    /// Positions that can be computed: 0 up to this, exclusive.
    pub fn max_positions(&self) -> usize {
        self.rope.max_positions()
    }
}

/// Fails if the GPU has no attention kernel for the model: known now, not at the first step.
fn check_head_dim(device: &Device, config: &ModelConfig, dtype: DType) -> Result<()> {
    let (head_dim, known) = (config.heads.head_dim, attention::gpu_head_dims());
    if matches!(device, Device::Cpu) || dtype != DType::BF16 || known.contains(&head_dim) {
        return Ok(());
    }
    let known: Vec<String> = known.iter().map(usize::to_string).collect();
    let problem = format!(
        "the GPU's attention is made for heads of {}, this model has {head_dim}\n  \
         fix: use --device cpu",
        known.join(", ")
    );
    Err(Error::Device { problem })
}

/// A packed micro-batch on the host: documents one after another, no padding.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Token ids (T).
    pub tokens: &'a [i32],
    /// Position of each token within its document (T).
    pub positions: &'a [i32],
    /// Where each document starts, and T at the end (N + 1).
    pub cu_seqlens: &'a [i32],
}
