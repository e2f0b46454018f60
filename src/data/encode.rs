//! Rows to training examples: what is input, what is trained, and what is left out and why.
//!
//! | row | ids | trained |
//! |---|---|---|
//! | `text` | BOS, text, EOS | all |
//! | `prompt`, `completion` | BOS, prompt, completion, EOS | completion, EOS |
//! | `messages` | the chat template's text, nothing added | see [`super::chat`] |
//!
//! BOS and EOS are there if the tokenizer has them, once: neither is added beside one that the
//! tokenizer adds itself, or that the text already begins or ends with. Prompt and completion are
//! tokenised apart and put together, so the boundary is where the row says it is, whatever the
//! texts (no token straddles it). A tokenizer that puts a blank before every text (Llama 2's) puts
//! one before the completion too, so a completion for it should not begin with another. The first
//! token of a document has nothing before it to be predicted from, so it is never trained.

use super::chat::{ChatTemplate, Problem};
use super::jsonl::{NumberedRow, Row};
use super::report::EncodeReport;
use super::tokenizer::{SpecialTokens, Tokenizer};
use crate::error::{Error, FileKind, Result};
use rayon::prelude::*;
use std::path::Path;

/// One document to train on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// `trained[i]`: the model learns to predict `ids[i]` from those before it. `trained[0]` is
    /// false.
    pub trained: Vec<bool>,
    /// Where it was in the file, from 1.
    pub line: usize,
}

impl Example {
    /// Tokens the model learns to predict.
    pub fn trained_tokens(&self) -> usize {
        self.trained.iter().filter(|&&trained| trained).count()
    }
}

/// What happens to a row of more than `max_seq_length` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Overlong {
    /// It is left out, and counted. (A cut answer would also lose its EOS.)
    Drop,
    /// It is cut to `max_seq_length`, and the trained tokens it loses are counted.
    Truncate,
    /// It is an error.
    Error,
}

/// Encodes the rows of `path`, in parallel, in order.
///
/// Errors, the first by line: `messages` without a template, a conversation that the template
/// refuses, an overlong row under [`Overlong::Error`]; then: no row left to train on.
pub fn encode_rows(
    path: &Path,
    rows: &[NumberedRow],
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    max_seq_length: usize,
    overlong: Overlong,
) -> Result<(Vec<Example>, EncodeReport)> {
    // Collected before the first error is picked, so that it is the first of the file.
    let encoded: Vec<Result<Encoded>> =
        rows.par_iter().map(|row| encode_row(path, row, tokenizer, template)).collect();
    let mut report = EncodeReport::new(path, max_seq_length);
    let mut examples = Vec::with_capacity(rows.len());
    for encoded in encoded {
        let Encoded { mut example, notes } = encoded?;
        let len = example.ids.len();
        report.read(len, notes);
        if notes.empty {
            report.empty += 1;
            continue;
        }
        if len > max_seq_length {
            let before = example.trained_tokens();
            match overlong {
                Overlong::Error => return Err(too_long(path, example.line, len, max_seq_length)),
                Overlong::Drop => {
                    report.dropped_overlong += 1;
                    report.trained_tokens_dropped += before;
                    continue;
                }
                Overlong::Truncate => {
                    example.ids.truncate(max_seq_length);
                    example.trained.truncate(max_seq_length);
                    report.truncated += 1;
                    report.trained_tokens_truncated += before - example.trained_tokens();
                }
            }
        }
        match example.trained.iter().rposition(|&trained| trained) {
            None => report.dropped_untrained += 1,
            Some(last) => {
                report.used(&example, tokenizer, example.ids[last]);
                examples.push(example);
            }
        }
    }
    report.finish();
    if examples.is_empty() { Err(report.nothing_left()) } else { Ok((examples, report)) }
}

fn too_long(path: &Path, line: usize, len: usize, max_seq_length: usize) -> Error {
    let expected = format!("at most {max_seq_length} tokens (max_seq_length)");
    let fix = "raise --max-seq-length, or choose --overlong drop or truncate";
    Error::file(FileKind::Data, path, format!("line {line}"), expected, len.to_string(), fix)
}

