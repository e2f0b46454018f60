//! The rotary part of `config.json`: `rope_theta` and `rope_scaling` of transformers 4, or
//! `rope_parameters` of transformers 5, with the precedence that transformers 5 gives them.

use super::fields::{Fields, show};
use crate::error::Result;
use crate::model::config::RopeScaling;

/// Base of `LlamaConfig`, `Qwen2Config` and `Qwen3Config` when the file states none.
const DEFAULT_THETA: f64 = 10_000.0;

/// Returns the base and the scaling.
pub(super) fn read(
    config: Fields<'_>,
    max_position_embeddings: usize,
) -> Result<(f64, RopeScaling)> {
    whole_heads_rotate(config)?;
    let theta = config.positive("rope_theta", DEFAULT_THETA)?;
    let old = config.object("rope_scaling", "rope_scaling.")?;
    let new = config.object("rope_parameters", "rope_parameters.")?;
    // An empty `rope_scaling` is false in Python, so that `rope_parameters` counts.
    let Some(rope) = old.filter(|old| !old.is_empty()).or(new) else {
        return Ok((theta, RopeScaling::None));
    };
    for layer_type in ["full_attention", "sliding_attention"] {
        if let Some(value) = rope.get(layer_type) {
            let expected = "one set of parameters for all layers";
            return Err(rope.error(layer_type, expected, show(value), ""));
        }
    }
    whole_heads_rotate(rope)?;
    let theta = rope.positive("rope_theta", theta)?;
    let scaling = match kind(rope)? {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: factor(rope)? },
        "llama3" => llama3(config, rope, max_position_embeddings)?,
        other => {
            let field = if rope.get("rope_type").is_some() { "rope_type" } else { "type" };
            let expected = "`default`, `linear` or `llama3`";
            return Err(rope.error(field, expected, format!("`{other}`"), ""));
        }
    };
    Ok((theta, scaling))
}

/// `rope_type`, or `type` as it was once called.
fn kind<'a>(rope: Fields<'a>) -> Result<&'a str> {
    if rope.get("rope_type").is_none() && rope.get("type").is_none() && rope.get("factor").is_some()
    {
        // transformers takes this for `default` and ignores the factor; surely not what was meant.
        let expected = "a kind of scaling, since `factor` is given";
        return Err(rope.error("rope_type", expected, "nothing", ""));
    }
    rope.text("rope_type", rope.text("type", "default")?)
}

fn factor(rope: Fields<'_>) -> Result<f64> {
    let factor = rope.required_positive("factor")?;
    if factor < 1.0 {
        return Err(rope.error("factor", "a number of at least 1", factor.to_string(), ""));
    }
    Ok(factor)
}

fn llama3(
    config: Fields<'_>,
    rope: Fields<'_>,
    max_position_embeddings: usize,
) -> Result<RopeScaling> {
    let low_freq_factor = rope.required_positive("low_freq_factor")?;
    let high_freq_factor = rope.required_positive("high_freq_factor")?;
    if high_freq_factor <= low_freq_factor {
        let expected = format!("more than `low_freq_factor`, which is {low_freq_factor}");
        return Err(rope.error("high_freq_factor", expected, high_freq_factor.to_string(), ""));
    }
    // A value beside `rope_scaling` wins over the one inside it.
    const ORIGINAL: &str = "original_max_position_embeddings";
    let inside = rope.size(ORIGINAL, max_position_embeddings)?;
    let original_max_position_embeddings = config.size(ORIGINAL, inside)?;
    Ok(RopeScaling::Llama3 {
        factor: factor(rope)?,
        low_freq_factor,
        high_freq_factor,
        original_max_position_embeddings,
    })
}

/// Fails where only a part of each head would be rotated.
fn whole_heads_rotate(fields: Fields<'_>) -> Result<()> {
    match fields.non_null("partial_rotary_factor") {
        None => Ok(()),
        Some(value) if value.as_f64() == Some(1.0) => Ok(()),
        Some(value) => {
            Err(fields.error("partial_rotary_factor", "1 (or nothing)", show(value), NO_PARTIAL))
        }
    }
}

const NO_PARTIAL: &str = "hooke rotates whole heads only";
