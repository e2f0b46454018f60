//! From rows of text to packed batches.

pub mod batch;
pub mod chat;
pub mod encode;
pub mod jsonl;
pub mod plan;
pub mod tokenizer;
