//! What `hooke finetune` measures before the first step and after the last.

use super::eval::BATCH_TOKENS;
use super::generate::{encode_samples, greedy_samples};
use super::print_line;
use super::text::TextModel;
use crate::data::jsonl::read_rows;
use crate::error::Result;
use crate::eval::{ScoredRow, Totals, encode, evaluate};
use crate::model::Model;
use std::path::Path;

/// Tokens of each sample.
const SAMPLE_TOKENS: usize = 40;

/// Held-out rows and prompts, read and checked; either may be none.
pub(super) struct Probe {
    text_model: TextModel,
    rows: Vec<ScoredRow>,
    prompts: Vec<String>,
    prompt_ids: Vec<Vec<u32>>,
}

/// What one state of the model makes of a [`Probe`].
pub(super) struct Measurement {
    totals: Option<Totals>,
    samples: Vec<String>,
}

impl Probe {
    /// Reads the rows of `eval`, and tokenises both.
    pub(super) fn new(
        text_model: TextModel,
        eval: Option<&Path>,
        prompts: &[String],
    ) -> Result<Self> {
        let mut rows = Vec::new();
        if let Some(path) = eval {
            let (tokenizer, template) = (&text_model.tokenizer, text_model.template.as_ref());
            let limit = text_model.dir.config().max_position_embeddings;
            rows = encode(path, &read_rows(path)?, tokenizer, template, limit)?;
        }
        let prompt_ids = encode_samples(&text_model, prompts)?;
        Ok(Self { text_model, rows, prompts: prompts.to_vec(), prompt_ids })
    }

    /// Positions the model must be able to compute.
    pub(super) fn positions(&self) -> usize {
        let limit = self.text_model.dir.config().max_position_embeddings;
        let rows = self.rows.iter().map(|row| row.ids.len());
        let samples = self.prompt_ids.iter().map(|ids| limit.min(ids.len() + SAMPLE_TOKENS));
        rows.chain(samples).max().unwrap_or(0)
    }

    /// Computes what [`Self::print`] shows.
    pub(super) fn measure(&self, model: &Model) -> Result<Measurement> {
        let mut totals = None;
        if !self.rows.is_empty() {
            totals = Some(evaluate(model, &self.rows, BATCH_TOKENS, |_, _, _| Ok(()))?);
        }
        let samples = greedy_samples(&self.text_model, model, &self.prompt_ids, SAMPLE_TOKENS)?;
        Ok(Measurement { totals, samples })
    }

    /// Prints both states side by side; nothing if there is nothing to compare.
    pub(super) fn print(&self, before: &Measurement, after: &Measurement) -> Result<()> {
        if let (Some(before), Some(after)) = (&before.totals, &after.totals) {
            print_line(&format!("held-out rows: {} ({} tokens)", before.rows, before.tokens))?;
            for (when, totals) in [("before", before), ("after ", after)] {
                let (loss, bits) = (totals.loss(), totals.bits_per_byte());
                print_line(&format!("  {when}  loss {loss:.4}  bits/byte {bits:.4}"))?;
            }
        }
        let samples = before.samples.iter().zip(&after.samples);
        for (prompt, (before, after)) in self.prompts.iter().zip(samples) {
            print_line(&format!("{prompt:?}\n  before  {before:?}\n  after   {after:?}"))?;
        }
        Ok(())
    }
}
