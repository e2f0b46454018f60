//! Files of weights: what is read, what is refused, and that what goes in comes out.

mod atomic;
mod header;
mod model_dir;
mod reference;
mod shards;

use hooke::error::{Error, FileKind};
use hooke::testing::fill::normal;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A tensor as a test writes it.
#[derive(Clone, Debug)]
struct Stored {
    name: String,
    dtype: Dtype,
    dims: Vec<usize>,
    bytes: Vec<u8>,
}

/// Random values in the given type; different for each name.
fn random(name: &str, dtype: Dtype, dims: &[usize]) -> Stored {
    let seed = name.bytes().fold(7, |hash: u64, b| hash.wrapping_mul(31).wrapping_add(b.into()));
    let values = normal::<f32>(dims.iter().product(), 0.5, seed);
    let bytes = match dtype {
        Dtype::F32 => bytemuck::cast_slice(&values).to_vec(),
        Dtype::F16 => values.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect(),
        _ => vec![1; values.len() * dtype.bitsize() / 8],
    };
    Stored { name: name.into(), dtype, dims: dims.into(), bytes }
}

/// Writes with the safetensors crate, which is what everybody else's files come from.
fn write_file(path: &Path, tensors: &[Stored], metadata: &[(&str, &str)]) {
    let views = tensors
        .iter()
        .map(|t| (t.name.as_str(), TensorView::new(t.dtype, t.dims.clone(), &t.bytes).unwrap()));
    let metadata: HashMap<_, _> =
        metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    std::fs::write(path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
}

/// A file with a header that no library would write.
fn raw_file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// C 8, H 4, G 2, D 2, F 5, V 11, two layers.
fn tiny_config(changes: Value) -> Value {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8,
        "intermediate_size": 5, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 11, "max_position_embeddings": 16
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

/// The tensors of the plain tiny model, untied and without biases, in transformers' names.
fn tiny_tensors(dtype: Dtype) -> Vec<Stored> {
    let mut tensors = vec![
        random("model.embed_tokens.weight", dtype, &[11, 8]),
        random("model.norm.weight", dtype, &[8]),
        random("lm_head.weight", dtype, &[11, 8]),
    ];
    for layer in 0..2 {
        for (part, dims) in [
            ("input_layernorm.weight", &[8][..]),
            ("post_attention_layernorm.weight", &[8]),
            ("self_attn.q_proj.weight", &[8, 8]),
            ("self_attn.k_proj.weight", &[4, 8]),
            ("self_attn.v_proj.weight", &[4, 8]),
            ("self_attn.o_proj.weight", &[8, 8]),
            ("mlp.gate_proj.weight", &[5, 8]),
            ("mlp.up_proj.weight", &[5, 8]),
            ("mlp.down_proj.weight", &[8, 5]),
        ] {
            tensors.push(random(&format!("model.layers.{layer}.{part}"), dtype, dims));
        }
    }
    tensors
}

fn write_config(dir: &Path, config: &Value) {
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

/// A directory with one weight file.
fn model(config: &Value, tensors: &[Stored]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), config);
    write_file(&dir.path().join("model.safetensors"), tensors, &[("format", "pt")]);
    dir
}

/// The real model that the project ships.
fn glassllm() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/glassllm-en")
}

/// Panics unless `result` is a complaint about a model file whose message has every part.
#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, Error>, parts: &[&str]) {
    let error = result.expect_err("accepted");
    let message = error.to_string();
    match &error {
        Error::File(problem) => assert_eq!(problem.kind, FileKind::Model, "{message}"),
        other => panic!("not about a file: {other:?}"),
    }
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

/// Every path under `dir`, hidden ones included.
fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A named pipe, which blocks whoever opens it.
fn make_fifo(path: &Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(status.success());
}
