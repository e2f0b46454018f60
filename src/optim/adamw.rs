//! AdamW over a flat buffer of weights (Loshchilov & Hutter, "Decoupled Weight Decay
//! Regularization", ICLR 2019).

use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::Allocate;
use crate::ops::adamw::{self, Hyper};
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
}

/// The moments of every weight, and the number of updates made.
#[derive(Debug)]
pub struct AdamW<T = Tensor> {
    config: AdamWConfig,
    decayed_elems: usize,
    m: T,
    v: T,
    steps: u64,
}

impl<T> AdamW<T> {
    /// Zero moments for `num_elems` weights, of which the first `decayed_elems` decay.
    pub fn build(
        memory: &mut impl Allocate<Tensor = T>,
        config: AdamWConfig,
        num_elems: usize,
        decayed_elems: usize,
        dtype: DType,
    ) -> Result<Self> {
        assert!(decayed_elems <= num_elems, "{decayed_elems} of {num_elems} weights decay");
        Ok(Self {
            config,
            decayed_elems,
            m: memory.zeros("first moments", [num_elems].into(), dtype)?,
            v: memory.zeros("second moments", [num_elems].into(), dtype)?,
            steps: 0,
        })
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

    /// Applies one update; `grad_scale` multiplies every gradient first (clipping).
    pub fn step(
        &mut self,
        device: &Device,
        mut weights: ViewMut<'_>,
        grads: View<'_>,
        learning_rate: f64,
        grad_scale: f64,
    ) -> Result<()> {
        let num_elems = self.m.shape().num_elems();
        let AdamWConfig { beta1, beta2, epsilon, weight_decay } = self.config;
        let (decayed, rest) = (self.decayed_elems, num_elems - self.decayed_elems);
        for (start, n, weight_decay) in [(0, decayed, weight_decay), (decayed, rest, 0.0)] {
            let step = self.steps + 1;
            let hyper =
                Hyper { learning_rate, beta1, beta2, epsilon, weight_decay, grad_scale, step };
            let weights = weights.reborrow().slice_rows(start, n);
            let m = self.m.view_mut().slice_rows(start, n);
            let v = self.v.view_mut().slice_rows(start, n);
            adamw::step(device, weights, m, v, grads.slice_rows(start, n), &hyper)?;
        }
        self.steps += 1;
        Ok(())
    }
}
