//! Backward, straight up the layers: the gradient of every weight for a batch that
//! [`Model::forward`] has just computed.
//!
//! Gradients of weights are added to; gradients of activations are overwritten, except that of
//! the residual stream, to which every branch adds its own.

use super::activations::{Activations, LayerActivations};
use super::config::ModelConfig;
use super::head::Head;
use super::layout::{LayerSpans, Span};
use super::losses::Losses;
use super::params::Params;
use super::{Input, Model};
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::Allocate;
use crate::ops::matmul::{Accumulate, Layout, matmul};
use crate::ops::{attention, embedding, qk_norm, reduce, rmsnorm, rope, swiglu};
use crate::tensor::{Tensor, View, ViewMut};

/// Gradients of activations, reused from layer to layer.
#[derive(Debug)]
pub struct BackwardScratch<T = Tensor> {
    /// Of the residual stream (T, C).
    dresidual: T,
    /// Of the output of a norm (T, C).
    dnorm: T,
    /// Of the attention output (T, H·D).
    dattention: T,
    /// Of packed q, k, v (T, (H+2G)·D).
    dqkv: T,
    /// Of silu(gate) ⊙ up (T, F).
    dswiglu: T,
    /// Of gate and up (T, 2F).
    dgate_up: T,
}

impl BackwardScratch {
    /// Allocates for batches of up to `max_tokens`.
    pub fn new(model: &Model, max_tokens: usize) -> Result<Self> {
        Self::build(&mut model.device(), model.config(), model.dtype(), max_tokens)
    }
}

impl<T> BackwardScratch<T> {
    /// The same from anywhere.
    pub fn build(
        memory: &mut impl Allocate<Tensor = T>,
        config: &ModelConfig,
        dtype: DType,
        max_tokens: usize,
    ) -> Result<Self> {
        let (c, f, heads) = (config.hidden_size, config.intermediate_size, &config.heads);
        let mut tensor = |what, width: usize| memory.zeros(what, [max_tokens, width].into(), dtype);
        Ok(Self {
            dresidual: tensor("gradient of the residual", c)?,
            dnorm: tensor("gradient of a norm", c)?,
            dattention: tensor("gradient of attention", heads.q_dim())?,
            dqkv: tensor("gradient of qkv", heads.qkv_dim())?,
            dswiglu: tensor("gradient of swiglu", f)?,
            dgate_up: tensor("gradient of gate and up", 2 * f)?,
        })
    }
}

impl Model {
    /// Adds the gradient of `scale` · Σ losses to `grads`, and the loss of each target that is not
    /// ignored to `losses`. `acts` must hold the forward pass of this `input`, all layers kept.
    ///
    /// Nothing here waits for the device.
    pub fn backward(
        &self,
        acts: &Activations,
        targets: &[i32],
        scale: f64,
        grads: &mut Params,
        scratch: &mut BackwardScratch,
        head: &mut Head,
        losses: &mut Losses,
    ) -> Result<()> {
        let (device, layout, t) = (&self.device, self.weights.layout(), acts.num_tokens());
        let dfinal = scratch.dnorm.rows_mut(t);
        self.losses_and_gradient(acts, targets, scale, grads, dfinal, head, losses)?;
        scratch.dresidual.rows_mut(t).clear()?;
        rmsnorm::backward(
            device,
            scratch.dresidual.rows_mut(t),
            grads.view_mut(layout.final_norm()),
            scratch.dnorm.rows(t),
            acts.residual(self.config.num_layers),
            self.weights.view(layout.final_norm()),
            acts.final_rstd.rows(t),
        )?;
        for i in (0..self.config.num_layers).rev() {
            let (spans, layer) = (layout.layer(i), acts.layer(i));
            self.backward_feed_forward(spans, layer, acts.mid[i].rows(t), t, grads, scratch)?;
            self.backward_attention(spans, layer, acts, i, grads, scratch)?;
        }
        let dembedding = grads.view_mut(layout.embedding());
        embedding::backward(device, dembedding, scratch.dresidual.rows(t), acts.tokens.rows(t))
    }

    /// Forward and backward of one micro-batch.
    pub fn forward_backward(
        &self,
        input: Input<'_>,
        targets: &[i32],
        scale: f64,
        acts: &mut Activations,
        grads: &mut Params,
        scratch: &mut BackwardScratch,
        head: &mut Head,
        losses: &mut Losses,
    ) -> Result<()> {
        self.forward(input, acts)?;
        self.backward(acts, targets, scale, grads, scratch, head, losses)
    }

