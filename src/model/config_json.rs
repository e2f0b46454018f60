//! Reads `config.json` as transformers 5 reads it, defaults included, and refuses what hooke does
//! not compute. Source: `LlamaConfig`, `Qwen2Config` and `Qwen3Config` of transformers 5.24.

mod fields;
mod rope;

use super::config::{Family, ModelConfig};
use super::layout::num_params;
use crate::error::{Error, FileKind, Result};
use crate::ops::Heads;
use fields::{Fields, show};
use serde_json::Value;
use std::path::Path;

/// No model has nearly as many layers; a bound, so that a hostile file cannot make the layout huge.
const MAX_LAYERS: usize = 4096;

/// What a family's configuration class and modelling code fix.
struct Traits {
    family: Family,
    model_type: &'static str,
    architecture: &'static str,
    vocab_size: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    /// `None`: as many as query heads.
    num_key_value_heads: Option<usize>,
    /// `None`: hidden size over heads.
    head_dim: Option<usize>,
    eos_token_id: Option<u32>,
}

const LLAMA: Traits = Traits {
    family: Family::Llama,
    model_type: "llama",
    architecture: "LlamaForCausalLM",
    vocab_size: 32_000,
    intermediate_size: 11_008,
    max_position_embeddings: 2048,
    num_key_value_heads: None,
    head_dim: None,
    eos_token_id: Some(2),
};

const QWEN2: Traits = Traits {
    family: Family::Qwen2,
    model_type: "qwen2",
    architecture: "Qwen2ForCausalLM",
    vocab_size: 151_936,
    intermediate_size: 22_016,
    max_position_embeddings: 32_768,
    num_key_value_heads: Some(32),
    head_dim: None,
    eos_token_id: None,
};

const QWEN3: Traits = Traits {
    family: Family::Qwen3,
    model_type: "qwen3",
    architecture: "Qwen3ForCausalLM",
    head_dim: Some(128),
    ..QWEN2
};

impl ModelConfig {
    /// Reads the bytes of a `config.json`; `path` is only named in errors.
    ///
    /// Every failure is [`Error::File`] with the field in `place`. Fields that do not bear on the
    /// computation are not looked at.
    pub fn from_json(path: &Path, bytes: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            Error::file(FileKind::Model, path, place, "valid JSON", error.to_string(), "")
        })?;
        let Value::Object(object) = value else {
            let got = show(&value);
            return Err(Error::file(FileKind::Model, path, "", "a JSON object", got, ""));
        };
        read(Fields::new(path, &object, ""))
    }
}

fn read(fields: Fields<'_>) -> Result<ModelConfig> {
    let traits = traits_of(fields)?;
    refuse_what_is_not_computed(fields)?;
    let num_layers = fields.size("num_hidden_layers", 32)?;
    if num_layers > MAX_LAYERS {
        let expected = format!("at most {MAX_LAYERS}");
        return Err(fields.error("num_hidden_layers", expected, num_layers.to_string(), ""));
    }
    if traits.family != Family::Llama {
        refuse_sliding_windows(fields, num_layers)?;
    }
    refuse_layer_types(fields, num_layers)?;
    let hidden_size = fields.size("hidden_size", 4096)?;
    let max_position_embeddings =
        fields.size("max_position_embeddings", traits.max_position_embeddings)?;
    let (rope_theta, rope_scaling) = rope::read(fields, max_position_embeddings)?;
    let vocab_size = fields.size("vocab_size", traits.vocab_size)?;
    let attention_bias = match traits.family {
        Family::Llama | Family::Qwen3 => fields.flag("attention_bias", false)?,
        Family::Qwen2 => false,
    };
    let config = ModelConfig {
        family: traits.family,
        hidden_size,
        num_layers,
        heads: heads(fields, &traits, hidden_size)?,
        intermediate_size: fields.size("intermediate_size", traits.intermediate_size)?,
        vocab_size,
        max_position_embeddings,
        rms_norm_eps: fields.positive("rms_norm_eps", 1e-6)?,
        rope_theta,
        rope_scaling,
        tie_word_embeddings: fields.flag("tie_word_embeddings", false)?,
        qkv_bias: traits.family == Family::Qwen2 || attention_bias,
        o_bias: attention_bias,
        mlp_bias: traits.family == Family::Llama && fields.flag("mlp_bias", false)?,
        qk_norm: traits.family == Family::Qwen3,
        eos_token_ids: eos_token_ids(fields, &traits, vocab_size)?,
    };
    if num_params(&config).is_none() {
        let got = "sizes whose products overflow";
        return Err(fields.error("hidden_size", "a model that can be addressed", got, ""));
    }
    Ok(config)
}

/// The family by `model_type`, which `architectures` (where given) must agree with.
fn traits_of(fields: Fields<'_>) -> Result<Traits> {
    let known = [LLAMA, QWEN2, QWEN3];
    let expected = "`llama`, `qwen2` or `qwen3`";
    let fix = "hooke trains Llama, Qwen2 and Qwen3 language models";
    let Some(model_type) = fields.get("model_type") else {
        return Err(fields.error("model_type", expected, "nothing", fix));
    };
    let Some(traits) = known.into_iter().find(|t| model_type.as_str() == Some(t.model_type)) else {
        return Err(fields.error("model_type", expected, show(model_type), fix));
    };
    let agrees = match fields.non_null("architectures") {
        None => true,
        Some(Value::Array(names)) => names.iter().all(|name| *name == traits.architecture),
        Some(_) => false,
    };
    if !agrees {
        let expected = format!("[\"{}\"], given that model type", traits.architecture);
        let got = fields.get("architectures").map(show).unwrap_or_default();
        return Err(fields.error("architectures", expected, got, fix));
    }
    Ok(traits)
}