/// What is worth counting about a row besides its tokens.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Notes {
    /// There is no text to learn.
    pub(super) empty: bool,
    /// A control token is spelt out in it.
    pub(super) spells_control_token: bool,
    /// The tokenizer cannot represent all of it.
    pub(super) lossy: bool,
}

struct Encoded {
    example: Example,
    notes: Notes,
}

fn encode_row(
    path: &Path,
    row: &NumberedRow,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
) -> Result<Encoded> {
    let (texts, empty): (Vec<&str>, bool) = match &row.row {
        Row::Text(text) => (vec![text], text.is_empty()),
        Row::PromptCompletion { prompt, completion } => {
            (vec![prompt, completion], completion.is_empty())
        }
        Row::Messages(messages) => {
            let mut answers = messages.iter().filter(|m| m.role == "assistant").peekable();
            let empty = answers.peek().is_some() && answers.all(|m| m.content.is_empty());
            (messages.iter().map(|m| &m.content[..]).collect(), empty)
        }
    };
    let (ids, mut trained) = match &row.row {
        Row::Text(text) => {
            let ids = document(tokenizer, tokenizer.encode(text, SpecialTokens::Omit)?);
            let trained = vec![true; ids.len()];
            (ids, trained)
        }
        Row::PromptCompletion { prompt, completion } => {
            let prompt = tokenizer.encode(prompt, SpecialTokens::Omit)?;
            let completion = tokenizer.encode(completion, SpecialTokens::Omit)?;
            let completion = ended(tokenizer, completion);
            let mut ids = begun(tokenizer, prompt);
            let mut trained = vec![false; ids.len()];
            trained.resize(ids.len() + completion.len(), true);
            ids.extend(completion);
            (ids, trained)
        }
        Row::Messages(messages) => {
            let at = |field: &str| format!("line {}, `{field}`", row.line);
            let complain = |field: &str, expected: &str, got: String, fix: &str| {
                Error::file(FileKind::Data, path, at(field), expected, got, fix)
            };
            let Some(template) = template else {
                let fix = "add chat_template.jinja to the model directory, or give rows of \
                           `prompt` and `completion`";
                let expected = "a model with a chat template";
                return Err(complain("messages", expected, "a model without one".into(), fix));
            };
            template.encode_row(tokenizer, messages)?.map_err(|problem| {
                let Problem { message, expected, got, fix } = problem;
                let field = message.map_or("messages".into(), |i| format!("messages[{i}]"));
                complain(&field, expected, got, fix)
            })?
        }
    };
    if let Some(first) = trained.first_mut() {
        *first = false;
    }
    let notes = Notes {
        empty,
        spells_control_token: texts.iter().any(|text| spells_control_token(tokenizer, text)),
        lossy: texts.iter().any(|text| tokenizer.is_lossy(text, &ids)),
    };
    Ok(Encoded { example: Example { ids, trained, line: row.line }, notes })
}

fn document(tokenizer: &Tokenizer, ids: Vec<u32>) -> Vec<u32> {
    ended(tokenizer, begun(tokenizer, ids))
}

/// Puts BOS before `ids`, unless they begin with it.
fn begun(tokenizer: &Tokenizer, ids: Vec<u32>) -> Vec<u32> {
    let mut start = tokenizer.document_start();
    if !start.is_empty() && start.last() == ids.first() {
        start.pop();
    }
    start.extend(ids);
    start
}

/// Puts EOS after `ids`, unless they end with it.
fn ended(tokenizer: &Tokenizer, mut ids: Vec<u32>) -> Vec<u32> {
    let end = tokenizer.document_end();
    let given = usize::from(!end.is_empty() && end.first() == ids.last());
    ids.extend(&end[given..]);
    ids
}

fn spells_control_token(tokenizer: &Tokenizer, text: &str) -> bool {
    tokenizer.special_texts().any(|token| !token.is_empty() && text.contains(token))
}
