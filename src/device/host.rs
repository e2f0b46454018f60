//! Aligned host memory.

use crate::error::{Error, Result};
use bytemuck::Zeroable;
use rayon::prelude::*;

/// One cache line; gives the allocation its alignment without any `unsafe`.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct CacheLine([u8; 64]);

/// Zero-initialised host bytes, aligned to a cache line, freed on drop.
#[derive(Debug)]
pub struct HostBytes {
    lines: Vec<CacheLine>,
    num_bytes: usize,
}

impl HostBytes {
    /// Allocates `num_bytes` for `what`; fails with a typed error instead of aborting.
    pub fn zeroed(what: &str, num_bytes: usize) -> Result<Self> {
        let num_lines = num_bytes.div_ceil(size_of::<CacheLine>());
        // Asks the allocator for zeroed pages, so that untouched memory costs nothing.
        match bytemuck::allocation::try_zeroed_vec::<CacheLine>(num_lines) {
            Ok(lines) => Ok(Self { lines, num_bytes }),
            Err(()) => Err(Error::OutOfMemory { what: what.into(), bytes: num_bytes }),
        }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.num_bytes]
    }

    /// The bytes, for writing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.num_bytes]
    }

    /// Sets every byte to zero.
    pub fn clear(&mut self) {
        // One thread reaches half of the memory's bandwidth; gradients are cleared every step.
        self.lines.par_chunks_mut(1 << 14).for_each(|lines| lines.fill(CacheLine::zeroed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_zeroed_and_exact() {
        let mut bytes = HostBytes::zeroed("a test", 100).unwrap();
        assert_eq!(bytes.as_slice().len(), 100);
        assert_eq!(bytes.as_slice().as_ptr() as usize % 64, 0);
        assert!(bytes.as_slice().iter().all(|&b| b == 0));
        bytes.as_mut_slice()[99] = 7;
        bytes.clear();
        assert_eq!(bytes.as_slice()[99], 0);
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        assert!(HostBytes::zeroed("the moon", usize::MAX / 2).is_err());
    }
}
