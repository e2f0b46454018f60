//! What `config.json` says about the model, validated.

use crate::ops::Heads;

/// The families whose checkpoints can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `LlamaForCausalLM`: Llama 2/3.x, TinyLlama, SmolLM2.
    Llama,
    /// `Qwen2ForCausalLM`: Qwen1.5, Qwen2, Qwen2.5 (bias on q, k, v).
    Qwen2,
    /// `Qwen3ForCausalLM`: per-head norm on q and k, explicit head size.
    Qwen3,
}

/// How rotary frequencies are stretched beyond the trained context.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Unchanged.
    None,
    /// Every frequency divided by `factor`.
    Linear {
        /// Stretch, at least 1.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// Stretch of the longest wavelengths.
        factor: f64,
        /// Wavelengths above `original / low` are stretched fully.
        low_freq_factor: f64,
        /// Wavelengths below `original / high` are kept.
        high_freq_factor: f64,
        /// Context length before stretching.
        original_max_position_embeddings: usize,
    },
}

/// Everything the computation needs to know about a model. Holding one proves that the sizes
/// are positive, that heads divide evenly, and that nothing in it is unsupported.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Which architecture.
    pub family: Family,
    /// Hidden size C.
    pub hidden_size: usize,
    /// Layers L.
    pub num_layers: usize,
    /// Attention heads: H, G, D.
    pub heads: Heads,
    /// Feed-forward size F.
    pub intermediate_size: usize,
    /// Rows of the embedding V.
    pub vocab_size: usize,
    /// Longest position the model was made for.
    pub max_position_embeddings: usize,
    /// ε of every norm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Stretching of the rotary frequencies.
    pub rope_scaling: RopeScaling,
    /// The output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Bias on q, k and v.
    pub qkv_bias: bool,
    /// Bias on the attention output.
    pub o_bias: bool,
    /// Bias on gate, up and down.
    pub mlp_bias: bool,
    /// RMSNorm over each query and key head.
    pub qk_norm: bool,
    /// Ids that end a text, in the order `config.json` lists them.
    pub eos_token_ids: Vec<u32>,
}
