//! AdamW over a flat buffer of weights (Loshchilov & Hutter, "Decoupled Weight Decay
//! Regularization", ICLR 2019).

use super::states::{OptimStates, States};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::Allocate;
use crate::ops::adamw::Hyper;
use crate::ops::elementwise;
use crate::tensor::{Tensor, View, ViewMut};

/// What stays the same from step to step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, of matrices only: norms and biases are not decayed.
    pub weight_decay: f64,
    /// What is kept beside the weights.
    pub states: OptimStates,
    /// Decides every stochastic rounding, together with step and element.
    pub seed: u64,
}

/// The moments of every weight, and the number of updates made.
#[derive(Debug)]
pub struct AdamW<T = Tensor> {
    config: AdamWConfig,
    decayed_elems: usize,
    num_elems: usize,
    states: States<T>,
    steps: u64,
}

impl<T> AdamW<T> {
    /// Zero moments for `num_elems` weights of type `dtype`, of which the first `decayed_elems`
    /// decay.
    pub fn build(
        memory: &mut impl Allocate<Tensor = T>,
        config: AdamWConfig,
        num_elems: usize,
        decayed_elems: usize,
        dtype: DType,
    ) -> Result<Self> {
        assert!(decayed_elems <= num_elems, "{decayed_elems} of {num_elems} weights decay");
        let states = States::build(memory, config.states, num_elems, decayed_elems, dtype)?;
        Ok(Self { config, decayed_elems, num_elems, states, steps: 0 })
    }
}

impl AdamW {
    /// The same on a device.
    pub fn new(
        mut device: &Device,
        config: AdamWConfig,
        num_elems: usize,
        decayed_elems: usize,
        dtype: DType,
    ) -> Result<Self> {
        Self::build(&mut device, config, num_elems, decayed_elems, dtype)
    }

    /// Updates made so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The f32 weights that are updated in place of the model's bf16 ones, where there are any.
    pub fn master(&self) -> Option<View<'_>> {
        self.states.master().map(Tensor::view)
    }

    /// The same, for writing.
    pub fn master_mut(&mut self) -> Option<ViewMut<'_>> {
        self.states.master_mut().map(Tensor::view_mut)
    }

    /// Takes over weights from outside: `source` is at least as precise as the model's.
    pub fn set_master(&mut self, device: &Device, source: View<'_>) -> Result<()> {
        match self.states.master_mut() {
            Some(master) => elementwise::cast(device, master.view_mut(), source),
            None => Ok(()),
        }
    }

    /// Applies one update; `grad_scale` multiplies every gradient first (clipping).
    pub fn step(
        &mut self,
        device: &Device,
        mut weights: ViewMut<'_>,
        grads: View<'_>,
        learning_rate: f64,
        grad_scale: f64,
    ) -> Result<()> {
        let AdamWConfig { beta1, beta2, epsilon, weight_decay, seed, .. } = self.config;
        let decayed = self.decayed_elems;
        for (range, weight_decay) in [(0..decayed, weight_decay), (decayed..self.num_elems, 0.0)] {
            let step = self.steps + 1;
            let hyper =
                Hyper { learning_rate, beta1, beta2, epsilon, weight_decay, grad_scale, step };
            let (start, n) = (range.start, range.len());
            let weights = weights.reborrow().slice_rows(start, n);
            let grads = grads.slice_rows(start, n);
            self.states.step(device, range, weights, grads, &hyper, seed)?;
        }
        self.steps += 1;
        Ok(())
    }
}
