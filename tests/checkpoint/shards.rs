//! Weights split over several files with an index.

use super::{Stored, assert_refused, listing, tiny_config, tiny_tensors, write_config, write_file};
use hooke::checkpoint::atomic::StagedDir;
use hooke::checkpoint::model_dir::ModelDir;
use hooke::device::Device;
use hooke::dtype::DType;
use safetensors::Dtype;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const NAMES: [&str; 3] = [
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors",
];
const INDEX: &str = "model.safetensors.index.json";

/// The tiny model over three files in turn, and its `weight_map`.
fn sharded() -> (tempfile::TempDir, Value) {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &tiny_config(json!({})));
    let mut parts: [Vec<Stored>; 3] = Default::default();
    let mut map = json!({});
    for (i, tensor) in tiny_tensors(Dtype::BF16).into_iter().enumerate() {
        map[&tensor.name] = NAMES[i % 3].into();
        parts[i % 3].push(tensor);
    }
    for (name, part) in NAMES.iter().zip(&parts) {
        write_file(&dir.path().join(name), part, &[("format", "pt")]);
    }
    write_index(dir.path(), &map);
    (dir, map)
}

fn write_index(dir: &Path, map: &Value) {
    // Spaces and metadata show whether the bytes are kept.
    let index = json!({"metadata": {"total_size": 7}, "weight_map": map});
    fs::write(dir.join(INDEX), serde_json::to_string_pretty(&index).unwrap()).unwrap();
}

#[test]
fn shards_come_out_as_they_went_in() {
    let (dir, _) = sharded();
    let model = ModelDir::open(dir.path()).unwrap();
    let params = model.load(&Device::Cpu, DType::F32).unwrap();
    let out = dir.path().join("out");
    let staged = StagedDir::new(&out).unwrap();
    model.save(&params, &staged).unwrap();
    staged.commit().unwrap();
    let mut want = vec!["config.json", INDEX];
    want.extend(NAMES);
    want.sort();
    assert_eq!(listing(&out), want);
    for name in want {
        let (got, want) = (fs::read(out.join(name)).unwrap(), fs::read(dir.path().join(name)));
        assert_eq!(got, want.unwrap(), "{name}");
    }
}

#[test]
fn one_file_is_preferred_to_an_index_as_transformers_does() {
    let (dir, _) = sharded();
    fs::write(dir.path().join(INDEX), "nonsense").unwrap();
    let tensors = tiny_tensors(Dtype::F32);
    write_file(&dir.path().join("model.safetensors"), &tensors, &[]);
    let model = ModelDir::open(dir.path()).unwrap();
    let params = model.load(&Device::Cpu, DType::F32).unwrap();
    let norm = tensors.iter().find(|t| t.name == "model.norm.weight").unwrap();
    let got = params.view(model.layout().final_norm()).host::<f32>();
    assert_eq!(bytemuck::cast_slice::<f32, u8>(got), norm.bytes);
}

#[test]
fn an_index_that_leaves_the_directory_is_refused() {
    for name in [
        "../model-00001-of-00003.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "./model-00001-of-00003.safetensors",
        "model-00001-of-00003.safetensors/",
        "sub\\model.safetensors",
        "C:model.safetensors",
        "model\0.safetensors",
        ".hidden.safetensors",
        "..",
        ".",
        "",
        "config.json",
        "model.bin",
    ] {
        let (dir, mut map) = sharded();
        map["model.norm.weight"] = name.into();
        write_index(dir.path(), &map);
        let place = "`weight_map[\"model.norm.weight\"]`";
        let parts = [INDEX, place, "the same directory", &format!("{name:?}")];
        assert_refused(ModelDir::open(dir.path()), &parts);
    }
}

#[test]
fn an_index_that_disagrees_with_the_shards_is_refused_with_all_differences() {
    let (dir, mut map) = sharded();
    // In turn: the norm is in the second file, the head in the third, the embedding in the first.
    map["model.norm.weight"] = NAMES[0].into();
    map["model.ghost"] = NAMES[1].into();
    map.as_object_mut().unwrap().remove("lm_head.weight");
    write_index(dir.path(), &map);
    assert_refused(
        ModelDir::open(dir.path()),
        &[
            INDEX,
            &format!("`model.norm.weight` in {}, not in {}", NAMES[1], NAMES[0]),
            &format!("`model.ghost` missing from {}", NAMES[1]),
            &format!("`lm_head.weight` in {}, but not listed", NAMES[2]),
        ],
    );
}

#[test]
fn a_tensor_in_two_shards_is_refused_even_with_equal_bytes() {
    let (dir, _) = sharded();
    let tensors = tiny_tensors(Dtype::BF16);
    let second: Vec<_> = tensors.iter().skip(1).step_by(3).chain(&tensors[..1]).cloned().collect();
    write_file(&dir.path().join(NAMES[1]), &second, &[]);
    let twice = format!("`model.embed_tokens.weight` in both {} and {}", NAMES[0], NAMES[1]);
    assert_refused(ModelDir::open(dir.path()), &["every tensor in one file", &twice]);
}

#[test]
fn a_missing_shard_is_named() {
    let (dir, _) = sharded();
    fs::remove_file(dir.path().join(NAMES[2])).unwrap();
    assert_refused(ModelDir::open(dir.path()), &[NAMES[2], "nothing of that name"]);
    fs::create_dir(dir.path().join(NAMES[2])).unwrap();
    assert_refused(ModelDir::open(dir.path()), &[NAMES[2], "a directory"]);
}

#[test]
fn an_index_that_is_none_is_refused() {
    for (text, part) in [
        ("", "EOF"),
        ("[]", "invalid"),
        ("{}", "missing field `weight_map`"),
        ("{\"weight_map\": []}", "expected an object"),
        ("{\"weight_map\": {\"a\": 1}}", "expected a string"),
        ("{\"weight_map\": {\"a\": \"x\", \"a\": \"y\"}}", "`a` appears twice"),
        ("{\"weight_map\": {}, \"weight_map\": {}}", "duplicate field"),
    ] {
        let (dir, _) = sharded();
        fs::write(dir.path().join(INDEX), text).unwrap();
        assert_refused(ModelDir::open(dir.path()), &[INDEX, "`weight_map`", part]);
    }
    let (dir, _) = sharded();
    write_index(dir.path(), &json!({}));
    assert_refused(ModelDir::open(dir.path()), &["no `model.embed_tokens.weight`", "and 13 more"]);
}
