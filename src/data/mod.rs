//! From rows of text to packed batches.
//!
//! [`jsonl`] reads rows, [`tokenizer`] and [`chat`] turn them into ids, [`encode`] decides what is
//! trained and counts everything that is dropped, [`plan`] says which rows make a step, [`batch`]
//! packs them.

pub mod batch;
pub mod chat;
pub mod encode;
mod generation_tags;
mod jinja;
mod json;
pub mod jsonl;
mod named_tokens;
pub mod plan;
pub mod report;
mod strftime;
pub mod tokenizer;
mod tokenizer_json;
mod turns;
