//! All memory of an optimizer step, made before the first one.

use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::{Allocate, MemoryTable};
use crate::model::activations::{Activations, Keep};
use crate::model::backward::BackwardScratch;
use crate::model::config::ModelConfig;
use crate::model::head::Head;
use crate::model::layout::ParamLayout;
use crate::model::losses::Losses;
use crate::model::params::Params;
use crate::model::rope::RopeTables;
use crate::model::workspace;
use crate::optim::GradNorm;
use crate::optim::adamw::{AdamW, AdamWConfig};
use crate::tensor::Tensor;
use std::sync::Arc;

/// The largest step that there will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimits {
    /// Tokens of a micro-batch.
    pub max_tokens: usize,
    /// Documents of a micro-batch.
    pub max_documents: usize,
    /// Micro-batches of a step.
    pub max_micro_batches: usize,
}

/// Everything that a step needs beside the model.
#[derive(Debug)]
pub(super) struct StepMemory<T = Tensor> {
    pub(super) grads: Params<T>,
    pub(super) grad_norm: GradNorm<T>,
    pub(super) optimizer: AdamW<T>,
    pub(super) acts: Activations<T>,
    pub(super) scratch: BackwardScratch<T>,
    pub(super) head: Head<T>,
    pub(super) losses: Losses<T>,
}

impl<T> StepMemory<T> {
    pub(super) fn build(
        memory: &mut impl Allocate<Tensor = T>,
        config: &ModelConfig,
        layout: &Arc<ParamLayout>,
        dtype: DType,
        adamw: AdamWConfig,
        limits: StepLimits,
    ) -> Result<Self> {
        let StepLimits { max_tokens, max_documents, max_micro_batches } = limits;
        memory.section("gradients");
        let grads = Params::build(memory, "gradients", layout, dtype.accumulator())?;
        let grad_norm = GradNorm::build(memory)?;
        memory.section("optimizer");
        let (num_elems, decayed_elems) = (layout.num_elems(), layout.decayed_elems());
        let optimizer = AdamW::build(memory, adamw, num_elems, decayed_elems, dtype)?;
        memory.section("activations");
        let keep = Keep::AllLayers;
        let acts = Activations::build(memory, config, dtype, max_tokens, max_documents, keep)?;
        memory.section("gradients of activations");
        let scratch = BackwardScratch::build(memory, config, dtype, max_tokens)?;
        memory.section("head");
        let head = Head::build(memory, config, dtype, max_tokens)?;
        let losses = Losses::build(memory, max_tokens.saturating_mul(max_micro_batches), dtype)?;
        Ok(Self { grads, grad_norm, optimizer, acts, scratch, head, losses })
    }
}

/// The memory of a run on a GPU, by purpose: weights, and all that a step needs.
pub fn plan(
    config: &ModelConfig,
    layout: &Arc<ParamLayout>,
    dtype: DType,
    adamw: AdamWConfig,
    limits: StepLimits,
    max_positions: usize,
) -> Result<MemoryTable> {
    let mut table = MemoryTable::default();
    table.section("weights");
    Params::build(&mut table, "weights", layout, dtype)?;
    RopeTables::build(&mut table, config, max_positions, dtype)?;
    StepMemory::build(&mut table, config, layout, dtype, adamw, limits)?;
    Ok(table)
}

/// The scratch of the operators of such a step, which they share and which comes on top.
pub fn plan_scratch(
    table: &mut MemoryTable,
    config: &ModelConfig,
    limits: StepLimits,
) -> Result<()> {
    table.section("scratch");
    for (name, bytes) in workspace::training(config, limits.max_tokens) {
        table.add(name, bytes)?;
    }
    Ok(())
}

/// Allocates that scratch.
pub(super) fn reserve_scratch(
    device: &Device,
    config: &ModelConfig,
    limits: StepLimits,
) -> Result<()> {
    if let Device::Cuda(cuda) = device {
        for (name, bytes) in workspace::training(config, limits.max_tokens) {
            cuda.scratch(name, bytes)?;
        }
    }
    Ok(())
}
