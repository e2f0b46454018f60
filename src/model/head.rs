//! The output head and the loss, a chunk of rows at a time, so that the logits of a whole batch
//! never exist.
//!
//! Only rows with a target pass through the head: prompts cost nothing here.

use super::Model;
use super::activations::Activations;
use super::params::Params;
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::cross_entropy::{self, IGNORE};
use crate::ops::embedding;
use crate::ops::matmul::{Accumulate, Layout, matmul};
use crate::tensor::{Tensor, View, ViewMut};

/// Memory for one chunk of logits. Large chunks matter: every chunk's weight gradient passes
/// over the whole head once.
const LOGITS_BYTES: usize = 128 << 20;

/// Buffers of one chunk of R rows.
#[derive(Debug)]
pub struct Head {
    /// Which tokens the rows are (R), i32.
    rows: Tensor,
    /// Their targets (R), i32.
    targets: Tensor,
    /// Their hidden states (R, C).
    hidden: Tensor,
    /// Gradients of those (R, C).
    dhidden: Tensor,
    /// Logits, then their gradients (R, V).
    logits: Tensor,
    /// Negative log-likelihoods (R).
    losses: Tensor,
}

impl Head {
    /// Allocates for batches of up to `max_tokens`.
    pub fn new(model: &Model, max_tokens: usize) -> Result<Self> {
        let (device, config, dtype) = (model.device(), model.config(), model.dtype());
        let (c, v) = (config.hidden_size, config.vocab_size);
        let max_rows = (LOGITS_BYTES / (v * dtype.size_bytes())).max(1);
        // Equal chunks: a full one and a sliver would cost two passes over the head all the same.
        let r = max_tokens.div_ceil(max_tokens.div_ceil(max_rows).max(1)).max(1);
        Ok(Self {
            rows: Tensor::zeros(device, "head rows", [r], DType::I32)?,
            targets: Tensor::zeros(device, "targets", [r], DType::I32)?,
            hidden: Tensor::zeros(device, "head input", [r, c], dtype)?,
            dhidden: Tensor::zeros(device, "gradient of the head input", [r, c], dtype)?,
            logits: Tensor::zeros(device, "logits", [r, v], dtype)?,
            losses: Tensor::zeros(device, "losses", [r], dtype.accumulator())?,
        })
    }

    /// Rows that fit at once.
    pub fn max_rows(&self) -> usize {
        self.rows.shape().dims()[0]
    }
}

impl Model {
    /// The negative log-likelihood of each target (natural log), 0 where it is [`IGNORE`].
    pub fn losses(&self, acts: &Activations, targets: &[i32], head: &mut Head) -> Result<Vec<f64>> {
        let mut losses = vec![0.0; targets.len()];
        for rows in trained_rows(targets).chunks(head.max_rows()) {
            let r = self.chunk_logits(acts, rows, Some(targets), head)?;
            let targets = head.targets.rows(r);
            let logits = head.logits.rows(r);
            cross_entropy::forward(&self.device, head.losses.rows_mut(r), logits, targets)?;
            scatter(rows, head.losses.rows(r), &mut losses)?;
        }
        Ok(losses)
    }

    /// The same, with the gradient of `scale` · Σ losses: added to the head's in `grads`, and
    /// written to `dfinal` (T, C) for the final norm.
    pub fn losses_and_gradient(
        &self,
        acts: &Activations,
        targets: &[i32],
        scale: f64,
        grads: &mut Params,
        mut dfinal: ViewMut<'_>,
        head: &mut Head,
    ) -> Result<Vec<f64>> {
        let device = &self.device;
        let span = self.weights.layout().head();
        let mut losses = vec![0.0; targets.len()];
        dfinal.clear()?;
        for rows in trained_rows(targets).chunks(head.max_rows()) {
            let r = self.chunk_logits(acts, rows, Some(targets), head)?;
            let Head { rows: row_ids, targets, hidden, dhidden, logits, losses: nll } = head;
            let targets = targets.rows(r);
            let logits_mut = logits.rows_mut(r);
            cross_entropy::forward_backward(device, nll.rows_mut(r), logits_mut, targets, scale)?;
            scatter(rows, nll.rows(r), &mut losses)?;
            let dlogits = logits.rows(r);
            let weight = self.weights.view(span);
            let dhidden_mut = dhidden.rows_mut(r);
            matmul(device, dhidden_mut, dlogits, weight, None, Layout::NN, Accumulate::No)?;
            let (dweight, hidden) = (grads.view_mut(span), hidden.rows(r));
            matmul(device, dweight, dlogits, hidden, None, Layout::TN, Accumulate::Yes)?;
            // A row is a token here: putting rows back is what the embedding does with gradients.
            let ids = row_ids.rows(r);
            embedding::backward(device, dfinal.reborrow(), dhidden.rows(r), ids)?;
        }
        Ok(losses)
    }

    /// The logits of the named tokens (n, V); `n` at most what `head` has rows for.
    pub fn logits<'a>(
        &self,
        acts: &Activations,
        rows: &[usize],
        head: &'a mut Head,
    ) -> Result<View<'a>> {
        let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let r = self.chunk_logits(acts, &rows, None, head)?;
        Ok(head.logits.rows(r))
    }

    /// Gathers the named rows and multiplies them by the head; returns how many they are.
    fn chunk_logits(
        &self,
        acts: &Activations,
        rows: &[i32],
        targets: Option<&[i32]>,
        head: &mut Head,
    ) -> Result<usize> {
        let r = rows.len();
        head.rows.rows_mut(r).copy_from_host(rows)?;
        if let Some(targets) = targets {
            let targets: Vec<i32> = rows.iter().map(|&row| targets[row as usize]).collect();
            head.targets.rows_mut(r).copy_from_host(&targets)?;
        }
        let hidden = head.hidden.rows_mut(r);
        embedding::forward(&self.device, hidden, head.rows.rows(r), acts.final_norm())?;
        let weight = self.weights.view(self.weights.layout().head());
        self.linear(head.logits.rows_mut(r), head.hidden.rows(r), weight, None)?;
        Ok(r)
    }
}

fn trained_rows(targets: &[i32]) -> Vec<i32> {
    (0..targets.len() as i32).filter(|&i| targets[i as usize] != IGNORE).collect()
}

fn scatter(rows: &[i32], values: View<'_>, out: &mut [f64]) -> Result<()> {
    for (&row, value) in rows.iter().zip(values.to_f64_vec()?) {
        out[row as usize] = value;
    }
    Ok(())
}
