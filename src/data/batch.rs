//! A packed micro-batch: documents end to end, no padding.

use super::encode::Example;
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
        let num_tokens: usize = examples.iter().map(|example| example.ids.len()).sum();
        assert!(i32::try_from(num_tokens).is_ok(), "a micro-batch of {num_tokens} tokens");
        let mut batch = Self {
            tokens: Vec::with_capacity(num_tokens),
            targets: Vec::with_capacity(num_tokens),
            positions: Vec::with_capacity(num_tokens),
            cu_seqlens: vec![0],
        };
        for example in examples.iter().filter(|example| !example.ids.is_empty()) {
            let next_tokens = example.ids.iter().zip(&example.trained).skip(1);
            let targets =
                next_tokens.map(|(&id, &trained)| if trained { id as i32 } else { IGNORE });
            batch.tokens.extend(example.ids.iter().map(|&id| id as i32));
            batch.targets.extend(targets.chain([IGNORE]));
            batch.positions.extend(0..example.ids.len() as i32);
            batch.cu_seqlens.push(batch.tokens.len() as i32);
        }
        batch
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
