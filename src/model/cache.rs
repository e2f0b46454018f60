//! Keys and values of earlier tokens, so that generating one more costs one token.

use super::activations::Activations;
use super::forward::Attend;
use super::{Input, Model};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::{Heads, attention};
use crate::tensor::{Tensor, View};

/// Room for `num_sequences` sequences of up to `capacity` tokens in every layer.
#[derive(Debug)]
pub struct KvCache {
    /// Keys of each layer (B, S, G·D).
    keys: Vec<Tensor>,
    /// Values of each layer (B, S, G·D).
    values: Vec<Tensor>,
    /// Where the rows being computed go (T), i32: sequence · S + position.
    rows: Tensor,
    num_rows: usize,
    /// Keys of each sequence (B), i32.
    lengths: Tensor,
    host_lengths: Vec<usize>,
    capacity: usize,
}

impl KvCache {
    /// Allocates; `capacity` counts prompt and completion together.
    pub fn new(model: &Model, num_sequences: usize, capacity: usize) -> Result<Self> {
        let (device, config) = (model.device(), model.config());
        let shape = [num_sequences, capacity, config.heads.kv_dim()];
        let per_layer = |what| -> Result<Vec<Tensor>> {
            (0..config.num_layers)
                .map(|_| Tensor::zeros(device, what, shape, model.dtype()))
                .collect()
        };
        Ok(Self {
            keys: per_layer("key cache")?,
            values: per_layer("value cache")?,
            rows: Tensor::zeros(device, "cache rows", [num_sequences * capacity], DType::I32)?,
            num_rows: 0,
            lengths: Tensor::zeros(device, "cache lengths", [num_sequences], DType::I32)?,
            host_lengths: vec![0; num_sequences],
            capacity,
        })
    }

    /// Tokens cached of sequence `i`.
    pub fn len(&self, i: usize) -> usize {
        self.host_lengths[i]
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.host_lengths.iter().all(|&n| n == 0)
    }

    /// Tokens that fit in one sequence.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Names the destination of the rows to come, and the lengths once they are in.
    fn extend(&mut self, new_tokens: &[usize]) -> Result<()> {
        let mut rows = Vec::new();
        for (i, (&new, length)) in new_tokens.iter().zip(&mut self.host_lengths).enumerate() {
            if *length + new > self.capacity {
                return Err(Error::Operand {
                    op: "model.cache",
                    operand: "sequence",
                    expected: format!("up to {} tokens", self.capacity),
                    got: format!("{} tokens in sequence {i}", *length + new),
                });
            }
            let start = i * self.capacity + *length;
            rows.extend((start..start + new).map(|row| row as i32));
            *length += new;
        }
        self.num_rows = rows.len();
        self.rows.rows_mut(rows.len()).copy_from_host(&rows)?;
        let lengths: Vec<i32> = self.host_lengths.iter().map(|&n| n as i32).collect();
        self.lengths.view_mut().copy_from_host(&lengths)
    }

    /// Puts the keys and values of the rows being computed where they belong.
    pub(super) fn store(
        &mut self,
        device: &Device,
        layer: usize,
        qkv: View<'_>,
        heads: Heads,
    ) -> Result<()> {
        let flat = [self.host_lengths.len() * self.capacity, heads.kv_dim()];
        let keys = self.keys[layer].view_mut().reshape(flat);
        let values = self.values[layer].view_mut().reshape(flat);
        attention::store_kv(device, keys, values, qkv, self.rows.rows(self.num_rows), heads)
    }

    /// Keys, values and lengths for [`attention::decode`].
    pub(super) fn layer(&self, layer: usize) -> (View<'_>, View<'_>, View<'_>) {
        (self.keys[layer].view(), self.values[layer].view(), self.lengths.view())
    }
}

impl Model {
    /// Computes the prompts, one document per sequence, and fills the empty cache with them.
    pub fn prefill(
        &self,
        input: Input<'_>,
        cache: &mut KvCache,
        acts: &mut Activations,
    ) -> Result<()> {
        let lengths: Vec<usize> =
            input.cu_seqlens.windows(2).map(|w| (w[1] - w[0]).max(0) as usize).collect();
        if lengths.len() != cache.host_lengths.len() || !cache.is_empty() {
            return Err(Error::Operand {
                op: "model.prefill",
                operand: "cache",
                expected: format!("an empty cache of {} sequences", lengths.len()),
                got: format!("{} sequences", cache.host_lengths.len()),
            });
        }
        cache.extend(&lengths)?;
        self.run(input, Attend::Prefill(cache), acts)
    }

    /// Computes one more token of every sequence, at the position that its cache has reached.
    pub fn decode(
        &self,
        tokens: &[i32],
        cache: &mut KvCache,
        acts: &mut Activations,
    ) -> Result<()> {
        let positions: Vec<i32> = cache.host_lengths.iter().map(|&n| n as i32).collect();
        let cu_seqlens: Vec<i32> = (0..=tokens.len() as i32).collect();
        cache.extend(&vec![1; tokens.len()])?;
        let input = Input { tokens, positions: &positions, cu_seqlens: &cu_seqlens };
        self.run(input, Attend::Cached(cache), acts)
    }
}
