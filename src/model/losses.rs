//! Losses of tokens, kept where they were computed until somebody asks.

use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::memory::Allocate;
use crate::tensor::{Tensor, ViewMut};

/// Negative log-likelihoods of trained tokens, in the order in which they were computed.
///
/// A step appends micro-batch after micro-batch and reads once at its end: the only time that the
/// host waits for the device.
#[derive(Debug)]
pub struct Losses<T = Tensor> {
    values: T,
    num_filled: usize,
}

impl<T> Losses<T> {
    /// [`Losses::new`] from anywhere.
    pub fn build(
        memory: &mut impl Allocate<Tensor = T>,
        capacity: usize,
        dtype: DType,
    ) -> Result<Self> {
        let values = memory.zeros("losses", [capacity].into(), dtype.accumulator())?;
        Ok(Self { values, num_filled: 0 })
    }
}

impl Losses {
    /// Room for `capacity` tokens of a model that computes in `dtype`.
    pub fn new(mut device: &Device, capacity: usize, dtype: DType) -> Result<Self> {
        Self::build(&mut device, capacity, dtype)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.num_filled = 0;
    }

    /// Losses held.
    pub fn len(&self) -> usize {
        self.num_filled
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.num_filled == 0
    }

    /// Where the next `n` go, to be filled by the caller.
    pub(super) fn append(&mut self, n: usize) -> Result<ViewMut<'_>> {
        let (start, capacity) = (self.num_filled, self.values.shape().num_elems());
        if n > capacity - start {
            return Err(Error::Operand {
                op: "model.losses",
                operand: "targets",
                expected: format!("up to {capacity} that are trained"),
                got: format!("{} in all", start + n),
            });
        }
        self.num_filled += n;
        Ok(self.values.view_mut().slice_rows(start, n))
    }

    /// All of them, in order. Waits for the device.
    pub fn read(&self) -> Result<Vec<f64>> {
        self.values.rows(self.num_filled).to_f64_vec()
    }
}
