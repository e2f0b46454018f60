//! Where every parameter lies in one flat buffer, and under which Hugging Face name. Pure data.

use super::config::ModelConfig;
use crate::error::{Error, Result};
use crate::shape::Shape;
use std::collections::HashMap;

/// A contiguous piece of the flat buffer and the shape it is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First element within the flat buffer.
    pub offset: usize,
    /// Dimensions, row-major; the span is `shape.num_elems()` long.
    pub shape: Shape,
}

impl Span {
    /// One past the last element within the flat buffer.
    pub fn end(&self) -> usize {
        self.offset + self.shape.num_elems()
    }
}

/// One parameter as checkpoints know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamSpec {
    /// Hugging Face name, e.g. `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Where it lies.
    pub span: Span,
    /// Weight decay applies: matrices yes, norms and biases no.
    pub decay: bool,
}

/// The parameters of one layer as the computation uses them: q, k and v are one matrix, and so
/// are gate and up, so that one product serves each group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSpans {
    /// Weight (C) of the norm before attention.
    pub input_norm: Span,
    /// Weight (qkv_dim, C): rows of q, then k, then v.
    pub qkv: Span,
    /// Bias (qkv_dim).
    pub qkv_bias: Option<Span>,
    /// Weight (D) of the norm of every query head.
    pub q_norm: Option<Span>,
    /// Weight (D) of the norm of every key head.
    pub k_norm: Option<Span>,
    /// Weight (C, H·D) of the attention output.
    pub o: Span,
    /// Bias (C).
    pub o_bias: Option<Span>,
    /// Weight (C) of the norm before the feed-forward block.
    pub post_norm: Span,
    /// Weight (2F, C): rows of gate, then up.
    pub gate_up: Span,
    /// Bias (2F).
    pub gate_up_bias: Option<Span>,
    /// Weight (C, F).
    pub down: Span,
    /// Bias (C).
    pub down_bias: Option<Span>,
}

/// The parameters of a model in one flat buffer without gaps: all matrices first (they decay),
/// then norms and biases (they do not). Holding one proves that the element count, and eight
/// times it in bytes, fit the address space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamLayout {
    specs: Vec<ParamSpec>,
    index: HashMap<String, usize>,
    layers: Vec<LayerSpans>,
    embedding: Span,
    final_norm: Span,
    head: Span,
    decayed_elems: usize,
    num_elems: usize,
}

/// Matrices of a layer: q, k, v; o; gate, up; down.
struct LayerMatrices {
    qkv: Span,
    o: Span,
    gate_up: Span,
    down: Span,
}

impl ParamLayout {
    /// Lays out the parameters of `config`; fails if they cannot be addressed.
    pub fn new(config: &ModelConfig) -> Result<Self> {
        if num_params(config).is_none() {
            let what = "the parameters of the model".into();
            return Err(Error::OutOfMemory { what, bytes: usize::MAX });
        }
        let (c, v) = (config.hidden_size, config.vocab_size);
        let mut builder = Builder::default();
        let embedding = builder.add("model.embed_tokens.weight".into(), Shape::from([v, c]));
        let matrices: Vec<_> =
            (0..config.num_layers).map(|i| layer_matrices(&mut builder, config, i)).collect();
        let head = if config.tie_word_embeddings {
            embedding
        } else {
            builder.add("lm_head.weight".into(), Shape::from([v, c]))
        };
        let decayed_elems = builder.num_elems;
        let layers = matrices
            .into_iter()
            .enumerate()
            .map(|(i, matrices)| layer_spans(&mut builder, config, i, matrices))
            .collect();
        let final_norm = builder.add("model.norm.weight".into(), Shape::from([c]));
        let Builder { specs, num_elems } = builder;
        let index = specs.iter().enumerate().map(|(i, s)| (s.name.clone(), i)).collect();
        Ok(Self { specs, index, layers, embedding, final_norm, head, decayed_elems, num_elems })
    }

    /// Every parameter, in the order of the flat buffer.
    pub fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    /// Elements of the flat buffer.
    pub fn num_elems(&self) -> usize {
        self.num_elems
    }

    /// The first this many elements are subject to weight decay, the others are not.
    pub fn decayed_elems(&self) -> usize {
        self.decayed_elems
    }

    /// The parameter of that Hugging Face name.
    pub fn get(&self, name: &str) -> Option<&ParamSpec> {
        self.index.get(name).map(|&i| &self.specs[i])
    }

    /// The parameters of layer `i`; panics beyond the last one.
    pub fn layer(&self, i: usize) -> &LayerSpans {
        &self.layers[i]
    }

    /// The embedding (V, C).
    pub fn embedding(&self) -> &Span {
        &self.embedding
    }

    /// Weight (C) of the norm before the head.
    pub fn final_norm(&self) -> &Span {
        &self.final_norm
    }

