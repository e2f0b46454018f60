//! Likelihood of given text: per token, per row, in bits per token and per byte.

use crate::data::batch::Batch;
use crate::data::chat::ChatTemplate;
use crate::data::jsonl::{NumberedRow, Row};
use crate::data::tokenizer::{SpecialTokens, Tokenizer};
use crate::error::{Error, FileKind, Result};
use crate::model::Model;
use crate::model::activations::{Activations, Keep};
use crate::model::head::Head;
use serde::Serialize;
use std::f64::consts::LN_2;
use std::path::Path;

/// One row to score. The first token is context only: nothing predicts it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredRow {
    /// Line of the data file, counted from 1.
    pub line: usize,
    /// Token ids.
    pub ids: Vec<u32>,
    /// Which tokens count; `scored[0]` is false.
    pub scored: Vec<bool>,
    /// UTF-8 bytes of the text that is scored: `text`, `completion`, or the assistant's turns.
    pub bytes: usize,
}

/// Sums over rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Rows scored.
    pub rows: usize,
    /// Tokens scored.
    pub tokens: usize,
    /// UTF-8 bytes of the scored text.
    pub bytes: usize,
    /// Σ −ln p over the scored tokens, in nats.
    pub nll: f64,
}

#[derive(Serialize)]
struct TotalsJson {
    rows: usize,
    tokens: usize,
    bytes: usize,
    nll: f64,
    bits_per_token: f64,
    bits_per_byte: f64,
}

impl Totals {
    /// Mean negative log-likelihood of a token, in nats: what training calls the loss.
    pub fn loss(&self) -> f64 {
        self.nll / self.tokens as f64
    }

    /// Bits per scored token.
    pub fn bits_per_token(&self) -> f64 {
        self.nll / LN_2 / self.tokens as f64
    }

    /// Bits per byte of the scored text; unlike the loss, comparable between tokenizers.
    pub fn bits_per_byte(&self) -> f64 {
        self.nll / LN_2 / self.bytes as f64
    }
}

impl Serialize for Totals {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { rows, tokens, bytes, nll } = *self;
        let (bits_per_token, bits_per_byte) = (self.bits_per_token(), self.bits_per_byte());
        TotalsJson { rows, tokens, bytes, nll, bits_per_token, bits_per_byte }.serialize(serializer)
    }
}

/// Tokenises rows for scoring: no end token is added, and no begin token beyond the tokenizer's
/// own. Rows longer than `max_tokens`, and data without text to score, are errors.
pub fn encode(
    path: &Path,
    rows: &[NumberedRow],
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    max_tokens: usize,
) -> Result<Vec<ScoredRow>> {
    let encoded: Vec<ScoredRow> =
        rows.iter().map(|row| encode_row(path, row, tokenizer, template)).collect::<Result<_>>()?;
    if let Some(row) = encoded.iter().find(|row| row.ids.len() > max_tokens) {
        return Err(Error::file(
            FileKind::Data,
            path,
            format!("line {}", row.line),
            format!("up to {max_tokens} tokens, the context of the model"),
            format!("{} tokens", row.ids.len()),
            "shorten the row or split it",
        ));
    }
    // A control token alone has no bytes, and bits per byte would be infinite.
    if !encoded.iter().any(|row| row.bytes > 0 && row.scored.contains(&true)) {
        return Err(Error::Data {
            problem: format!(
                "{}: none of {} rows has a token to score (the first token of a row is not scored)",
                path.display(),
                rows.len()
            ),
            fix: "give rows with text".into(),
        });
    }
    Ok(encoded)
}

