//! Every tensor that forward leaves behind, named, with its shape.

use super::Model;
use super::config::ModelConfig;
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{Tensor, View};

/// Which layers' activations are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All: backward needs them, and comparisons read them.
    AllLayers,
    /// Those of the layer being computed only: evaluation and generation.
    OneLayer,
}

/// What one layer leaves behind.
#[derive(Debug)]
pub struct LayerActivations {
    /// rmsnorm of the layer's input (T, C).
    pub norm1: Tensor,
    /// Its statistics (T).
    pub rstd1: Tensor,
    /// Packed q, k, v before the norm over heads (T, (H+2G)·D); only with q/k norm.
    pub qkv_raw: Option<Tensor>,
    /// Statistics of the norm over heads (T, H+G); only with q/k norm.
    pub qk_rstd: Option<Tensor>,
    /// Packed q, k, v as attention sees them (T, (H+2G)·D).
    pub qkv: Tensor,
    /// Output of attention before its projection (T, H·D).
    pub attention: Tensor,
    /// Log of the sum of exponentials of each query's scores (T, H).
    pub lse: Tensor,
    /// rmsnorm before the feed-forward (T, C).
    pub norm2: Tensor,
    /// Its statistics (T).
    pub rstd2: Tensor,
    /// Gate and up projections, [gate | up] (T, 2F).
    pub gate_up: Tensor,
    /// silu(gate) ⊙ up (T, F).
    pub swiglu: Tensor,
}

/// What forward leaves behind, with room for a given number of tokens and documents.
#[derive(Debug)]
pub struct Activations {
    /// Tokens of the batch last computed.
    pub(super) num_tokens: usize,
    /// Documents of the batch last computed.
    pub(super) num_documents: usize,
    /// Ids (T), i32.
    pub(super) tokens: Tensor,
    /// Positions (T), i32.
    pub(super) positions: Tensor,
    /// Document starts (N + 1), i32.
    pub(super) cu_seqlens: Tensor,
    /// The residual stream entering each layer, and the final norm (T, C).
    pub(super) residual: Vec<Tensor>,
    /// The residual stream between attention and feed-forward (T, C).
    pub(super) mid: Vec<Tensor>,
    /// The rest, per layer.
    pub(super) layers: Vec<LayerActivations>,
    /// Output of a branch before it joins the residual stream (T, C).
    pub(super) branch: Tensor,
    /// rmsnorm of the last residual (T, C): what the head reads.
    pub(super) final_norm: Tensor,
    /// Its statistics (T).
    pub(super) final_rstd: Tensor,
}

impl Activations {
    /// Allocates for up to `max_tokens` in up to `max_documents`.
    pub fn new(model: &Model, max_tokens: usize, max_documents: usize, keep: Keep) -> Result<Self> {
        let (device, config, dtype) = (model.device(), model.config(), model.dtype());
        let stat = dtype.accumulator();
        let num_layers = match keep {
            Keep::AllLayers => config.num_layers,
            Keep::OneLayer => 1,
        };
        let num_residuals = match keep {
            Keep::AllLayers => config.num_layers + 1,
            Keep::OneLayer => 1,
        };
        let hidden = |what| Tensor::zeros(device, what, [max_tokens, config.hidden_size], dtype);
        let ids = |what, n| Tensor::zeros(device, what, [n], DType::I32);
        Ok(Self {
            num_tokens: 0,
            num_documents: 0,
            tokens: ids("tokens", max_tokens)?,
            positions: ids("positions", max_tokens)?,
            cu_seqlens: ids("document starts", max_documents + 1)?,
            residual: (0..num_residuals).map(|_| hidden("residual")).collect::<Result<_>>()?,
            mid: (0..num_layers).map(|_| hidden("residual")).collect::<Result<_>>()?,
            layers: (0..num_layers)
                .map(|_| LayerActivations::new(device, config, max_tokens, dtype))
                .collect::<Result<_>>()?,
            branch: hidden("branch")?,
            final_norm: hidden("final norm")?,
            final_rstd: Tensor::zeros(device, "final norm statistics", [max_tokens], stat)?,
        })
    }

    /// Tokens that fit.
    pub fn max_tokens(&self) -> usize {
        self.tokens.shape().dims()[0]
    }

    /// Documents that fit.
    pub fn max_documents(&self) -> usize {
        self.cu_seqlens.shape().dims()[0] - 1
    }

    /// Tokens of the batch last computed.
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }

    /// The residual stream that enters layer `i` (T, C); `i` = L: what the final norm reads.
    /// Needs [`Keep::AllLayers`].
    pub fn residual(&self, i: usize) -> View<'_> {
        self.residual[i].rows(self.num_tokens)
    }

    /// What layer `i` left behind. Needs [`Keep::AllLayers`].
    pub fn layer(&self, i: usize) -> &LayerActivations {
        &self.layers[i]
    }

    /// The hidden states after the final norm (T, C).
    pub fn final_norm(&self) -> View<'_> {
        self.final_norm.rows(self.num_tokens)
    }
}

impl LayerActivations {
    fn new(device: &Device, config: &ModelConfig, t: usize, dtype: DType) -> Result<Self> {
        let stat = dtype.accumulator();
        let heads = &config.heads;
        let (c, f) = (config.hidden_size, config.intermediate_size);
        let tensor = |what, width| Tensor::zeros(device, what, [t, width], dtype);
        let per_token = |what| Tensor::zeros(device, what, [t], stat);
        let mut qkv_raw = None;
        let mut qk_rstd = None;
        if config.qk_norm {
            let norms = heads.num_heads + heads.num_kv_heads;
            qkv_raw = Some(tensor("qkv before its norm", heads.qkv_dim())?);
            qk_rstd = Some(Tensor::zeros(device, "q/k norm statistics", [t, norms], stat)?);
        }
        Ok(Self {
            norm1: tensor("attention norm", c)?,
            rstd1: per_token("attention norm statistics")?,
            qkv_raw,
            qk_rstd,
            qkv: tensor("qkv", heads.qkv_dim())?,
            attention: tensor("attention", heads.q_dim())?,
            lse: Tensor::zeros(device, "attention statistics", [t, heads.num_heads], stat)?,
            norm2: tensor("feed-forward norm", c)?,
            rstd2: per_token("feed-forward norm statistics")?,
            gate_up: tensor("gate and up", 2 * f)?,
            swiglu: tensor("swiglu", f)?,
        })
    }
}
