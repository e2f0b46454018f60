//! The output head and the loss, a chunk of rows at a time, so that the logits of a whole batch
//! never exist.
//!
//! Only rows with a target pass through the head: prompts cost nothing here.

use super::Model;
use super::activations::Activations;
use super::config::ModelConfig;
use super::losses::Losses;
use super::params::Params;
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::Allocate;
use crate::ops::cross_entropy::{self, IGNORE};
use crate::ops::embedding;
use crate::ops::matmul::{Accumulate, Layout, matmul};
use crate::shape::Shape;
use crate::tensor::{Tensor, View, ViewMut};

/// Memory for one chunk of logits. Large chunks matter: every chunk's weight gradient passes
/// over the whole head once.
const LOGITS_BYTES: usize = 256 << 20;

/// Buffers of one chunk of R rows.
#[derive(Debug)]
pub struct Head<T = Tensor> {
    /// Which tokens the rows are (R), i32.
    rows: T,
    /// Their targets (R), i32.
    targets: T,
    /// Their hidden states (R, C).
    hidden: T,
    /// Gradients of those (R, C).
    dhidden: T,
    /// Logits, then their gradients (R, V).
    logits: T,
}

impl<T> Head<T> {
    /// [`Head::new`] from anywhere.
    pub fn build(
        memory: &mut impl Allocate<Tensor = T>,
        config: &ModelConfig,
        dtype: DType,
        max_tokens: usize,
    ) -> Result<Self> {
        let (c, v) = (config.hidden_size, config.vocab_size);
        let max_rows = (LOGITS_BYTES / (v * dtype.size_bytes())).max(1);
        // Equal chunks: a full one and a sliver would cost two passes over the head all the same.
        let r = max_tokens.div_ceil(max_tokens.div_ceil(max_rows).max(1)).max(1);
        let mut tensor = |what, shape: Shape, dtype| memory.zeros(what, shape, dtype);
        Ok(Self {
            rows: tensor("head rows", [r].into(), DType::I32)?,
            targets: tensor("targets", [r].into(), DType::I32)?,
            hidden: tensor("head input", [r, c].into(), dtype)?,
            dhidden: tensor("gradient of the head input", [r, c].into(), dtype)?,
            logits: tensor("logits", [r, v].into(), dtype)?,
        })
    }
}

impl Head {
    /// Allocates for batches of up to `max_tokens`.
    pub fn new(model: &Model, max_tokens: usize) -> Result<Self> {
        Self::build(&mut model.device(), model.config(), model.dtype(), max_tokens)
    }

    /// Rows that fit at once.
    pub fn max_rows(&self) -> usize {
        self.rows.shape().dims()[0]
    }
}

impl Model {
    /// The negative log-likelihood of each target (natural log), 0 where it is [`IGNORE`]. Waits
    /// for the device.
    pub fn losses(&self, acts: &Activations, targets: &[i32], head: &mut Head) -> Result<Vec<f64>> {
        let rows = trained_rows(targets);
        let mut losses = Losses::new(&self.device, rows.len(), self.dtype())?;
        for rows in rows.chunks(head.max_rows()) {
            let r = self.chunk_logits(acts, rows, Some(targets), head)?;
            let (logits, targets) = (head.logits.rows(r), head.targets.rows(r));
            cross_entropy::forward(&self.device, losses.append(r)?, logits, targets)?;
        }
        let mut all = vec![0.0; targets.len()];
        for (&row, loss) in rows.iter().zip(losses.read()?) {
            all[row as usize] = loss;
        }
        Ok(all)
    }

    /// The loss of each target that is not ignored, added to `losses`, with the gradient of
    /// `scale` · Σ losses: added to the head's in `grads`, and written to `dfinal` (T, C) for the
    /// final norm.
    pub fn losses_and_gradient(
        &self,
        acts: &Activations,
        targets: &[i32],
        scale: f64,
        grads: &mut Params,
        mut dfinal: ViewMut<'_>,
        head: &mut Head,
        losses: &mut Losses,
    ) -> Result<()> {
        let device = &self.device;
        let span = self.weights.layout().head();
        dfinal.clear()?;
        for rows in trained_rows(targets).chunks(head.max_rows()) {
            let r = self.chunk_logits(acts, rows, Some(targets), head)?;
            let Head { rows: row_ids, targets, hidden, dhidden, logits } = head;
            let (nll, targets, logits_mut) =
                (losses.append(r)?, targets.rows(r), logits.rows_mut(r));
            cross_entropy::forward_backward(device, nll, logits_mut, targets, scale)?;
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
        Ok(())
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
        if let (Device::Cuda(_), Some(targets)) = (&self.device, targets) {
            cross_entropy::check_targets("model.head", targets, self.config.vocab_size)?;
        }
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
