//! Continuations of prompts: a prefill of all prompts together, then a token at a time over the
//! cache of keys and values.

mod sample;

pub use sample::{Sampling, sample};

use crate::data::batch::Batch;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::activations::{Activations, Keep};
use crate::model::cache::KvCache;
use crate::model::head::Head;
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
    loop {
        choose(model, &acts, &last_rows, &mut head, &mut sequences, first_row, config)?;
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

/// Appends the next token to every sequence that still goes on.
fn choose(
    model: &Model,
    acts: &Activations,
    last_rows: &[usize],
    head: &mut Head,
    sequences: &mut [Sequence],
    first_row: u32,
    config: &GenerateConfig,
) -> Result<()> {
    let vocab_size = model.config().vocab_size;
    let num_tokens = config.num_tokens.min(vocab_size);
    // As many rows at a time as the head has room for.
    let mut start = 0;
    while start < sequences.len() {
        let n = head.max_rows().min(sequences.len() - start);
        let logits = model.logits(acts, &last_rows[start..start + n], head)?.to_f64_vec()?;
        for (i, sequence) in sequences[start..start + n].iter_mut().enumerate() {
            if sequence.finished.is_some() {
                continue;
            }
            let logits = &logits[i * vocab_size..i * vocab_size + num_tokens];
            let address = [first_row + (start + i) as u32, sequence.ids.len() as u32];
            let id = sample(logits, &config.sampling, address)?;
            sequence.ids.push(id);
            if config.eos_token_ids.contains(&id) {
                sequence.finished = Some(FinishReason::Eos);
            } else if sequence.ids.len() == config.max_new_tokens {
                sequence.finished = Some(FinishReason::Length);
            }
        }
        start += n;
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
    if longest + config.max_new_tokens > room {
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
