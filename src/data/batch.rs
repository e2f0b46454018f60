//! A packed micro-batch: documents end to end, no padding.

use super::encode::Example;
use crate::model::Input;
use crate::ops::cross_entropy::IGNORE;

/// Tokens of several documents, one after another; T in all, N documents.
///
/// Nothing links one document to the next: positions restart, a target is never taken from the
/// following document, and `cu_seqlens` is the only thing attention looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Ids, (T).
    pub tokens: Vec<i32>,
    /// The token that follows within the document if it is trained, else [`IGNORE`]; (T).
    pub targets: Vec<i32>,
    /// Index within the document, from 0; (T).
    pub positions: Vec<i32>,
    /// First token of each document, then T; (N+1), strictly increasing.
    pub cu_seqlens: Vec<i32>,
}

impl Batch {
    /// Packs the examples in the order given; an example without tokens adds nothing.
    ///
    /// Ids must fit `i32`, which [`super::tokenizer::Tokenizer::load`] guarantees.
    pub fn pack(examples: &[&Example]) -> Self {
        let num_tokens = examples.iter().map(|example| example.ids.len()).sum();
        let mut batch = Self::with_capacity(num_tokens);
        for example in examples {
            batch.push(&example.ids, |i| example.trained[i]);
        }
        batch
    }

    /// Packs documents of which every token but the first is a target.
    pub fn pack_ids(documents: &[&[u32]]) -> Self {
        let mut batch = Self::with_capacity(documents.iter().map(|ids| ids.len()).sum());
        for ids in documents {
            batch.push(ids, |_| true);
        }
        batch
    }

    fn with_capacity(num_tokens: usize) -> Self {
        assert!(i32::try_from(num_tokens).is_ok(), "a micro-batch of {num_tokens} tokens");
        Self {
            tokens: Vec::with_capacity(num_tokens),
            targets: Vec::with_capacity(num_tokens),
            positions: Vec::with_capacity(num_tokens),
            cu_seqlens: vec![0],
        }
    }

    fn push(&mut self, ids: &[u32], is_trained: impl Fn(usize) -> bool) {
        if ids.is_empty() {
            return;
        }
        let target = |i: usize| if is_trained(i) { ids[i] as i32 } else { IGNORE };
        self.tokens.extend(ids.iter().map(|&id| id as i32));
        self.targets.extend((1..ids.len()).map(target).chain([IGNORE]));
        self.positions.extend(0..ids.len() as i32);
        self.cu_seqlens.push(self.tokens.len() as i32);
    }

    /// The batch as the model takes it.
    pub fn input(&self) -> Input<'_> {
        Input { tokens: &self.tokens, positions: &self.positions, cu_seqlens: &self.cu_seqlens }
    }

    /// Tokens that go through the model: T.
    pub fn input_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Tokens that contribute to the loss.
    pub fn trained_tokens(&self) -> usize {
        self.targets.iter().filter(|&&target| target != IGNORE).count()
    }
}
