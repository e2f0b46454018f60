//! One optimizer step: micro-batches, norm, finite check, update.

use crate::data::batch::Batch;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::activations::{Activations, Keep};
use crate::model::backward::BackwardScratch;
use crate::model::head::Head;
use crate::model::params::Params;
use crate::optim::adamw::{AdamW, AdamWConfig};
use crate::optim::{clip_factor, grad_norm};

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepOutcome {
    /// Mean negative log-likelihood of the trained tokens, before the update, in nats.
    pub loss: f64,
    /// Norm of the gradient of that mean, before clipping.
    pub grad_norm: f64,
    /// Tokens that went through the model.
    pub input_tokens: usize,
    /// Tokens that the loss counts.
    pub trained_tokens: usize,
}

/// A model, its optimizer, and all memory that a step needs.
#[derive(Debug)]
pub struct Trainer {
    model: Model,
    grads: Params,
    optimizer: AdamW,
    acts: Activations,
    scratch: BackwardScratch,
    head: Head,
    max_grad_norm: f64,
}

impl Trainer {
    /// Allocates for micro-batches of up to `max_tokens` in up to `max_documents`.
    pub fn new(
        model: Model,
        config: AdamWConfig,
        max_grad_norm: f64,
        max_tokens: usize,
        max_documents: usize,
    ) -> Result<Self> {
        let device = model.device().clone();
        let layout = model.weights.layout().clone();
        let dtype = model.dtype();
        let (num_elems, decayed_elems) = (layout.num_elems(), layout.decayed_elems());
        Ok(Self {
            grads: Params::zeros(&device, "gradients", &layout, dtype)?,
            optimizer: AdamW::new(&device, config, num_elems, decayed_elems, dtype)?,
            acts: Activations::new(&model, max_tokens, max_documents, Keep::AllLayers)?,
            scratch: BackwardScratch::new(&model, max_tokens)?,
            head: Head::new(&model, max_tokens)?,
            max_grad_norm,
            model,
        })
    }

    /// The model as trained so far.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The gradient of the step last made, before clipping.
    pub fn grads(&self) -> &Params {
        &self.grads
    }

    /// Sets `grads` to the gradient of the mean loss over all trained tokens of the
    /// micro-batches together; how the tokens are split among them does not matter, except for
    /// rounding.
    fn accumulate(&mut self, micro_batches: &[Batch]) -> Result<StepOutcome> {
        let input_tokens = micro_batches.iter().map(Batch::input_tokens).sum();
        let trained_tokens: usize = micro_batches.iter().map(Batch::trained_tokens).sum();
        let scale = 1.0 / trained_tokens as f64;
        self.grads.clear()?;
        let mut total = 0.0;
        for batch in micro_batches {
            let losses = self.model.forward_backward(
                batch.input(),
                &batch.targets,
                scale,
                &mut self.acts,
                &mut self.grads,
                &mut self.scratch,
                &mut self.head,
            )?;
            total += losses.iter().sum::<f64>();
        }
        let grad_norm = grad_norm(self.device(), self.grads.flat())?;
        Ok(StepOutcome { loss: total * scale, grad_norm, input_tokens, trained_tokens })
    }

    /// Computes the gradient and applies one update.
    ///
    /// Errors: [`Error::NonFinite`] before any weight is touched, if the loss or the norm of
    /// the gradient is not finite.
    pub fn step(
        &mut self,
        micro_batches: &[Batch],
        step: u64,
        learning_rate: f64,
    ) -> Result<StepOutcome> {
        let outcome = self.accumulate(micro_batches)?;
        for (what, value) in [("loss", outcome.loss), ("grad_norm", outcome.grad_norm)] {
            if !value.is_finite() {
                return Err(Error::NonFinite { step, what, value });
            }
        }
        let factor = clip_factor(outcome.grad_norm, self.max_grad_norm);
        let device = self.model.device().clone();
        let (weights, grads) = (self.model.weights.flat_mut(), self.grads.flat());
        self.optimizer.step(&device, weights, grads, learning_rate, factor)?;
        Ok(outcome)
    }

    fn device(&self) -> &Device {
        self.model.device()
    }
}
