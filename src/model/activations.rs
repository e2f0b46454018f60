//! Every tensor that forward leaves behind, named, with its shape.

use super::Model;
use super::config::ModelConfig;
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::Allocate;
use crate::shape::Shape;
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
pub struct LayerActivations<T = Tensor> {
    /// rmsnorm of the layer's input (T, C).
    pub norm1: T,
    /// Its statistics (T).
    pub rstd1: T,
    /// Packed q, k, v before the norm over heads (T, (H+2G)·D); only with q/k norm.
    pub qkv_raw: Option<T>,
    /// Statistics of the norm over heads (T, H+G); only with q/k norm.
    pub qk_rstd: Option<T>,
    /// Packed q, k, v as attention sees them (T, (H+2G)·D).
    pub qkv: T,
    /// Output of attention before its projection (T, H·D).
    pub attention: T,
    /// Log of the sum of exponentials of each query's scores (T, H).
    pub lse: T,
    /// rmsnorm before the feed-forward (T, C).
    pub norm2: T,
    /// Its statistics (T).
    pub rstd2: T,
    /// Gate and up projections, [gate | up] (T, 2F).
    pub gate_up: T,
    /// silu(gate) ⊙ up (T, F).
    pub swiglu: T,
}

/// What forward leaves behind, with room for a given number of tokens and documents.
#[derive(Debug)]
pub struct Activations<T = Tensor> {
    /// Tokens of the batch last computed.
    pub(super) num_tokens: usize,
    /// Documents of the batch last computed.
    pub(super) num_documents: usize,
    /// Ids (T), i32.
    pub(super) tokens: T,
    /// Positions (T), i32.
    pub(super) positions: T,
    /// Document starts (N + 1), i32.
    pub(super) cu_seqlens: T,
    /// The residual stream entering each layer, and the final norm (T, C).
    pub(super) residual: Vec<T>,
    /// The residual stream between attention and feed-forward (T, C).
    pub(super) mid: Vec<T>,
    /// The rest, per layer.
    pub(super) layers: Vec<LayerActivations<T>>,
    /// Output of a branch before it joins the residual stream (T, C).
    pub(super) branch: T,
    /// rmsnorm of the last residual (T, C): what the head reads.
    pub(super) final_norm: T,
    /// Its statistics (T).
    pub(super) final_rstd: T,
}

impl Activations {
    /// Allocates for up to `max_tokens` in up to `max_documents`.
    pub fn new(model: &Model, max_tokens: usize, max_documents: usize, keep: Keep) -> Result<Self> {
        let (config, dtype) = (model.config(), model.dtype());
        Self::build(&mut model.device(), config, dtype, max_tokens, max_documents, keep)
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

impl<T> Activations<T> {
    /// The same from anywhere.
    pub fn build(
        memory: &mut impl Allocate<Tensor = T>,
        config: &ModelConfig,
        dtype: DType,
        max_tokens: usize,
        max_documents: usize,
        keep: Keep,
    ) -> Result<Self> {
        let stat = dtype.accumulator();
        let (num_layers, num_residuals) = match keep {
            Keep::AllLayers => (config.num_layers, config.num_layers + 1),
            Keep::OneLayer => (1, 1),
        };
        let hidden = Shape::from([max_tokens, config.hidden_size]);
        let tokens = memory.zeros("tokens", [max_tokens].into(), DType::I32)?;
        let positions = memory.zeros("positions", [max_tokens].into(), DType::I32)?;
        let cu_seqlens = memory.zeros("document starts", [max_documents + 1].into(), DType::I32)?;
        let mut residuals = |n: usize| -> Result<Vec<T>> {
            (0..n).map(|_| memory.zeros("residual", hidden, dtype)).collect()
        };
        Ok(Self {
            num_tokens: 0,
            num_documents: 0,
            tokens,
            positions,
            cu_seqlens,
            residual: residuals(num_residuals)?,
            mid: residuals(num_layers)?,
            layers: (0..num_layers)
                .map(|_| LayerActivations::build(memory, config, max_tokens, dtype))
                .collect::<Result<_>>()?,
            branch: memory.zeros("branch", hidden, dtype)?,
            final_norm: memory.zeros("final norm", hidden, dtype)?,
            final_rstd: memory.zeros("final norm statistics", [max_tokens].into(), stat)?,
        })
    }
}

impl<T> LayerActivations<T> {
    fn build(
        memory: &mut impl Allocate<Tensor = T>,
        config: &ModelConfig,
        t: usize,
        dtype: DType,
    ) -> Result<Self> {
        let stat = dtype.accumulator();
        let heads = &config.heads;
        let (c, f) = (config.hidden_size, config.intermediate_size);
        let mut qkv_raw = None;
        let mut qk_rstd = None;
        if config.qk_norm {
            let norms = heads.num_heads + heads.num_kv_heads;
            let width = heads.qkv_dim();
            qkv_raw = Some(memory.zeros("qkv before its norm", [t, width].into(), dtype)?);
            qk_rstd = Some(memory.zeros("q/k norm statistics", [t, norms].into(), stat)?);
        }
        let mut wide = |what, width: usize| memory.zeros(what, [t, width].into(), dtype);
        let (norm1, qkv) = (wide("attention norm", c)?, wide("qkv", heads.qkv_dim())?);
        let (attention, norm2) = (wide("attention", heads.q_dim())?, wide("feed-forward norm", c)?);
        let (gate_up, swiglu) = (wide("gate and up", 2 * f)?, wide("swiglu", f)?);
        Ok(Self {
            norm1,
            rstd1: memory.zeros("attention norm statistics", [t].into(), stat)?,
            qkv_raw,
            qk_rstd,
            qkv,
            attention,
            lse: memory.zeros("attention statistics", [t, heads.num_heads].into(), stat)?,
            norm2,
            rstd2: memory.zeros("feed-forward norm statistics", [t].into(), stat)?,
            gate_up,
            swiglu,
        })
    }
}
