//! What the optimizer keeps beside the weights: a choice between memory and precision.

use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::memory::Allocate;
use crate::ops::adamw::codes::BLOCK;
use crate::ops::adamw::{self, CodesMut, Hyper, Rounding};
use crate::tensor::{Tensor, View, ViewMut};
use std::fmt;
use std::ops::Range;

/// Precision of the optimizer's states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OptimStates {
    /// f32 moments; beside bf16 weights also the weights themselves in f32: 16 bytes a parameter
    /// with the gradient's four.
    #[default]
    #[value(name = "f32")]
    F32,
    /// bf16 moments, everything rounded stochastically.
    #[value(name = "bf16")]
    BF16,
    /// Moments of eight bits with a scale per block of 256, everything rounded stochastically.
    #[value(name = "8bit")]
    EightBit,
}

impl OptimStates {
    /// Fails unless a model that computes in `dtype` can be trained with these.
    pub fn check(self, dtype: DType) -> Result<()> {
        if self == Self::F32 || dtype == DType::BF16 {
            return Ok(());
        }
        Err(Error::Usage {
            option: "--optim-states".into(),
            expected: format!("f32 with {dtype} weights (the others are for the GPU)"),
            got: self.to_string(),
        })
    }
}

impl fmt::Display for OptimStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::BF16 => "bf16",
            Self::EightBit => "8bit",
        })
    }
}

/// Moments of eight bits.
#[derive(Debug)]
pub(super) struct Codes<T> {
    codes: T,
    scales: T,
}

#[derive(Debug)]
pub(super) enum States<T> {
    /// Moments in the weights' own precision.
    Plain { m: T, v: T },
    /// All f32, the model's bf16 weights are a rounded copy.
    Master { master: T, m: T, v: T },
    /// All bf16.
    Rounded { m: T, v: T },
    /// Scales are those of the decayed range, then those of the rest.
    Blockwise { m: Codes<T>, v: Codes<T>, decayed_scales: usize },
}

impl<T> States<T> {
    pub(super) fn build(
        memory: &mut impl Allocate<Tensor = T>,
        states: OptimStates,
        num_elems: usize,
        decayed_elems: usize,
        dtype: DType,
    ) -> Result<Self> {
        states.check(dtype)?;
        let mut flat = |what, dtype| memory.zeros(what, [num_elems].into(), dtype);
        let (first, second) = ("first moments", "second moments");
        match states {
            OptimStates::F32 if dtype != DType::BF16 => {
                Ok(Self::Plain { m: flat(first, dtype)?, v: flat(second, dtype)? })
            }
            OptimStates::F32 => Ok(Self::Master {
                master: flat("f32 weights", DType::F32)?,
                m: flat(first, DType::F32)?,
                v: flat(second, DType::F32)?,
            }),
            OptimStates::BF16 => {
                Ok(Self::Rounded { m: flat(first, DType::BF16)?, v: flat(second, DType::BF16)? })
            }
            OptimStates::EightBit => {
                let decayed_scales = decayed_elems.div_ceil(BLOCK);
                let num_scales = decayed_scales + (num_elems - decayed_elems).div_ceil(BLOCK);
                let mut codes = |what, scales| -> Result<Codes<T>> {
                    Ok(Codes {
                        codes: memory.zeros(what, [num_elems].into(), DType::U8)?,
                        scales: memory.zeros(scales, [num_scales].into(), DType::F32)?,
                    })
                };
                let m = codes(first, "scales of first moments")?;
                let v = codes(second, "scales of second moments")?;
                Ok(Self::Blockwise { m, v, decayed_scales })
            }
        }
    }

    pub(super) fn master(&self) -> Option<&T> {
        match self {
            Self::Master { master, .. } => Some(master),
            _ => None,
        }
    }

    pub(super) fn master_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Master { master, .. } => Some(master),
            _ => None,
        }
    }
}

impl States<Tensor> {
    /// Updates the elements of `range`, which begins where the decayed elements begin or end.
    pub(super) fn step(
        &mut self,
        device: &Device,
        range: Range<usize>,
        weights: ViewMut<'_>,
        grads: View<'_>,
        hyper: &Hyper,
        seed: u64,
    ) -> Result<()> {
        let (start, n) = (range.start, range.len());
        // Random bits are drawn for eight elements at a time: the second range begins a new eight.
        let first_element = start.next_multiple_of(8) as u64;
        let rounding = Rounding { seed, first_element };
        match self {
            Self::Plain { m, v } => {
                let (m, v) = (rows(m, start, n), rows(v, start, n));
                adamw::step(device, weights, m, v, grads, hyper)
            }
            Self::Master { master, m, v } => {
                let (m, v) = (rows(m, start, n), rows(v, start, n));
                let master = rows(master, start, n);
                adamw::step_master(device, weights, master, m, v, grads, hyper)
            }
            Self::Rounded { m, v } => {
                let (m, v) = (rows(m, start, n), rows(v, start, n));
                adamw::step_rounded(device, weights, m, v, grads, hyper, rounding)
            }
            Self::Blockwise { m, v, decayed_scales } => {
                let first_scale = if start == 0 { 0 } else { *decayed_scales };
                let num_scales = n.div_ceil(BLOCK);
                let [m, v] = [m, v].map(|moment| CodesMut {
                    codes: rows(&mut moment.codes, start, n),
                    scales: rows(&mut moment.scales, first_scale, num_scales),
                });
                adamw::step_blockwise(device, weights, m, v, grads, hyper, rounding)
            }
        }
    }
}

fn rows(tensor: &mut Tensor, start: usize, n: usize) -> ViewMut<'_> {
    tensor.view_mut().slice_rows(start, n)
}