/// Fails on fields that would change the computation into one that hooke does not do.
fn refuse_what_is_not_computed(fields: Fields<'_>) -> Result<()> {
    let activation = fields.text("hidden_act", "silu")?;
    if activation != "silu" {
        return Err(fields.error("hidden_act", "`silu`", format!("`{activation}`"), ""));
    }
    if let Some(value) = fields.non_null("quantization_config") {
        let fix = "use the checkpoint in F32, F16 or BF16 that this one was made from";
        let expected = "nothing (weights that are not quantized)";
        return Err(fields.error("quantization_config", expected, show(value), fix));
    }
    if let Some(value) = fields.non_null("per_layer_config") {
        return Err(fields.error("per_layer_config", "layers that are alike", show(value), ""));
    }
    if let Some(splits) = fields.optional_size("pretraining_tp")?.filter(|&splits| splits > 1) {
        let fix = "set it to 1: the weights are the same, only the order of summation differs";
        return Err(fields.error("pretraining_tp", "1", splits.to_string(), fix));
    }
    if let Some(value) = fields.non_null("attention_dropout").filter(|v| v.as_f64() != Some(0.0)) {
        let fix = "set it to 0.0 to train without dropout";
        return Err(fields.error("attention_dropout", "0", show(value), fix));
    }
    Ok(())
}

/// Fails if some layer attends within a window. A window that is configured but switched off, or
/// that begins only after the last layer, is accepted.
fn refuse_sliding_windows(fields: Fields<'_>, num_layers: usize) -> Result<()> {
    let switched_on = fields.flag("use_sliding_window", false)?;
    let has_size = fields.get("sliding_window").is_none_or(|size| !size.is_null());
    // Layers from this one on have the window; zero is a legal value.
    let first = match fields.get("max_window_layers") {
        None => 28,
        Some(value) => value.as_u64().ok_or_else(|| {
            fields.error("max_window_layers", "an integer of at least 0", show(value), "")
        })?,
    };
    let explicit = fields.non_null("layer_types").is_some();
    if switched_on && has_size && !explicit && first < num_layers as u64 {
        let got = format!("true, with windows from layer {first} on");
        let fix = "hooke attends over whole documents only";
        return Err(fields.error("use_sliding_window", "false", got, fix));
    }
    Ok(())
}

/// Fails unless `layer_types`, where given, is one `full_attention` per layer.
fn refuse_layer_types(fields: Fields<'_>, num_layers: usize) -> Result<()> {
    let Some(value) = fields.non_null("layer_types") else { return Ok(()) };
    let full = |types: &Vec<Value>| {
        types.len() == num_layers && types.iter().all(|kind| *kind == "full_attention")
    };
    if value.as_array().is_some_and(full) {
        return Ok(());
    }
    let expected = format!("{num_layers} times \"full_attention\"");
    let got = match value.as_array() {
        Some(types) => match types.iter().position(|kind| *kind != "full_attention") {
            Some(i) => format!("{} for layer {i}", show(&types[i])),
            None => format!("{} entries", types.len()),
        },
        None => show(value),
    };
    Err(fields.error("layer_types", expected, got, "hooke attends over whole documents only"))
}

fn heads(fields: Fields<'_>, traits: &Traits, hidden_size: usize) -> Result<Heads> {
    let num_heads = fields.size("num_attention_heads", 32)?;
    let num_kv_heads = match fields.get("num_key_value_heads") {
        None => traits.num_key_value_heads.unwrap_or(num_heads),
        Some(_) => fields.optional_size("num_key_value_heads")?.unwrap_or(num_heads),
    };
    if num_kv_heads > num_heads || !num_heads.is_multiple_of(num_kv_heads) {
        let expected = format!("a divisor of `num_attention_heads`, which is {num_heads}");
        let default =
            if fields.get("num_key_value_heads").is_none() { " (the default)" } else { "" };
        let got = format!("{num_kv_heads}{default}");
        return Err(fields.error("num_key_value_heads", expected, got, ""));
    }
    let explicit = match traits.head_dim {
        // A family with a default of its own takes `null` for an error, as transformers does.
        Some(default) => Some(fields.size("head_dim", default)?),
        None => fields.optional_size("head_dim")?,
    };
    // LlamaConfig insists even where `head_dim` is given.
    if !hidden_size.is_multiple_of(num_heads)
        && (explicit.is_none() || traits.family == Family::Llama)
    {
        let expected = format!("a multiple of `num_attention_heads`, which is {num_heads}");
        return Err(fields.error("hidden_size", expected, hidden_size.to_string(), ""));
    }
    let head_dim = explicit.unwrap_or(hidden_size / num_heads);
    if head_dim % 2 == 1 {
        let expected = "an even number (rotary embeddings turn pairs)";
        return Err(fields.error("head_dim", expected, head_dim.to_string(), ""));
    }
    Ok(Heads { num_heads, num_kv_heads, head_dim })
}

/// `eos_token_id`: a number, a list or `null`; where absent, the family's default.
fn eos_token_ids(fields: Fields<'_>, traits: &Traits, vocab_size: usize) -> Result<Vec<u32>> {
    let fits = |id: u64| id < vocab_size as u64;
    let to_id = |value: &Value| match value.as_u64() {
        Some(id) if fits(id) => Ok(id as u32),
        _ => {
            let expected = format!("ids from 0 to {}", vocab_size - 1);
            Err(fields.error("eos_token_id", expected, show(value), ""))
        }
    };
    match fields.get("eos_token_id") {
        None => Ok(traits.eos_token_id.into_iter().filter(|&id| fits(u64::from(id))).collect()),
        Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(values)) => values.iter().map(to_id).collect(),
        Some(value) => Ok(vec![to_id(value)?]),
    }
}
