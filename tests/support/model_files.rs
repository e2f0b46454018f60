//! Model directories on disk for tests that run the binary.

use super::random_model;
use hooke::checkpoint::safetensors::{NewTensor, SafetensorsWriter};
use hooke::model::config::ModelConfig;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A file or directory below `tests/golden`.
pub fn golden(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name].iter().collect()
}

/// Copies the plain files of a directory.
pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A random Llama with the tokenizer and the template of `tests/golden/chat/<family>`: 488 ids,
/// 256 positions, weights in F32.
pub fn chat_model(family: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&golden(&format!("chat/{family}")), dir.path());
    fs::remove_file(dir.path().join("cases.json")).unwrap();
    write_model(dir.path(), json!({}), 1.0);
    dir
}

/// Writes `config.json`, changed as told, and random weights to go with it, all multiplied by
/// `factor`.
pub fn write_model(dir: &Path, changes: Value, factor: f32) {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 488, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "eos_token_id": null
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    let path = dir.join("config.json");
    let bytes = serde_json::to_vec_pretty(&config).unwrap();
    fs::write(&path, &bytes).unwrap();
    let model = random_model::<f32>(&ModelConfig::from_json(&path, &bytes).unwrap(), 5);
    let specs = model.weights.layout().specs();
    let tensors: Vec<NewTensor<'_>> = specs
        .iter()
        .map(|spec| NewTensor {
            name: &spec.name,
            dtype: safetensors::Dtype::F32,
            dims: spec.span.shape.dims(),
        })
        .collect();
    let path = dir.join("model.safetensors");
    let mut writer = SafetensorsWriter::create(&path, &[], &tensors).unwrap();
    for spec in specs {
        let values = model.weights.view(&spec.span).to_f64_vec().unwrap();
        let bytes: Vec<u8> =
            values.iter().flat_map(|&x| (x as f32 * factor).to_le_bytes()).collect();
        writer.append(&bytes).unwrap();
    }
    writer.finish().unwrap();
}

/// Writes rows as JSON Lines.
pub fn write_rows(path: &Path, rows: &[Value]) {
    let lines: Vec<String> = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(path, lines.concat()).unwrap();
}

/// Changes some bytes of one tensor of a safetensors file, found by its name in the header.
pub fn change_tensor(path: &Path, name: &str, change: impl Fn(&mut [u8])) {
    let mut bytes = fs::read(path).unwrap();
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + header_len]).unwrap();
    let offset = |i: usize| header[name]["data_offsets"][i].as_u64().unwrap() as usize;
    let (start, end) = (8 + header_len + offset(0), 8 + header_len + offset(1));
    change(&mut bytes[start..end]);
    fs::write(path, bytes).unwrap();
}
