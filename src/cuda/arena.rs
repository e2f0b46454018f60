//! Memory planned ahead, and scratch that operators share.

use super::core::Core;
use super::memory::Slab;
use super::memory::{DeviceBytes, DeviceOperand, DeviceOperandMut, DeviceSlice, DeviceSliceMut};
use crate::error::{Error, Result};
use crate::shape::Shape;
use std::collections::HashMap;
use std::sync::Arc;

/// Alignment of every piece: more than any vector access or tensor map needs.
pub const ALIGN: usize = 256;

/// Where tensors and scratch of a device come from.
#[derive(Default)]
pub(super) struct Arena {
    /// One slab, handed out from front to back and never again.
    reserved: Option<(Arc<Slab>, usize)>,
    /// Scratch by name.
    scratch: HashMap<String, Arc<Slab>>,
    /// While this is not 0, asking the driver for memory is a mistake.
    num_seals: usize,
    /// Bytes of tensors handed out so far, each rounded up to [`ALIGN`].
    pub(super) tensor_bytes: usize,
}

impl Arena {
    /// Allocates the slab that the following tensors are cut from.
    pub(super) fn reserve(&mut self, core: &Arc<Core>, num_bytes: usize) -> Result<()> {
        self.reserved = Some((Slab::new(core, "the planned memory", num_bytes)?, 0));
        Ok(())
    }

    /// Until [`Self::unseal`], only what is there already is handed out.
    pub(super) fn seal(&mut self) {
        self.num_seals += 1;
    }

    pub(super) fn unseal(&mut self) {
        self.num_seals -= 1;
    }

    /// Memory for a tensor, uninitialised.
    pub(super) fn tensor(
        &mut self,
        core: &Arc<Core>,
        what: &str,
        num_bytes: usize,
    ) -> Result<DeviceBytes> {
        let rounded = num_bytes.checked_next_multiple_of(ALIGN);
        let rounded = rounded
            .ok_or_else(|| Error::OutOfMemory { what: what.to_string(), bytes: num_bytes })?;
        let bytes = match &mut self.reserved {
            Some((slab, taken)) if rounded <= slab.num_bytes() - *taken => {
                let bytes = DeviceBytes::new(Arc::clone(slab), *taken, num_bytes);
                *taken += rounded;
                bytes
            }
            _ => {
                self.check_open(what, num_bytes)?;
                DeviceBytes::new(Slab::new(core, what, num_bytes)?, 0, num_bytes)
            }
        };
        self.tensor_bytes += rounded;
        Ok(bytes)
    }

    /// Scratch of this name, at least `num_bytes` long.
    pub(super) fn scratch(
        &mut self,
        core: &Arc<Core>,
        what: &str,
        num_bytes: usize,
    ) -> Result<ScratchView> {
        let slab = match self.scratch.get(what) {
            Some(slab) if slab.num_bytes() >= num_bytes => Arc::clone(slab),
            _ => {
                self.check_open(what, num_bytes)?;
                // The smaller one goes first, so that both need not fit.
                self.scratch.remove(what);
                let slab = Slab::new(core, what, num_bytes)?;
                self.scratch.insert(what.to_string(), Arc::clone(&slab));
                slab
            }
        };
        Ok(ScratchView(DeviceBytes::new(slab, 0, num_bytes)))
    }

    /// Bytes of all scratch.
    pub(super) fn scratch_bytes(&self) -> usize {
        self.scratch.values().map(|slab| slab.num_bytes()).sum()
    }

    fn check_open(&self, what: &str, num_bytes: usize) -> Result<()> {
        if self.num_seals == 0 {
            return Ok(());
        }
        let problem = format!("{num_bytes} bytes for {what} were not planned");
        Err(Error::Device { problem })
    }
}

/// Memory that an operator uses within one call. Its contents are whatever the last user left.
///
/// Two of the same name share memory. That is why the kernels that use one are queued by one
/// operator, one after the other, before the next operator can ask for it.
#[derive(Debug)]
pub struct ScratchView(DeviceBytes);

impl DeviceOperand for ScratchView {
    fn device_slice(&self) -> Option<DeviceSlice<'_>> {
        Some(self.0.slice())
    }
    fn operand_shape(&self) -> Option<Shape> {
        None
    }
}

impl DeviceOperandMut for ScratchView {
    fn device_slice_mut(&mut self) -> Option<DeviceSliceMut<'_>> {
        Some(self.0.slice_mut())
    }
}

impl ScratchView {
    /// Queues setting every byte to zero.
    pub fn clear(&mut self) -> Result<()> {
        self.0.slice_mut().fill_bytes(0)
    }
}
