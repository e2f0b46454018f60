//! Forward, straight down the layers.

use super::activations::{Activations, LayerActivations};
use super::cache::KvCache;
use super::layout::LayerSpans;
use super::{Input, Model};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::matmul::{Accumulate, Layout, matmul};
use crate::ops::{attention, check_values, embedding, qk_norm, rmsnorm, rope, swiglu};
use crate::tensor::{View, ViewMut};

/// Which keys a token attends to.
pub(super) enum Attend<'a> {
    /// Those of its own document up to itself.
    Documents,
    /// The same; keys and values are also stored in the cache.
    Prefill(&'a mut KvCache),
    /// Those in the cache, to which its own are added first; one token per sequence.
    Cached(&'a mut KvCache),
}

impl Model {
    /// Computes the hidden states of a packed micro-batch, into `acts`.
    ///
    /// Errors: [`Error::Operand`] if the batch is larger than `acts`, or names a token or
    /// position that does not exist. Deterministic.
    pub fn forward(&self, input: Input<'_>, acts: &mut Activations) -> Result<()> {
        self.run(input, Attend::Documents, acts)
    }

    pub(super) fn run(
        &self,
        input: Input<'_>,
        mut attend: Attend<'_>,
        acts: &mut Activations,
    ) -> Result<()> {
        let (device, config, layout) = (&self.device, &self.config, self.weights.layout());
        self.check_values(input)?;
        let t = acts.load(input)?;
        let Activations { residual, mid, layers, branch, final_norm, final_rstd, .. } = acts;
        let (last_residual, last_mid) = (residual.len() - 1, mid.len() - 1);
        let last_layer = layers.len() - 1;
        let eps = config.rms_norm_eps;

        let weight = self.weights.view(layout.embedding());
        embedding::forward(device, residual[0].rows_mut(t), acts.tokens.rows(t), weight)?;
        for i in 0..config.num_layers {
            let spans = layout.layer(i);
            let layer = &mut layers[i.min(last_layer)];
            let norm1 = layer.norm1.rows_mut(t);
            let rstd1 = layer.rstd1.rows_mut(t);
            let weight = self.weights.view(&spans.input_norm);
            if i == 0 {
                rmsnorm::forward(device, norm1, rstd1, residual[0].rows(t), weight, eps)?;
            } else {
                let sum = residual[i.min(last_residual)].rows_mut(t);
                let before = mid[(i - 1).min(last_mid)].rows(t);
                let x = branch.rows(t);
                rmsnorm::forward_residual(device, norm1, sum, rstd1, before, x, weight, eps)?;
            }
            self.project_qkv(spans, layer, acts.positions.rows(t), t)?;
            self.attend(i, layer, acts.cu_seqlens.rows(acts.num_documents + 1), t, &mut attend)?;
            let o = self.weights.view(&spans.o);
            let bias = spans.o_bias.as_ref().map(|span| self.weights.view(span));
            self.linear(branch.rows_mut(t), layer.attention.rows(t), o, bias)?;

            rmsnorm::forward_residual(
                device,
                layer.norm2.rows_mut(t),
                mid[i.min(last_mid)].rows_mut(t),
                layer.rstd2.rows_mut(t),
                residual[i.min(last_residual)].rows(t),
                branch.rows(t),
                self.weights.view(&spans.post_norm),
                eps,
            )?;
            let gate_up = self.weights.view(&spans.gate_up);
            let bias = spans.gate_up_bias.as_ref().map(|span| self.weights.view(span));
            self.linear(layer.gate_up.rows_mut(t), layer.norm2.rows(t), gate_up, bias)?;
            swiglu::forward(device, layer.swiglu.rows_mut(t), layer.gate_up.rows(t))?;
            let down = self.weights.view(&spans.down);
            let bias = spans.down_bias.as_ref().map(|span| self.weights.view(span));
            self.linear(branch.rows_mut(t), layer.swiglu.rows(t), down, bias)?;
        }
        rmsnorm::forward_residual(
            device,
            final_norm.rows_mut(t),
            residual[last_residual].rows_mut(t),
            final_rstd.rows_mut(t),
            mid[last_mid].rows(t),
            branch.rows(t),
            self.weights.view(layout.final_norm()),
            eps,
        )
    }

    /// Kernels cannot refuse a token or position that does not exist: they are refused here. The
    /// operators of the CPU look for themselves.
    fn check_values(&self, input: Input<'_>) -> Result<()> {
        const OP: &str = "model.forward";
        if let Device::Cuda(_) = self.device {
            check_values(OP, "tokens", input.tokens, 0..self.config.vocab_size)?;
            check_values(OP, "positions", input.positions, 0..self.max_positions())?;
            attention::documents(OP, input.cu_seqlens, input.tokens.len())?;
        }
        Ok(())
    }

    /// y = x Wᵀ + b.
    pub(super) fn linear(
        &self,
        y: ViewMut<'_>,
        x: View<'_>,
        weight: View<'_>,
        bias: Option<View<'_>>,
    ) -> Result<()> {
        matmul(&self.device, y, x, weight, bias, Layout::NT, Accumulate::No)
    }

    /// norm1 to packed q, k, v: projection, norm over heads where the model has one, rotation.
    fn project_qkv(
        &self,
        spans: &LayerSpans,
        layer: &mut LayerActivations,
        positions: View<'_>,
        t: usize,
    ) -> Result<()> {
        let (device, heads) = (&self.device, self.config.heads);
        let weight = self.weights.view(&spans.qkv);
        let bias = spans.qkv_bias.as_ref().map(|span| self.weights.view(span));
        let projected = layer.qkv_raw.as_mut().unwrap_or(&mut layer.qkv);
        self.linear(projected.rows_mut(t), layer.norm1.rows(t), weight, bias)?;
        if let (Some(raw), Some(rstd), Some(q_norm), Some(k_norm)) =
            (&layer.qkv_raw, &mut layer.qk_rstd, &spans.q_norm, &spans.k_norm)
        {
            let (q_norm, k_norm) = (self.weights.view(q_norm), self.weights.view(k_norm));
            let eps = self.config.rms_norm_eps;
            let (out, rstd) = (layer.qkv.rows_mut(t), rstd.rows_mut(t));
            qk_norm::forward(device, out, rstd, raw.rows(t), q_norm, k_norm, eps, heads)?;
        }
        let (cos, sin) = (self.rope.cos.view(), self.rope.sin.view());
        rope::forward(device, layer.qkv.rows_mut(t), positions, cos, sin, heads)
    }

    fn attend(
        &self,
        i: usize,
        layer: &mut LayerActivations,
        cu_seqlens: View<'_>,
        t: usize,
        attend: &mut Attend<'_>,
    ) -> Result<()> {
        let (device, heads, scale) = (&self.device, self.config.heads, self.attention_scale());
        let qkv = layer.qkv.rows(t);
        if let Attend::Prefill(cache) | Attend::Cached(cache) = attend {
            cache.store(device, i, qkv, heads)?;
        }
        let out = layer.attention.rows_mut(t);
        match attend {
            Attend::Documents | Attend::Prefill(_) => {
                let lse = layer.lse.rows_mut(t);
                attention::forward(device, out, lse, qkv, cu_seqlens, scale, heads)
            }
            Attend::Cached(cache) => {
                let (k, v, lengths) = cache.layer(i);
                attention::decode(device, out, qkv, k, v, lengths, scale, heads)
            }
        }
    }

    /// Factor on the scores: 1/√D.
    pub(super) fn attention_scale(&self) -> f64 {
        1.0 / (self.config.heads.head_dim as f64).sqrt()
    }
}

impl Activations {
    /// Copies the ids of a batch in; returns its number of tokens.
    fn load(&mut self, input: Input<'_>) -> Result<usize> {
        let (t, n) = (input.tokens.len(), input.cu_seqlens.len().saturating_sub(1));
        let fits = t <= self.max_tokens() && n <= self.max_documents();
        if !fits || input.positions.len() != t {
            return Err(Error::Operand {
                op: "model.forward",
                operand: "input",
                expected: format!(
                    "up to {} tokens in up to {} documents, and as many positions",
                    self.max_tokens(),
                    self.max_documents()
                ),
                got: format!("{t} tokens, {} positions, {n} documents", input.positions.len()),
            });
        }
        self.tokens.rows_mut(t).copy_from_host(input.tokens)?;
        self.positions.rows_mut(t).copy_from_host(input.positions)?;
        self.cu_seqlens.rows_mut(n + 1).copy_from_host(input.cu_seqlens)?;
        (self.num_tokens, self.num_documents) = (t, n);
        Ok(t)
    }
}