fn encode_row(
    path: &Path,
    row: &NumberedRow,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
) -> Result<ScoredRow> {
    let line = row.line;
    let (ids, mut scored, bytes) = match &row.row {
        Row::Text(text) => {
            let ids = tokenizer.encode(text, SpecialTokens::Add)?;
            let scored = vec![true; ids.len()];
            (ids, scored, text.len())
        }
        Row::PromptCompletion { prompt, completion } => {
            let mut ids = tokenizer.encode(prompt, SpecialTokens::Add)?;
            let mut scored = vec![false; ids.len()];
            let completion_ids = tokenizer.encode(completion, SpecialTokens::Omit)?;
            scored.extend(completion_ids.iter().map(|_| true));
            ids.extend(completion_ids);
            (ids, scored, completion.len())
        }
        Row::Messages(messages) => {
            let Some(template) = template else {
                return Err(Error::file(
                    FileKind::Data,
                    path,
                    format!("line {line}, `messages`"),
                    "`text` or `prompt` and `completion`: the model has no chat template",
                    "`messages`",
                    "add a chat template to the model directory",
                ));
            };
            let (ids, scored) = template.encode(tokenizer, messages)?;
            let turns = messages.iter().filter(|message| message.role == "assistant");
            (ids, scored, turns.map(|message| message.content.len()).sum())
        }
    };
    if let Some(first) = scored.first_mut() {
        *first = false;
    }
    Ok(ScoredRow { line, ids, scored, bytes })
}

/// Scores rows, about `batch_tokens` tokens at a time, in order. `on_row` gets the negative
/// log-likelihood of every token but the first, scored or not; its error ends the work.
///
/// Errors: [`Error::Overflow`] at the first likelihood that is NaN or infinite.
pub fn evaluate(
    model: &Model,
    rows: &[ScoredRow],
    batch_tokens: usize,
    mut on_row: impl FnMut(usize, &ScoredRow, &[f64]) -> Result<()>,
) -> Result<Totals> {
    let batches = batches(rows, batch_tokens);
    let tokens = |batch: &[ScoredRow]| batch.iter().map(|row| row.ids.len()).sum::<usize>();
    let max_tokens = batches.iter().map(|batch| tokens(batch)).max().unwrap_or(0);
    let max_documents = batches.iter().map(|batch| batch.len()).max().unwrap_or(0);
    let mut acts = Activations::new(model, max_tokens, max_documents, Keep::OneLayer)?;
    let mut head = Head::new(model, max_tokens)?;
    let mut totals = Totals::default();
    let mut index = 0;
    for batch in batches {
        let documents: Vec<&[u32]> =
            batch.iter().map(|row| &*row.ids).filter(|ids| !ids.is_empty()).collect();
        let packed = Batch::pack_ids(&documents);
        model.forward(packed.input(), &mut acts)?;
        let losses = model.losses(&acts, &packed.targets, &mut head)?;
        let mut start = 0;
        for row in batch {
            let num_predicted = row.ids.len().saturating_sub(1);
            let nll = &losses[start..start + num_predicted];
            start += row.ids.len();
            check_finite(row, nll)?;
            let scored = nll.iter().zip(row.scored.iter().skip(1)).filter(|(_, s)| **s);
            let (sum, count) = scored.fold((0.0, 0), |(sum, n), (nll, _)| (sum + nll, n + 1));
            totals.rows += 1;
            totals.tokens += count;
            totals.bytes += row.bytes;
            totals.nll += sum;
            on_row(index, row, nll)?;
            index += 1;
        }
    }
    Ok(totals)
}

fn check_finite(row: &ScoredRow, nll: &[f64]) -> Result<()> {
    let Some(j) = nll.iter().position(|x| !x.is_finite()) else { return Ok(()) };
    Err(Error::Overflow {
        problem: format!(
            "line {}: the negative log-likelihood of token {} is {}",
            row.line,
            j + 1,
            nll[j]
        ),
        fix: "this model's weights lead beyond f32; use one whose training did not diverge".into(),
    })
}

/// Consecutive rows, as many as fit in `batch_tokens`, at least one.
fn batches(rows: &[ScoredRow], batch_tokens: usize) -> Vec<&[ScoredRow]> {
    let mut batches = Vec::new();
    let mut start = 0;
    let mut tokens = 0;
    for (i, row) in rows.iter().enumerate() {
        if i > start && tokens + row.ids.len() > batch_tokens {
            batches.push(&rows[start..i]);
            (start, tokens) = (i, 0);
        }
        tokens += row.ids.len();
    }
    if start < rows.len() {
        batches.push(&rows[start..]);
    }
    batches
}