    /// The output head (V, C): the embedding itself when they are tied.
    pub fn head(&self) -> &Span {
        &self.head
    }
}

/// Number of parameters, or `None` if so many `f64` cannot be addressed. Takes any sizes, and
/// allocates nothing, so that it can judge a file that has not been believed yet.
pub(crate) fn num_params(config: &ModelConfig) -> Option<usize> {
    let (c, f, d) = (config.hidden_size, config.intermediate_size, config.heads.head_dim);
    let q_dim = config.heads.num_heads.checked_mul(d)?;
    let kv_dim = config.heads.num_kv_heads.checked_mul(d)?;
    let qkv_dim = kv_dim.checked_mul(2)?.checked_add(q_dim)?;
    let wide = f.checked_mul(2)?;
    let matrices =
        [qkv_dim.checked_mul(c)?, q_dim.checked_mul(c)?, f.checked_mul(3)?.checked_mul(c)?];
    let vectors = [
        c.checked_mul(2)?,
        if config.qkv_bias { qkv_dim } else { 0 },
        if config.qk_norm { d.checked_mul(2)? } else { 0 },
        if config.o_bias { c } else { 0 },
        if config.mlp_bias { wide.checked_add(c)? } else { 0 },
    ];
    let sum = |parts: &[usize]| parts.iter().try_fold(0usize, |n, &part| n.checked_add(part));
    let per_layer = sum(&matrices)?.checked_add(sum(&vectors)?)?;
    let embedding = config.vocab_size.checked_mul(c)?;
    let head = if config.tie_word_embeddings { 0 } else { embedding };
    let total = sum(&[per_layer.checked_mul(config.num_layers)?, embedding, head, c])?;
    (total <= isize::MAX as usize / size_of::<f64>()).then_some(total)
}

#[derive(Default)]
struct Builder {
    specs: Vec<ParamSpec>,
    num_elems: usize,
}

impl Builder {
    fn add(&mut self, name: String, shape: Shape) -> Span {
        let span = Span { offset: self.num_elems, shape };
        self.num_elems = span.end();
        self.specs.push(ParamSpec { name, span, decay: shape.dims().len() >= 2 });
        span
    }

    /// Adds parameters one after the other and returns the span over all of them: their
    /// outermost dimensions added up, the inner one (if any) common.
    fn add_fused(&mut self, parts: &[(String, usize)], inner: Option<usize>) -> Span {
        let shape = |rows| match inner {
            Some(inner) => Shape::from([rows, inner]),
            None => Shape::from([rows]),
        };
        let offset = self.num_elems;
        for (name, rows) in parts {
            self.add(name.clone(), shape(*rows));
        }
        Span { offset, shape: shape(parts.iter().map(|(_, rows)| rows).sum()) }
    }
}

/// q, k and v with their widths; `kind` is `weight` or `bias`.
fn qkv_parts(config: &ModelConfig, layer: usize, kind: &str) -> [(String, usize); 3] {
    let name = |part| format!("model.layers.{layer}.self_attn.{part}_proj.{kind}");
    let (q_dim, kv_dim) = (config.heads.q_dim(), config.heads.kv_dim());
    [(name("q"), q_dim), (name("k"), kv_dim), (name("v"), kv_dim)]
}

/// gate and up with their widths; `kind` is `weight` or `bias`.
fn gate_up_parts(config: &ModelConfig, layer: usize, kind: &str) -> [(String, usize); 2] {
    let name = |part| format!("model.layers.{layer}.mlp.{part}_proj.{kind}");
    [(name("gate"), config.intermediate_size), (name("up"), config.intermediate_size)]
}

fn layer_matrices(builder: &mut Builder, config: &ModelConfig, layer: usize) -> LayerMatrices {
    let (c, f) = (config.hidden_size, config.intermediate_size);
    let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
    LayerMatrices {
        qkv: builder.add_fused(&qkv_parts(config, layer, "weight"), Some(c)),
        o: builder.add(name("self_attn.o_proj"), Shape::from([c, config.heads.q_dim()])),
        gate_up: builder.add_fused(&gate_up_parts(config, layer, "weight"), Some(c)),
        down: builder.add(name("mlp.down_proj"), Shape::from([c, f])),
    }
}

