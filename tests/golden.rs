//! hooke against transformers: every reference under `tests/golden`.

use crate::support::embedded_model;
use hooke::checkpoint::model_dir::ModelDir;
use hooke::checkpoint::reference::Reference;
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::model::Model;
use hooke::validate::{Row, validate_model};
use std::path::{Path, PathBuf};

fn references() -> Vec<(String, PathBuf, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let dir = entry.unwrap().path();
        let reference = dir.join("reference.safetensors");
        if reference.is_file() {
            let name = dir.file_name().unwrap().to_str().unwrap().to_string();
            let own = dir.join("config.json").is_file();
            found.push((name, if own { dir } else { embedded_model() }, reference));
        }
    }
    found.sort();
    found
}

fn validate(model: &Path, reference: &Path) -> Vec<Row> {
    let dir = ModelDir::open(model).unwrap();
    let reference = Reference::open(reference).unwrap();
    let weights = dir.load(&Device::Cpu, DType::F32).unwrap();
    let positions = reference.tokens().len();
    let model = Model::new(&Device::Cpu, dir.config().clone(), weights, positions).unwrap();
    validate_model(model, &reference).unwrap()
}

#[test]
fn every_family_and_trait_computes_and_trains_as_transformers_does() {
    let references = references();
    assert!(references.len() >= 15, "only {} references", references.len());
    for name in ["glassllm-en", "llama", "qwen2", "qwen3"] {
        assert!(references.iter().any(|(found, ..)| found == name), "no reference {name}");
    }
    for (name, model, reference) in references {
        let rows = validate(&model, &reference);
        let failed: Vec<&Row> = rows.iter().filter(|row| !row.passed).collect();
        assert!(failed.is_empty(), "{name}: {failed:#?}");
        let has = |prefix: &str| rows.iter().any(|row| row.name.starts_with(prefix));
        for prefix in ["hidden/final", "logits", "loss", "grad/", "adamw/losses", "weight/"] {
            assert!(has(prefix), "{name}: nothing compared under {prefix}");
        }
    }
}

#[test]
fn a_wrong_weight_is_seen() {
    let (_, model, reference) =
        references().into_iter().find(|(name, ..)| name == "llama").unwrap();
    let dir = ModelDir::open(&model).unwrap();
    let reference = Reference::open(&reference).unwrap();
    let mut weights = dir.load(&Device::Cpu, DType::F32).unwrap();
    let first_of_qkv = weights.layout().layer(0).qkv.offset;
    weights.flat_mut().host::<f32>()[first_of_qkv] += 1e-2;
    let positions = reference.tokens().len();
    let model = Model::new(&Device::Cpu, dir.config().clone(), weights, positions).unwrap();
    let rows = validate_model(model, &reference).unwrap();
    assert!(rows.iter().any(|row| !row.passed));
}