    /// r' + down(swiglu(gate_up(norm2(r')))): from the gradient of the sum to that of r'.
    fn backward_feed_forward(
        &self,
        spans: &LayerSpans,
        layer: &LayerActivations,
        mid: View<'_>,
        t: usize,
        grads: &mut Params,
        scratch: &mut BackwardScratch,
    ) -> Result<()> {
        let BackwardScratch { dresidual, dnorm, dswiglu, dgate_up, .. } = scratch;
        let (down, down_bias) = (&spans.down, spans.down_bias.as_ref());
        let swiglu = layer.swiglu.rows(t);
        let dout = dresidual.rows(t);
        self.backward_linear(dswiglu.rows_mut(t), grads, dout, swiglu, down, down_bias)?;
        let dgate_up_mut = dgate_up.rows_mut(t);
        swiglu::backward(&self.device, dgate_up_mut, dswiglu.rows(t), layer.gate_up.rows(t))?;
        let (gate_up, bias) = (&spans.gate_up, spans.gate_up_bias.as_ref());
        let (dout, norm2) = (dgate_up.rows(t), layer.norm2.rows(t));
        self.backward_linear(dnorm.rows_mut(t), grads, dout, norm2, gate_up, bias)?;
        let weight = self.weights.view(&spans.post_norm);
        let dweight = grads.view_mut(&spans.post_norm);
        let (dresidual, dnorm) = (dresidual.rows_mut(t), dnorm.rows(t));
        let rstd = layer.rstd2.rows(t);
        rmsnorm::backward(&self.device, dresidual, dweight, dnorm, mid, weight, rstd)
    }

    /// r + o(attention(rope(qk_norm(qkv(norm1(r)))))): from the gradient of the sum to that of r.
    fn backward_attention(
        &self,
        spans: &LayerSpans,
        layer: &LayerActivations,
        acts: &Activations,
        i: usize,
        grads: &mut Params,
        scratch: &mut BackwardScratch,
    ) -> Result<()> {
        let (device, heads, t) = (&self.device, self.config.heads, acts.num_tokens());
        let BackwardScratch { dresidual, dnorm, dattention, dqkv, .. } = scratch;
        let (dout, out) = (dresidual.rows(t), layer.attention.rows(t));
        let (o, o_bias) = (&spans.o, spans.o_bias.as_ref());
        self.backward_linear(dattention.rows_mut(t), grads, dout, out, o, o_bias)?;
        attention::backward(
            device,
            dqkv.rows_mut(t),
            dattention.rows(t),
            layer.qkv.rows(t),
            out,
            layer.lse.rows(t),
            acts.cu_seqlens.rows(acts.num_documents + 1),
            self.attention_scale(),
            heads,
        )?;
        let (cos, sin) = (self.rope.cos.view(), self.rope.sin.view());
        rope::backward(device, dqkv.rows_mut(t), acts.positions.rows(t), cos, sin, heads)?;
        if let (Some(raw), Some(rstd), Some(q_norm), Some(k_norm)) =
            (&layer.qkv_raw, &layer.qk_rstd, &spans.q_norm, &spans.k_norm)
        {
            let (dq_weight, dk_weight) = grads.view_mut_pair(q_norm, k_norm);
            qk_norm::backward(
                device,
                dqkv.rows_mut(t),
                dq_weight,
                dk_weight,
                raw.rows(t),
                rstd.rows(t),
                self.weights.view(q_norm),
                self.weights.view(k_norm),
                heads,
            )?;
        }
        let (qkv, bias) = (&spans.qkv, spans.qkv_bias.as_ref());
        let norm1 = layer.norm1.rows(t);
        self.backward_linear(dnorm.rows_mut(t), grads, dqkv.rows(t), norm1, qkv, bias)?;
        let weight = self.weights.view(&spans.input_norm);
        let dweight = grads.view_mut(&spans.input_norm);
        let (dresidual, dnorm) = (dresidual.rows_mut(t), dnorm.rows(t));
        let (x, rstd) = (acts.residual(i), layer.rstd1.rows(t));
        rmsnorm::backward(device, dresidual, dweight, dnorm, x, weight, rstd)
    }

    /// y = x Wᵀ + b: dx = dy W, dW += dyᵀ x, db += Σ dy.
    fn backward_linear(
        &self,
        dx: ViewMut<'_>,
        grads: &mut Params,
        dy: View<'_>,
        x: View<'_>,
        weight: &Span,
        bias: Option<&Span>,
    ) -> Result<()> {
        let device = &self.device;
        matmul(device, dx, dy, self.weights.view(weight), None, Layout::NN, Accumulate::No)?;
        matmul(device, grads.view_mut(weight), dy, x, None, Layout::TN, Accumulate::Yes)?;
        match bias {
            Some(bias) => reduce::column_sums(device, grads.view_mut(bias), dy),
            None => Ok(()),
        }
    }
}
