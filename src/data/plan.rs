//! Which rows make which optimizer step.

use crate::error::{Error, Result};
use crate::rng;
use std::sync::{Arc, Mutex, PoisonError};

/// The whole schedule of a run, a pure function of its arguments: step k can be asked for alone,
/// so a resumed run needs no state but its step.
///
/// An epoch visits every row once, in the order [`rng::permutation`] gives for (seed, epoch), in
/// micro-batches of `per_device_train_batch_size` rows, `gradient_accumulation_steps` of them to a
/// step. The last micro-batch and the last step of an epoch hold what is left: they are run,
/// never dropped. As in transformers, `num_train_epochs` may be a fraction (the number of steps is
/// rounded up) and `max_steps` overrides it, going round the epochs as often as needed.
#[derive(Debug)]
pub struct StepPlan {
    num_examples: usize,
    batch_size: usize,
    accumulation: usize,
    steps_per_epoch: u64,
    num_steps: u64,
    seed: u64,
    /// The order of the epoch asked for last; a memo, so that a step does not cost O(rows).
    last_order: Mutex<Option<(u64, Arc<[u32]>)>>,
}

impl StepPlan {
    /// Lays out the run.
    ///
    /// Errors: no rows, a batch size or accumulation of 0, epochs that are not positive and
    /// finite, `max_steps` of 0, more rows or epochs than a 32-bit counter holds.
    pub fn new(
        num_examples: usize,
        per_device_train_batch_size: usize,
        gradient_accumulation_steps: usize,
        num_train_epochs: f64,
        max_steps: Option<u64>,
        seed: u64,
    ) -> Result<Self> {
        let at_least_one = |option: &str, value: u64| match value {
            0 => Err(usage(option, "at least 1", "0")),
            _ => Ok(()),
        };
        at_least_one("--per-device-train-batch-size", per_device_train_batch_size as u64)?;
        at_least_one("--gradient-accumulation-steps", gradient_accumulation_steps as u64)?;
        at_least_one("--max-steps", max_steps.unwrap_or(1))?;
        if num_examples == 0 || u32::try_from(num_examples).is_err() {
            let problem = format!("{num_examples} rows to train on, expected 1 to {}", u32::MAX);
            return Err(Error::Data { problem, fix: "give another --train file".into() });
        }
        let micro_batches = num_examples.div_ceil(per_device_train_batch_size);
        let steps_per_epoch = micro_batches.div_ceil(gradient_accumulation_steps) as u64;
        let num_steps = match max_steps {
            Some(steps) => steps,
            None if num_train_epochs.is_finite() && num_train_epochs > 0.0 => {
                // A float beyond u64 saturates, and is refused below.
                (num_train_epochs * steps_per_epoch as f64).ceil() as u64
            }
            None => {
                let got = num_train_epochs.to_string();
                return Err(usage("--num-train-epochs", "a positive number", &got));
            }
        };
        if num_steps.div_ceil(steps_per_epoch) > u64::from(u32::MAX) {
            let option = if max_steps.is_some() { "--max-steps" } else { "--num-train-epochs" };
            let got = format!("{num_steps} steps");
            return Err(usage(option, &format!("at most {} epochs", u32::MAX), &got));
        }
        Ok(Self {
            num_examples,
            batch_size: per_device_train_batch_size,
            accumulation: gradient_accumulation_steps,
            steps_per_epoch,
            num_steps,
            seed,
            last_order: Mutex::new(None),
        })
    }

    /// Optimizer steps of the run, at least 1.
    pub fn num_steps(&self) -> u64 {
        self.num_steps
    }

    /// Optimizer steps that visit every row once.
    pub fn steps_per_epoch(&self) -> u64 {
        self.steps_per_epoch
    }

    /// Micro-batches of a full step.
    pub fn max_micro_batches(&self) -> usize {
        self.accumulation.min(self.num_examples.div_ceil(self.batch_size))
    }

    /// Epochs completed when `steps` steps are done; a fraction within an epoch.
    pub fn epochs_after(&self, steps: u64) -> f64 {
        steps as f64 / self.steps_per_epoch as f64
    }

    /// The micro-batches of `step` (from 0), each a list of indices into the examples; never
    /// empty, and no micro-batch is. Any step may be asked for, also beyond [`Self::num_steps`].
    pub fn micro_batches(&self, step: u64) -> Vec<Vec<usize>> {
        let order = self.order(step / self.steps_per_epoch);
        let within = (step % self.steps_per_epoch) as usize;
        // `within` is below steps_per_epoch, so `start` is a row that exists; `end` is clipped.
        let rows_per_step = self.batch_size.saturating_mul(self.accumulation);
        let start = within * rows_per_step.min(self.num_examples);
        let end = start.saturating_add(rows_per_step).min(self.num_examples);
        order[start..end]
            .chunks(self.batch_size)
            .map(|rows| rows.iter().map(|&row| row as usize).collect())
            .collect()
    }

    fn order(&self, epoch: u64) -> Arc<[u32]> {
        // The memo holds only finished values, so a poisoned lock still guards a good one.
        let mut last = self.last_order.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, order)) if *known == epoch => Arc::clone(order),
            _ => {
                let order: Arc<[u32]> =
                    rng::permutation(self.num_examples, self.seed, epoch as u32).into();
                *last = Some((epoch, Arc::clone(&order)));
                order
            }
        }
    }
}

fn usage(option: &str, expected: &str, got: &str) -> Error {
    Error::Usage { option: option.into(), expected: expected.into(), got: got.into() }
}
