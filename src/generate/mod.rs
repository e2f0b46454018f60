//! Continuations of prompts: a prefill of all prompts together, then a token at a time over the
//! cache of keys and values.

pub use crate::ops::sample::Sampling;

use crate::data::batch::Batch;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::activations::{Activations, Keep};
use crate::model::cache::KvCache;
use crate::model::head::Head;
use crate::ops::sample;
use crate::tensor::{Tensor, ViewMut};
use serde::Serialize;

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model produced a token that ends a text (it is the last of the completion's ids).
    Eos,
    /// `max_new_tokens` were produced.
    Length,
}

/// How to continue, the same for all prompts.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateConfig {
    /// Tokens to produce at the most.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens that end a completion; empty to go on to `max_new_tokens`.
    pub eos_token_ids: Vec<u32>,
    /// Ids from this on are never chosen: rows of the vocabulary that no text uses.
    pub num_tokens: usize,
}

/// What the model wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The produced ids, the end token included.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// One prompt being continued.
struct Sequence {
    ids: Vec<u32>,
    finished: Option<FinishReason>,
}

/// Continues every prompt; `prompts[i]` is row `first_row + i` for the random numbers, so that a
/// completion depends on (seed, row, position) and not on what else is in the batch.
///
/// Errors: an empty prompt, or one that leaves no room within the model's positions.
pub fn generate(
    model: &Model,
    prompts: &[Vec<u32>],
    first_row: u32,
    config: &GenerateConfig,
) -> Result<Vec<Completion>> {
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    check_prompts(model, prompts, longest, config)?;
    if prompts.is_empty() || config.max_new_tokens == 0 {
        let none = Completion { ids: Vec::new(), finish_reason: FinishReason::Length };
        return Ok(vec![none; prompts.len()]);
    }
    let documents: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let packed = Batch::pack_ids(&documents);
    // The last token is never fed back, but finished sequences idle at one more position.
    let mut cache = KvCache::new(model, prompts.len(), longest + config.max_new_tokens)?;
    let mut acts = Activations::new(model, packed.tokens.len(), prompts.len(), Keep::OneLayer)?;
    let mut head = Head::new(model, prompts.len())?;
    model.prefill(packed.input(), &mut cache, &mut acts)?;
    let mut last_rows: Vec<usize> =
        packed.cu_seqlens[1..].iter().map(|&end| end as usize - 1).collect();
    let mut sequences: Vec<Sequence> =
        prompts.iter().map(|_| Sequence { ids: Vec::new(), finished: None }).collect();
    let mut ids = Tensor::zeros(model.device(), "next tokens", [prompts.len()], DType::I32)?;
    for position in 0.. {
        let mut next = ids.view_mut();
        choose(model, &acts, &last_rows, &mut head, next.reborrow(), first_row, position, config)?;
        append(&mut sequences, &next.as_view().to_vec()?, config)?;
        if sequences.iter().all(|sequence| sequence.finished.is_some()) {
            break;
        }
        let tokens: Vec<i32> =
            sequences.iter().map(|s| s.ids.last().map_or(0, |&id| id as i32)).collect();
        model.decode(&tokens, &mut cache, &mut acts)?;
        last_rows = (0..sequences.len()).collect();
    }
    let completion = |sequence: Sequence| Completion {
        ids: sequence.ids,
        finish_reason: sequence.finished.unwrap_or(FinishReason::Length),
    };
    Ok(sequences.into_iter().map(completion).collect())
}

/// Chooses the next token of every sequence, also of those that are finished.
fn choose(
    model: &Model,
    acts: &Activations,
    last_rows: &[usize],
    head: &mut Head,
    mut ids: ViewMut<'_>,
    first_row: u32,
    position: u32,
    config: &GenerateConfig,
) -> Result<()> {
    let num_tokens = config.num_tokens.min(model.config().vocab_size);
    // As many rows at a time as the head has room for.
    let max_rows = head.max_rows();
    for (i, rows) in last_rows.chunks(max_rows).enumerate() {
        let start = i * max_rows;
        let logits = model.logits(acts, rows, head)?;
        let ids = ids.reborrow().slice_rows(start, rows.len());
        let (sampling, first_row) = (&config.sampling, first_row + start as u32);
        sample::sample(model.device(), ids, logits, num_tokens, sampling, first_row, position)?;
    }
    Ok(())
}

/// Gives every sequence that still goes on its next token.
fn append(sequences: &mut [Sequence], ids: &[i32], config: &GenerateConfig) -> Result<()> {
    for (i, (sequence, &id)) in sequences.iter_mut().zip(ids).enumerate() {
        if sequence.finished.is_some() {
            continue;
        }
        let id = u32::try_from(id).map_err(|_| Error::Overflow {
            problem: format!(
                "a logit is NaN or infinite at token {} of prompt {i}",
                sequence.ids.len()
            ),
            fix: "this model's weights lead beyond the data type; use one whose training did not \
                  diverge"
                .into(),
        })?;
        sequence.ids.push(id);
        if config.eos_token_ids.contains(&id) {
            sequence.finished = Some(FinishReason::Eos);
        } else if sequence.ids.len() == config.max_new_tokens {
            sequence.finished = Some(FinishReason::Length);
        }
    }
    Ok(())
}

fn check_prompts(
    model: &Model,
    prompts: &[Vec<u32>],
    longest: usize,
    config: &GenerateConfig,
) -> Result<()> {
    if let Some(row) = prompts.iter().position(Vec::is_empty) {
        return Err(Error::Data {
            problem: format!("prompt {row} has no token, so there is nothing to continue"),
            fix: "give it text; this tokenizer adds no begin token of its own".into(),
        });
    }
    let room = model.max_positions();
    if longest.saturating_add(config.max_new_tokens) > room {
        return Err(Error::Usage {
            option: "--max-new-tokens".into(),
            expected: format!(
                "at most {} (the model has {room} positions, the longest prompt takes {longest})",
                room.saturating_sub(longest)
            ),
            got: config.max_new_tokens.to_string(),
        });
    }
    Ok(())
}
