//! One optimizer step: micro-batches, norm, finite check, update.

use super::memory::{StepLimits, StepMemory, reserve_scratch};
use crate::checkpoint::model_dir::ModelDir;
use crate::data::batch::Batch;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::params::Params;
use crate::ops::elementwise;
use crate::optim::adamw::AdamWConfig;
use crate::optim::clip_factor;
use crate::tensor::View;

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

/// A model, its optimizer, and all memory that a step needs: a step allocates nothing.
#[derive(Debug)]
pub struct Trainer {
    model: Model,
    memory: StepMemory,
    max_grad_norm: f64,
}

impl Trainer {
    /// Allocates for steps within `limits`.
    pub fn new(
        model: Model,
        config: AdamWConfig,
        max_grad_norm: f64,
        limits: StepLimits,
    ) -> Result<Self> {
        let layout = model.weights.layout();
        let (mut device, dtype) = (model.device(), model.dtype());
        let memory = StepMemory::build(&mut device, model.config(), layout, dtype, config, limits)?;
        reserve_scratch(device, model.config(), limits)?;
        let mut trainer = Self { model, memory, max_grad_norm };
        let (device, weights) = (trainer.model.device(), trainer.model.weights.flat());
        trainer.memory.optimizer.set_master(device, weights)?;
        Ok(trainer)
    }

    /// Reads the weights of `dir`, which describes the same model, as precisely as they are kept.
    pub fn load(&mut self, dir: &ModelDir) -> Result<()> {
        let device = self.model.device().clone();
        match self.memory.optimizer.master_mut() {
            None => dir.load_into(self.model.weights.flat_mut()),
            Some(mut master) => {
                dir.load_into(master.reborrow())?;
                elementwise::cast(&device, self.model.weights.flat_mut(), master.as_view())
            }
        }
    }

    /// The weights as precisely as they are kept: all of them, flat.
    pub fn weights(&self) -> View<'_> {
        self.memory.optimizer.master().unwrap_or_else(|| self.model.weights.flat())
    }

    /// The model as trained so far.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The gradient of the step last made, before clipping.
    pub fn grads(&self) -> &Params {
        &self.memory.grads
    }

    /// Sets `grads` to the gradient of the mean loss over all trained tokens of the
    /// micro-batches together; how the tokens are split among them does not matter, except for
    /// rounding.
    ///
    /// Everything is queued; only then the host waits, once, for losses and norm.
    fn accumulate(&mut self, micro_batches: &[Batch]) -> Result<StepOutcome> {
        let input_tokens = micro_batches.iter().map(Batch::input_tokens).sum();
        let trained_tokens: usize = micro_batches.iter().map(Batch::trained_tokens).sum();
        let scale = 1.0 / trained_tokens as f64;
        let StepMemory { grads, grad_norm, acts, scratch, head, losses, .. } = &mut self.memory;
        grads.clear()?;
        losses.clear();
        let mut ends = Vec::new();
        for batch in micro_batches {
            let (input, targets) = (batch.input(), &batch.targets);
            self.model
                .forward_backward(input, targets, scale, acts, grads, scratch, head, losses)?;
            ends.push(losses.len());
        }
        grad_norm.compute(self.model.device(), grads.flat())?;
        let losses = losses.read()?;
        let (mut total, mut start) = (0.0, 0);
        for end in ends {
            total += losses[start..end].iter().sum::<f64>();
            start = end;
        }
        let grad_norm = grad_norm.read()?;
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
        let _sealed = self.model.device().seal();
        let outcome = self.accumulate(micro_batches)?;
        for (what, value) in [("loss", outcome.loss), ("grad_norm", outcome.grad_norm)] {
            if !value.is_finite() {
                return Err(Error::NonFinite { step, what, value });
            }
        }
        let factor = clip_factor(outcome.grad_norm, self.max_grad_norm);
        let device: Device = self.model.device().clone();
        let StepMemory { grads, optimizer, .. } = &mut self.memory;
        let weights = self.model.weights.flat_mut();
        optimizer.step(&device, weights, grads.flat(), learning_rate, factor)?;
        Ok(outcome)
    }
}
