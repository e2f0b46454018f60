//! Small random models for tests that need a whole one.

pub mod command;
pub mod model_files;

use hooke::device::Device;
use hooke::dtype::Real;
use hooke::model::Model;
use hooke::model::config::{Family, ModelConfig, RopeScaling};
use hooke::model::layout::ParamLayout;
use hooke::model::params::Params;
use hooke::ops::Heads;
use hooke::testing::fill::normal;
use std::path::PathBuf;
use std::sync::Arc;

/// The model that ships with the project.
pub fn embedded_model() -> PathBuf {
    data("glassllm-en")
}

/// A file or directory below `tests/data`.
pub fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "data", name].iter().collect()
}

/// A tiny configuration with every trait of its family, and grouped heads.
pub fn tiny_config(family: Family) -> ModelConfig {
    ModelConfig {
        family,
        hidden_size: 12,
        num_layers: 2,
        heads: Heads { num_heads: 4, num_kv_heads: 2, head_dim: 4 },
        intermediate_size: 11,
        vocab_size: 17,
        max_position_embeddings: 64,
        rms_norm_eps: 1e-5,
        rope_theta: 100.0,
        rope_scaling: RopeScaling::None,
        tie_word_embeddings: family == Family::Qwen3,
        qkv_bias: family == Family::Qwen2,
        o_bias: false,
        mlp_bias: false,
        qk_norm: family == Family::Qwen3,
        eos_token_ids: vec![0],
    }
}

/// A model with random weights: matrices of size 1/√fan-in times 1.5, so that attention is not
/// uniform; norms around 1; biases not zero.
pub fn random_model<T: Real>(config: &ModelConfig, seed: u64) -> Model {
    let device = Device::Cpu;
    let layout = Arc::new(ParamLayout::new(config).unwrap());
    let dtype = T::DTYPE;
    let mut weights = Params::zeros(&device, "weights", &layout, dtype).unwrap();
    for (i, spec) in layout.specs().iter().enumerate() {
        let dims = spec.span.shape.dims();
        let scale = if spec.decay { 1.5 / (dims[1] as f64).sqrt() } else { 0.2 };
        let shift = if spec.name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        let values: Vec<T> = normal::<T>(spec.span.shape.num_elems(), scale, seed + i as u64)
            .iter()
            .map(|&x| x + T::from_f64(shift))
            .collect();
        weights.view_mut(&spec.span).copy_from_host(&values).unwrap();
    }
    Model::new(&device, config.clone(), weights, config.max_position_embeddings).unwrap()
}

/// The weights as f64, flat.
pub fn flat(params: &Params) -> Vec<f64> {
    params.flat().to_f64_vec().unwrap()
}

/// Zero gradients for a model.
pub fn zero_gradients(model: &Model) -> Params {
    let layout = model.weights.layout().clone();
    Params::zeros(&Device::Cpu, "gradients", &layout, model.dtype()).unwrap()
}