fn layer_spans(
    builder: &mut Builder,
    config: &ModelConfig,
    layer: usize,
    matrices: LayerMatrices,
) -> LayerSpans {
    let LayerMatrices { qkv, o, gate_up, down } = matrices;
    let (c, d) = (config.hidden_size, config.heads.head_dim);
    let mut vector = |part: &str, len: usize| {
        builder.add(format!("model.layers.{layer}.{part}"), Shape::from([len]))
    };
    let input_norm = vector("input_layernorm.weight", c);
    let post_norm = vector("post_attention_layernorm.weight", c);
    let q_norm = config.qk_norm.then(|| vector("self_attn.q_norm.weight", d));
    let k_norm = config.qk_norm.then(|| vector("self_attn.k_norm.weight", d));
    let o_bias = config.o_bias.then(|| vector("self_attn.o_proj.bias", c));
    let down_bias = config.mlp_bias.then(|| vector("mlp.down_proj.bias", c));
    let qkv_bias =
        config.qkv_bias.then(|| builder.add_fused(&qkv_parts(config, layer, "bias"), None));
    let gate_up_bias =
        config.mlp_bias.then(|| builder.add_fused(&gate_up_parts(config, layer, "bias"), None));
    LayerSpans {
        input_norm,
        qkv,
        qkv_bias,
        q_norm,
        k_norm,
        o,
        o_bias,
        post_norm,
        gate_up,
        gate_up_bias,
        down,
        down_bias,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::{Family, RopeScaling};
    use crate::ops::Heads;

    fn config() -> ModelConfig {
        ModelConfig {
            family: Family::Qwen3,
            hidden_size: 12,
            num_layers: 3,
            heads: Heads { num_heads: 4, num_kv_heads: 2, head_dim: 6 },
            intermediate_size: 7,
            vocab_size: 11,
            max_position_embeddings: 32,
            rms_norm_eps: 1e-6,
            rope_theta: 1e4,
            rope_scaling: RopeScaling::None,
            tie_word_embeddings: false,
            qkv_bias: true,
            o_bias: true,
            mlp_bias: true,
            qk_norm: true,
            eos_token_ids: vec![],
        }
    }

    #[test]
    fn specs_fill_the_buffer_without_gaps_and_matrices_come_first() {
        for tied in [false, true] {
            for traits in 0..16 {
                let config = ModelConfig {
                    tie_word_embeddings: tied,
                    qkv_bias: traits & 1 > 0,
                    o_bias: traits & 2 > 0,
                    mlp_bias: traits & 4 > 0,
                    qk_norm: traits & 8 > 0,
                    ..config()
                };
                let layout = ParamLayout::new(&config).unwrap();
                let mut offset = 0;
                for spec in layout.specs() {
                    assert_eq!(spec.span.offset, offset, "{}", spec.name);
                    assert_eq!(spec.decay, spec.span.shape.dims().len() == 2);
                    assert_eq!(spec.decay, offset < layout.decayed_elems(), "{}", spec.name);
                    assert_eq!(layout.get(&spec.name), Some(spec));
                    offset = spec.span.end();
                }
                assert_eq!(offset, layout.num_elems());
                assert_eq!(num_params(&config), Some(offset));
                assert_eq!(layout.get("lm_head.weight").is_none(), tied);
                assert_eq!(layout.head() == layout.embedding(), tied);
            }
        }
    }

    #[test]
    fn fused_spans_cover_their_parts_in_order() {
        let layout = ParamLayout::new(&config()).unwrap();
        let covers = |fused: &Span, parts: &[&str], kind: &str| {
            let mut offset = fused.offset;
            for part in parts {
                let span = layout.get(&format!("model.layers.1.{part}.{kind}")).unwrap().span;
                assert_eq!(span.offset, offset, "{part}.{kind}");
                offset = span.end();
            }
            assert_eq!(offset, fused.end());
        };
        let qkv = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
        let gate_up = ["mlp.gate_proj", "mlp.up_proj"];
        let layer = layout.layer(1);
        covers(&layer.qkv, &qkv, "weight");
        covers(&layer.qkv_bias.unwrap(), &qkv, "bias");
        covers(&layer.gate_up, &gate_up, "weight");
        covers(&layer.gate_up_bias.unwrap(), &gate_up, "bias");
        assert_eq!(layer.qkv.shape, Shape::from([48, 12]));
        assert_eq!(layer.gate_up.shape, Shape::from([14, 12]));
        assert_eq!(layer.o.shape, Shape::from([12, 24]));
        assert_eq!(layer.down.shape, Shape::from([12, 7]));
    }

    #[test]
    fn more_parameters_than_memory_can_address_are_refused() {
        let huge = 1 << 31;
        let many = |config: ModelConfig| assert!(ParamLayout::new(&config).is_err());
        many(ModelConfig { hidden_size: huge, vocab_size: huge, ..config() });
        many(ModelConfig { hidden_size: usize::MAX, ..config() });
        many(ModelConfig { num_layers: usize::MAX, ..config() });
        many(ModelConfig { intermediate_size: usize::MAX / 3, ..config() });
        let heads = Heads { num_heads: huge, num_kv_heads: huge, head_dim: huge };
        many(ModelConfig { heads, ..config() });
    }
}
